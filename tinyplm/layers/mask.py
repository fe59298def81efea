"""Attention masks: boolean arrays, True = may attend, broadcastable to (B, H, T, S).

Queries are the last T of the S positions, so query t stands at position S - T + t (T = S without a cache).
Masks are combined by `combine_masks`; they have no gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import array_module


def _distance(T: int, S: int | None, xp: Any):
    """(T, S): how far key s lies behind query t; negative for keys in the future."""
    S = T if S is None else S
    if not 0 < T <= S:
        raise ValueError(f"mask: expected 1 <= T <= S, got T = {T}, S = {S}")
    return xp.arange(S - T, S)[:, None] - xp.arange(S)


def padding_mask(attention_mask):
    """(B, S) of 0/1 or booleans, 1 = a real token -> (B, 1, 1, S): nobody looks at padding."""
    return (attention_mask != 0)[:, None, None, :]


def causal_mask(T: int, S: int | None = None, *, xp: Any = np):
    """(T, S): key s is not after query t.                                              Vaswani et al. 2017, sec. 3.2.3"""
    return _distance(T, S, xp) >= 0


def banded_mask(T: int, S: int | None = None, *, left: int, right: int, xp: Any = np):
    """(T, S): at most `left` keys before and `right` keys after the query.                    Beltagy et al. 2020, sec. 3.1"""
    distance = _distance(T, S, xp)
    return (distance <= left) & (distance >= -right)


def sliding_mask(T: int, S: int | None = None, *, window: int, xp: Any = np):
    """(T, S): the query itself and the window - 1 keys before it.                              Jiang et al. 2023, sec. 2"""
    if window < 1:
        raise ValueError(f"sliding_mask: expected window >= 1, got {window}")
    return banded_mask(T, S, left=window - 1, right=0, xp=xp)


def prefix_mask(lengths, T: int):
    """lengths (B,) -> (B, 1, T, T): causal, and the first lengths[b] keys are seen by all.   Raffel et al. 2020, sec. 3.2.1"""
    xp = array_module(lengths)
    return causal_mask(T, xp=xp) | (xp.arange(T) < lengths[:, None, None, None])


def packed_mask(documents):
    """documents (B, T), the number of the document at each place -> (B, 1, T, T): only within the same document."""
    return (documents[:, :, None] == documents[:, None, :])[:, None]


def combine_masks(*masks):
    """The logical and of the masks that are not None; None (everything allowed) if there is none."""
    combined = None
    for mask in masks:
        if mask is not None:
            combined = mask if combined is None else combined & mask
    return combined


def decoder_mask(T: int, S: int, attention_mask=None, *, xp: Any = np):
    """What the T last of S positions may see in a decoder: themselves and what is before them, but no padding.

    attention_mask (B, S) of 0/1, or 4-dimensional booleans, or None.  None where nothing is hidden: one query without padding.
    """
    if attention_mask is not None and attention_mask.ndim == 2:
        attention_mask = padding_mask(attention_mask)
    return combine_masks(None if T == 1 else causal_mask(T, S, xp=xp), attention_mask)
