"""Logistic regression on sparse features: its loss and gradient, number by number."""

import math

import numpy as np


def logistic_loss(
    w: np.ndarray,
    b: float,
    *,
    ids: np.ndarray,
    values: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
) -> tuple[float, np.ndarray, float]:
    """(loss, dw, db) of loss = sum_i weights_i nll_i / sum_i weights_i.

    nll_i = -t_i log p_i - (1 - t_i) log(1 - p_i),   p_i = 1 / (1 + exp(-z_i)),
    z_i = b + sum_n values[i, n] w[ids[i, n]];   Hastie, Tibshirani & Friedman 2009, eq. 4.20, whose
    gradient is eq. 4.21: sum_i weights_i x_i (p_i - t_i) / sum_i weights_i.
    """
    loss, dw, db = 0.0, np.zeros(len(w)), 0.0
    total = float(sum(weights))
    for i in range(len(ids)):
        z = float(b)
        for n in range(ids.shape[1]):
            z += float(values[i, n]) * float(w[ids[i, n]])
        p = 1 / (1 + math.exp(-z))
        t = float(targets[i])
        loss -= float(weights[i]) / total * (t * math.log(p) + (1 - t) * math.log(1 - p))
        dz = float(weights[i]) / total * (p - t)
        db += dz
        for n in range(ids.shape[1]):
            dw[ids[i, n]] += float(values[i, n]) * dz
    return loss, dw, db
