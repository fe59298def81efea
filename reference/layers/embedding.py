"""Table lookup."""

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
