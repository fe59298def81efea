"""ALiBi: scores that fall linearly with distance, in place of positions (Press et al. 2022)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arguments import MOST, check_whole
from ..backend import array_module
from ..core import Array
from ..shapes import check_float_dtype, expects


def alibi_slopes(heads: int) -> np.ndarray:
    """m_h = 2^(-8 (h + 1) / H) for h = 0 .. H-1, where H is a power of two.   -> (H,) float64

    Press et al. 2022, sec. 3.   For other H, as in their released code: with P the largest power of
    two below H, the slopes of P heads, then every second one of 2 P heads, from the first on.
    """
    check_whole("alibi_slopes: heads", heads, 1, MOST)
    P = 2 ** math.floor(math.log2(heads))
    slopes = 2.0 ** (-8 * np.arange(1, P + 1) / P)
    between = 2.0 ** (-8 * np.arange(1, 2 * P + 1, 2) / (2 * P))
    return np.concatenate([slopes, between])[:heads]


@expects("positions (B, S) or (S,) integers, slopes (H,)")
def alibi(positions: Array, *, slopes: Array, dtype: Any = "float32") -> Array:
    """offsets[b, h, 0, s] = m_h positions[b, s], which attention adds to its scores.

    Press et al. 2022, sec. 3, has -m_h (t - s).  That differs by m_h t, which is the same for all
    keys of a query, so that softmax cancels it: one row holds the offsets of all queries.
    positions (B, S) or (S,) integers of the keys, slopes m (H,) -> (B or 1, H, 1, S) of this dtype,
    but at least float32.  Nothing here is trained.
    """
    check_float_dtype("alibi: dtype", dtype)
    xp = array_module(positions)
    rows = positions[None] if positions.ndim == 1 else positions
    offsets = rows[:, None, None, :] * slopes[:, None, None].astype("float64")
    return offsets.astype(xp.promote_types(dtype, "float32"))
