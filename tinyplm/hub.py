"""Folders in the form of the Hugging Face hub: config.json, model.safetensors, tokenizer.json."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from . import random, weights
from .backend import to_device, to_host
from .core import Tree, flatten, tree_map, unflatten
from .models import family as find_family
from .models.config import from_dict, to_dict
from .models.model import Model
from .tokenizers import Tokenizer

_PARAMETER_DTYPES = ("float32", "float64", "float16")


def create(
    model_type: str, config: Any = None, *, key: int = 0, dtype: str = "float32", device: str = "cpu", **changes: Any
) -> Model:
    """A freshly initialised model.

    config: a Config of the family, the name of one of its SIZES, or None for the default; `changes` replace fields of it:
    create("gpt2", "gpt2-medium", key=1, n_positions=256).  key: an int; each parameter's values depend on the key and on the
    parameter's own path alone.  ValueError for an unknown family, size or field.
    """
    family = find_family(model_type)
    config = make_config(family, config, **changes)
    return Model(family, config, to_device(initialise(family, config, key=key, dtype=dtype), device), device=device)


def make_config(family: ModuleType, config: Any = None, **changes: Any) -> Any:
    """A Config from a size's name, a Config or None, with some fields replaced."""
    if isinstance(config, str):
        if config not in family.SIZES:
            raise ValueError(f"unknown size {config!r}; expected one of {', '.join(family.SIZES)}")
        config = family.SIZES[config]
    config = family.Config() if config is None else config
    if not isinstance(config, family.Config):
        raise TypeError(f"expected a {family.Config.__module__}.Config or the name of a size, got {type(config).__name__}")
    names = [field.name for field in dataclasses.fields(family.Config)]
    if unknown := [name for name in changes if name not in names]:
        raise ValueError(f"unknown config field {unknown[0]!r}; expected some of {', '.join(names)}")
    return dataclasses.replace(config, **changes)


def initialise(family: ModuleType, config: Any, *, key: int, dtype: str = "float32") -> Tree:
    """The tree of initial parameters on the host."""
    _check_dtype(dtype)
    shapes = family.shapes(config)
    leaves = {}
    for n, (path, shape) in enumerate(flatten(shapes).items()):
        value = family.init(path, shape, config=config, key=random.fold(random.key(key), n))
        leaves[path] = np.broadcast_to(value, shape).astype(dtype, order="C")
    return unflatten(leaves, shapes)


def _check_dtype(dtype: str) -> None:
    if dtype not in _PARAMETER_DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; expected one of {', '.join(_PARAMETER_DTYPES)}")


def load(folder: str | os.PathLike, *, dtype: str | None = None, device: str = "cpu") -> Model:
    """The model in a folder with config.json, model.safetensors and, if there is one, tokenizer.json.

    Parameters keep the file's dtype (bfloat16 becomes float32; of several the widest, for all) unless `dtype` is given.
    ValueError that names the file and what is wrong with it: missing, truncated, tensors missing, extra, twice, misshapen or
    not floating-point.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    settings = weights.read_json(folder / "config.json")
    if not isinstance(settings, dict) or "model_type" not in settings:
        raise ValueError(f"{folder / 'config.json'}: expected an object with model_type")
    if not isinstance(settings["model_type"], str):
        raise ValueError(f"{folder / 'config.json'}: model_type must be a string, got {settings['model_type']!r}")
    family = find_family(settings["model_type"])
    try:
        config = from_dict(family.Config, settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from None
    file = folder / "model.safetensors"
    tensors, dtypes = weights.read_safetensors(file)
    tensors = normalise_names(family, config, tensors, where=str(file))
    if dtype is not None:
        _check_dtype(dtype)
    params = weights.to_tree(tensors, family.NAMES, family.shapes(config), where=str(file), dtype=dtype)
    tokenizer = None
    if (folder / "tokenizer.json").exists():
        tokenizer = Tokenizer.load(folder)
    full = {hub_name(family, name): found for name, found in dtypes.items()}
    return Model(family, config, to_device(params, device), tokenizer=tokenizer, device=device,
                 file_dtypes=full if dtype is None else None)  # fmt: skip


def hub_name(family: ModuleType, name: str) -> str:
    """The full name of a tensor that may lack the base prefix, as in files of the bare body."""
    full = family.PREFIX + name
    known = {rename.hub.split("{i}")[0] for rename in family.NAMES}
    bare = not any(name.startswith(start) for start in known)
    return full if bare and any(full.startswith(start) for start in known) else name


def normalise_names(family: ModuleType, config: Any, tensors: dict[str, np.ndarray], *, where: str) -> dict[str, np.ndarray]:
    """Full names, without what the family ignores and without a tied head's second copy (which must be equal)."""
    given: dict[str, str] = {}  # full name: the name in the file
    for name in weights.strip_ignored(list(tensors), family.IGNORED):
        other = given.setdefault(hub_name(family, name), name)
        if other != name:
            raise ValueError(f"{where}: {other} and {name} are the same tensor, expected one of them")
    tensors = {full: tensors[name] for full, name in given.items()}
    for copy, original in family.TIED.items():
        twice = config.tie_word_embeddings and copy in tensors and original in tensors
        if twice and not np.array_equal(tensors.pop(copy), tensors[original]):
            raise ValueError(f"{where}: {copy} differs from {original}, but config.json has tie_word_embeddings = true")
    return tensors


def save(model: Model, folder: str | os.PathLike, *, dtype: str | None = None) -> None:
    """Write config.json, model.safetensors and the tokenizer's files; transformers and tokenizers load them.

    The tensors keep the dtype that was read (bfloat16 again where it was), else the parameters' own; dtype "F32", "BF16",
    "F16" or "F64" sets another.  Each file is written under a temporary name and renamed, so none is ever half.
    """
    if dtype not in (None, "F32", "BF16", "F16", "F64"):
        raise ValueError(f"unknown dtype {dtype!r}; expected F32, BF16, F16 or F64")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = weights.to_hub(to_host(model.params), model.family.NAMES)
    dtypes = {name: dtype for name in tensors} if dtype else model.file_dtypes
    weights.write_safetensors(folder / "model.safetensors", tensors, dtypes)
    settings = {"architectures": [model.config.ARCHITECTURE], **to_dict(model.config)}
    for name in ("dtype", "torch_dtype"):  # transformers loads in the dtype that is named here
        if name in settings:
            settings[name] = weights.main_dtype(tensors, dtypes)
    weights.write_json(folder / "config.json", settings)
    if model.tokenizer is not None:
        model.tokenizer.save(folder / "tokenizer.json")


def gradients_by_hub_name(model: Model, dparams: Tree) -> dict[str, np.ndarray]:
    """A gradient tree under the names that the hub uses, on the host."""
    return weights.to_hub(tree_map(to_host, dparams), model.family.NAMES)
