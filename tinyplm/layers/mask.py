"""Attention masks: boolean arrays, True = may attend, broadcastable to (B, H, T, S).

Queries are the last T of the S positions (T = S without a cache), so query t is at position
S - T + t.  Masks have no gradient.  `combine_masks` joins them; `Visible` describes one without
writing it out.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np

from ..arguments import MOST, check_flag, check_whole, wrong
from ..backend import array_module, is_host
from ..core import Array
from ..shapes import check_array, check_module


def _distance(T: int, S: int | None, xp: Any) -> Array:
    """(T, S): how far key s is behind query t; negative for keys in the future."""
    S = T if S is None else S
    check_whole("mask: T", T, most=MOST)
    check_whole("mask: S", S, most=MOST)
    check_module("mask: xp", xp)
    if not 0 < T <= S:
        raise ValueError(f"mask: expected 1 <= T <= S, got T = {T}, S = {S}")
    return xp.arange(S - T, S)[:, None] - xp.arange(S)


def padding_mask(attention_mask: Array) -> Array:
    """(B, S) of 0/1 or booleans, 1 = a token -> (B, 1, 1, S): padding is hidden from all queries.

    ValueError for other values.
    """
    check_array("attention_mask", attention_mask, "(B, S) numbers")
    if attention_mask.dtype.kind != "b" and is_host(attention_mask):
        if ((attention_mask != 0) & (attention_mask != 1)).any():
            raise wrong("attention_mask", "0 or 1 everywhere", attention_mask)
    return (attention_mask != 0)[:, None, None, :]


def causal_mask(T: int, S: int | None = None, *, xp: Any = np) -> Array:
    """(T, S): key s is not after query t.                        Vaswani et al. 2017, sec. 3.2.3"""
    return _distance(T, S, xp) >= 0


def banded_mask(T: int, S: int | None = None, *, left: int, right: int, xp: Any = np) -> Array:
    """(T, S): at most `left` keys before and `right` keys after the query.

    Beltagy et al. 2020, sec. 3.1.
    """
    check_whole("banded_mask: left", left, most=MOST)
    check_whole("banded_mask: right", right, most=MOST)
    distance = _distance(T, S, xp)
    return (distance <= left) & (distance >= -right)


def sliding_mask(T: int, S: int | None = None, *, window: int, xp: Any = np) -> Array:
    """(T, S): the query itself and the window - 1 keys before it.     Jiang et al. 2023, sec. 2"""
    check_whole("sliding_mask: window", window, 1, MOST)
    return banded_mask(T, S, left=window - 1, right=0, xp=xp)


def prefix_mask(lengths: Array, T: int) -> Array:
    """lengths (B,) -> (B, 1, T, T): causal, but all queries see the first lengths[b] keys.

    Raffel et al. 2020, sec. 3.2.1.
    """
    check_array("prefix_mask: lengths", lengths, "(B,) integers")
    xp = array_module(lengths)
    causal = causal_mask(T, xp=xp)
    if is_host(lengths) and ((lengths < 0) | (lengths > T)).any():
        raise wrong("prefix_mask: lengths", f"integers from 0 to {T}", lengths.tolist())
    return causal | _in_prefix(lengths, T, xp)


def _in_prefix(lengths: Array, S: int, xp: Any) -> Array:
    """(B, 1, 1, S): the first lengths[b] keys."""
    return xp.arange(S) < lengths[:, None, None, None]


def packed_mask(documents: Array) -> Array:
    """documents (B, T), the document of each place -> (B, 1, T, T): within a document only."""
    check_array("packed_mask: documents", documents, "(B, T) integers")
    return (documents[:, :, None] == documents[:, None, :])[:, None]


def combine_masks(*masks: Array | None) -> Array | None:
    """The logical AND of the masks that are not None; None (all allowed) if all are None."""
    combined = None
    for mask in masks:
        if mask is not None:
            check_boolean(mask)
            combined = mask if combined is None else combined & mask
    return combined


def check_boolean(mask: Any, name: str = "mask") -> None:
    """TypeError unless the mask is a boolean array."""
    if getattr(mask, "dtype", None) != "bool":
        given = f"dtype {mask.dtype}" if hasattr(mask, "dtype") else type(mask).__name__
        raise TypeError(f"{name}: expected a boolean array where True = may attend, got {given}")


@dataclasses.dataclass(frozen=True)
class Visible:
    """Which of S keys each of the T queries may attend to: those that satisfy all conditions.

    causal   key s is not after query t, which is at position S - T + t
    window   with causal: the query itself and the window - 1 keys before it
    prefix   with causal and without window: (B,) integers from 0 to S; all queries also see the
             first prefix[b] keys (prefix_mask)
    padding  (B, S) booleans, True = a token
    allowed  booleans broadcastable to (B, H, T, S), for any other rule
    xp       the array module of the masks
    """

    T: int
    S: int
    causal: bool = False
    window: int | None = None
    padding: Any = None
    allowed: Any = None
    prefix: Any = None
    xp: Any = np

    def __post_init__(self) -> None:
        check_whole("Visible: T", self.T, most=MOST)
        check_whole("Visible: S", self.S, most=MOST)
        check_flag("Visible: causal", self.causal)
        check_whole("Visible: window", self.window, 1, or_none=True)
        check_module("Visible: xp", self.xp)
        if self.window is not None and not self.causal:
            raise ValueError(
                f"Visible: expected causal with window, got window = {self.window} "
                f"and causal = {self.causal}"
            )
        if self.causal and not 0 < self.T <= self.S:
            raise ValueError(f"Visible: expected 1 <= T <= S, got T = {self.T}, S = {self.S}")
        if self.prefix is not None:
            self._check_prefix()
        for name, mask in (("padding", self.padding), ("allowed", self.allowed)):
            if mask is not None:
                check_boolean(mask, name)
        if self.padding is not None and (self.padding.ndim != 2 or self.padding.shape[1] != self.S):
            raise ValueError(f"Visible: expected padding (B, {self.S}), got {self.padding.shape}")
        shape = () if self.allowed is None else self.allowed.shape[::-1]
        if any(n not in (1, m) for n, m in zip(shape, (self.S, self.T))):
            expected = f"booleans that broadcast to (B, H, {self.T}, {self.S})"
            raise wrong("Visible: allowed", expected, self.allowed)

    def _check_prefix(self) -> None:
        check_array("Visible: prefix", self.prefix, "(B,) integers")
        if not self.causal or self.window is not None:
            expected = "causal without window, for a prefix"
            given = f"window = {self.window} and causal = {self.causal}"
            raise ValueError(f"Visible: expected {expected}, got {given}")
        if is_host(self.prefix) and ((self.prefix < 0) | (self.prefix > self.S)).any():
            raise wrong("Visible: prefix", f"integers from 0 to {self.S}", self.prefix.tolist())

    @cached_property
    def _prefixed(self) -> Any:
        """(B, 1, 1, S): the keys of the prefix."""
        return _in_prefix(self.prefix, self.S, self.xp)

    def _prefixes(self, sample: int | None) -> tuple[int, int]:
        """(shortest, longest) of this sample, or of all; 0 and S on a device, where they would have
        to be read."""
        if self.prefix is None:
            return 0, 0
        if not is_host(self.prefix):
            return 0, self.S
        lengths = self.prefix.tolist() if sample is None else [int(self.prefix[sample])]
        return min(lengths), max(lengths)

    @cached_property
    def array(self) -> Any:
        """The mask written out, broadcastable to (B, H, T, S); None if nothing is hidden."""
        band = None
        if self.window is not None and self.window < self.S:
            band = sliding_mask(self.T, self.S, window=self.window, xp=self.xp)
        elif self.causal and self.T > 1:
            band = causal_mask(self.T, self.S, xp=self.xp)
            band = band if self.prefix is None else band | self._prefixed
        padding = None if self.padding is None else padding_mask(self.padding)
        return combine_masks(band, padding, self.allowed)

    def block(
        self, lo: int, hi: int, sample: int | None = None
    ) -> tuple[slice, list[tuple[slice, Any]]]:
        """(keys, partly) for the queries lo .. hi - 1: for attention that works block by block.

        keys: those that `causal`, `window` and `prefix` show to some of these queries (on a device
        all of them with a prefix).   partly: pairs of places among these keys and booleans
        broadcastable to (B, H, hi - lo, places), all of which must be True.
        sample: the only one that matters; None for all.
        """
        first, last = lo + self.S - self.T, hi - 1 + self.S - self.T  # the queries' positions
        shortest, longest = self._prefixes(sample)
        begin = 0 if self.window is None else max(0, first - self.window + 1)
        end = max(last + 1, longest) if self.causal else self.S
        partly = []
        start = max(first + 1, shortest)  # the keys before it are visible to all
        if self.causal and start <= last:
            keys, queries = (self.xp.arange(n, last + 1) for n in (start, first))
            seen = (keys[:, None] <= queries).T
            seen = seen | self._prefixed[..., start : last + 1] if longest > start else seen
            partly.append((slice(start - begin, last + 1 - begin), seen))
        beyond = max(last + 1, shortest)
        if self.causal and beyond < end:
            partly.append((slice(beyond - begin, end - begin), self._prefixed[..., beyond:end]))
        if self.window is not None and begin <= last - self.window:
            # the keys before the last query's window
            keys = self.xp.arange(begin, last - self.window + 1)[:, None]
            queries = self.xp.arange(first, last + 1)
            partly.append((slice(0, len(keys)), (keys > queries - self.window).T))
        whole = slice(0, end - begin)
        if self.padding is not None:
            partly.append((whole, padding_mask(self.padding)[..., begin:end]))
        if self.allowed is not None:
            allowed = self.allowed.reshape((1,) * (4 - self.allowed.ndim) + self.allowed.shape)
            rows = allowed if allowed.shape[2] == 1 else allowed[:, :, lo:hi]
            partly.append((whole, rows if allowed.shape[3] == 1 else rows[..., begin:end]))
        return slice(begin, end), partly


def decoder_mask(
    T: int,
    S: int,
    attention_mask: Array | None = None,
    *,
    window: int | None = None,
    prefix: Array | None = None,
    xp: Any = np,
) -> Visible:
    """What the last T of S positions may attend to in a decoder: themselves and earlier tokens.

    attention_mask (B, S) of 0/1, 0 = padding, or 4-dimensional booleans, or None.
    window, prefix: see Visible.
    """
    check_array("attention_mask", attention_mask, "(B, S) or (B, H, T, S) numbers or None")
    padding, allowed = attention_mask, None
    if attention_mask is not None and attention_mask.ndim == 4:
        padding, allowed = None, attention_mask
    padding = None if padding is None else padding != 0
    shown: dict[str, Any] = {"window": window, "prefix": prefix}
    return Visible(T, S, causal=True, padding=padding, allowed=allowed, **shown, xp=xp)


def encoder_mask(T: int, attention_mask: Array | None = None, *, xp: Any = np) -> Visible:
    """What the T positions may attend to in an encoder: all tokens.

    attention_mask (B, T) of 0/1, 0 = padding, or None.
    """
    check_array("attention_mask", attention_mask, "(B, T) numbers or None")
    padding = None if attention_mask is None else attention_mask != 0
    return Visible(T, T, padding=padding, xp=xp)
