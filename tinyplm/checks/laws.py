"""The laws that every component obeys, for any function `y, backward = f(...)` on any device.

That it equals a formula from a paper is the first law; it needs the formulas of reference/, so it
is with the tests.  The others are here, numbered as in DESIGN.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import to_device, to_host
from ..core import Backward, Component, checkpoint, flatten, tree_map
from .case import Case
from .rounding import CASE, STEP, difference_rounding, rounding

SMALLEST = 1e-3  # smaller values count as this: they round like the larger terms they come from
DIFFERENCE = 1e-7  # what a directional derivative may differ by from a central difference


class LawError(AssertionError):
    """A component breaks a law; the message says which and by how much."""


# --------------------------------------------------------------------------------- calls and trees


def on_device(value: Any, device: str) -> Any:
    """Moves arrays and trees of arrays; leaves components, numbers and None as they are."""
    if isinstance(value, (np.ndarray, dict, list)):
        return tree_map(lambda a: to_device(a, device) if isinstance(a, np.ndarray) else a, value)
    return value


def read_only(a: Any) -> Any:
    """A copy of a host array that raises when it is written to; anything else as it is."""
    if isinstance(a, np.ndarray):
        a = a.copy()
        a.flags.writeable = False
    return a  # CuPy has no read-only arrays


def frozen(value: Any, freeze: Callable[[Any], Any] = read_only) -> Any:
    """A tree or a keyword's value, with `freeze` applied to its arrays."""
    is_array = hasattr(value, "dtype")
    return tree_map(freeze, value) if is_array or isinstance(value, (dict, list)) else value


def call(
    f: Component,
    case: Case,
    device: str,
    args: list[Any] | None = None,
    freeze: Callable[[Any], Any] | None = None,
) -> tuple[Any, Backward]:
    """f with a case's arguments (or with `args`) on a device; `freeze` makes an array read-only."""
    args = [on_device(a, device) for a in (case.args if args is None else args)]
    kwargs = {name: on_device(value, device) for name, value in case.kwargs.items()}
    if freeze is not None:
        args = [frozen(a, freeze) for a in args]
        kwargs = {name: frozen(value, freeze) for name, value in kwargs.items()}
    return f(*args, **kwargs)


def gradients(backward: Backward, dy: Any, count: int) -> list[Any]:
    """backward(dy) as a list of `count` host trees; a single gradient is not in a tuple."""
    out = backward(dy)
    if count == 1:
        return [to_host(out)]
    if not isinstance(out, tuple):
        raise LawError(f"backward: expected a tuple of {count} gradients, got {type(out).__name__}")
    if len(out) != count:
        raise LawError(f"backward: expected {count} gradients, got {len(out)}")
    return [to_host(g) for g in out]


def leaves(tree: Any) -> list[Any]:
    """The arrays of a tree in order; an array or a number alone is one, None is none."""
    if isinstance(tree, (dict, list)):
        return list(flatten(tree).values())
    return [] if tree is None else [tree]


def random_like(tree: Any, rng: np.random.Generator) -> Any:
    """Random cotangents and directions: constant ones would hide a zero gradient."""
    return tree_map(lambda a: rng.normal(size=np.shape(a)).astype(a.dtype), to_host(tree))


def moved(x: Any, d: Any, step: float) -> Any:
    """x + step d, for trees."""
    return tree_map(lambda a, b: a + step * b, x, d)


def dot(a: Any, b: Any) -> float:
    """<a, b>, for trees."""
    return sum(float(np.sum(x * y)) for x, y in zip(leaves(a), leaves(b), strict=True))


def relative_error(a: Any, b: Any) -> float:
    """Largest difference over the largest value of b, array by array.

    A number that is not finite is an error on either side, never a match.
    """
    worst = 0.0
    for x, y in zip(leaves(a), leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        if x.shape != y.shape:
            raise LawError(f"expected shape {y.shape}, got {x.shape}")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise LawError("a number is not finite")
        if x.size:
            worst = max(worst, float(np.max(np.abs(x - y)) / max(np.max(np.abs(y)), SMALLEST)))
    return worst


def apart(a: Any, b: Any) -> float:
    """The largest difference over the largest number in all of b.

    Used for gradients: some (of key biases, for example) are zero except for rounding on the scale
    of the others.
    """
    a, b = flatten(to_host(a)), flatten(to_host(b))
    if a.keys() != b.keys():
        raise LawError(f"expected entries {', '.join(b)}, got {', '.join(a)}")
    largest = max(np.abs(x).max() for x in b.values())
    return max(np.abs(a[path] - b[path]).max() for path in b) / largest


def equal(a: Any, b: Any) -> bool:
    """Whether two trees have the same bits."""
    return all(np.array_equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


# ----------------------------------------------------------------------------------------- the laws


def directional_derivative(
    f: Component, case: Case, device: str, rng: np.random.Generator
) -> list[tuple[int, float]]:
    """2. <c, f(x + h d) - f(x - h d)> / 2h = <gradient, d>, for each positional argument alone.

    Returns (argument, error) pairs; the error is divided by the sum of |g_i d_i|.  No difference
    can get below the rounding of f itself, EPS |c f| / h; 16 times that is allowed on top of
    DIFFERENCE, which matters only where the gradient is almost zero.
    """
    y, backward = call(f, case, device)
    c = random_like(y, rng)
    dy = on_device(c, device) if not np.isscalar(c) else c
    grads = gradients(backward, dy, len(case.args))
    pairs = zip(leaves(c), leaves(to_host(y)), strict=True)
    noise = sum(difference_rounding(a * b) for a, b in pairs)
    errors = []
    for i, (x, g) in enumerate(zip(case.args, grads, strict=True)):
        if x is None:
            if g is not None:
                raise LawError(
                    f"gradient {i}: expected None, as the argument, got {type(g).__name__}"
                )
            continue
        d = random_like(x, rng)
        before, after = case.args[:i], case.args[i + 1 :]
        ahead, behind = (
            to_host(call(f, case, device, [*before, moved(x, d, step), *after])[0])
            for step in (STEP, -STEP)
        )
        numerical = (dot(c, ahead) - dot(c, behind)) / (2 * STEP)
        if not (np.isfinite(numerical) and all(np.isfinite(a).all() for a in leaves(g))):
            raise LawError(f"argument {i}: not finite")
        pairs = zip(leaves(g), leaves(d), strict=True)
        scale = sum(float(np.sum(np.abs(a * b))) for a, b in pairs)
        errors.append((i, abs(numerical - dot(g, d)) / (scale + noise / DIFFERENCE + 1e-300)))
    return errors


def backward_is_linear_and_repeatable(
    f: Component, case: Case, device: str, rng: np.random.Generator
) -> None:
    """3. backward(2 c1 - 3 c2) = 2 backward(c1) - 3 backward(c2); repeated after another call,
    backward returns the same bits."""
    y, backward = call(f, case, device)
    c1, c2 = random_like(y, rng), random_like(y, rng)
    n = len(case.args)
    g1 = gradients(backward, on_device(c1, device), n)
    other_args = [tree_map(lambda a: a * 0.5, a) if a is not None else None for a in case.args]
    _, other_backward = call(f, case, device, other_args)
    gradients(other_backward, on_device(c2, device), n)
    g2 = gradients(backward, on_device(c2, device), n)
    if not equal(gradients(backward, on_device(c1, device), n), g1):
        raise LawError("backward is not repeatable")
    c = tree_map(lambda a, b: np.asarray(2 * a - 3 * b), c1, c2)
    mixed = gradients(backward, on_device(c, device), n)
    # relative to the largest of all gradients: one that is zero in exact arithmetic consists only
    # of their rounding
    largest = (float(np.max(np.abs(x))) for x in leaves([*g1, *g2]) if x.size)
    size = max([SMALLEST, *largest])
    for m, a, b in zip(leaves(mixed), leaves(g1), leaves(g2), strict=True):
        error = float(np.max(np.abs(m - (2 * a - 3 * b)), initial=0.0)) / size
        if not error < 5 * rounding(*2 * CASE):  # 5: 2 g1 and 3 g2
            raise LawError(f"backward is not linear: {error:.1e}")


def inputs_survive_and_dtypes_hold(
    f: Component,
    case: Case,
    device: str,
    rng: np.random.Generator,
    freeze: Callable[[Any], Any] = read_only,
) -> None:
    """4. Read-only inputs and dy suffice; gradients have the shape and dtype of their arguments;
    float32 stays float32."""

    def cast(value: Any, dtype: str) -> Any:
        return value.astype(dtype) if getattr(value, "dtype", None) == np.float64 else value

    for dtype in ("float64", "float32"):
        args = [tree_map(lambda a, t=dtype: a.astype(t), a) for a in case.args]
        small = Case(args, {name: cast(value, dtype) for name, value in case.kwargs.items()})
        y, backward = call(f, small, device, freeze=freeze)
        for leaf in leaves(to_host(y)):
            if leaf.dtype != dtype:
                raise LawError(f"value: expected {dtype} for {dtype}, got {leaf.dtype}")
        dy = frozen(on_device(random_like(y, rng), device), freeze)
        grads = gradients(backward, dy, len(case.args))
        for i, (x, g) in enumerate(zip(args, grads, strict=True)):
            for a, b in zip(leaves(x), leaves(g), strict=True):
                if (a.shape, a.dtype) != (b.shape, b.dtype):
                    found = f"got {b.dtype} {b.shape}"
                    raise LawError(f"gradient {i}: expected {a.dtype} {a.shape}, {found}")


def checkpointing_changes_nothing(
    f: Component, case: Case, device: str, rng: np.random.Generator
) -> None:
    """5. Recomputed in the backward, value and gradients have the same bits."""
    y, backward = call(f, case, device)
    y2, backward2 = call(checkpoint(f), case, device)
    c = on_device(random_like(y, rng), device)
    if not equal(to_host(y), to_host(y2)):
        raise LawError("checkpointing changes the value")
    n = len(case.args)
    if not equal(gradients(backward, c, n), gradients(backward2, c, n)):
        raise LawError("checkpointing changes the gradients")


def check_laws(
    f: Component,
    case: Case,
    device: str,
    rng: np.random.Generator,
    freeze: Callable[[Any], Any] = read_only,
) -> None:
    """Laws 2 to 5 for one case; LawError for the first that does not hold."""
    for i, error in directional_derivative(f, case, device, rng):
        if not error < DIFFERENCE:
            raise LawError(f"argument {i}: the directional derivative is off by {error:.1e}")
    backward_is_linear_and_repeatable(f, case, device, rng)
    inputs_survive_and_dtypes_hold(f, case, device, rng, freeze)
    checkpointing_changes_nothing(f, case, device, rng)
