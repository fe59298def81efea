"""The key/value cache of a decoder: with it, a new token costs one token's work.

A cache is a value over preallocated buffers.  A call consumes the cache it is given, since it
writes its keys and values after the old ones, and the caller continues with the cache it returns.
The buffers count the calls, so a cache that was consumed earlier is refused, and so is a backward
whose keys and values have been overwritten.  To go back, `cut` the last cache; to branch, `take` a
copy.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..arguments import MOST, check_whole, wrong
from ..backend import array_module, is_host
from ..core import Array, Backward
from ..shapes import check_float_dtype, check_module, expects


@dataclasses.dataclass
class History:
    """The history of some buffers, shared by all caches over them."""

    calls: int = 0  # that have consumed a cache
    filled: int = 0  # places
    rewinds: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    # (call, place): that call overwrote the buffers from there on


@dataclasses.dataclass(frozen=True)
class Cache:
    """layers: {"k" (B, K, C, E), "v" (B, K, C, E)} for each; `length` places of C are filled.

    history: of these buffers; call: number of the call that returned this cache, 0 if it is new.
    origin: of the model that filled it, see Model.origin.
    """

    layers: list[dict[str, Any]]
    length: int = 0
    history: History = dataclasses.field(default_factory=History, compare=False, repr=False)
    call: int = dataclasses.field(default=0, compare=False)
    origin: str | None = dataclasses.field(default=None, compare=False, repr=False)

    @classmethod
    def empty(
        cls,
        *,
        layers: int,
        batch: int,
        kv_heads: int,
        capacity: int,
        width: int,
        dtype: Any,
        xp: Any = np,
    ) -> Cache:
        """Empty buffers with room for `capacity` places."""
        sizes = {"layers": layers, "batch": batch, "kv_heads": kv_heads, "capacity": capacity}
        sizes["width"] = width
        for name, size in sizes.items():
            check_whole(f"cache: {name}", size, 1, MOST)
        check_float_dtype("cache: dtype", dtype)
        check_module("cache: xp", xp)
        shape = (batch, kv_heads, capacity, width)
        buffers = [{name: xp.zeros(shape, dtype=dtype) for name in "kv"} for _ in range(layers)]
        return cls(buffers)

    @property
    def batch(self) -> int:
        return self.layers[0]["k"].shape[0]

    @property
    def capacity(self) -> int:
        return self.layers[0]["k"].shape[2]

    @property
    def nbytes(self) -> int:
        """2 B L K C E times the bytes of one number."""
        return sum(a.nbytes for layer in self.layers for a in layer.values())

    @property
    def dtype(self) -> Any:
        return self.layers[0]["k"].dtype

    @property
    def sizes(self) -> dict[str, int]:
        """What must fit the model, as in a config's cache_sizes."""
        _, K, _, E = self.layers[0]["k"].shape
        return {"layers": len(self.layers), "kv_heads": K, "width": E}

    @property
    def current(self) -> bool:
        """Whether no call has consumed it yet."""
        return self.call == self.history.calls

    def check_current(self) -> None:
        """ValueError if a call has consumed it: the buffers then belong to a later cache."""
        if not self.current:
            raise ValueError(
                "cache: expected the one that the last call returned, got one that an earlier call "
                "consumed (its cut(length) goes back; to branch, copy a cache with take(rows))"
            )

    def check_kept(self) -> None:
        """ValueError if a later call has overwritten some of its places."""
        if any(call > self.call and place < self.length for call, place in self.history.rewinds):
            raise ValueError(
                "backward: expected this call's keys and values in the cache, got those of a later "
                "call after cut(length) (call backward first, or continue from a copy, take(rows))"
            )

    def begin(self) -> None:
        """Record that a call is about to write into the buffers."""
        self.check_current()
        if self.length < self.history.filled:
            self.history.rewinds.append((self.call + 1, self.length))
            self.history.filled = self.length

    def advanced(self, T: int) -> Cache:
        """The cache after a call with T tokens, over the same buffers; this one is consumed."""
        self.check_current()
        self.history.calls += 1
        self.history.filled = max(self.history.filled, self.length + T)
        length = self.length + T
        return Cache(self.layers, length, self.history, self.history.calls, self.origin)

    def cut(self, length: int) -> Cache:
        """Back to its first `length` places; the next call overwrites the others."""
        check_whole("cache: length", length, 0, self.length)
        self.check_current()
        return dataclasses.replace(self, length=length)

    def take(self, rows: Any) -> Cache:
        """A copy of these samples (integers, on the buffers' device), any number in any order."""
        self.check_current()
        right = getattr(rows, "ndim", None) == 1 and rows.dtype.kind in "iu"
        if right and is_host(rows) and rows.size:
            right = 0 <= rows.min() and rows.max() < self.batch
        if not right:
            raise wrong(
                "cache: rows", f"an array (N,) of integers from 0 to {self.batch - 1}", rows
            )
        layers = [{n: a[rows] for n, a in layer.items()} for layer in self.layers]
        return Cache(layers, self.length, History(filled=self.length), origin=self.origin)

    def grown(self, capacity: int) -> Cache:
        """A copy with room for `capacity` places; the cache itself if it already has that room."""
        check_whole("cache: capacity", capacity, 1, MOST)
        self.check_current()
        if capacity <= self.capacity:
            return self
        xp = array_module(self.layers[0]["k"])
        sizes = {**self.sizes, "batch": self.batch, "capacity": capacity}
        new = Cache.empty(**sizes, dtype=self.dtype, xp=xp)
        for old, buffers in zip(self.layers, new.layers):
            for name in "kv":
                buffers[name][:, :, : self.length] = old[name][:, :, : self.length]
        return dataclasses.replace(new.advanced(self.length), origin=self.origin)


def layer_cache(cache: Cache | None, index: int) -> tuple[dict[str, Any], int] | None:
    """What attention_parts.cached needs for one layer: its buffers and where to write."""
    return None if cache is None else (cache.layers[index], cache.length)


@expects("x (B, K, T, E), buffer (B, K, C, E)", hot=True)
def extend(x: Array, *, buffer: Array, start: int) -> tuple[Array, Backward]:
    """y = the first `start` places of the buffer, then x, which is written after them.

    x (B, K, T, E), buffer (B, K, C, E) with start + T <= C -> y (B, K, start + T, E), a view of the
    buffer.   dx = dy at the last T places; no gradient flows into the earlier contents.
    """
    # not by @expects, which would remember each start, and every token has its own
    check_whole("extend: start", start, 0, MOST)
    end = start + x.shape[2]
    if (x.shape[:2], x.shape[3]) != (buffer.shape[:2], buffer.shape[3]):
        raise ValueError(
            f"extend: x: expected {(*buffer.shape[:2], 'T', buffer.shape[3])}, got {x.shape}"
        )
    if end > buffer.shape[2]:
        expected, more = f"at most {buffer.shape[2]} places", x.shape[2]
        raise ValueError(f"cache: expected {expected}, got {start} filled ones and {more} more")
    buffer[:, :, start:end] = x
    return buffer[:, :, :end], lambda dy: dy[:, :, start:]
