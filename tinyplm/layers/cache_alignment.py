"""A cache cut back by another length in each sample, as speculative decoding needs after a pass.

All samples of a cache have the same number of places, and shorter texts begin with padding.  Where
one sample keeps more of its last places than another, they no longer end together, so the places of
some move.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ..arguments import check_whole, is_whole, listed, mismatch, wrong
from .cache import Cache


def aligned(cache: Cache, ends: Sequence[int], length: int) -> Cache:
    """The first ends[n] places of sample n, moved so that all samples end at place `length`.

    Place s of sample n becomes place s + length - ends[n]; those before 0 are lost, so they must be
    padding, and what comes into the others at the beginning has no meaning, so it must be masked.
    In place: the cache is consumed; only samples that move are written.  ValueError where a window
    has already dropped what the cut back needs.
    """
    if not isinstance(cache, Cache):
        raise wrong("cache", "a Cache", cache)
    check_whole("cache: length", length, 0, cache.length)
    ends = _checked(cache, ends)
    cache.check_current()
    if all(end == length for end in ends):
        return cache.cut(length)
    if not cache.can_cut(min(ends)):
        raise mismatch("cache: ends", "ends that its windows still allow", min(ends))
    farthest = length - min(ends)
    dropped = {w: max(0, n + farthest) if n else 0 for w, n in cache.dropped.items()}
    for layer, window in zip(cache.layers, cache.windows):
        before, after = (
            0 if window is None else lost.get(window, 0) for lost in (cache.dropped, dropped)
        )
        for buffer in layer.values():
            for n, end in enumerate(ends):
                _move(buffer[n], length - end + before - after, length - after)
    cache.history.calls += 1
    cache.history.rewinds.append((cache.history.calls, 0))
    cache.history.filled = length
    return dataclasses.replace(cache, length=length, dropped=dropped, call=cache.history.calls)


def _move(buffer: Any, by: int, places: int) -> None:
    """Place s of a buffer (K, C, E) becomes s + by, for those that reach the first `places`."""
    if 0 < by < places:
        buffer[:, by:places] = buffer[:, : places - by].copy()
    elif by < 0:
        buffer[:, :places] = buffer[:, -by : places - by].copy()


def _checked(cache: Cache, ends: Any) -> list[int]:
    expected = f"{cache.batch} integers from 0 to {cache.length}"
    given = listed("cache: ends", ends, expected)
    if len(given) != cache.batch or not all(is_whole(n) and 0 <= n <= cache.length for n in given):
        raise wrong("cache: ends", expected, ends)
    return given
