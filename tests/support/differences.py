"""How far a gradient is from central differences."""

from __future__ import annotations

from collections.abc import Callable


def slope_error(at: Callable[[float], float], slope: float, scale: float, h: float = 1e-5, bound: float = 1e-7) -> float:
    """|difference - slope| / scale for the slope of `at` at 0.

    A central difference is off by h^2 / 6 times the third derivative, which is large where a norm divides by little.  If that
    may be why it exceeds `bound`, one with h / 2 takes the term away (Richardson): (4 D(h / 2) - D(h)) / 3.
    """

    def difference(h: float) -> float:
        return (at(h) - at(-h)) / (2 * h)

    first = difference(h)
    if abs(first - slope) < bound * scale:
        return abs(first - slope) / scale
    return abs((4 * difference(h / 2) - first) / 3 - slope) / scale
