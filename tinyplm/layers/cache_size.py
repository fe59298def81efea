"""How much a key/value cache holds, from its sizes alone.

    bytes = B K (sum of the widths) (sum over the layers of their places) (bytes of a number)

With keys and values of one width E, and all C places in each of L layers, that is 2 B L C K E times
the bytes of a number: 1 GiB for LLaMA-7B with 2,048 tokens in float16.  A layer with a window keeps
fewer places (`rolling_places`), however long the text is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..arguments import MOST, check_whole, wrong
from ..shapes import check_float_dtype


def cache_bytes(
    *,
    layers: int,
    batch: int,
    kv_heads: int,
    capacity: int,
    width: int | Mapping[str, int],
    dtype: Any,
    windows: Sequence[int | None] | None = None,
    spare: int = 0,
) -> int:
    """The `nbytes` of Cache.empty with the same arguments; nothing is allocated."""
    for name, size in {"batch": batch, "kv_heads": kv_heads, "capacity": capacity}.items():
        check_whole(f"cache: {name}", size, 1, MOST)
    check_float_dtype("cache: dtype", dtype)
    check_whole("cache: spare", spare, 0, MOST)
    rolling = rolling_windows(checked_windows(windows, layers), capacity, spare)
    places = sum(capacity if w is None else rolling_places(w) + spare for w in rolling)
    numbers = numbers_per_token(layers=1, kv_heads=kv_heads, width=width)  # of one layer
    return batch * numbers * places * np.dtype(dtype).itemsize


def numbers_per_token(*, layers: int, kv_heads: int, width: int | Mapping[str, int]) -> int:
    """How many numbers a cache of these sizes, a config's cache_sizes, keeps of each token."""
    check_whole("cache: layers", layers, 1, MOST)
    check_whole("cache: kv_heads", kv_heads, 1, MOST)
    return layers * kv_heads * sum(widths_by_name(width).values())


def widths_by_name(width: int | Mapping[str, int]) -> dict[str, int]:
    """{"k": E, "v": E} for width = E; a dict {name: width} as it is.   ValueError for others."""
    if not isinstance(width, Mapping):
        check_whole("cache: width", width, 1, MOST)
        return {"k": width, "v": width}
    if not width or not all(isinstance(name, str) for name in width):
        raise wrong("cache: width", "an integer, or a dict {name: width}", width)
    for n in width.values():
        check_whole("cache: width", n, 1, MOST)
    return dict(width)


def checked_windows(windows: Any, layers: int) -> tuple[int | None, ...]:
    """One window for each layer, by default none."""
    check_whole("cache: layers", layers, 1, MOST)
    if windows is None:
        return (None,) * layers
    if not isinstance(windows, (tuple, list)) or len(windows) != layers:
        raise wrong("cache: windows", f"one for each of {layers} layers", windows)
    for window in windows:
        check_whole("cache: windows", window, 1, MOST, or_none=True)
    return tuple(windows)


def rolling_places(window: int) -> int:
    """The places of a rolling buffer: a quarter more than it needs, so that moving is rare."""
    return window - 1 + max(16, window // 4)


def rolling_windows(
    windows: tuple[int | None, ...], capacity: int, spare: int = 0
) -> tuple[int | None, ...]:
    """The windows whose buffers are smaller than one with all places, None for the others."""
    rolls = [w is not None and rolling_places(w) + spare < capacity for w in windows]
    return tuple(w if roll else None for w, roll in zip(windows, rolls))
