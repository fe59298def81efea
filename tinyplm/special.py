"""The error function, which neither NumPy nor CuPy has."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .backend import array_module, at_least_float32


@functools.cache
def _erf_polynomials(dtype: str) -> tuple[list[float], list[float]]:
    """Coefficients, highest power first, of the two polynomials in `erf`, in u in [-1, 1].

    Interpolated at Chebyshev points from math.erf and math.erfc, so no table has to be trusted.
    """
    near_degree, far_degree = (6, 9) if dtype == "float32" else (12, 22)

    def interpolate(f: Callable[[float], float], degree: int) -> list[float]:
        chebyshev = np.polynomial.chebyshev.chebinterpolate(np.vectorize(f), degree)
        return np.polynomial.chebyshev.cheb2poly(chebyshev)[::-1].tolist()

    def near(u: float) -> float:
        """erf(x) / x with x^2 = (u + 1) / 2."""
        x = math.sqrt((u + 1) / 2)
        return math.erf(x) / x if x > 0 else 2 / math.sqrt(math.pi)

    def far(u: float) -> float:
        """exp(x^2) erfc(x), smooth in t = 1 / (1 + x); u = -1 is x = 6, u = 1 is x = 1."""
        t = _T6 + (u + 1) / 2 * (0.5 - _T6)
        x = 1 / t - 1
        return math.exp(x * x) * math.erfc(x)

    return interpolate(near, near_degree), interpolate(far, far_degree)


_T6 = 1 / 7  # 1 / (1 + x) at x = 6, beyond which erf(x) is 1 in float64


def _horner(coefficients: list[float], u: Any) -> Any:
    total = u * coefficients[0]
    for c in coefficients[1:-1]:
        total += c
        total *= u
    total += coefficients[-1]
    return total


def erf(x: Any) -> Any:
    """erf(x) = 2/sqrt(pi) * integral of exp(-t^2) from 0 to x, elementwise, in x's dtype.

    |x| <= 1: x times a polynomial in x^2.  Beyond: sign(x) (1 - exp(-x^2) P(1 / (1 + |x|))).
    Error against math.erf below 4e-15 in float64, 2e-7 in float32.
    """
    xp = array_module(x)
    near_p, far_p = _erf_polynomials("float32" if x.dtype != "float64" else "float64")
    values = at_least_float32(x)
    a = xp.minimum(xp.abs(values), 6)
    inside = xp.minimum(a, 1)
    near = inside * _horner(near_p, 2 * inside * inside - 1)
    outside = xp.maximum(a, 1)
    t = 1 / (1 + outside)
    far = 1 - xp.exp(-outside * outside) * _horner(far_p, (t - _T6) * (2 / (0.5 - _T6)) - 1)
    return xp.copysign(xp.where(a <= 1, near, far), values).astype(x.dtype, copy=False)
