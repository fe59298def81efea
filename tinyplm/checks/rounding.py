"""What rounding explains: bounds on errors, derived from a count of operations."""

from __future__ import annotations

from typing import Any

import numpy as np

EPS = float(np.finfo(np.float64).eps)
STEP = 1e-5  # of a central difference, whose truncation error is of order STEP^2 = 1e-10


def rounding(*terms: int, dtype: str = "float64") -> float:
    """A bound on the rounding error of a result, relative to the largest of its kind, after
    successive sums of `terms` terms.

    Each of n terms rounds by at most EPS (Higham 2002, sec. 4.2); the factor 10 leaves room for
    cancellation.  Neither the order of a sum nor its kernel matters, so a test within the bound
    passes with any BLAS and any number of threads.
    """
    return 10 * sum(terms) * float(np.finfo(dtype).eps)


def typical_rounding(*terms: int, dtype: str) -> float:
    """An estimate for where that bound is too loose, as in float32: independent errors grow with
    the square root of their number (Higham & Mary 2019); each is at most EPS / 2."""
    return 5 * sum(terms) ** 0.5 * float(np.finfo(dtype).eps)


def difference_rounding(value: Any, step: float = STEP) -> float:
    """The rounding error of a central difference of sum(value): 16 roundings of its terms, over
    the step."""
    return 16 * EPS / step * float(np.sum(np.abs(value)))


# Bounds for float64 at the sizes of case.py.  A comparison that needs another count states it.
FEW = rounding(16)  # 4e-14: a formula of a few operations, or one sum of at most 16 terms
# 6e-13: a component, forward or backward: at most four successive sums of at most 64 terms each
PART = rounding(*4 * [64])
# 2e-12: a model of up to three layers, forward and backward.  A layer has four successive products,
# its backward twice as many; the head has one and two: 39 in all, each over a width of at most 24,
# the largest in a layer's MLP.
MODEL = rounding(*40 * [24])
# One function in float32: NumPy's vectorised tanh and exp are accurate to four units in the last
# place.
SINGLE = 4 * 2.0**-23
MODEL_32 = typical_rounding(*40 * [24], dtype="float32")  # 2e-5: MODEL in float32
CASE = (7, 4, 5, 5, 24)  # attention's largest sums at the sizes of case.py: D, E, S, S, H E
