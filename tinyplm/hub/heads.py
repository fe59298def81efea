"""Which head a file has, and what of it another task takes over."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from .. import random
from ..arguments import shown
from ..backend import check_memory
from ..core import Tree, flatten, unflatten
from ..families import architectures, shapes_of
from ..models.names import expand


def task_of(
    family: ModuleType, config: Any, settings: dict, tensors: Mapping[str, Any], *, where: str
) -> str:
    """The task of the file's architecture; of several with the same one (a bare model with and without its pooler), the first of
    which all tensors are there.  Without an architecture the file is a bare model.
    """
    known = architectures(family)
    named = settings.get("architectures") or [known.get("body")]
    if not isinstance(named, list):
        raise ValueError(
            f"{where}: architectures of config.json must be a list, got {shown(named)}"
        )
    fitting = [task for task, architecture in known.items() if architecture == named[0]]
    if not hasattr(
        family, "TASKS"
    ):  # a decoder's file may have any name; the tensors say whether it has the usual head
        return (fitting or ["causal_lm"])[0]
    if not fitting:
        known = ", ".join(dict.fromkeys(known.values()))
        raise ValueError(
            f"{where}: architecture {shown(named[0])} is not supported; expected one of {known}, or a task"
        )
    complete = [task for task in fitting if _hub_names(family, config, task) <= tensors.keys()]
    return (complete or fitting)[0]


def _hub_names(family: ModuleType, config: Any, task: str) -> set[str]:
    return {hub for hub, _, _ in expand(family.NAMES, flatten(shapes_of(family, config, task)))}


def without_others(
    family: ModuleType, config: Any, task: str, settings: dict, tensors: Mapping[str, Any]
) -> dict[str, Any]:
    """The tensors without those of other heads, also of heads that another config would have.

    Heads may have names in common: "classifier" is of sequences, of tokens or of choices.  Where the file's architecture has
    another part, or one of another shape, under a name of this task's head, that is another head's.
    """
    own = _head_parts(family, config, task)
    others = {
        rename.hub for rename in family.NAMES if rename.paths[0].startswith("head.")
    } - own.keys()
    of_file = [
        name
        for name, known in architectures(family).items()
        if known in (settings.get("architectures") or [])[:1]
    ]
    if of_file:
        others |= {
            hub
            for hub, part in _head_parts(family, config, of_file[0]).items()
            if own.get(hub) != part
        }
    return {name: tensor for name, tensor in tensors.items() if name not in others}


def _head_parts(
    family: ModuleType, config: Any, task: str
) -> dict[str, tuple[list[str], tuple[int, ...]]]:
    """{hub name: (tree paths, shape)} of a task's head."""
    leaves = flatten(shapes_of(family, config, task))
    return {
        hub: (paths, tuple(operation.hub_shape([leaves[path] for path in paths])))
        for hub, paths, operation in expand(family.NAMES, leaves)
        if paths[0].startswith("head.")
    }


def fresh_parameters(
    family: ModuleType, config: Any, shapes: Tree, tensors: Mapping[str, Any], *, key: int
) -> dict[str, Any]:
    """{path: initial value} of what the file lacks of the head."""
    leaves = flatten(shapes)
    missing = [
        path
        for hub, paths, _ in expand(family.NAMES, leaves)
        if hub not in tensors
        for path in paths
        if path.startswith("head.")
    ]
    check_memory(
        8 * sum(math.prod(leaves[path]) for path in missing),
        f"the parameters of a new head for {config.MODEL_TYPE}",
    )
    fresh = {}
    for n, path in enumerate(missing):
        value = family.init(path, leaves[path], config=config, key=random.fold(random.key(key), n))
        fresh[path] = np.broadcast_to(value, leaves[path])
    return fresh


def without(shapes: Tree, paths: Container[str], prefix: str = "") -> Tree:
    """The tree without some of its leaves."""
    if not isinstance(shapes, dict):
        return shapes
    kept = {}
    for name, branch in shapes.items():
        path = f"{prefix}{name}"
        if path not in paths:
            kept[name] = without(branch, paths, f"{path}.")
    return kept


def joined(params: Tree, fresh: Mapping[str, Any], shapes: Tree) -> Tree:
    """The parameters read, with the fresh ones in the same dtype."""
    leaves = flatten(params)
    dtype = next(iter(leaves.values())).dtype
    return (
        unflatten(leaves | {path: a.astype(dtype, order="C") for path, a in fresh.items()}, shapes)
        if fresh
        else params
    )
