"""Renaming between parameter trees and hub names; hub/ reads and writes the files.

A family's NAMES is a list of `Rename`s.  It works on any tree of the family's structure, so it also
gives gradients under hub names.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ..backend import to_host
from ..core import Tree, flatten


class Operation(NamedTuple):
    """An invertible map between the arrays of some tree paths and one hub tensor."""

    to_hub: Any  # list of arrays -> array
    to_tree: Any  # (array, list of shapes) -> list of arrays
    hub_shape: Any  # list of shapes -> shape


def concatenate(axis: int) -> Operation:
    """One hub tensor holds several arrays of the tree, concatenated along `axis`."""

    def to_tree(tensor: np.ndarray, shapes: list[tuple]) -> list[np.ndarray]:
        return np.split(tensor, np.cumsum([shape[axis] for shape in shapes])[:-1], axis=axis)

    def hub_shape(shapes: list[tuple]) -> tuple:
        width = sum(shape[axis] for shape in shapes)
        return (*shapes[0][:axis], width, *shapes[0][axis + 1 :])

    return Operation(lambda arrays: np.concatenate(arrays, axis=axis), to_tree, hub_shape)


def fused() -> Operation:
    """One of torch's weights (out, in) holds several of ours (in, out), one after another."""
    rows = concatenate(0)
    return Operation(
        lambda arrays: rows.to_hub([a.T for a in arrays]),
        lambda tensor, shapes: [a.T for a in rows.to_tree(tensor, [s[::-1] for s in shapes])],
        lambda shapes: rows.hub_shape([s[::-1] for s in shapes]),
    )


def grouped(groups: int) -> Operation:
    """One of torch's tensors, (out, in) or a bias (out,), holds several of ours group by group.

    Its rows are those of group 0 of each of our arrays, then those of group 1 ...: queries, keys
    and values of each key/value head.
    """

    def to_hub(arrays: list[np.ndarray]) -> np.ndarray:
        parts = [a.reshape(*a.shape[:-1], groups, -1) for a in arrays]
        joined = np.concatenate(parts, axis=-1)
        return joined.reshape(*arrays[0].shape[:-1], -1).T

    def to_tree(tensor: np.ndarray, shapes: list[tuple]) -> list[np.ndarray]:
        leading = tensor.T.shape[:-1]
        widths = [shape[-1] // groups for shape in shapes]
        joined = tensor.T.reshape(*leading, groups, sum(widths))
        parts = np.split(joined, np.cumsum(widths)[:-1], axis=-1)
        return [part.reshape(*leading, -1) for part in parts]

    def hub_shape(shapes: list[tuple]) -> tuple:
        return (sum(shape[-1] for shape in shapes), *shapes[0][:-1])

    return Operation(to_hub, to_tree, hub_shape)


def interleaved() -> Operation:
    """Columns of several arrays take turns in one hub tensor of our orientation, (..., in, out)."""

    def to_hub(arrays: list[np.ndarray]) -> np.ndarray:
        return np.stack(arrays, axis=-1).reshape(*arrays[0].shape[:-1], -1)

    def to_tree(tensor: np.ndarray, shapes: list[tuple]) -> list[np.ndarray]:
        return [tensor[..., n :: len(shapes)] for n in range(len(shapes))]

    return Operation(to_hub, to_tree, lambda shapes: (*shapes[0][:-1], sum(s[-1] for s in shapes)))


def permuted(*axes: int) -> Operation:
    """Axis n of the hub tensor is axis axes[n] of the tree's array."""
    back = sorted(range(len(axes)), key=axes.__getitem__)
    return Operation(
        lambda arrays: arrays[0].transpose(axes),
        lambda tensor, _: [tensor.transpose(back)],
        lambda shapes: tuple(shapes[0][axis] for axis in axes),
    )


_OPERATIONS = {
    "copy": Operation(lambda a: a[0], lambda tensor, _: [tensor], lambda shapes: shapes[0]),
    "transpose": permuted(1, 0),
}


class Rename:
    """hub tensor `hub` = operation(tree leaves at `paths`).

    "{i}" in both is the number of a layer, "{j}" that of a block within it, or of one of its
    experts: see `leaves_of`.
    requires: the path of another leaf; the rule applies only to trees that have it.
    """

    def __init__(
        self,
        hub: str,
        *paths: str,
        operation: str | Operation = "copy",
        requires: str | None = None,
    ) -> None:
        self.hub, self.paths, self.requires = hub, paths, requires
        self.operation = _OPERATIONS[operation] if isinstance(operation, str) else operation


def names_of(family: ModuleType, config: Any) -> list[Rename]:
    """A family's NAMES, or its renames(config) where the config says how tensors are laid out."""
    return family.renames(config) if hasattr(family, "renames") else family.NAMES


def weight_and_bias(hub: str, weight: str, bias: str) -> list[Rename]:
    """The two tensors of one hub module, copied."""
    return [Rename(f"{hub}.weight", weight), Rename(f"{hub}.bias", bias)]


def linears(hub: str, path: str, **modules: str) -> list[Rename]:
    """torch's linear modules NAME=n in one hub module, whose weights are (out, in).

    hub.NAME.weight is path.Wn transposed, hub.NAME.bias is path.bn.
    """
    renames = []
    for name, letter in modules.items():
        renames.append(Rename(f"{hub}.{name}.weight", f"{path}.W{letter}", operation="transpose"))
        renames.append(Rename(f"{hub}.{name}.bias", f"{path}.b{letter}"))
    return renames


def linear(hub: str, path: str) -> list[Rename]:
    """One of torch's linear modules: hub.weight is path.W transposed, hub.bias is path.b."""
    return [
        Rename(f"{hub}.weight", f"{path}.W", operation="transpose"),
        Rename(f"{hub}.bias", f"{path}.b"),
    ]


def expand(
    names: list[Rename], leaves: Mapping[str, Any]
) -> Iterator[tuple[str, list[str], Operation]]:
    """(hub name, tree paths, operation) for each Rename, and each layer, with leaves."""
    counts = _counts(leaves)
    for rename in names:
        if rename.requires is None or rename.requires in leaves:
            for hub, *paths in _numbered([rename.hub, *rename.paths], leaves, counts):
                yield hub, paths, rename.operation


def _numbered(
    texts: list[str], leaves: Mapping[str, Any], counts: Mapping[str, int]
) -> Iterator[list[str]]:
    """The hub name and its paths for each {i}, and each {j} within it, that has leaves."""
    place = next((place for place in ("{i}", "{j}") if place in texts[1]), None)
    if place is None:
        yield from [texts] if texts[1] in leaves else []
        return
    for n in range(counts.get(texts[1].partition(place)[0], 0)):
        yield from _numbered([text.replace(place, str(n)) for text in texts], leaves, counts)


def _counts(leaves: Iterable[str]) -> dict[str, int]:
    """{"body.layers.": how many numbers follow it, ...} in the paths of the leaves."""
    counts: dict[str, int] = {}
    for path in leaves:
        for match in re.finditer(r"(?<=\.)\d+(?=\.|$)", path):
            before = path[: match.start()]
            counts[before] = max(counts.get(before, 0), int(match[0]) + 1)
    return counts


def leaves_of(tree: Tree) -> dict[str, Any]:
    """flatten(tree) for `expand`: the arrays of experts (X, ...) also one by one, as views.

    body.layers.0.mlp.experts.Wgate (X, D, F) is there, and so is each
    body.layers.0.mlp.experts.3.Wgate (D, F), since files name experts one by one.  A tree of shapes
    works likewise.
    """
    leaves = flatten(tree)
    stacked = [path for path in leaves if ".experts." in path]
    for path in stacked:
        before, name = path.rsplit(".", 1)
        whole = leaves[path]
        shape = whole if isinstance(whole, tuple) else None
        for j in range(len(whole) if shape is None else shape[0]):
            leaves[f"{before}.{j}.{name}"] = whole[j] if shape is None else shape[1:]
    return leaves


def to_hub(
    tree: Tree, names: list[Rename], only: Container[str] | None = None
) -> dict[str, np.ndarray]:
    """A tree of parameters or gradients under hub names, on the host.

    only: the hub names wanted, by default all.  The tree may be on any device; the arrays may be
    views.
    """
    leaves = leaves_of(tree)
    return {
        hub: operation.to_hub([to_host(leaves[path]) for path in paths])
        for hub, paths, operation in expand(names, leaves)
        if only is None or hub in only
    }


def hub_shapes(tree: Tree, names: list[Rename]) -> dict[str, tuple[int, ...]]:
    """{hub name: shape} of the result of `to_hub`."""
    leaves = leaves_of(tree)
    return {
        hub: tuple(op.hub_shape([leaves[path].shape for path in paths]))
        for hub, paths, op in expand(names, leaves)
    }
