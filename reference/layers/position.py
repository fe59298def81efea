"""Absolute positions, added to the embeddings: learned and sinusoidal."""

import math

import numpy as np

from reference.scalar import numbers, zeros


def learned_positions(x: np.ndarray, table: np.ndarray, *, positions: np.ndarray) -> np.ndarray:
    """y[b, t, d] = x[b, t, d] + table[positions[b, t], d].

    x (B, T, D), table (C, D), positions (B, T) or (T,) integers in [0, C) -> y (B, T, D).
    Radford et al. 2018, eq. 2 (h_0 = U W_e + W_p).
    """
    x = numbers(x)
    table = numbers(table)
    positions = np.broadcast_to(np.asarray(positions), x.shape[:-1])
    y = zeros(x.shape, like=(x, table))
    for b, t, d in np.ndindex(x.shape):
        position = int(positions[b, t])
        if not 0 <= position < table.shape[0]:
            raise ValueError(f"position {position} is outside a table of {table.shape[0]} rows")
        y[b, t, d] = x[b, t, d] + table[position, d]
    return y


def sinusoidal(
    positions: np.ndarray, width: int, *, base: float = 10000.0, dtype=np.float64
) -> np.ndarray:
    """PE[pos, 2i] = sin(pos / base^(2i/width)),  PE[pos, 2i+1] = cos(pos / base^(2i/width)).

    positions (...) -> table (..., width), cast to dtype last.        Vaswani et al. 2017, sec. 3.5
    """
    positions = np.asarray(positions)
    table = np.zeros(positions.shape + (width,))
    for place in np.ndindex(positions.shape):
        for column in range(width):
            i = column // 2
            angle = float(positions[place]) / base ** (2 * i / width)
            table[place + (column,)] = math.sin(angle) if column % 2 == 0 else math.cos(angle)
    return table.astype(dtype)
