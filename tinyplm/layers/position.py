"""Absolute positions: learned and sinusoidal, and how they are counted."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arguments import check_whole
from ..backend import array_module, sum_float32
from ..core import Array, Backward
from ..shapes import check_float_dtype, expects
from .embedding import embedding


@expects("x (B, T, D), table (C, D), positions (B, T) or (T,) integers")
def learned_positions(x: Array, table: Array, *, positions: Array) -> tuple[Array, Backward]:
    """y = x + table[positions].                                    Gehring et al. 2017, sec. 3.1

    x (B, T, D), table (C, D), positions (B, T) or (T,) integers in [0, C) -> y (B, T, D).
    dx = dy;   dtable[c] = sum of dy over all places with position c.
    ValueError on another shape of positions, and (on the host) on a position out of range.
    """
    rows, rows_back = embedding(table, ids=positions, name="position")

    def backward(dy: Array) -> tuple[Array, Array]:
        every_sample = positions.ndim == 1  # has the same rows
        return dy, rows_back(sum_float32(dy, axis=0) if every_sample else dy)

    return x + rows, backward


@expects("ids (B, T) integers; whole padding_id >= 0")
def counted_positions(ids: Array, *, padding_id: int) -> Array:
    """positions[b, t] = padding_id + the number of tokens among ids[b, 0] .. ids[b, t].

    ids (B, T) -> (B, T); padding is not counted, and is at padding_id itself.  As in RoBERTa's
    released code (Liu et al. 2019): rows 0 .. padding_id - 1 of the table are never used.
    """
    real = (ids != padding_id).astype("int64")
    return array_module(ids).cumsum(real, axis=1) * real + padding_id


@expects("positions (...) numbers; whole width >= 1, base > 0")
def sinusoidal(
    positions: Array, width: int, *, base: float = 10000.0, dtype: Any = "float32"
) -> Array:
    """S[t, 2i] = sin(t / base^(2i/D)),   S[t, 2i+1] = cos(t / base^(2i/D)),   D = width.

    Vaswani et al. 2017, sec. 3.5.   positions (...) numbers -> (..., width).
    Angles are float64, so that far positions keep their phase.
    """
    check_float_dtype("sinusoidal: dtype", dtype)
    xp = array_module(positions)
    columns = np.arange(width)
    frequencies = xp.asarray(base ** -(2 * (columns // 2) / width))
    angles = positions[..., None].astype("float64") * frequencies
    even = xp.asarray(columns % 2 == 0)
    return xp.where(even, xp.sin(angles), xp.cos(angles)).astype(dtype)


def sinusoidal_table(count: int, width: int) -> Array:
    """S[t] for t = 0 .. count - 1, float64 on the host: an initial table of positions."""
    check_whole("sinusoidal_table: count", count)
    return sinusoidal(np.arange(count), width, dtype="float64")
