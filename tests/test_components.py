"""Checks every component in the table against all laws, on every device."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, note, settings

from tests import laws
from tests.components import COMPONENTS
from tests.conftest import devices
from tests.laws import Sizes
from tests.strategies import sizes
from tinyplm.backend import to_host
from tinyplm.core import tree_map

DEVICES = devices()  # each case is made once for all of them


@pytest.mark.parametrize("name", COMPONENTS)
@settings(max_examples=15)
@given(s=sizes())
def test_laws(name, s):
    component = COMPONENTS[name]
    laws.check_all(component.f, component.reference, component.make(s), DEVICES, s.seed + 1)


HALF_ERROR = 2e-2  # 40 roundings of 2^-11 each: some accumulate, and some values cancel


def _in_dtype(dtype, value):
    """Casts the float64 arrays in a tree, or in a keyword's value, to another dtype."""
    if isinstance(value, (dict, list)):
        return tree_map(lambda a: _in_dtype(dtype, a), value)
    return value.astype(dtype) if getattr(value, "dtype", None) == np.float64 else value


@pytest.mark.parametrize("name", COMPONENTS)
@settings(max_examples=10)
@given(s=sizes())
def test_half_precision(name, s):
    """In float16 everything is finite, values and gradients are float16 (losses float32), and close to float64.

    Both start from the same numbers, rounded to float16 once, so they differ only by intermediate rounding.  The error is
    relative to the largest value, and for gradients to the largest of all gradients, since one may be zero; where rounding the
    inputs moves exact gradients, the bound grows with that.
    """
    component = COMPONENTS[name]
    made = component.make(s)
    half = laws.Case([_in_dtype("float16", a) for a in made.args], {n: _in_dtype("float16", v) for n, v in made.kwargs.items()})
    exact_args = [a if a is None else tree_map(lambda a: a.astype("float64"), a) for a in half.args]
    exact_kwargs = {n: v.astype("float64") if getattr(v, "dtype", None) == np.float16 else v for n, v in half.kwargs.items()}
    for device in DEVICES:
        note(f"on the device {device}")
        _is_close(
            made.kernel or component.f, half, laws.Case(exact_args, exact_kwargs), device, np.random.default_rng(s.seed + 1)
        )


def _is_close(f, half, exact, device, rng):
    y, backward = laws.call(f, half, device)
    exact_y, exact_backward = laws.call(f, exact, device)
    dy = laws.random_like(y, rng)
    grads = laws.gradients(backward, laws.on_device(dy, device), len(half.args))
    exact_grads = laws.gradients(exact_backward, laws.on_device(dy.astype("float64"), device), len(half.args))

    y, exact_y = to_host(y), to_host(exact_y)
    assert y.dtype == ("float32" if y.ndim == 0 else "float16"), f"float16 in, {y.dtype} out"
    assert np.isfinite(y).all() and laws.relative_error(y, exact_y) < HALF_ERROR
    size = max([1e-3, *(float(np.max(np.abs(g))) for g in laws.leaves(exact_grads) if g.size)])
    # `moved`: how far exact gradients move when every input is rounded once.  A component rounds up to eight intermediates in a
    # chain (a block: two norms, attention, the feed-forward layer, two additions); ill-conditioned ones amplify each of them.
    rounded = [a if a is None else tree_map(lambda a: a * (1 + 2.0**-11 * rng.choice([-1, 1], a.shape)), a) for a in exact.args]
    _, rounded_backward = laws.call(f, laws.Case(rounded, exact.kwargs), device)
    rounded_grads = laws.gradients(rounded_backward, laws.on_device(dy.astype("float64"), device), len(half.args))
    moved = max(float(np.max(np.abs(a - b), initial=0.0)) for a, b in zip(laws.leaves(rounded_grads), laws.leaves(exact_grads)))
    allowed = HALF_ERROR * size + 8 * moved
    for i, (argument, g, exact) in enumerate(zip(half.args, grads, exact_grads, strict=True)):
        for x, a, b in zip(laws.leaves(argument), laws.leaves(g), laws.leaves(exact), strict=True):
            assert (a.shape, a.dtype) == (x.shape, x.dtype), f"argument {i}: {x.shape} {x.dtype}, gradient {a.shape} {a.dtype}"
            error = float(np.max(np.abs(a - b), initial=0.0))
            assert np.isfinite(a).all() and error < allowed, f"argument {i}: the gradient is off by {error / size:.1e}"


def _spoiled(f, argument):
    """f with the gradient of one positional argument 1% too large."""

    def wrong(*args, **kwargs):
        y, back = f(*args, **kwargs)

        def backward(dy):
            gradients = back(dy)
            if not isinstance(gradients, tuple):
                return tree_map(lambda a: a * 1.01, gradients)
            return tuple(tree_map(lambda a: a * 1.01, g) if i == argument else g for i, g in enumerate(gradients))

        return y, backward

    return wrong


@pytest.mark.parametrize("name", COMPONENTS)
def test_the_laws_see_a_gradient_that_is_one_percent_off(name):
    """For every positional argument of every component: a law that could not fail would prove nothing."""
    component = COMPONENTS[name]
    unseen = None
    for seed in range(12):
        rng = np.random.default_rng(seed)
        s = Sizes(B=2, T=3, S=4, D=5, K=2, G=2, E=3, F=4, V=6, seed=seed, flags=tuple(bool(b) for b in rng.integers(0, 2, 3)))
        case = component.make(s)
        given_arguments = {i for i, a in enumerate(case.args) if a is not None}
        unseen = set(range(len(case.args))) if unseen is None else unseen
        for i in given_arguments & unseen:
            errors = dict(laws.directional_derivative(_spoiled(component.f, i), case, "cpu", rng))
            if errors[i] > 1e-7:
                unseen.discard(i)
    # an argument that no case passes is never tested (self-attention's context is tested under cross_attention)
    elsewhere = {2} if name in ("multi_head_attention", "joined_attention", "rotary_attention") else set()
    assert unseen <= elsewhere, f"wrong gradients of arguments {unseen} are not seen"


def test_what_is_not_finite_never_passes_for_equal():
    for a, b in ((np.nan, 1.0), (1.0, np.nan), (np.inf, np.inf)):
        with pytest.raises(AssertionError, match="not finite"):
            laws.relative_error(np.full(3, a), np.full(3, b))
