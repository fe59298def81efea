"""The laws that every component obeys (DESIGN.md, "Laws"), for any component on any device.

A case is one call: positional arguments (float64 trees on the host), keyword arguments, and the reference's keywords where they
differ (a component passed as an argument has a twin in reference/).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyplm.backend import to_device, to_host
from tinyplm.core import checkpoint, flatten, tree_map

H = 1e-5  # step of the central difference, whose truncation error is of order H^2 = 1e-10
EPS = np.finfo(np.float64).eps


def rounding(*terms: int, dtype: str = "float64") -> float:
    """A bound on the rounding error of a result, relative to the largest of its kind, after successive sums of `terms` terms.

    Each of n terms rounds by at most EPS (Higham 2002, sec. 4.2); the factor 10 leaves room for cancellation.  Neither the
    order of a sum nor its kernel matters, so a test within the bound passes with any BLAS and any number of threads.
    """
    return 10 * sum(terms) * float(np.finfo(dtype).eps)


def typical_rounding(*terms: int, dtype: str) -> float:
    """An estimate for where that bound is too loose, as in float32: independent errors grow with the square root of their number
    (Higham & Mary 2019); each is at most EPS / 2."""
    return 5 * sum(terms) ** 0.5 * float(np.finfo(dtype).eps)


# Bounds for float64 at the sizes that tests use.  Tests that need another count state it.
FEW = rounding(16)  # 4e-14: a formula of a few operations, or one sum of at most 16 terms
PART = rounding(*4 * [64])  # 6e-13: a component, forward or backward: at most four successive sums of at most 64 terms each
# 2e-12: a model of up to three layers, forward and backward.  A layer has four successive products, its backward twice
# as many; the head has one and two: 39 in all, each over a width of at most 24, the largest in a layer's MLP.
MODEL = rounding(*40 * [24])
SINGLE = 4 * 2.0**-23  # one function in float32: NumPy's vectorised tanh and exp are accurate to four units in the last place
MODEL_32 = typical_rounding(*40 * [24], dtype="float32")  # 2e-5: the same in float32


def trained(updates: int, rate: float, eps: float) -> float:
    """MODEL after AdamW's updates by rate g / (sqrt(v) + eps), where eps bounds the growth of a gradient's error."""
    return updates * rate / eps * MODEL


CASE = (7, 4, 5, 5, 24)  # attention's largest sums at the sizes of tests/strategies.py: D, E, S, S, H E


def difference_rounding(value: Any, step: float = H) -> float:
    """The rounding error of a central difference of sum(value): 16 roundings of its terms, over the step."""
    return 16 * EPS / step * float(np.sum(np.abs(value)))


@dataclasses.dataclass(frozen=True)
class Sizes:
    """One key everywhere, as in DESIGN.md: B batch, T queries, S keys, D width, K kv heads, G heads per kv head, E head width."""

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
    flags: tuple[bool, bool, bool]  # which optional parts a case includes

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
    kernel: Callable | None = None  # f for this case, if it must be built


def on_device(value: Any, device: str) -> Any:
    """Moves arrays and trees of arrays; leaves components, numbers and None as they are."""
    if isinstance(value, (np.ndarray, dict, list)):
        return tree_map(lambda a: to_device(a, device) if isinstance(a, np.ndarray) else a, value)
    return value


def frozen(value: Any) -> Any:
    """A read-only copy: writing into it raises."""

    def freeze(a: Any) -> Any:
        if isinstance(a, np.ndarray):
            a = a.copy()
            a.flags.writeable = False
            return a
        if type(a).__name__ == "StrictArray":
            from tests.gpu.strict import freeze as strict_freeze

            return strict_freeze(a.copy())
        return a  # CuPy has no read-only arrays; all that remains there is to compare with a copy

    return tree_map(freeze, value) if isinstance(value, (dict, list)) or hasattr(value, "dtype") else value


def call(f: Callable, case: Case, device: str, args: list | None = None, freeze: bool = False) -> tuple[Any, Callable]:
    args = [on_device(a, device) for a in (case.args if args is None else args)]
    kwargs = {name: on_device(value, device) for name, value in case.kwargs.items()}
    if freeze:
        args, kwargs = [frozen(a) for a in args], {name: frozen(value) for name, value in kwargs.items()}
    return f(*args, **kwargs)


def gradients(backward: Callable, dy: Any, count: int) -> list[Any]:
    """backward(dy) as a list of `count` host trees; the gradient of a single positional argument is not in a tuple."""
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


SMALLEST = 1e-3  # smaller reference values count as this: they round like the larger terms whose difference they are


def relative_error(a: Any, b: Any) -> float:
    """Largest difference over the largest reference value.  A non-finite value on either side is an error, never a match."""
    worst = 0.0
    for x, y in zip(leaves(a), leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.shape == y.shape, f"shape {x.shape}, expected {y.shape}"
        assert np.isfinite(x).all() and np.isfinite(y).all(), "a number is not finite"
        if x.size:
            worst = max(worst, float(np.max(np.abs(x - y)) / max(np.max(np.abs(y)), SMALLEST)))
    return worst


def apart(a: Any, b: Any) -> float:
    """The largest difference over the largest number in all of b.

    Used for gradients: some (of key biases, for example) are zero except for rounding on the scale of the others.
    """
    a, b = flatten(to_host(a)), flatten(to_host(b))
    assert a.keys() == b.keys()
    return max(np.abs(a[path] - b[path]).max() for path in b) / max(np.abs(x).max() for x in b.values())


def equal(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


# ------------------------------------------------------------------------------------------------------ the laws


def equals_reference(f: Callable, reference: Callable, case: Case, device: str) -> None:
    """1. The value equals the reference up to a case's rounding: 1e-13 of its terms, which may be 1/SMALLEST times the value."""
    y, _ = call(f, case, device)
    expected = reference(*case.args, **{**case.kwargs, **case.reference_kwargs})
    expected = np.asarray(expected) if not isinstance(expected, dict) else expected
    error = relative_error(to_host(y), expected)
    assert error < rounding(*CASE) / SMALLEST, f"differs from the reference by {error:.1e}"


def moved(x: Any, d: Any, step: float) -> Any:
    """x + step d, for trees."""
    return tree_map(lambda a, b: a + step * b, x, d)


def directional_derivative(f: Callable, case: Case, device: str, rng: np.random.Generator) -> list[tuple[int, float]]:
    """2. <c, f(x + h d) - f(x - h d)> / 2h = <gradient, d>, for each positional argument separately.

    Returns (argument, error) pairs; the error is divided by the sum of |g_i d_i|.  No difference can get below the rounding of
    f itself, EPS |c f| / H; 16 times that is allowed on top of 1e-7, which matters only where the gradient is almost zero.
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
    """3. backward(2 c1 - 3 c2) = 2 backward(c1) - 3 backward(c2); repeated after another call, backward returns the same bits."""
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
    # relative to the largest of all gradients: one that is zero in exact arithmetic consists only of their rounding
    size = max([SMALLEST, *(float(np.max(np.abs(x))) for x in leaves([*g1, *g2]) if x.size)])
    for m, a, b in zip(leaves(mixed), leaves(g1), leaves(g2), strict=True):
        error = float(np.max(np.abs(m - (2 * a - 3 * b)), initial=0.0)) / size
        assert error < 5 * rounding(*2 * CASE), f"backward is not linear: {error:.1e}"  # 5: 2 g1 and 3 g2


def inputs_survive_and_dtypes_hold(f: Callable, case: Case, device: str, rng: np.random.Generator) -> None:
    """4. Read-only inputs and dy suffice; gradients have the shape and dtype of their arguments; float32 stays float32."""
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
    """5. Recomputed in the backward, value and gradients have the same bits."""
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
