"""Convolution along the sequence."""

import numpy as np


def convolution(x: np.ndarray, W: np.ndarray, b: np.ndarray | None = None, *, groups: int = 1) -> np.ndarray:
    """y[n, t, j] = sum_i sum_d x[n, t + i - (K - 1) / 2, g I + d] W[i, d, j] + b[j],   g the group of j; x = 0 outside.

    The channels are cut into groups: the I inputs of group g belong to its outputs alone.
    x (B, T, groups * I), W (K, I, O) with K odd, b (O,) or None -> y (B, T, O).    (a cross-correlation)
    """
    x = np.asarray(x, dtype=np.float64)
    K, I, O = W.shape  # noqa: E741
    B, T, _ = x.shape
    y = np.zeros((B, T, O))
    for n, t, j in np.ndindex(B, T, O):
        group = j // (O // groups)
        for i in range(K):
            place = t + i - (K - 1) // 2
            if 0 <= place < T:
                for d in range(I):
                    y[n, t, j] += x[n, place, group * I + d] * W[i, d, j]
        if b is not None:
            y[n, t, j] += b[j]
    return y
