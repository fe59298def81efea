"""Clipping by the global norm."""

from __future__ import annotations

from typing import Any

from ..arguments import check_number, wrong
from ..backend import array_module, at_least_float32
from ..core import Tree, flatten, tree_map
from ..shapes import check_array


def global_norm(tree: Tree) -> Any:
    """sqrt(sum of squares over all leaves), in at least float32; a 0-dimensional array."""
    total: Any = 0
    for name, a in flatten(tree).items():
        if getattr(getattr(a, "dtype", None), "kind", None) != "f":
            raise wrong(f"global_norm: {name or 'tree'}", "an array of floating-point numbers", a)
        flat = at_least_float32(a).reshape(-1)
        total = flat @ flat + total
    return total**0.5


def clip_by_global_norm(tree: Tree, *, limit: float) -> tuple[Tree, Any]:
    """(tree * min(1, limit / norm), norm).                  Pascanu et al. 2013, algorithm 1

    A new tree; `clip_scale` gives the factor for scaling in place.
    """
    norm = global_norm(tree)
    scale = clip_scale(norm, limit)
    return tree_map(lambda a: (a * scale).astype(a.dtype, copy=False), tree), norm


def clip_scale(norm: Any, limit: float) -> Any:
    """min(1, limit / norm), without a division by zero or reading the norm from the device."""
    check_number("clip", limit, above=0)
    if getattr(norm, "shape", None) != () or norm.dtype.kind != "f":
        check_array("norm", norm, "()")
    return limit / array_module(norm).maximum(norm, limit)
