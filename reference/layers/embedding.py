"""Table lookup."""

import numpy as np


def embedding(table: np.ndarray, *, ids: np.ndarray) -> np.ndarray:
    """y[..., d] = table[ids[...], d].                                 Vaswani et al. 2017, sec. 3.4

    table (V, D), ids (...) integers in [0, V) -> y (..., D).  Omits that section's factor sqrt(D).
    """
    table = np.asarray(table, dtype=np.float64)
    ids = np.asarray(ids)
    vocabulary, width = table.shape
    y = np.zeros(ids.shape + (width,))
    for place in np.ndindex(ids.shape):
        row = int(ids[place])
        if not 0 <= row < vocabulary:
            raise ValueError(f"id {row} is outside a table of {vocabulary} rows")
        for d in range(width):
            y[place + (d,)] = table[row, d]
    return y
