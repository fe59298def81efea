"""Softmax over the last axis, with and without the logarithm."""

import math

import numpy as np


def softmax(x: np.ndarray, *, mask: np.ndarray | None = None) -> np.ndarray:
    """y_i = exp(x_i) / sum_j exp(x_j), i and j where the mask is True.   Vaswani et al. 2017, eq. 1

    x (..., N), mask boolean broadcastable to x or None (all take part) -> y (..., N).
    Places where the mask is False get 0; a row without any True gives zeros.
    """
    x = np.asarray(x, dtype=np.float64)
    mask = np.broadcast_to(np.asarray(True if mask is None else mask, dtype=bool), x.shape)
    y = np.zeros(x.shape)
    for row in np.ndindex(x.shape[:-1]):
        places = [i for i in range(x.shape[-1]) if mask[row + (i,)]]
        if not places:
            continue
        largest = max(x[row + (i,)] for i in places)
        total = 0.0
        for i in places:
            total += math.exp(x[row + (i,)] - largest)
        for i in places:
            y[row + (i,)] = math.exp(x[row + (i,)] - largest) / total
    return y


def log_softmax(x: np.ndarray) -> np.ndarray:
    """y_i = x_i - log sum_j exp(x_j).                             The logarithm of Vaswani et al. 2017, eq. 1

    x (..., N) -> y (..., N).
    """
    x = np.asarray(x, dtype=np.float64)
    y = np.zeros(x.shape)
    for row in np.ndindex(x.shape[:-1]):
        largest = max(x[row + (i,)] for i in range(x.shape[-1]))
        total = 0.0
        for i in range(x.shape[-1]):
            total += math.exp(x[row + (i,)] - largest)
        for i in range(x.shape[-1]):
            y[row + (i,)] = (x[row + (i,)] - largest) - math.log(total)
    return y
