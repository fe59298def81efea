"""Attention masks: boolean arrays, True = may attend, broadcastable to (B, H, T, S).

Queries are the last T of the S positions, so query t stands at position S - T + t (T = S without a cache).
Masks are combined by `combine_masks`; they have no gradient.  `Visible` describes a mask of (T, S) without writing it out.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np

from ..arguments import MOST, check_flag, check_whole, wrong
from ..backend import array_module, is_host
from ..shapes import check_array, check_module


def _distance(T: int, S: int | None, xp: Any):
    """(T, S): how far key s lies behind query t; negative for keys in the future."""
    S = T if S is None else S
    check_whole("mask: T", T, most=MOST)
    check_whole("mask: S", S, most=MOST)
    check_module("mask: xp", xp)
    if not 0 < T <= S:
        raise ValueError(f"mask: expected 1 <= T <= S, got T = {T}, S = {S}")
    return xp.arange(S - T, S)[:, None] - xp.arange(S)


def padding_mask(attention_mask):
    """(B, S) of 0/1 or booleans, 1 = a real token -> (B, 1, 1, S): nobody looks at padding.   ValueError for other values."""
    check_array("attention_mask", attention_mask, "(B, S) numbers")
    if attention_mask.dtype.kind != "b" and is_host(attention_mask) and ((attention_mask != 0) & (attention_mask != 1)).any():
        raise wrong("attention_mask", "0 or 1 everywhere", attention_mask)
    return (attention_mask != 0)[:, None, None, :]


def causal_mask(T: int, S: int | None = None, *, xp: Any = np):
    """(T, S): key s is not after query t.                                              Vaswani et al. 2017, sec. 3.2.3"""
    return _distance(T, S, xp) >= 0


def banded_mask(T: int, S: int | None = None, *, left: int, right: int, xp: Any = np):
    """(T, S): at most `left` keys before and `right` keys after the query.                    Beltagy et al. 2020, sec. 3.1"""
    check_whole("banded_mask: left", left, most=MOST)
    check_whole("banded_mask: right", right, most=MOST)
    distance = _distance(T, S, xp)
    return (distance <= left) & (distance >= -right)


def sliding_mask(T: int, S: int | None = None, *, window: int, xp: Any = np):
    """(T, S): the query itself and the window - 1 keys before it.                              Jiang et al. 2023, sec. 2"""
    check_whole("sliding_mask: window", window, 1, MOST)
    return banded_mask(T, S, left=window - 1, right=0, xp=xp)


def prefix_mask(lengths, T: int):
    """lengths (B,) -> (B, 1, T, T): causal, and the first lengths[b] keys are seen by all.   Raffel et al. 2020, sec. 3.2.1"""
    check_array("prefix_mask: lengths", lengths, "(B,) integers")
    xp = array_module(lengths)
    causal = causal_mask(T, xp=xp)
    if is_host(lengths) and ((lengths < 0) | (lengths > T)).any():
        raise wrong("prefix_mask: lengths", f"integers from 0 to {T}", lengths.tolist())
    return causal | (xp.arange(T) < lengths[:, None, None, None])


def packed_mask(documents):
    """documents (B, T), the number of the document at each place -> (B, 1, T, T): only within the same document."""
    check_array("packed_mask: documents", documents, "(B, T) integers")
    return (documents[:, :, None] == documents[:, None, :])[:, None]


def combine_masks(*masks):
    """The logical and of the masks that are not None; None (everything allowed) if there is none."""
    combined = None
    for mask in masks:
        if mask is not None:
            check_boolean(mask)
            combined = mask if combined is None else combined & mask
    return combined


def check_boolean(mask: Any, name: str = "mask") -> None:
    """TypeError, naming what was given, unless the mask is a boolean array."""
    if getattr(mask, "dtype", None) != "bool":
        given = f"dtype {mask.dtype}" if hasattr(mask, "dtype") else type(mask).__name__
        raise TypeError(f"{name}: got {given}, expected a boolean array where True = may attend")


@dataclasses.dataclass(frozen=True)
class Visible:
    """Which of S keys each of the T queries may attend to: all that none of these conditions hides.

    causal   key s is not after query t, which stands at S - T + t
    window   with causal: the query itself and the window - 1 keys before it
    padding  (B, S) booleans, True = a real token
    allowed  booleans broadcastable to (B, H, T, S), for any other rule
    xp       the array module of the masks
    """

    T: int
    S: int
    causal: bool = False
    window: int | None = None
    padding: Any = None
    allowed: Any = None
    xp: Any = np

    def __post_init__(self) -> None:
        check_whole("Visible: T", self.T, most=MOST)
        check_whole("Visible: S", self.S, most=MOST)
        check_flag("Visible: causal", self.causal)
        check_whole("Visible: window", self.window, 1, or_none=True)
        check_module("Visible: xp", self.xp)
        if self.window is not None and not self.causal:
            raise ValueError(f"Visible: expected causal with window, got window = {self.window} and causal = {self.causal}")
        if self.causal and not 0 < self.T <= self.S:
            raise ValueError(f"Visible: expected 1 <= T <= S, got T = {self.T}, S = {self.S}")
        for name, mask in (("padding", self.padding), ("allowed", self.allowed)):
            if mask is not None:
                check_boolean(mask, name)
        if self.padding is not None and (self.padding.ndim != 2 or self.padding.shape[1] != self.S):
            raise ValueError(f"Visible: expected padding (B, {self.S}), got {self.padding.shape}")
        if self.allowed is not None and any(n not in (1, m) for n, m in zip(self.allowed.shape[::-1], (self.S, self.T))):
            raise ValueError(f"Visible: allowed {self.allowed.shape} does not fit T = {self.T}, S = {self.S}")

    @cached_property
    def array(self) -> Any:
        """The mask written out: booleans broadcastable to (B, H, T, S), or None where nothing is hidden."""
        band = None
        if self.window is not None and self.window < self.S:
            band = sliding_mask(self.T, self.S, window=self.window, xp=self.xp)
        elif self.causal and self.T > 1:
            band = causal_mask(self.T, self.S, xp=self.xp)
        return combine_masks(band, None if self.padding is None else padding_mask(self.padding), self.allowed)

    def block(self, lo: int, hi: int) -> tuple[slice, list[tuple[slice, Any]]]:
        """(keys, partly): the keys that some of the queries lo .. hi - 1 may see by their place, and what of them is hidden.

        partly has pairs (places among these keys, booleans broadcastable to (B, H, hi - lo, places)); all must be True.
        """
        first, last = lo + self.S - self.T, hi - 1 + self.S - self.T  # where the queries stand
        begin = 0 if self.window is None else max(0, first - self.window + 1)
        end = last + 1 if self.causal else self.S
        partly = []
        if self.causal and first < last:  # the keys up to the first query are seen by all
            keys, queries = self.xp.arange(first + 1, end)[:, None], self.xp.arange(first, end)
            partly.append((slice(first + 1 - begin, end - begin), (keys <= queries).T))
        if self.window is not None and begin <= last - self.window:  # what the last query does not see any more
            keys, queries = self.xp.arange(begin, last - self.window + 1)[:, None], self.xp.arange(first, last + 1)
            partly.append((slice(0, len(keys)), (keys > queries - self.window).T))
        whole = slice(0, end - begin)
        if self.padding is not None:
            partly.append((whole, padding_mask(self.padding)[..., begin:end]))
        if self.allowed is not None:
            allowed = self.allowed.reshape((1,) * (4 - self.allowed.ndim) + self.allowed.shape)
            rows = allowed if allowed.shape[2] == 1 else allowed[:, :, lo:hi]
            partly.append((whole, rows if allowed.shape[3] == 1 else rows[..., begin:end]))
        return slice(begin, end), partly


def decoder_mask(T: int, S: int, attention_mask=None, *, window: int | None = None, xp: Any = np) -> Visible:
    """What the T last of S positions may see in a decoder: themselves and what is before them, but no padding.

    attention_mask (B, S) of 0/1, or 4-dimensional booleans, or None; window: see Visible.
    """
    check_array("attention_mask", attention_mask, "(B, S) or (B, H, T, S) numbers or None")
    padding, allowed = attention_mask, None
    if attention_mask is not None and attention_mask.ndim == 4:
        padding, allowed = None, attention_mask
    padding = None if padding is None else padding != 0
    return Visible(T, S, causal=True, window=window, padding=padding, allowed=allowed, xp=xp)


def encoder_mask(T: int, attention_mask=None, *, xp: Any = np) -> Visible:
    """What the T positions may see in an encoder: everything but padding.  attention_mask (B, T) of 0/1, or None."""
    check_array("attention_mask", attention_mask, "(B, T) numbers or None")
    return Visible(T, T, padding=None if attention_mask is None else attention_mask != 0, xp=xp)
