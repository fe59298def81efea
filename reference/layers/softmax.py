"""Softmax and log-softmax over the last axis."""

import numpy as np

from reference.scalar import exp, log, numbers, zeros


def softmax(x: np.ndarray, *, mask: np.ndarray | None = None) -> np.ndarray:
    """y_i = exp(x_i) / sum_j exp(x_j), over the i and j where mask is True.

    x (..., N), boolean mask broadcastable to x, or None for all True -> y (..., N).
    y is 0 where mask is False; a fully masked row gives zeros.          Vaswani et al. 2017, eq. 1
    """
    x = numbers(x)
    mask = np.broadcast_to(np.asarray(True if mask is None else mask, dtype=bool), x.shape)
    y = zeros(x.shape, like=x)
    for row in np.ndindex(x.shape[:-1]):
        places = [i for i in range(x.shape[-1]) if mask[row + (i,)]]
        if not places:
            continue
        largest = max(x[row + (i,)] for i in places)
        total = 0.0
        for i in places:
            total += exp(x[row + (i,)] - largest)
        for i in places:
            y[row + (i,)] = exp(x[row + (i,)] - largest) / total
    return y


def log_softmax(x: np.ndarray) -> np.ndarray:
    """y_i = x_i - log sum_j exp(x_j).                The logarithm of Vaswani et al. 2017, eq. 1

    x (..., N) -> y (..., N).
    """
    x = numbers(x)
    y = zeros(x.shape, like=x)
    for row in np.ndindex(x.shape[:-1]):
        largest = max(x[row + (i,)] for i in range(x.shape[-1]))
        total = 0.0
        for i in range(x.shape[-1]):
            total += exp(x[row + (i,)] - largest)
        for i in range(x.shape[-1]):
            y[row + (i,)] = (x[row + (i,)] - largest) - log(total)
    return y
