"""The tensors of a hub folder as a family's parameter tree, by its NAMES (models/names.py)."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ..arguments import shown
from ..backend import check_memory
from ..core import Tree, flatten, unflatten
from ..files import named
from ..models.names import Rename, expand
from .tensors import StoredTensor


def to_tree(
    tensors: Mapping[str, StoredTensor],
    names: list[Rename],
    shapes: Tree,
    *,
    where: str,
    dtype: Any = None,
) -> Tree:
    """The tree of `shapes` from the tensors of files: contiguous arrays that own their memory.

    dtype None: the widest among the tensors, for all.  The files are read block by block, so that the peak of memory is the tree
    and little more.
    ValueError naming every tensor that is missing, extra, of another shape, not floating-point or not finite.  `where` says in
    the message what was read.  MemoryError, before anything is allocated, when there is less memory than the tree needs.
    """
    wanted = flatten(shapes)
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
        if hub in tensors and tuple(tensors[hub].shape) != tuple(shape):
            problems.append(
                f"{hub} has shape {shown(tuple(tensors[hub].shape))}, expected {tuple(shape)}"
            )
        elif hub in tensors and tensors[hub].dtype.kind != "f":
            problems.append(
                f"{hub} has dtype {tensors[hub].dtype}, expected a floating-point dtype"
            )
    if problems:
        raise ValueError(f"{where}: {_some(problems, '; ', longest=350, room=350)}")
    dtype = np.result_type(*(tensors[hub].dtype for hub in expected) if dtype is None else (dtype,))
    check_memory(count_parameters(shapes) * dtype.itemsize, f"{where}: the parameters in {dtype}")
    leaves = {}
    for hub, (paths, op, _) in expected.items():
        parts = op.to_tree(tensors[hub].stored(), [wanted[path] for path in paths])
        for path, part in zip(paths, parts):
            leaves[path] = np.empty(part.shape, dtype=dtype)
            try:
                tensors[hub].fill(leaves[path], part, finite=True)
            except ValueError as error:
                raise ValueError(f"{where}: tensor {hub}: {error}") from None
    return unflatten(leaves, shapes)


def _some(items: list[str], separator: str = ", ", *, longest: int = 100, room: int = 250) -> str:
    """At most eight items, on one line of about `room` characters, and how many more there are."""
    parts: list[str] = []
    for item in items[:8]:
        if parts and sum(map(len, parts)) + len(item) > room:
            break
        parts.append(named(item, longest))
    more = f"{separator}and {len(items) - len(parts)} more" if len(items) > len(parts) else ""
    return separator.join(parts) + more


def count_parameters(shapes: Tree) -> int:
    """How many numbers a tree of shapes holds; shared parameters stand in it once."""
    return sum(math.prod(shape) for shape in flatten(shapes).values())


def check_layers(shapes: Tree, tensors: Collection[str], *, where: str) -> None:
    """ValueError if there are fewer tensors than `shapes` has layers, before a tree with a million of them is walked."""
    layers = len(shapes["body"]["layers"])
    if isinstance(shapes["body"]["layers"][0], list):  # blocks within them
        layers *= len(shapes["body"]["layers"][0])
    if layers > len(tensors):
        raise ValueError(
            f"{where}: config.json has {layers} layers, but there are only {len(tensors)} tensors"
        )


def strip_ignored(names: list[str], patterns: tuple[str, ...]) -> list[str]:
    """The tensor names that match none of a family's IGNORED patterns."""
    return [name for name in names if not any(re.search(pattern, name) for pattern in patterns)]
