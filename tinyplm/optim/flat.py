"""A tree of arrays kept in one contiguous buffer, so that an optimiser, a norm or a sum is one operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..backend import add_rows, array_module
from ..core import Rows, Tree, flatten, unflatten


class FlatTree:
    """`buffer` (N,) owns the memory; `tree` has the structure of the given tree, its leaves are views into the buffer.

    Leaves stand in the order of `paths` (default: the tree's own order).  All leaves must have one dtype and device.
    """

    def __init__(self, like: Tree, *, dtype: Any = None, paths: Sequence[str] | None = None, copy: bool = False) -> None:
        leaves = flatten(like)
        dtypes = {str(a.dtype) for a in leaves.values()}
        if len(dtypes) != 1:
            raise ValueError(f"expected arrays of one dtype, got {sorted(dtypes) or 'none at all'}")
        self.paths = list(leaves) if paths is None else list(paths)
        first = next(iter(leaves.values()))
        xp = array_module(first)
        self.buffer = xp.zeros(sum(a.size for a in leaves.values()), dtype=dtype or first.dtype)
        views, start = {}, 0
        for path in self.paths:
            a = leaves[path]
            views[path] = self.buffer[start : start + a.size].reshape(a.shape)
            if copy:
                views[path][...] = a
            start += a.size
        self.leaves = views
        self.tree = unflatten(views, like)

    def add(self, tree: Tree, path: str = "") -> None:
        """Add a tree of the same structure (a missing or None part counts as zero), or one of the part at `path`."""
        for name, a in flatten(tree, path).items():
            if isinstance(a, Rows):
                add_rows(self.leaves[name], *a)
            else:
                self.leaves[name] += a

    def clear(self) -> None:
        self.buffer[...] = 0
