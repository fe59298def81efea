"""The renaming between parameter trees and hub names; the files themselves are tensor_files.py.

A family's NAMES is a list of `Rename`s.  It works on any tree of the family's structure, so gradients can be had under hub
names as well.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Container, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from .arguments import shown
from .backend import check_memory, to_host
from .core import Tree, flatten, unflatten
from .files import named
from .tensor_files import StoredTensor


class Operation(NamedTuple):
    """An invertible map between the arrays of some tree paths and one hub tensor."""

    to_hub: Any  # list of arrays -> array
    to_tree: Any  # (array, list of shapes) -> list of arrays
    hub_shape: Any  # list of shapes -> shape


def concatenate(axis: int) -> Operation:
    """Several arrays of the tree stand one after the other in one hub tensor, along `axis`."""

    def to_tree(tensor: np.ndarray, shapes: list[tuple]) -> list[np.ndarray]:
        return np.split(tensor, np.cumsum([shape[axis] for shape in shapes])[:-1], axis=axis)

    def hub_shape(shapes: list[tuple]) -> tuple:
        width = sum(shape[axis] for shape in shapes)
        return (*shapes[0][:axis], width, *shapes[0][axis + 1 :])

    return Operation(lambda arrays: np.concatenate(arrays, axis=axis), to_tree, hub_shape)


_OPERATIONS = {
    "copy": Operation(lambda a: a[0], lambda tensor, _: [tensor], lambda shapes: shapes[0]),
    "transpose": Operation(lambda a: a[0].T, lambda tensor, _: [tensor.T], lambda shapes: shapes[0][::-1]),
}


class Rename:
    """hub tensor `hub` = operation(tree leaves at `paths`); "{i}" in both is the number of a layer, "{j}" of one within it.

    beside: another leaf without which this name is not meant, for one of two names of a leaf.
    """

    def __init__(self, hub: str, *paths: str, operation: str | Operation = "copy", beside: str | None = None) -> None:
        self.hub, self.paths, self.beside = hub, paths, beside
        self.operation = _OPERATIONS[operation] if isinstance(operation, str) else operation


def weight_and_bias(hub: str, weight: str, bias: str) -> list[Rename]:
    """The two tensors of one hub module, copied."""
    return [Rename(f"{hub}.weight", weight), Rename(f"{hub}.bias", bias)]


def linears(hub: str, path: str, **modules: str) -> list[Rename]:
    """torch's linear modules of one hub module, whose weights are (out, in): hub.NAME.weight is path.Wn transposed, .bias is bn.

    modules: NAME=n.
    """
    renames = []
    for name, letter in modules.items():
        renames.append(Rename(f"{hub}.{name}.weight", f"{path}.W{letter}", operation="transpose"))
        renames.append(Rename(f"{hub}.{name}.bias", f"{path}.b{letter}"))
    return renames


def linear(hub: str, path: str) -> list[Rename]:
    """One of torch's linear modules: hub.weight is path.W transposed, hub.bias is path.b."""
    return [Rename(f"{hub}.weight", f"{path}.W", operation="transpose"), Rename(f"{hub}.bias", f"{path}.b")]


def expand(names: list[Rename], leaves: Mapping[str, Any]) -> Iterator[tuple[str, list[str], Operation]]:
    """(hub name, tree paths, operation) for every Rename and layer that the leaves have."""
    for rename in names:
        if rename.beside is None or rename.beside in leaves:
            for hub, *paths in _numbered([rename.hub, *rename.paths], leaves):
                yield hub, paths, rename.operation


def _numbered(texts: list[str], leaves: Mapping[str, Any]) -> Iterator[list[str]]:
    """The hub name and its paths with every number in place of {i}, and within it of {j}, for which there are leaves."""
    place = next((place for place in ("{i}", "{j}") if place in texts[1]), None)
    if place is None:
        yield from [texts] if texts[1] in leaves else []
        return
    for n in itertools.count():
        numbered = list(_numbered([text.replace(place, str(n)) for text in texts], leaves))
        if not numbered:
            return
        yield from numbered


def to_hub(tree: Tree, names: list[Rename], only: Container[str] | None = None) -> dict[str, np.ndarray]:
    """A tree (parameters or gradients, of any device) under hub names, all or `only` some, on the host.  Arrays may be views."""
    leaves = flatten(tree)
    return {hub: op.to_hub([to_host(leaves[path]) for path in paths]) for hub, paths, op in expand(names, leaves)
            if only is None or hub in only}  # fmt: skip


def hub_shapes(tree: Tree, names: list[Rename]) -> dict[str, tuple[int, ...]]:
    """{hub name: shape} of what `to_hub` gives."""
    leaves = flatten(tree)
    return {hub: tuple(op.hub_shape([leaves[path].shape for path in paths])) for hub, paths, op in expand(names, leaves)}


def to_tree(tensors: Mapping[str, StoredTensor], names: list[Rename], shapes: Tree, *, where: str, dtype: Any = None) -> Tree:
    """The tree of `shapes` from the tensors of files: contiguous arrays that own their memory.

    dtype None: the widest among the tensors, for all.  The files are read block by block, so that the peak of memory is the tree
    and little more.
    ValueError naming every tensor that is missing, extra, of another shape, not floating-point or not finite.  `where` says in
    the message what was read.  MemoryError, before anything is allocated, when there is less memory than the tree needs.
    """
    wanted = flatten(shapes)
    expected = {hub: (paths, op, op.hub_shape([wanted[p] for p in paths])) for hub, paths, op in expand(names, wanted)}
    problems = []
    if missing := [hub for hub in expected if hub not in tensors]:
        problems.append(f"missing tensors: {_some(missing)}")
    if extra := [name for name in tensors if name not in expected]:
        problems.append(f"extra tensors: {_some(extra)}")
    for hub, (_, _, shape) in expected.items():
        if hub in tensors and tuple(tensors[hub].shape) != tuple(shape):
            problems.append(f"{hub} has shape {shown(tuple(tensors[hub].shape))}, expected {tuple(shape)}")
        elif hub in tensors and tensors[hub].dtype.kind != "f":
            problems.append(f"{hub} has dtype {tensors[hub].dtype}, expected a floating-point dtype")
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
        raise ValueError(f"{where}: config.json has {layers} layers, but there are only {len(tensors)} tensors")


def strip_ignored(names: list[str], patterns: tuple[str, ...]) -> list[str]:
    """The tensor names that match none of a family's IGNORED patterns."""
    return [name for name in names if not any(re.search(pattern, name) for pattern in patterns)]
