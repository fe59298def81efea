"""The laws of tinyplm.checks name what is wrong with a component, and the table of cases is complete and repeatable."""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import pytest

from tests.components import FORMULAS, REFERENCE_KWARGS
from tinyplm.checks import COMPONENTS, Case, LawError, Sizes, check_laws, draw_sizes, laws
from tinyplm.checks.case import RANGES

calls, kept = itertools.count(), {}  # state, which no component has


def product(x, y):
    return x * y, lambda dz: (dz * y, dz * x)


def one_percent_off(x, y):
    return x * y, lambda dz: (dz * y, dz * x * 1.01)


def not_linear(x, y):
    return x * y, lambda dz: (dz * y + 1e-8 * dz**2, dz * x)


def not_repeatable(x, y):
    return x * y, lambda dz: (dz * y * (1 + 1e-9 * next(calls)), dz * x)


def last_call_wins(x, y):
    kept["y"] = y
    return x * y, lambda dz: (dz * kept["y"], dz * x)


def writes_into_x(x, y):
    z = x * y
    x += 0
    return z, lambda dz: (dz * y, dz * x)


def writes_into_dy(x, y):
    def backward(dz):
        dx = dz * y
        dz *= x
        return dx, dz

    return x * y, backward


def promotes(x, y):
    return x * y * np.float64(1), lambda dz: (dz * y, dz * x)


def promotes_the_gradient(x, y):
    return x * y, lambda dz: (dz * y * np.float64(1), dz * x)


def keeps_an_axis(x, y):
    return x * y, lambda dz: (dz * y, (dz * x)[None])


def one_missing(x, y):
    return x * y, lambda dz: (dz * y,)


def not_a_tuple(x, y):
    return x * y, lambda dz: [dz * y, dz * x]


def not_finite(x, y):
    return x * y, lambda dz: (dz * y / 0.0 if np.ndim(dz) == 0 else dz * y * np.nan, dz * x)


def random_forward(x, y):
    """The difference is too small for any other law."""
    n = 1 + 1e-12 * next(calls)
    return x * y * n, lambda dz: (dz * y * n, dz * x * n)


MISTAKES = {
    one_percent_off: "argument 1: the directional derivative is off by",
    not_linear: "backward is not linear: ",
    not_repeatable: "backward is not repeatable",
    last_call_wins: "backward is not repeatable",
    promotes: "value: expected float32 for float32, got float64",
    promotes_the_gradient: "gradient 0: expected float32 (3,), got float64 (3,)",
    one_missing: "backward: expected 2 gradients, got 1",
    not_a_tuple: "backward: expected a tuple of 2 gradients, got list",
    not_finite: "argument 0: not finite",
    random_forward: "checkpointing changes the value",
}


def case() -> Case:
    rng = np.random.default_rng(0)
    return Case([rng.normal(size=3), rng.normal(size=3)])


def test_a_right_component_passes():
    check_laws(product, case(), "cpu", np.random.default_rng(1))


@pytest.mark.parametrize("wrong", MISTAKES, ids=lambda f: f.__name__)
def test_a_mistake_is_named(wrong):
    with pytest.raises(LawError) as error:
        check_laws(wrong, case(), "cpu", np.random.default_rng(1))
    assert str(error.value).startswith(MISTAKES[wrong])


def test_a_gradient_of_another_shape_is_named():
    with pytest.raises(LawError, match=r"gradient 1: expected float64 \(3,\), got float64 \(1, 3\)"):
        laws.inputs_survive_and_dtypes_hold(keeps_an_axis, case(), "cpu", np.random.default_rng(1))


@pytest.mark.parametrize("wrong", [writes_into_x, writes_into_dy], ids=lambda f: f.__name__)
def test_arguments_are_read_only(wrong):
    with pytest.raises(ValueError, match="read-only"):
        laws.inputs_survive_and_dtypes_hold(wrong, case(), "cpu", np.random.default_rng(1))


def test_none_has_the_gradient_none():
    def f(x, b):
        return x * 2, lambda dy: (dy * 2, np.zeros(3))

    with pytest.raises(LawError, match="gradient 1: expected None, as the argument, got ndarray"):
        check_laws(f, Case([np.ones(3), None]), "cpu", np.random.default_rng(1))


def test_sizes_are_drawn_from_the_seed_and_cover_their_ranges():
    drawn = [draw_sizes(seed) for seed in range(200)]
    assert drawn == [draw_sizes(seed) for seed in range(200)] and len(set(drawn)) == 200
    assert draw_sizes((3, 1)) != draw_sizes((3, 2))
    for name, (low, high) in RANGES.items():
        assert {getattr(s, name) for s in drawn} == set(range(low, high + 1)), name
    assert {s.flags for s in drawn} == set(itertools.product([False, True], repeat=3))
    assert all(type(value) is int for s in drawn for name, value in vars(s).items() if name != "flags")
    assert isinstance(drawn[0], Sizes)


@pytest.mark.parametrize("name", COMPONENTS)
def test_an_entry_is_complete(name):
    """A text of one line, a docstring, a plain form that exists, and the same case for the same sizes."""
    entry = COMPONENTS[name]
    assert 0 < len(entry.text) < 90 and "\n" not in entry.text and not entry.text.endswith(".")
    assert entry.plain is None or entry.plain in COMPONENTS
    assert inspect.getdoc(entry.f) or "summed" in entry.f.__qualname__
    s = draw_sizes(7)
    a, b = entry.make(s), entry.make(s)
    assert all(laws.equal(x, y) for x, y in zip(a.args, b.args, strict=True))
    assert a.kwargs.keys() == b.kwargs.keys()


def test_no_formula_is_left_over():
    assert FORMULAS.keys() <= COMPONENTS.keys() and REFERENCE_KWARGS.keys() <= FORMULAS.keys()
