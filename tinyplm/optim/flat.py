"""A tree of arrays in one contiguous buffer: an update, a norm or a sum is one operation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ..arguments import check_choice, check_flag, listed, wrong
from ..backend import add_rows, array_module, is_host
from ..core import Product, Rows, Tree, flatten, map_threads, unflatten

_BLOCK = 1 << 20  # elements of a product per block, on the host


def checked_leaves(name: str, tree: Tree) -> dict[str, Any]:
    """The leaves of a tree by path; ValueError unless all are floating-point arrays."""
    leaves = flatten(tree)
    if not isinstance(tree, (dict, list)) or not leaves:
        raise wrong(name, "a tree of arrays, such as model.params", tree)
    for path, a in leaves.items():
        if getattr(getattr(a, "dtype", None), "kind", None) != "f":
            where = f"{name}: {path}" if path else name
            raise wrong(where, "an array of floating-point numbers", a)
    return leaves


class FlatTree:
    """`buffer` (N,) owns the memory; `tree` has the structure of `like`, with views as its leaves.

    Leaves lie in the order of `paths` (default: tree order). All must share one dtype and device.
    """

    def __init__(
        self,
        like: Tree,
        *,
        dtype: Any = None,
        paths: Sequence[str] | None = None,
        copy: bool = False,
    ) -> None:
        leaves = checked_leaves("FlatTree: like", like)
        check_flag("FlatTree: copy", copy)
        if dtype is not None:
            name = getattr(dtype, "name", dtype)
            check_choice("FlatTree: dtype", name, ("float16", "float32", "float64"))
        if paths is not None:
            paths = listed("FlatTree: paths", paths, "a list of the tree's paths, in any order")
            if len(paths) != len(leaves) or not all(str(path) in leaves for path in paths):
                raise wrong("FlatTree: paths", "the tree's paths, in any order", paths)
        dtypes = {str(a.dtype) for a in leaves.values()}
        if len(dtypes) != 1:
            raise wrong("FlatTree: like", "arrays of one dtype", sorted(dtypes) or None)
        self.paths = list(leaves) if paths is None else list(paths)
        first = next(iter(leaves.values()))
        xp = array_module(first)
        self._buffer = xp.zeros(sum(a.size for a in leaves.values()), dtype=dtype or first.dtype)
        views, start = {}, 0
        for path in self.paths:
            a = leaves[path]
            views[path] = self._buffer[start : start + a.size].reshape(a.shape)
            if copy:
                views[path][...] = a
            start += a.size
        self._leaves, self._tree = views, unflatten(views, like)
        self._unset: set[str] = set()  # leaves that count as zero, whatever they contain

    def add(self, tree: Tree, path: str = "", *, workers: int = 1) -> None:
        """Add a tree of the same structure, or one of the part at `path`; missing parts are zero.

        A core.Product is multiplied out in blocks of rows, on the host by `workers` threads.
        ValueError naming an array that is unknown or of another shape, before anything is added.
        """
        parts = flatten(tree, path)
        for name, a in parts.items():
            self._check(name, a)
        for name, a in parts.items():
            leaf, unset = self._leaves[name], name in self._unset
            self._unset.discard(name)
            if isinstance(a, Rows):
                if unset:
                    leaf[...] = 0
                add_rows(leaf, *a)
            elif isinstance(a, Product):
                block = max(1, _BLOCK // leaf.shape[1]) if is_host(leaf) else leaf.shape[0]
                rows = [slice(start, start + block) for start in range(0, leaf.shape[0], block)]
                update = partial(_add_product, leaf, a, unset)
                map_threads(update, rows, workers)
            elif unset:  # copying the first gradient saves two passes over memory
                leaf[...] = a
            else:
                leaf += a

    def _check(self, name: str, a: Any) -> None:
        if name not in self._leaves:
            known = f"{', '.join(self.paths[:4])}{', ...' * (len(self.paths) > 4)}"
            raise wrong("gradient", f"a tree with some of {known}", name if name else a)
        shape = self._leaves[name].shape
        if isinstance(a, Rows):
            fits = (a.ids.size, *shape[1:]) == a.updates.shape
        elif isinstance(a, Product):
            fits = (a.a.shape[1], a.b.shape[1]) == shape
        else:
            fits = getattr(a, "shape", None) == shape and a.dtype.kind in "fiu"
        if not fits:
            raise wrong(name, f"an array of real numbers of shape {shape}", a)

    def clear(self) -> None:
        """Set everything to zero, without writing until it is read."""
        self._unset = set(self._leaves)

    def _settle(self) -> None:
        for name in self._unset:
            self._leaves[name][...] = 0
        self._unset = set()

    @property
    def buffer(self) -> Any:
        """All elements (N,)."""
        self._settle()
        return self._buffer

    @property
    def leaves(self) -> dict[str, Any]:
        """The views by path."""
        self._settle()
        return self._leaves

    @property
    def tree(self) -> Tree:
        """The views as a tree."""
        self._settle()
        return self._tree


def _add_product(leaf: Any, product: Product, unset: bool, part: slice) -> None:
    """The rows `part` of leaf += a^T b, or of leaf = a^T b."""
    a = product.a[:, part].T
    if unset:
        array_module(leaf).matmul(a, product.b, out=leaf[part])
    else:
        rows = leaf[part]
        rows += a @ product.b
