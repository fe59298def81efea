"""Table lookup, and sums of rows."""

import numpy as np

from reference.scalar import numbers, zeros


def embedding(table: np.ndarray, *, ids: np.ndarray) -> np.ndarray:
    """y[..., d] = table[ids[...], d].                                 Vaswani et al. 2017, sec. 3.4

    table (V, D), ids (...) integers in [0, V) -> y (..., D).  Omits that section's factor sqrt(D).
    """
    table = numbers(table)
    ids = np.asarray(ids)
    vocabulary, width = table.shape
    y = zeros(ids.shape + (width,), like=table)
    for place in np.ndindex(ids.shape):
        row = int(ids[place])
        if not 0 <= row < vocabulary:
            raise ValueError(f"id {row} is outside a table of {vocabulary} rows")
        for d in range(width):
            y[place + (d,)] = table[row, d]
    return y


def embedding_bag(table: np.ndarray, *, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """y[i, d] = sum_n weights[i, n] table[ids[i, n], d].                Joulin et al. 2016, sec. 2

    table (V, D), ids (B, N) integers in [0, V), weights (B, N) -> y (B, D).
    """
    table, weights = numbers(table), np.asarray(weights, dtype=np.float64)
    ids = np.asarray(ids)
    y = zeros((len(ids), table.shape[1]), like=table)
    for i, n in np.ndindex(ids.shape):
        for d in range(table.shape[1]):
            y[i, d] += weights[i, n] * table[int(ids[i, n]), d]
    return y
