"""The tensors of a hub folder as a parameter tree, by the family's NAMES (models/names.py)."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ..arguments import mismatch, wrong
from ..core import Tree, flatten, tree_map
from ..files import printable
from ..memory import check_memory
from ..models.names import Rename, expand, leaves_of
from .quantized import HubTensor


def to_tree(
    tensors: Mapping[str, HubTensor],
    names: list[Rename],
    shapes: Tree,
    *,
    where: str,
    dtype: Any = None,
) -> Tree:
    """The tree of `shapes` from stored tensors: contiguous arrays that own their memory.

    dtype None: the widest among the tensors, for all. Files are read block by block, so peak memory
    is little more than the tree. `where` names the source in messages.
    ValueError naming every tensor that is missing, extra, of another shape, not floating-point or
    not finite. MemoryError, before anything is allocated, if the tree does not fit into memory.
    """
    wanted = leaves_of(shapes)
    expected = {
        hub: (paths, op, op.hub_shape([wanted[p] for p in paths]))
        for hub, paths, op in expand(names, wanted)
    }
    problems = []
    if missing := [hub for hub in expected if hub not in tensors]:
        problems.append(f"missing tensors: {_some(missing)}")
    if extra := [name for name in tensors if name not in expected]:
        problems.append(f"extra tensors: {_some(extra)}")
    for hub, (_, _, shape) in expected.items():
        if hub not in tensors:
            continue
        tensor = tensors[hub]
        if tuple(tensor.shape) != tuple(shape):
            problems.append(str(wrong(hub, f"shape {tuple(shape)}", tuple(tensor.shape))))
        elif tensor.dtype.kind != "f":
            problems.append(f"{hub}: expected a floating-point dtype, got {tensor.dtype}")
    if problems:
        raise ValueError(f"{where}: {_some(problems, '; ', longest=350, room=350)}")
    dtype = np.result_type(*(tensors[hub].dtype for hub in expected) if dtype is None else (dtype,))
    check_memory(count_parameters(shapes) * dtype.itemsize, f"{where}: the parameters in {dtype}")
    tree = tree_map(lambda shape: np.empty(shape, dtype=dtype), shapes)
    leaves = leaves_of(tree)
    for hub, (paths, op, _) in expected.items():
        for at, piece in tensors[hub].pieces():
            parts = op.to_tree(piece, [wanted[path] for path in paths])
            for path, part in zip(paths, parts):
                try:
                    tensors[hub].fill(leaves[path][at], part, finite=True)
                except ValueError as error:
                    raise ValueError(f"{where}: tensor {hub}: {error}") from None
    return tree


def _some(items: list[str], separator: str = ", ", *, longest: int = 100, room: int = 250) -> str:
    """At most eight items, on one line of about `room` characters, and the number omitted."""
    parts: list[str] = []
    for item in items[:8]:
        if parts and sum(map(len, parts)) + len(item) > room:
            break
        parts.append(printable(item, longest))
    more = f"{separator}and {len(items) - len(parts)} more" if len(items) > len(parts) else ""
    return separator.join(parts) + more


def count_parameters(shapes: Tree) -> int:
    """The number of parameters in a tree of shapes; shared ones occur in it once."""
    return sum(math.prod(shape) for shape in flatten(shapes).values())


def check_layers(shapes: Tree, tensors: Collection[str], *, where: str) -> None:
    """ValueError if there are fewer tensors than layers, before a tree of a million is walked."""
    body = shapes["body"]
    sides = [body] if "layers" in body else [body["encoder"], body["decoder"]]
    layers = sum(len(side["layers"]) for side in sides)
    if isinstance(sides[0]["layers"][0], list):  # blocks within them
        layers *= len(sides[0]["layers"][0])
    if layers > len(tensors):
        raise mismatch(where, f"{layers} layers, as in config.json", f"{len(tensors)} tensors")


def without_skipped(names: list[str], patterns: tuple[str, ...]) -> list[str]:
    """The tensor names that match none of a family's SKIPPED patterns."""
    return [name for name in names if not any(re.search(pattern, name) for pattern in patterns)]
