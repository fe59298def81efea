"""Absolute positions: learned and sinusoidal, and how they are counted."""

from __future__ import annotations

import numpy as np

from ..arguments import check_whole
from ..backend import array_module, sum_float32
from ..shapes import check_float_dtype, expects
from .embedding import embedding


@expects("x (B, T, D), table (C, D), positions (B, T) or (T,) integers")
def learned_positions(x, table, *, positions):
    """y = x + table[positions].                                                        Gehring et al. 2017, sec. 3.1

    x (B, T, D), table (C, D), positions (B, T) or (T,) integers in [0, C) -> (B, T, D).
    dx = dy;   dtable[c] = sum of dy over all places with position c.
    ValueError on another shape of positions, and (on the host) on a position out of range.
    """
    rows, rows_back = embedding(table, ids=positions, name="position")

    def backward(dy):
        drows = dy if positions.ndim == dy.ndim - 1 else sum_float32(dy, axis=0)  # (T,): the same rows for every sample
        return dy, rows_back(drows)

    return x + rows, backward


@expects("ids (B, T) integers; whole padding_id >= 0")
def counted_positions(ids, *, padding_id):
    """positions[b, t] = padding_id + how many of ids[b, 0] .. ids[b, t] are not padding; padding itself is at padding_id.

    ids (B, T) -> (B, T).  As RoBERTa's released code (Liu et al. 2019) counts: rows 0 .. padding_id - 1 are never used.
    """
    real = (ids != padding_id).astype("int64")
    return array_module(ids).cumsum(real, axis=1) * real + padding_id


@expects("positions (...) numbers; whole width >= 1, base > 0")
def sinusoidal(positions, width, *, base=10000.0, dtype="float32"):
    """S[t, 2i] = sin(t / base^(2i/D)),   S[t, 2i+1] = cos(t / base^(2i/D)).           Vaswani et al. 2017, sec. 3.5

    positions (...) numbers -> (..., width).  Angles in float64, so that far positions keep their phase.
    """
    check_float_dtype("sinusoidal: dtype", dtype)
    xp = array_module(positions)
    columns = np.arange(width)
    frequencies = xp.asarray(base ** -(2 * (columns // 2) / width))
    angles = positions[..., None].astype("float64") * frequencies
    return xp.where(xp.asarray(columns % 2 == 0), xp.sin(angles), xp.cos(angles)).astype(dtype)


def sinusoidal_table(count, width):
    """S[t] for t = 0 .. count - 1, float64 on the host: the initial value of a table of positions."""
    check_whole("sinusoidal_table: count", count)
    return sinusoidal(np.arange(count), width, dtype="float64")


@expects("x (B, T, D), positions (B, T) or (T,) numbers; base > 0")
def sinusoidal_positions(x, *, positions, base=10000.0):
    """y = x + S[positions], S as in `sinusoidal`.   x (B, T, D), positions (B, T) or (T,).   dx = dy."""
    return x + sinusoidal(positions, x.shape[-1], base=base, dtype=x.dtype), lambda dy: dy
