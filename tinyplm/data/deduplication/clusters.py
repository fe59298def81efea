"""Clusters from pairs: a disjoint-set forest (Galler & Fisher 1964), many pairs at a time.

`parent` (n,) holds for each element a smaller or equal one of its cluster; between calls, the
smallest.  To join pairs, the larger of two roots is hung under the smaller, for all pairs at once,
then every path is halved until it has length one (pointer jumping: Shiloach & Vishkin 1982).
Pairs whose roots still differ go another round.
"""

from __future__ import annotations

import numpy as np


def singletons(count: int) -> np.ndarray:
    """Each element its own cluster: (count,) int64."""
    return np.arange(count)


def join(parent: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """Join the clusters of left[i] and right[i] for all i, in place."""
    while True:
        a, b = parent[left], parent[right]
        differ = a != b
        if not differ.any():
            return
        left, right, a, b = left[differ], right[differ], a[differ], b[differ]
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
        while True:
            above = parent[parent]
            if np.array_equal(above, parent):
                break
            parent[:] = above
