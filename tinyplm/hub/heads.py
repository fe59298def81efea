"""Detects the head of a checkpoint, and reuses it for another task."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from .. import random
from ..arguments import wrong
from ..core import Tree, flatten, unflatten
from ..families import architectures, buffer_shapes_of, shapes_of
from ..memory import check_memory
from ..models.names import expand, leaves_of, names_of


def task_of(
    family: ModuleType, config: Any, settings: dict, tensors: Mapping[str, Any], *, where: str
) -> str:
    """The task of the file's architecture; a bare model without an architecture.

    If several tasks share it (a bare model with or without pooler), the first with all tensors.
    """
    known = architectures(family)
    named = settings.get("architectures") or [known.get("body")]
    if not isinstance(named, list):
        raise wrong(f"{where}: architectures of config.json", "a list", named)
    fitting = [task for task, architecture in known.items() if architecture == named[0]]
    if not hasattr(family, "TASKS"):  # a language model's architecture may have any name
        return (fitting or list(known))[0]
    if not fitting:
        supported = ", ".join(dict.fromkeys(known.values()))
        raise wrong(f"{where}: architecture", f"one of {supported}, or a task", named[0])
    complete = [task for task in fitting if _hub_names(family, config, task) <= tensors.keys()]
    return (complete or fitting)[0]


def _hub_names(family: ModuleType, config: Any, task: str) -> set[str]:
    return {
        hub
        for hub, _, _ in expand(
            names_of(family, config), leaves_of(shapes_of(family, config, task))
        )
    }


def without_others(
    family: ModuleType, config: Any, task: str, settings: dict, tensors: Mapping[str, Any]
) -> dict[str, Any]:
    """The tensors without those of other heads, including heads of other configs.

    Heads may share names: "classifier" belongs to sequences, tokens or choices. If the file's
    architecture has another part or shape under a name of this task's head, it is another head.
    """
    own = _head_parts(family, config, task)
    beyond = ("head.", "buffers.")
    heads = {rename.hub for rename in family.NAMES if rename.paths[0].startswith(beyond)}
    others = heads - own.keys()
    architecture = (settings.get("architectures") or [])[:1]
    of_file = [name for name, known in architectures(family).items() if known in architecture]
    if of_file:
        parts = _head_parts(family, config, of_file[0])
        others |= {hub for hub, part in parts.items() if own.get(hub) != part}
    return {name: tensor for name, tensor in tensors.items() if name not in others}


def _head_parts(
    family: ModuleType, config: Any, task: str
) -> dict[str, tuple[list[str], tuple[int, ...]]]:
    """{hub name: (tree paths, shape)} of a task's head, its buffers among it."""
    buffers = {"buffers": buffer_shapes_of(family, config, task)}
    leaves = leaves_of({**shapes_of(family, config, task), **buffers})
    return {
        hub: (paths, tuple(operation.hub_shape([leaves[path] for path in paths])))
        for hub, paths, operation in expand(names_of(family, config), leaves)
        if paths[0].startswith(("head.", "buffers."))
    }


def fresh_parameters(
    family: ModuleType, config: Any, shapes: Tree, tensors: Mapping[str, Any], *, key: int
) -> dict[str, Any]:
    """{path: initial value} for head parameters missing from the file."""
    leaves = leaves_of(shapes)
    missing = [
        path
        for hub, paths, _ in expand(names_of(family, config), leaves)
        if hub not in tensors
        for path in paths
        if path.startswith("head.")
    ]
    size = 8 * sum(math.prod(leaves[path]) for path in missing)
    check_memory(size, f"the parameters of a new head for {config.MODEL_TYPE}")
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
    """The loaded parameters together with the fresh ones, in the same dtype."""
    if not fresh:
        return params
    leaves = flatten(params)
    dtype = next(iter(leaves.values())).dtype
    return unflatten(leaves | {p: a.astype(dtype, order="C") for p, a in fresh.items()}, shapes)
