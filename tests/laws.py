"""The laws that every component obeys (DESIGN.md, "Laws"), for any component on any device.

A case is one call: positional arguments (float64 trees on the host), keyword arguments, and the reference's keywords where they
differ (a component as argument has a twin in reference/).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyplm.backend import to_device, to_host
from tinyplm.core import checkpoint, flatten, tree_map

H = 1e-5  # the step of the central difference: its own error is of order H^2 = 1e-10
EPS = np.finfo(np.float64).eps


def rounding(*terms: int, dtype: str = "float64") -> float:
    """A bound on the rounding error of a result, relative to the largest of its kind, after sums of so many terms in succession.

    Each of n terms rounds by EPS at most (Higham 2002, sec. 4.2); ten times as much leaves room for cancellation.  Neither the
    order of a sum nor its kernel counts, so a test within the bound passes with any BLAS and any number of threads.
    """
    return 10 * sum(terms) * float(np.finfo(dtype).eps)


def typical_rounding(*terms: int, dtype: str) -> float:
    """The same where the bound is too wide to tell anything, as in float32: independent errors grow with the root of their number
    (Higham & Mary 2019), each of EPS / 2 at most."""
    return 5 * sum(terms) ** 0.5 * float(np.finfo(dtype).eps)


# Bounds for float64 at the sizes that tests use.  Another count stands where it is needed.
FEW = rounding(16)  # 4e-14: a formula of a few operations, or one sum of at most 16 terms
PART = rounding(*4 * [64])  # 6e-13: a component, forward or backward: at most four sums in succession, at most 64 terms in each
# 2e-12: a model of up to three layers, forward and backward.  A layer has four products in succession and twice as many in its
# backward, the head has one and two: 39, each over the width of at most 24, the largest of a layer's MLPs.
MODEL = rounding(*40 * [24])
SINGLE = 4 * 2.0**-23  # one function in float32: NumPy's vectorised tanh and exp are right to four units in the last place
MODEL_32 = typical_rounding(*40 * [24], dtype="float32")  # 2e-5: the same in float32


def trained(updates: int, rate: float, eps: float) -> float:
    """MODEL after AdamW's updates by rate g / (sqrt(v) + eps), where eps is what bounds the growth of a gradient's error."""
    return updates * rate / eps * MODEL


CASE = (7, 4, 5, 5, 24)  # the largest sums of attention at the sizes of tests/strategies.py: D, E, S, S, H E


def difference_rounding(value: Any, step: float = H) -> float:
    """The rounding error of a central difference of sum(value): 16 roundings of its terms, over the step."""
    return 16 * EPS / step * float(np.sum(np.abs(value)))


@dataclasses.dataclass(frozen=True)
class Sizes:
    """One key everywhere, as in DESIGN.md: B batch, T queries, S keys, D width, K kv heads, G heads a kv head, E head width."""

    B: int
    T: int
    S: int
    D: int
    K: int
    G: int
    E: int
    F: int
    V: int
    seed: int
    flags: tuple[bool, bool, bool]  # which optional parts a case has

    @property
    def H(self) -> int:
        return self.K * self.G

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)


@dataclasses.dataclass
class Case:
    args: list[Any]
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    reference_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    kernel: Callable | None = None  # f for this case, where it has to be built


def on_device(value: Any, device: str) -> Any:
    """Arrays and trees of arrays moved; components, numbers and None as they are."""
    if isinstance(value, (np.ndarray, dict, list)):
        return tree_map(lambda a: to_device(a, device) if isinstance(a, np.ndarray) else a, value)
    return value


def frozen(value: Any) -> Any:
    """A read-only copy: whoever writes into it fails."""

    def freeze(a: Any) -> Any:
        if isinstance(a, np.ndarray):
            a = a.copy()
            a.flags.writeable = False
            return a
        if type(a).__name__ == "StrictArray":
            from tests.gpu.strict import freeze as strict_freeze

            return strict_freeze(a.copy())
        return a  # CuPy has no read-only arrays; there, comparing with a copy is what is left

    return tree_map(freeze, value) if isinstance(value, (dict, list)) or hasattr(value, "dtype") else value


def call(f: Callable, case: Case, device: str, args: list | None = None, freeze: bool = False) -> tuple[Any, Callable]:
    args = [on_device(a, device) for a in (case.args if args is None else args)]
    kwargs = {name: on_device(value, device) for name, value in case.kwargs.items()}
    if freeze:
        args, kwargs = [frozen(a) for a in args], {name: frozen(value) for name, value in kwargs.items()}
    return f(*args, **kwargs)


def gradients(backward: Callable, dy: Any, count: int) -> list[Any]:
    """backward(dy) as a list of `count` host trees; one positional argument's gradient comes bare."""
    out = backward(dy)
    if count == 1:
        return [to_host(out)]
    assert isinstance(out, tuple) and len(out) == count, f"expected {count} gradients, got {type(out)}"
    return [to_host(g) for g in out]


def leaves(tree: Any) -> list[np.ndarray]:
    return list(flatten(tree).values()) if isinstance(tree, (dict, list)) else [] if tree is None else [tree]


def random_like(tree: Any, rng: np.random.Generator) -> Any:
    """Random cotangents and directions: constant ones would hide a zero gradient."""
    return tree_map(lambda a: rng.normal(size=np.shape(a)).astype(a.dtype), to_host(tree))


def dot(a: Any, b: Any) -> float:
    return sum(float(np.sum(x * y)) for x, y in zip(leaves(a), leaves(b), strict=True))


SMALLEST = 1e-3  # reference values below count as this one: their rounding is that of the terms they are the difference of


def relative_error(a: Any, b: Any) -> float:
    """Largest difference over the largest reference value.  What is not finite on either side is an error, never a match."""
    worst = 0.0
    for x, y in zip(leaves(a), leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.shape == y.shape, f"shape {x.shape}, expected {y.shape}"
        assert np.isfinite(x).all() and np.isfinite(y).all(), "a number is not finite"
        if x.size:
            worst = max(worst, float(np.max(np.abs(x - y)) / max(np.max(np.abs(y)), SMALLEST)))
    return worst


def apart(a: Any, b: Any) -> float:
    """The largest difference over the largest number of all of b.

    The measure for gradients: some of them (of key biases, for one) are zero but for the rounding of the others' size.
    """
    a, b = flatten(to_host(a)), flatten(to_host(b))
    assert a.keys() == b.keys()
    return max(np.abs(a[path] - b[path]).max() for path in b) / max(np.abs(x).max() for x in b.values())


def equal(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


# ------------------------------------------------------------------------------------------------------ the laws


def equals_reference(f: Callable, reference: Callable, case: Case, device: str) -> None:
    """1. The value is the reference's, to the rounding of a case: 1e-13 of its terms, which may be 1/SMALLEST of the value."""
    y, _ = call(f, case, device)
    expected = reference(*case.args, **{**case.kwargs, **case.reference_kwargs})
    expected = np.asarray(expected) if not isinstance(expected, dict) else expected
    error = relative_error(to_host(y), expected)
    assert error < rounding(*CASE) / SMALLEST, f"differs from the reference by {error:.1e}"


def moved(x: Any, d: Any, step: float) -> Any:
    """x + step d, for trees."""
    return tree_map(lambda a, b: a + step * b, x, d)


def directional_derivative(f: Callable, case: Case, device: str, rng: np.random.Generator) -> list[tuple[int, float]]:
    """2. <c, f(x + h d) - f(x - h d)> / 2h = <gradient, d>, for each positional argument on its own.

    Returns (argument, error), the error being divided by the sum of |g_i d_i|.  The rounding of f itself, EPS |c f| / H, is what
    no difference can get below; so much (16 of it) is allowed beside 1e-7, which matters only where the gradient is almost zero.
    """
    y, backward = call(f, case, device)
    c = random_like(y, rng)
    grads = gradients(backward, on_device(c, device) if not np.isscalar(c) else c, len(case.args))
    noise = sum(difference_rounding(a * b) for a, b in zip(leaves(c), leaves(to_host(y)), strict=True))
    errors = []
    for i, (x, g) in enumerate(zip(case.args, grads, strict=True)):
        if x is None:
            assert g is None, f"argument {i} was None, but its gradient is {type(g).__name__}"
            continue
        d = random_like(x, rng)

        ahead, behind = (
            to_host(call(f, case, device, [*case.args[:i], moved(x, d, step), *case.args[i + 1 :]])[0]) for step in (H, -H)
        )
        numerical = (dot(c, ahead) - dot(c, behind)) / (2 * H)
        scale = sum(float(np.sum(np.abs(a * b))) for a, b in zip(leaves(g), leaves(d), strict=True))
        assert np.isfinite(numerical) and all(np.isfinite(a).all() for a in leaves(g)), f"argument {i}: not finite"
        errors.append((i, abs(numerical - dot(g, d)) / (scale + noise / 1e-7 + 1e-300)))
    return errors


def backward_is_linear_and_repeatable(f: Callable, case: Case, device: str, rng: np.random.Generator) -> None:
    """3. backward(2 c1 - 3 c2) = 2 backward(c1) - 3 backward(c2); and again, after another call in between, the same bits."""
    y, backward = call(f, case, device)
    c1, c2 = random_like(y, rng), random_like(y, rng)
    n = len(case.args)
    g1 = gradients(backward, on_device(c1, device), n)
    other_args = [tree_map(lambda a: a * 0.5, a) if a is not None else None for a in case.args]
    _, other_backward = call(f, case, device, other_args)
    gradients(other_backward, on_device(c2, device), n)
    g2 = gradients(backward, on_device(c2, device), n)
    assert equal(gradients(backward, on_device(c1, device), n), g1), "backward is not repeatable"
    mixed = gradients(backward, on_device(tree_map(lambda a, b: np.asarray(2 * a - 3 * b), c1, c2), device), n)
    # measured against the largest of all the gradients: one that is zero in exact arithmetic has only their rounding
    size = max([SMALLEST, *(float(np.max(np.abs(x))) for x in leaves([*g1, *g2]) if x.size)])
    for m, a, b in zip(leaves(mixed), leaves(g1), leaves(g2), strict=True):
        error = float(np.max(np.abs(m - (2 * a - 3 * b)), initial=0.0)) / size
        assert error < 5 * rounding(*2 * CASE), f"backward is not linear: {error:.1e}"  # 5: 2 g1 and 3 g2


def inputs_survive_and_dtypes_hold(f: Callable, case: Case, device: str, rng: np.random.Generator) -> None:
    """4. Read-only inputs and dy are enough; gradients have the shape and dtype of their arguments; float32 stays float32."""
    for dtype in ("float64", "float32"):
        small = Case([tree_map(lambda a, t=dtype: a.astype(t), a) for a in case.args], case.kwargs)
        small.kwargs = {n: v.astype(dtype) if getattr(v, "dtype", None) == np.float64 else v for n, v in case.kwargs.items()}
        y, backward = call(f, small, device, freeze=True)
        for leaf in leaves(to_host(y)):
            assert leaf.dtype == dtype, f"{dtype} in, {leaf.dtype} out"
        dy = frozen(on_device(random_like(y, rng), device))
        for i, (x, g) in enumerate(zip(small.args, gradients(backward, dy, len(case.args)), strict=True)):
            for a, b in zip(leaves(x), leaves(g), strict=True):
                assert (a.shape, a.dtype) == (b.shape, b.dtype), (
                    f"argument {i}: {a.shape} {a.dtype}, gradient {b.shape} {b.dtype}"
                )


def checkpointing_changes_nothing(f: Callable, case: Case, device: str, rng: np.random.Generator) -> None:
    """5. Computed again in the backward, value and gradients have the same bits."""
    y, backward = call(f, case, device)
    y2, backward2 = call(checkpoint(f), case, device)
    c = on_device(random_like(y, rng), device)
    assert equal(to_host(y), to_host(y2)), "checkpointing changes the value"
    n = len(case.args)
    assert equal(gradients(backward, c, n), gradients(backward2, c, n)), "checkpointing changes the gradients"


def check_all(f: Callable, reference: Callable, case: Case, device: str, rng: np.random.Generator) -> None:
    f = case.kernel or f
    equals_reference(f, reference, case, device)
    for i, error in directional_derivative(f, case, device, rng):
        assert error < 1e-7, f"argument {i}: directional derivative is off by {error:.1e}"
    backward_is_linear_and_repeatable(f, case, device, rng)
    inputs_survive_and_dtypes_hold(f, case, device, rng)
    checkpointing_changes_nothing(f, case, device, rng)
