"""Large arrays in pieces that stay in the cache."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..backend import is_host
from ..core import Array

BLOCK = 1 << 17  # numbers at a time: half a megabyte of float32; several such fit a large L2 cache


def by_blocks(f: Callable[..., None], *arrays: Array) -> None:
    """f(*arrays), on the host some rows at a time, so that what f works on stays in the cache.

    The arrays (..., n), each with its own n, share the leading axes.  f gets all of them as they
    are, or large ones in pieces (rows, n); it treats each row alone, and writes its results into
    some of them, which are contiguous.  With smaller blocks, threads would wait for the
    interpreter.
    """
    if max([a.size for a in arrays]) <= BLOCK or not is_host(arrays[0]):
        f(*arrays)
        return
    count = math.prod(arrays[0].shape[:-1])
    rows = [a.reshape(count, a.shape[-1]) for a in arrays]
    step = max(1, BLOCK // max(a.shape[1] for a in rows))
    for start in range(0, count, step):
        f(*(a[start : start + step] for a in rows))
