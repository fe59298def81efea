"""The key/value cache of a decoder: what earlier calls computed, so that a new token costs one token's work.

A cache is a value over preallocated buffers.  A call consumes the one it is given (it writes its keys and values behind the old
ones) and the caller goes on with the returned one.  Whoever uses the old one again overwrites what came after it, and with it
what the backward of that call would need.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..backend import array_module


@dataclasses.dataclass(frozen=True)
class Cache:
    """layers: for each layer {"k" (B, K, C, E), "v" (B, K, C, E)}, of which the first `length` places are filled."""

    layers: list[dict[str, Any]]
    length: int = 0

    @classmethod
    def empty(cls, *, layers: int, batch: int, kv_heads: int, capacity: int, width: int, dtype: Any, xp: Any = np) -> Cache:
        """Buffers for `capacity` places, with nothing in them."""
        if min(layers, batch, kv_heads, capacity, width) < 1:
            raise ValueError(f"cache: expected positive sizes, got {layers} layers, {batch} samples, {kv_heads} key/value heads, "
                             f"{capacity} places, width {width}")  # fmt: skip
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
        """2 B L K C E times the bytes of a number."""
        return sum(a.nbytes for layer in self.layers for a in layer.values())

    @property
    def dtype(self) -> Any:
        return self.layers[0]["k"].dtype

    @property
    def sizes(self) -> dict[str, int]:
        """What has to fit the model, as in a config's cache_sizes."""
        _, K, _, E = self.layers[0]["k"].shape
        return {"layers": len(self.layers), "kv_heads": K, "width": E}

    def advanced(self, T: int) -> Cache:
        """The cache after a call with T tokens, over the same buffers."""
        return dataclasses.replace(self, length=self.length + T)

    def cut(self, length: int) -> Cache:
        """Back to its first `length` places: what comes next is written over the others."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cache: expected 0 <= length <= {self.length}, got {length}")
        return dataclasses.replace(self, length=length)

    def take(self, rows: Any) -> Cache:
        """A copy with the given samples (integers, on the buffers' device): one of them several times, or fewer of them."""
        return dataclasses.replace(self, layers=[{n: a[rows] for n, a in layer.items()} for layer in self.layers])

    def grown(self, capacity: int) -> Cache:
        """A copy with room for `capacity` places (itself where it has that many)."""
        if capacity <= self.capacity:
            return self
        xp = array_module(self.layers[0]["k"])
        new = Cache.empty(**self.sizes, batch=self.batch, capacity=capacity, dtype=self.dtype, xp=xp)
        for old, buffers in zip(self.layers, new.layers):
            for name in "kv":
                buffers[name][:, :, : self.length] = old[name][:, :, : self.length]
        return new.advanced(self.length)


def layer_cache(cache: Cache | None, index: int) -> tuple[dict[str, Any], int] | None:
    """What multi_head_attention needs for one layer: its buffers and where to write; None without a cache."""
    return None if cache is None else (cache.layers[index], cache.length)


def extend(x, *, buffer, start):
    """y = the first `start` places of the buffer, then x, which is written behind them.

    x (B, K, T, E), buffer (B, K, C, E) with start + T <= C -> (B, K, start + T, E), a view of the buffer.
    dx = dy at the last T places; no gradient flows into what was in the buffer before.
    """
    end = start + x.shape[2]
    if (x.shape[:2], x.shape[3]) != (buffer.shape[:2], buffer.shape[3]):
        raise ValueError(f"extend: x {x.shape} does not fit the buffer {buffer.shape}")
    if end > buffer.shape[2]:
        raise ValueError(f"the cache has room for {buffer.shape[2]} places; {start} are filled, and {x.shape[2]} more do not fit")
    buffer[:, :, start:end] = x
    return buffer[:, :, :end], lambda dy: dy[:, :, start:]
