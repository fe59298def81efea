"""The key/value cache of a decoder: with it, a new token costs one token's work.

A cache is a value over preallocated buffers.  A call consumes the cache it is given, since it
writes its keys and values after the old ones, and the caller continues with the cache it returns.
The buffers count the calls, so a cache that was consumed earlier is refused, and so is a backward
whose keys and values have been overwritten.  To go back, `cut` the last cache; to branch, `take` a
copy; to continue with other samples, as beam search does, call `reordered`.

A layer keeps k and v of one width, or whatever its attention needs of the earlier places, each
under a name and with a width of its own: latent attention keeps c and k_r (latent.py).

A layer with a window of W keys never needs more than the last W - 1 places again.  Its buffer has
a quarter more, and when it is full, those W - 1 move to its beginning (`roll`).  With `spare`, that
many places more than a continuation needs are kept, so that a cut may go back by as many.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..arguments import MOST, check_whole, is_whole, listed, wrong
from ..backend import array_module, is_host
from ..core import Array, Backward
from ..shapes import check_float_dtype, check_module, expects
from .cache_size import checked_windows, rolling_places, rolling_windows, widths_by_name


@dataclasses.dataclass
class History:
    """The history of some buffers, shared by all caches over them."""

    calls: int = 0  # that have consumed a cache
    filled: int = 0  # places
    rewinds: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    # (call, place): that call overwrote the buffers from there on


@dataclasses.dataclass(frozen=True)
class Cache:
    """layers: {"k" (B, K, C, E), "v" (B, K, C, E)} for each; `length` places were filled.

    In place of k and v, any names, each with a width of its own.
    capacity: the most places; windows: of each layer, None where its C is the capacity; wanted:
    those of the model, which roll as soon as the capacity is larger than what they need; spare:
    how many places more each of them keeps.
    dropped: {window: how many of the first places its buffers no longer have}.
    history: of these buffers; call: number of the call that returned this cache, 0 if it is new.
    origin: of the model that filled it, see Model.origin.
    """

    layers: list[dict[str, Any]]
    capacity: int
    windows: tuple[int | None, ...]
    wanted: tuple[int | None, ...]
    length: int = 0
    dropped: dict[int, int] = dataclasses.field(default_factory=dict)
    history: History = dataclasses.field(default_factory=History, compare=False, repr=False)
    call: int = dataclasses.field(default=0, compare=False)
    origin: str | None = dataclasses.field(default=None, compare=False, repr=False)
    spare: int = 0

    @classmethod
    def empty(
        cls,
        *,
        layers: int,
        batch: int,
        kv_heads: int,
        capacity: int,
        width: int | Mapping[str, int],
        dtype: Any,
        windows: tuple[int | None, ...] | None = None,
        spare: int = 0,
        xp: Any = np,
    ) -> Cache:
        """Empty buffers with room for `capacity` places; windows: one for each layer, or none.

        width: of k and v, or {name: width}; spare: places more that windows keep, for cuts.
        """
        for name, size in {"batch": batch, "kv_heads": kv_heads, "capacity": capacity}.items():
            check_whole(f"cache: {name}", size, 1, MOST)
        widths = widths_by_name(width)
        check_float_dtype("cache: dtype", dtype)
        check_module("cache: xp", xp)
        check_whole("cache: spare", spare, 0, MOST)
        windows = checked_windows(windows, layers)
        rolling, buffers = rolling_windows(windows, capacity, spare), []
        for window in rolling:
            places = capacity if window is None else rolling_places(window) + spare
            shape = (batch, kv_heads, places)
            buffers.append({n: xp.zeros((*shape, w), dtype=dtype) for n, w in widths.items()})
        return cls(buffers, capacity, rolling, windows, spare=spare)

    @property
    def _first(self) -> Any:
        """One of its buffers: all have the same samples, heads and dtype."""
        return next(iter(self.layers[0].values()))

    @property
    def batch(self) -> int:
        return self._first.shape[0]

    @property
    def nbytes(self) -> int:
        """2 B K C E times the bytes of one number, summed over the layers.

        In place of 2 E, the sum of the widths where they have other names.
        """
        return sum(a.nbytes for layer in self.layers for a in layer.values())

    @property
    def dtype(self) -> Any:
        return self._first.dtype

    @property
    def sizes(self) -> dict[str, Any]:
        """What must fit the model, as in a config's cache_sizes."""
        widths: Any = {name: a.shape[3] for name, a in self.layers[0].items()}
        if widths.keys() == {"k", "v"} and widths["k"] == widths["v"]:
            widths = widths["k"]
        return {"layers": len(self.layers), "kv_heads": self._first.shape[1], "width": widths}

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
                "call (call backward first, or continue from a copy, take(rows))"
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
        dropped = {
            w: dropped_after(w, self.length, self.dropped.get(w, 0), T, self.spare)
            for w in self.windows
            if w is not None
        }
        if any(n != self.dropped.get(w, 0) for w, n in dropped.items()):
            self.history.rewinds.append((self.history.calls, 0))  # places have moved
        length, call = self.length + T, self.history.calls
        return dataclasses.replace(self, length=length, dropped=dropped, call=call)

    def can_cut(self, length: int) -> bool:
        """Whether all that a continuation of the first `length` places needs is still there."""
        return all(n <= max(0, length - (w - 1)) for w, n in self.dropped.items())

    def cut(self, length: int) -> Cache:
        """Back to its first `length` places; the next call overwrites the others.

        ValueError where a window has already dropped what they need.
        """
        check_whole("cache: length", length, 0, self.length)
        self.check_current()
        if not self.can_cut(length):
            least = max(n + w - 1 for w, n in self.dropped.items() if n)
            raise ValueError(
                f"cache: length: expected at least {least} with a window, got {length}"
            )
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
        history = History(filled=self.length)
        return dataclasses.replace(self, layers=layers, history=history, call=0)

    def reordered(self, rows: Sequence[int], shared: Sequence[int] | None = None) -> Cache:
        """Its samples in another order, where some may repeat: sample i is that of rows[i].

        In place: this cache is consumed, and only filled places of samples with rows[i] != i are
        written, without the first shared[i], which the caller knows to be the same in both.
        Integers on the host, as many as there are samples.
        """
        rows = self._one_a_sample("rows", rows, self.batch - 1)
        shared = self._one_a_sample("shared", [0] * len(rows) if shared is None else shared)
        self.check_current()
        moves = [(i, n, start) for i, (n, start) in enumerate(zip(rows, shared)) if i != n]
        written = {i for i, _, _ in moves}
        for layer, window in zip(self.layers, self.windows):
            dropped = 0 if window is None else self.dropped.get(window, 0)
            for buffer in layer.values():
                used = buffer[:, :, : self.length - dropped]
                held = {n: used[n].copy() for _, n, _ in moves if n in written}
                for i, n, start in moves:
                    start = max(start - dropped, 0)
                    used[i, :, start:] = held.get(n, used[n])[:, start:]
        self.history.calls += 1
        self.history.rewinds.append((self.history.calls, 0))
        return dataclasses.replace(self, call=self.history.calls)

    def _one_a_sample(self, name: str, values: Any, most: int = MOST) -> list[int]:
        expected = f"{self.batch} integers from 0 to {most}"
        given = listed(f"cache: {name}", values, expected)
        if len(given) != self.batch or not all(is_whole(n) and 0 <= n <= most for n in given):
            raise wrong(f"cache: {name}", expected, values)
        return given

    def grown(self, capacity: int) -> Cache:
        """A copy with room for `capacity` places; the cache itself if it already has that room.

        Buffers that roll keep their size; others begin to where that is smaller.
        """
        check_whole("cache: capacity", capacity, 1, MOST)
        self.check_current()
        if capacity <= self.capacity:
            return self
        xp, layers = array_module(self._first), []
        windows = rolling_windows(self.wanted, capacity, self.spare)
        for old, before, window in zip(self.layers, self.windows, windows):
            if before is not None:
                layers.append({n: a.copy() for n, a in old.items()})
                continue
            places = capacity if window is None else rolling_places(window) + self.spare
            new = {}
            for name, a in old.items():
                B, K, C, E = a.shape
                new[name] = xp.zeros((B, K, places, E), dtype=self.dtype)
                new[name][:, :, :C] = a
            layers.append(new)
        history = History(calls=1, filled=self.length)
        changes: dict[str, Any] = {"layers": layers, "history": history, "call": 1}
        return dataclasses.replace(self, **changes, capacity=capacity, windows=windows)

    def seen(self, index: int) -> int:
        """How many earlier places this layer's attention gets: `length`, or those in its window."""
        window = self.windows[index]
        return self.length if window is None else min(self.length, window - 1)


def dropped_after(window: int, length: int, dropped: int, T: int, spare: int = 0) -> int:
    """How many of the first places a buffer of this window lacks after T more: see `roll`."""
    start, held, places = length - dropped, window - 1 + spare, rolling_places(window) + spare
    kept = min(start, held)
    if start + T <= places:
        return dropped
    if kept + T <= places:
        return length - kept
    return length + T - min(kept + T, held)


def layer_cache(cache: Cache | None, index: int) -> tuple[dict[str, Any], int, int | None] | None:
    """What `appended` needs for one layer: its buffers, where to write, its window."""
    if cache is None:
        return None
    window = cache.windows[index]
    dropped = 0 if window is None else cache.dropped.get(window, 0)
    return cache.layers[index], cache.length - dropped, window


def parts_of(name: str, cache: Any) -> tuple[dict[str, Any], int, int | None]:
    """What layer_cache returned; ValueError for anything else."""
    if not isinstance(cache, tuple) or len(cache) != 3:
        expected = "the buffers, the start and the window of one layer, from layer_cache"
        raise wrong(name, expected, cache)
    return cache


def appended(x: Array, *, cache: Any, name: str) -> tuple[Array, Backward]:
    """[earlier places, x] of one of a layer's buffers, into which x is written: `extend` or `roll`.

    cache: (buffers, start, window) from layer_cache; name: of the buffer.
    """
    buffers, start, window = parts_of("appended: cache", cache)
    if not isinstance(name, str) or name not in buffers:
        raise wrong("appended: name", f"one of the cache's, {', '.join(buffers)}", name)
    if window is None:
        return extend(x, buffer=buffers[name], start=start)
    return roll(x, buffer=buffers[name], start=start, window=window)


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


@expects("x (B, K, T, E), buffer (B, K, C, E); whole window >= 1", hot=True)
def roll(x: Array, *, buffer: Array, start: int, window: int) -> tuple[Array, Backward]:
    """y = the last W - 1 of the buffer's first `start` places, or all if fewer, then x; W = window.

    x (B, K, T, E), buffer (B, K, C, E) with C = rolling_places(W) + spare
    -> y (B, K, min(start, W - 1) + T, E).
    x is written after the first `start` places.  If it does not fit, the last W - 1 + spare of them
    move to the beginning first; if that is too little, only so many of the last places are stored.
    dx = dy at the last T places; no gradient flows into the earlier contents.
    """
    check_whole("roll: start", start, 0, buffer.shape[2])
    xp, T, C = array_module(x), x.shape[2], buffer.shape[2]
    if (x.shape[:2], x.shape[3]) != (buffer.shape[:2], buffer.shape[3]):
        raise ValueError(
            f"roll: x: expected {(*buffer.shape[:2], 'T', buffer.shape[3])}, got {x.shape}"
        )
    held = window - 1 + max(0, C - rolling_places(window))
    kept, seen = min(start, held), min(start, window - 1)
    if start + T <= C:
        buffer[:, :, start : start + T] = x
        y = buffer[:, :, start - seen : start + T]
    elif kept + T <= C:
        buffer[:, :, :kept] = buffer[:, :, start - kept : start].copy()
        buffer[:, :, kept : kept + T] = x
        y = buffer[:, :, kept - seen : kept + T]
    else:
        joined = xp.concatenate([buffer[:, :, start - kept : start], x], axis=2)
        last = min(kept + T, held)
        buffer[:, :, :last] = joined[:, :, kept + T - last :]
        y = joined[:, :, kept - seen :]
    return y, lambda dy: dy[:, :, seen:]
