"""Squared error, and the cross-entropy of independent binary labels."""

import math

import numpy as np

from reference.scalar import exp, log, number


def mean_squared_error(
    y: np.ndarray,
    *,
    targets: np.ndarray,
    weights: np.ndarray | None = None,
    total: float | None = None,
) -> float:
    """sum_i w_i (y_i - t_i)^2 / total,  over the i whose target is not NaN.

    total None: the sum of their weights.
    """
    loss, counted = 0.0, 0.0
    for i in np.ndindex(y.shape):
        if math.isnan(targets[i]):
            continue
        weight = 1.0 if weights is None else float(weights[i])
        loss += weight * (number(y[i]) - float(targets[i])) ** 2
        counted += weight
    if total is None:
        total = counted if counted != 0.0 else 1.0
    return loss / total


def binary_cross_entropy(
    logits: np.ndarray,
    *,
    targets: np.ndarray,
    weights: np.ndarray | None = None,
    total: float | None = None,
    ignore_index: float = -100,
) -> float:
    """sum_i w_i (-t_i log p_i - (1 - t_i) log(1 - p_i)) / total,  p_i = 1 / (1 + exp(-z_i)),

    over the i whose target is not ignored.
    """
    loss, counted = 0.0, 0.0
    for i in np.ndindex(logits.shape):
        if targets[i] == ignore_index:
            continue
        weight, t = 1.0 if weights is None else float(weights[i]), float(targets[i])
        p = 1.0 / (1.0 + exp(-number(logits[i])))
        loss += weight * (-t * log(p) - (1.0 - t) * log(1.0 - p))
        counted += weight
    if total is None:
        total = counted if counted != 0.0 else 1.0
    return loss / total
