"""Large arrays in pieces that stay in the cache."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..backend import is_host
from ..core import Array

BLOCK = 1 << 17  # numbers at a time: half a megabyte of float32; several such fit a large L2 cache


def by_blocks(f: Callable[..., None], *arrays: Array) -> None:
    """f(*arrays), on the host some rows at a time, so that what f works on stays in the cache.

    The arrays (..., n), each with its own n, share the leading axes.  f gets them as matrices
    (rows, n), treats each row alone, and writes its results into some of them, which are
    contiguous.  With smaller blocks, threads would wait for the interpreter.
    """
    rows = [a.reshape(math.prod(a.shape[:-1]), a.shape[-1]) for a in arrays]  # -1 fails if n is 0
    count, width = rows[0].shape[0], max(a.shape[1] for a in rows)
    step = max(1, BLOCK // max(width, 1)) if is_host(arrays[0]) else max(count, 1)
    if 0 < count <= step:
        f(*rows)
        return
    for start in range(0, count, step):
        f(*(a[start : start + step] for a in rows))
