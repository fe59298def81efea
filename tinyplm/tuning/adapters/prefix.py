"""Prefix tuning: a frozen model with trained keys and values before each layer's own.

A prefix is two parameters of the attention, Pk and Pv (K, P, E) (see layers.attention), so it is a
transform of parameters like any other:                                     Li & Liang 2021, eq. 3

    sft(model, sequences, settings, **prefix_of(model, rows=8))

Only 2 L K P E numbers are trained.  The paper trains them through an MLP, which it found more
stable; here they are trained directly, optionally from the keys and values of a text.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ... import random
from ...arguments import (
    LARGEST_KEY,
    MOST,
    check_whole,
    known_arguments,
    listed,
    mismatch,
    shown,
    wrong,
)
from ...backend import array_module
from ...core import Tree, flatten
from ...memory import check_memory
from ...models.causal_model import CausalModel
from ...models.model import check_decoder
from .files import load_adapter, save_adapter


def prefix(theta: Tree, *, base: Tree) -> tuple[Tree, Callable]:
    """`base` with theta {"body.layers.i.attention.Pk" and "...Pv": (K, P, E)} in its layers.

    backward(dparams) returns theta's gradient; dparams is a tree, a part of one, or flat {path:
    array}.
    """
    layers = []
    for i, layer in enumerate(base["body"]["layers"]):
        own = {name: theta[_path(i, name)] for name in ("Pk", "Pv")}
        layers.append({**layer, "attention": layer["attention"] | own})

    def backward(dparams: Tree) -> Tree:
        flat = flatten(dparams)
        return {path: flat[path] for path in theta if path in flat}

    return {**base, "body": {**base["body"], "layers": layers}}, backward


def _path(layer: int, name: str) -> str:
    return f"body.layers.{layer}.attention.{name}"


def _paths(layers: int) -> list[str]:
    return [_path(i, name) for i in range(layers) for name in ("Pk", "Pv")]


def prefix_parameters(
    model: CausalModel, *, rows: int | None = None, ids: Sequence[int] | None = None, key: int = 0
) -> Tree:
    """theta of `rows` random rows, drawn by the key, or the keys and values of token ids.

    Those of real words are a better start than random ones (Li & Liang 2021, sec. 7.5).
    ValueError unless exactly one of rows and ids is given.
    """
    check_attention(model)
    if (rows is None) == (ids is None):
        raise ValueError(f"rows: expected either rows or ids, got {rows} and {shown(ids)}")
    sizes = model.config.cache_sizes
    if ids is not None:
        ids = listed("ids", ids, "token ids")
        if not ids:
            raise wrong("ids", "one or more token ids", ids)
        cache = model([ids], cache=model.empty_cache(1, len(ids)), grad=False)[0]["cache"]
        return {
            _path(i, name): buffers[letter][0, :, : len(ids)].copy()
            for i, buffers in enumerate(cache.layers)
            for name, letter in (("Pk", "k"), ("Pv", "v"))
        }
    check_whole("rows", rows, 1, MOST)
    shape = (sizes["kv_heads"], int(rows or 0), sizes["width"])
    check_whole("key", key, 0, LARGEST_KEY)
    check_memory(2 * math.prod(shape) * sizes["layers"] * 8, "the keys and values of the prefix")
    xp = array_module(model.params["body"]["tokens"])
    draw = random.generator(random.key(key))
    std, paths = model.config.initializer_range, _paths(sizes["layers"])
    return {path: xp.asarray(draw.normal(0, std, shape).astype(model.dtype)) for path in paths}


@dataclasses.dataclass(frozen=True)
class PrefixTransform:
    """The transform for a recipe: theta -> base parameters with the prefix."""

    base: Tree

    def __call__(self, theta: Tree) -> tuple[Tree, Callable]:
        return prefix(theta, base=self.base)

    @property
    def facts(self) -> dict[str, Any]:
        """Metadata saved with theta."""
        return {"kind": "prefix"}


@known_arguments
def prefix_of(
    model: CausalModel,
    *,
    rows: int | None = None,
    ids: Sequence[int] | None = None,
    key: int = 0,
    theta: Tree = None,
) -> dict[str, Any]:
    """{"transform", "theta"} for a recipe.  rows, ids, key: see prefix_parameters."""
    if theta is None:
        theta = prefix_parameters(model, rows=rows, ids=ids, key=key)
    check_prefix(model, theta)
    return {"transform": PrefixTransform(model.params), "theta": theta}


def with_prefix(model: CausalModel, theta: Tree) -> CausalModel:
    """The model with the prefix, to compute and generate with.

    Its prefix has no hub names, so save the prefix by itself.
    """
    check_prefix(model, theta)
    return model._with(params=prefix(theta, base=model.params)[0])


def check_attention(model: CausalModel) -> None:
    """ValueError unless it is a decoder whose layers attend to keys and values of their own."""
    check_decoder("model", model)
    width = model.config.cache_sizes["width"]
    if not isinstance(width, int):
        given = f"latent attention, which has {' and '.join(width)} of a token alone"
        raise mismatch("model", "attention with keys and values, for a prefix of those", given)


def check_prefix(model: CausalModel, theta: Tree) -> None:
    """ValueError unless theta has Pk and Pv of one length for every layer of the model."""
    check_attention(model)
    if not isinstance(theta, dict) or not all(hasattr(a, "shape") for a in theta.values()):
        raise wrong("theta", "a dict of arrays, as from prefix_of or load_prefix", theta)
    sizes = model.config.cache_sizes
    K, E, L = sizes["kv_heads"], sizes["width"], sizes["layers"]
    shapes = {a.shape for a in theta.values()}
    first = next(iter(shapes), ())
    one = len(shapes) == 1 and len(first) == 3 and first[::2] == (K, E)
    if not one or theta.keys() != set(_paths(L)):
        expected = f"Pk and Pv ({K}, P, {E}) for each of {L} layers"
        raise mismatch("theta", expected, f"{len(theta)} arrays of shapes {shown(sorted(shapes))}")


def save_prefix(theta: Tree, folder: str | os.PathLike) -> None:
    """Write theta to a folder, as a recipe does in out/final (see adapters.files)."""
    save_adapter(theta, folder, PrefixTransform(None).facts)


def load_prefix(folder: str | os.PathLike) -> dict[str, np.ndarray]:
    """theta of a folder; ValueError naming it if it holds no prefix."""
    return load_adapter(folder, "prefix")[0]
