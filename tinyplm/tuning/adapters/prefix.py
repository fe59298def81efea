"""Prefix tuning: the model frozen, trained keys and values in front of each layer's own.             Li & Liang 2021, eq. 3

A prefix is parameters of the attention, Pk and Pv (K, P, E) (layers.attention), and so a transform of parameters like any other:

    sft(model, sequences, settings, **prefix_of(model, rows=8))

Only 2 L K P E numbers change.  The paper trains them through an MLP, which it found to be steadier; here they are trained
directly, and may begin with the keys and values of a text.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ... import random
from ...arguments import LARGEST_KEY, MOST, check_whole, listed, shown, wrong
from ...backend import array_module
from ...core import Tree, flatten
from ...memory import check_memory
from ...models.model import Model, check_decoder
from .files import load_adapter, save_adapter


def prefix(theta: Tree, *, base: Tree) -> tuple[Tree, Callable]:
    """`base` with theta {"body.layers.i.attention.Pk" and "...Pv": (K, P, E)} in its layers.

    backward(dparams) gives theta's gradient; dparams may be a tree, a part of one, or flat {path: array}, as in tuning.lora.
    """
    layers = [{**layer, "attention": {**layer["attention"], **{name: theta[_path(i, name)] for name in ("Pk", "Pv")}}}
              for i, layer in enumerate(base["body"]["layers"])]  # fmt: skip

    def backward(dparams):
        given = flatten(dparams)
        return {path: given[path] for path in theta if path in given}

    return {**base, "body": {**base["body"], "layers": layers}}, backward


def _path(layer: int, name: str) -> str:
    return f"body.layers.{layer}.attention.{name}"


def prefix_parameters(model: Model, *, rows: int | None = None, ids: Sequence[int] | None = None, key: int = 0) -> Tree:
    """theta of `rows` random places, by the key, or the keys and values that some token ids have in the model, read alone.

    Those of real words are a better start than random ones (Li & Liang 2021, sec. 7.5).  ValueError unless one of both is given.
    """
    check_decoder("model", model)
    if (rows is None) == (ids is None):
        raise ValueError("prefix: expected either rows or ids to start from")
    sizes = model.config.cache_sizes
    shape = (sizes["kv_heads"], rows, sizes["width"])
    if ids is not None:
        ids = listed("ids", ids, "token ids")
        if not ids:
            raise wrong("ids", "one or more token ids", ids)
        cache = model([ids], cache=model.empty_cache(1, len(ids)), grad=False)[0]["cache"]
        return {_path(i, name): buffers[letter][0, :, : len(ids)].copy() for i, buffers in enumerate(cache.layers)
                for name, letter in (("Pk", "k"), ("Pv", "v"))}  # fmt: skip
    check_whole("rows", rows, 1, MOST)
    check_whole("key", key, 0, LARGEST_KEY)
    check_memory(2 * math.prod(shape) * sizes["layers"] * 8, "the keys and values of the prefix")
    xp = array_module(model.params["body"]["tokens"])
    draw = random.generator(random.key(key))
    return {_path(i, name): xp.asarray(draw.normal(0, model.config.initializer_range, shape).astype(model.dtype))
            for i in range(sizes["layers"]) for name in ("Pk", "Pv")}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Prefix:
    """The transform of a recipe: theta -> the base's parameters with the prefix."""

    base: Tree

    def __call__(self, theta: Tree) -> tuple[Tree, Callable]:
        return prefix(theta, base=self.base)

    @property
    def facts(self) -> dict[str, Any]:
        return {"kind": "prefix"}


def prefix_of(model: Model, *, theta: Tree = None, **start: Any) -> dict[str, Any]:
    """{"transform", "theta"} for a recipe.  start: see prefix_parameters."""
    theta = prefix_parameters(model, **start) if theta is None else theta
    check_prefix(model, theta)
    return {"transform": Prefix(model.params), "theta": theta}


def with_prefix(model: Model, theta: Tree) -> Model:
    """The model with the prefix: it computes and generates as any other, but has no names for a file: save the prefix alone."""
    check_prefix(model, theta)
    return model._with(params=prefix(theta, base=model.params)[0])


def check_prefix(model: Model, theta: Tree) -> None:
    """ValueError unless theta has Pk and Pv of one length for every layer of the model."""
    check_decoder("model", model)
    if not isinstance(theta, dict) or not all(hasattr(a, "shape") for a in theta.values()):
        raise wrong("theta", "a dict of arrays, as prefix_of and load_prefix give it", theta)
    sizes = model.config.cache_sizes
    expected = {_path(i, name) for i in range(sizes["layers"]) for name in ("Pk", "Pv")}
    shapes = {a.shape for a in theta.values()}
    first = next(iter(shapes), ())
    if theta.keys() != expected or len(shapes) != 1 or len(first) != 3 or first[::2] != (sizes["kv_heads"], sizes["width"]):
        raise ValueError(f"prefix: {len(theta)} arrays of shapes {shown(sorted(shapes))} do not fit: expected Pk and Pv "
                         f"({sizes['kv_heads']}, P, {sizes['width']}) for each of {sizes['layers']} layers")  # fmt: skip


def save_prefix(theta: Tree, folder: str | os.PathLike) -> None:
    """Write the prefix into a folder, as a recipe does; see tuning.adapters."""
    save_adapter(theta, folder, Prefix(None).facts)


def load_prefix(folder: str | os.PathLike) -> dict[str, np.ndarray]:
    """theta of a folder; ValueError that names it if there is no prefix in it."""
    return load_adapter(folder, "prefix")[0]
