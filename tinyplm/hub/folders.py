"""Model folders: config.json, safetensors files, tokenizer.json, generation_config.json."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .. import random
from ..arguments import check_choice, check_key, check_path, known_arguments, mismatch, shown, wrong
from ..backend import array_module, to_device
from ..backend import device as check_device
from ..core import Tree, flatten, tree_map, unflatten
from ..families import (
    LANGUAGE_MODELS,
    architecture_of,
    buffer_shapes_of,
    check_task,
    family_of,
    model_class,
    shapes_of,
    skipped,
)
from ..families import family as find_family
from ..files import (
    LARGEST_SETTINGS,
    check_links,
    printable,
    read_bytes,
    read_json,
    replaced,
    write_json,
)
from ..memory import check_memory
from ..models.config import file_type, for_task, from_dict, quantization_of, to_dict
from ..models.config import labels as label_fields
from ..models.model import Model, check_dtype, check_model
from ..models.names import expand, hub_shapes, names_of, to_hub
from ..models.routed import is_routed
from ..tokenizers import Tokenizer
from ..tokenizers.files import settings as tokenizer_settings
from ..tokenizers.files.folders import COMPANIONS, VOCABULARIES
from . import heads
from .generation_config import GENERATION, check_generation, read_generation
from .names import check_layers, count_parameters, to_tree, without_skipped
from .prefix_encoder import split_prefix, without_prefix
from .quantized import floating
from .runs import model_folder
from .tensors import StoredTensor, file_sizes, main_dtype, open_folder, parse_size, write_folder
from .text_part import TEXT_MODELS, text_settings, text_tensors

# Names in files from before 2020, of any family; transformers reads them, too.
_OLDER = ((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias"))


@known_arguments
def create(
    model_type: str,
    config: Any = None,
    *,
    task: str | None = None,
    key: int = 0,
    dtype: str = "float32",
    device: str = "cpu",
    **changes: Any,
) -> Model:
    """A freshly initialised model.

    config: a Config of the family, the name of one of its SIZES, a dict of fields, or None for the
    default. `changes` replace fields: create("gpt2", "gpt2-medium", key=1, n_positions=256). A dict
    with a model_type is read like a config.json: unknown keys are kept and written back. Without a
    model_type they are refused.
    task: one of an encoder's TASKS (default: the first, masked_lm); for a decoder "causal_lm",
    "sequence_classification" or, for GPT-1, "multiple_choice"; for an encoder-decoder "seq2seq_lm"
    or one of its HEADS.
    key: an int; each parameter's values depend on the key and on the parameter's place in the tree.
    ValueError for an unknown family, size or field.
    """
    family = find_family(model_type)
    check_device(device)
    task = check_task(family, task)
    config = for_task(make_config(family, config, **changes), task)
    params = initialise(family, config, task=task, key=key, dtype=dtype)
    arrays = {"params": params, "buffers": zeros(buffer_shapes_of(family, config, task), params)}
    arrays = to_device(arrays, device)
    return model_class(family, task)(family, config, **arrays, task=task, device=device)


def zeros(shapes: Tree, params: Tree) -> Tree:
    """Arrays of zeros of these shapes, with the dtype of the parameters: buffers of a new model."""
    dtype = next(iter(flatten(params).values())).dtype
    return tree_map(lambda shape: np.zeros(shape, dtype), shapes)


def make_config(family: ModuleType, config: Any = None, **changes: Any) -> Any:
    """A Config from a size's name, a Config, a dict or None, with some fields replaced."""
    if isinstance(config, str):
        if config not in family.SIZES:
            raise wrong("config", f"one of the sizes {', '.join(family.SIZES)}", config)
        config = family.SIZES[config]
    if isinstance(config, Mapping):
        config = _from_fields(family, config)
    config = family.Config() if config is None else config
    own = isinstance(config, family.Config) and config.MODEL_TYPE == family.Config.MODEL_TYPE
    if not own:  # a relative's class may extend this one
        expected = f"{family.Config.__module__}.Config, a dict of its fields or the name of a size"
        raise TypeError(f"config: expected a {expected}, got {shown(config)}")
    names = [field.name for field in dataclasses.fields(family.Config)]
    if unknown := [name for name in changes if name not in names]:
        raise wrong("config", f"some of the fields {', '.join(names)}", unknown[0])
    return dataclasses.replace(config, **changes)


def _from_fields(family: ModuleType, fields: Mapping[str, Any]) -> Any:
    """A Config from a dict of its fields or, with a model_type, the contents of a config.json."""
    model_type = fields.get("model_type")
    if model_type is not None:
        if model_type not in (family.Config.MODEL_TYPE, file_type(family.Config)):
            raise wrong("config: model_type", file_type(family.Config), model_type)
        return from_dict(family.Config, dict(fields))
    names = [field.name for field in dataclasses.fields(family.Config) if field.name != "source"]
    if unknown := [name for name in fields if name not in (*names, *family.Config.ALIASES)]:
        raise wrong("config", f"some of the fields {', '.join(names)}", unknown[0])
    return dataclasses.replace(from_dict(family.Config, dict(fields)), source={})


def initialise(
    family: ModuleType, config: Any, *, task: str = "causal_lm", key: int, dtype: str = "float32"
) -> Tree:
    """The tree of initial parameters, on the host."""
    dtype = check_dtype(dtype)
    check_key("key", key)
    shapes = shapes_of(family, config, task)
    check_memory(count_parameters(shapes) * np.dtype(dtype).itemsize, f"the parameters in {dtype}")
    leaves = {}
    for n, (path, shape) in enumerate(flatten(shapes).items()):
        value = family.init(path, shape, config=config, key=random.fold(random.key(key), n))
        leaves[path] = np.broadcast_to(value, shape).astype(dtype, order="C")
    return unflatten(leaves, shapes)


@known_arguments
def load(
    folder: str | os.PathLike,
    *,
    task: str | None = None,
    labels: Iterable[str] | None = None,
    key: int = 0,
    dtype: str | None = None,
    device: str = "cpu",
    prefix: bool = True,
) -> Model:
    """The model in a folder, with its tokenizer and generation settings if present.

    The folder has config.json and model.safetensors (or shards with their index); of a training
    run it stands for the model that the run made (see runs.model_folder).  Of a Gemma 3 that also
    sees images, the text model is read (text_part.py).
    task: as for `create`, instead of the task of the file's architecture. Parameters of
    that task's head missing from the file are initialised from `key` (and listed in model.fresh);
    tensors of other heads are ignored.
    labels: class names for a classifier, instead of the file's.
    prefix: False leaves out the prefix of a folder of ChatGLM's P-tuning (pre_seq_len), which is
    refused otherwise; tuning.load_ptuned reads both.
    dtype None: the file's dtype (bfloat16 becomes float32; if mixed, the widest for all).
    ValueError naming the file and the fault: missing, truncated, not a regular file, a link out of
    the folder (except to the hub cache's blobs), invalid JSON or duplicate keys, settings of a
    wrong type or beyond models.config.LIMITS, tensors that are missing, extra, duplicated,
    misshapen, not floating-point or not finite. MemoryError with the bytes required and available,
    before anything large is allocated.
    An unsupported tokenizer is a warning: model.tokenizer is None, and `save` copies its files.
    """
    folder = model_folder(folder)
    check_device(device)
    check_key("key", key)
    check_choice("prefix", prefix, (True, False))
    dtype = None if dtype is None else check_dtype(dtype)
    file = printable(folder / "config.json")
    check_links(folder, ("config.json", GENERATION, *COMPANIONS))
    settings = read_json(folder / "config.json", largest=LARGEST_SETTINGS)
    if not isinstance(settings, dict) or "model_type" not in settings:
        raise ValueError(f"{file}: expected an object with model_type")
    if not isinstance(settings["model_type"], str):
        raise wrong(f"{file}: model_type", "a string", settings["model_type"])
    within = settings["model_type"] in TEXT_MODELS
    try:
        settings = text_settings(settings) if within else settings
        settings = settings if prefix else without_prefix(settings)
        family = family_of(settings)
        config = from_dict(family.Config, settings)
        quantized = quantization_of(family.Config, settings)
        config = config if labels is None else _labelled(config, labels)
        fixed = None if task is None else check_task(family, task)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from None
    stored, where = open_folder(folder)
    stored = stored if prefix else split_prefix(stored)[1]
    stored = text_tensors(stored, where=where) if within else stored
    check_layers(shapes_of(family, config, check_task(family, None)), stored, where=where)
    if hasattr(family, "settled"):
        config = family.settled(config, stored)
    stored = normalise_names(family, config, stored, task=fixed, where=where)
    tensors = floating(stored, quantized, settings, where)
    task = heads.task_of(family, config, settings, tensors, where=where) if fixed is None else fixed
    if labels is not None and task in LANGUAGE_MODELS:
        raise wrong(f"{file}: labels", "a classifier's task with them", task)
    config = for_task(config, task)
    tensors = heads.without_others(family, config, task, settings, tensors)
    shapes = shapes_of(family, config, task)
    fresh = heads.fresh_parameters(family, config, shapes, tensors, key=key) if fixed else {}
    names, own = names_of(family, config), heads.without(shapes, fresh)
    buffers = {"buffers": buffer_shapes_of(family, config, task)}
    # BART's bias of its logits may be missing, and is 0; a router's may not
    some = any(hub in tensors for hub, _, _ in expand(names, flatten(buffers)))
    wanted = {**own, **buffers} if some or is_routed(family) else own
    tree = to_tree(tensors, names, wanted, where=where, dtype=dtype)
    read = tree.pop("buffers", {})
    params = heads.joined(tree, fresh, shapes)
    file_dtypes = {name: t.file_dtype for name, t in tensors.items()} if dtype is None else None
    make = model_class(family, task)
    arrays = to_device(
        {"params": params, "buffers": read or zeros(buffers["buffers"], params)}, device
    )
    model = make(family, config, **arrays, task=task, device=device, file_dtypes=file_dtypes)
    model.fresh = list(fresh)
    model.generation = read_generation(folder / GENERATION)
    present = [name for name in COMPANIONS if (folder / name).exists()]
    model.files = {name: read_bytes(folder / name) for name in present}
    try:
        model.tokenizer = Tokenizer.load(folder)
    except FileNotFoundError as error:
        model.no_tokenizer = str(error)
    except ValueError as error:  # the weights are usable without it
        model.no_tokenizer = str(error)
        level = 3  # the caller of known_arguments
        warnings.warn(f"loaded without its tokenizer: {error}", stacklevel=level)
    return model


def _labelled(config: Any, labels: Iterable[str]) -> Any:
    if not hasattr(config, "id2label"):
        raise ValueError(f"labels: expected None for {config.MODEL_TYPE}, got labels")
    return dataclasses.replace(config, **label_fields(labels))


def hub_name(family: ModuleType, name: str) -> str:
    """The full name of a tensor, whose base prefix may be missing, as in files of the bare body.

    A family's WRAPPER is a prefix that names may have besides.
    """
    name = name.removeprefix(getattr(family, "WRAPPER", ""))
    full = family.PREFIX + name
    known = {rename.hub.split("{i}")[0] for rename in family.NAMES} | {*_copies(family)}
    bare = not any(name.startswith(start) for start in known)
    return full if bare and any(full.startswith(start) for start in known) else name


def normalise_names(
    family: ModuleType,
    config: Any,
    tensors: dict[str, StoredTensor],
    *,
    task: str | None = None,
    where: str,
) -> dict[str, StoredTensor]:
    """Tensors by full name, without those the family ignores and without a tied head's copy."""
    given: dict[str, str] = {}  # full name: the name in the file
    for name in without_skipped(list(tensors), skipped(family, config, task)):
        newer = name
        for older, new in _OLDER:
            newer = re.sub(older, new, newer)
        other = given.setdefault(hub_name(family, newer), name)
        if other != name:
            both = f"{printable(other, 80)} and {printable(name, 80)}"
            raise ValueError(f"{where}: expected one name for each tensor, got {both}")
    tensors = {full: tensors[name] for full, name in given.items()}
    tied = family.TIED if config.tie_word_embeddings else {}
    own = getattr(config, "copies", {})
    for copy, original in {**_copies(family), **own, **tied}.items():
        if copy not in tensors:
            continue
        second = tensors.pop(copy)
        if not second.equals(tensors.setdefault(original, second)):
            why = ", as config.json has tie_word_embeddings = true" if copy in tied else ""
            raise mismatch(f"{where}: {copy}", f"the values of {original}{why}", "others")
    return tensors


def _copies(family: ModuleType) -> dict[str, str]:
    """{name: tensor} of names under which a family's files may hold a tensor once more."""
    return getattr(family, "COPIES", {})


@known_arguments
def save(
    model: Model,
    folder: str | os.PathLike,
    *,
    dtype: str | None = None,
    max_shard_size: int | str = "5GB",
) -> None:
    """Write config.json, the tensors and the tokenizer; transformers and tokenizers load them.

    dtype: "F32", "BF16", "F16" or "F64"; None: as in the file that was loaded (including bfloat16),
    else the parameters' own. Tensors go into model.safetensors or, beyond max_shard_size (bytes, or
    "200MB"), into shards of at most that size with an index. Other files that were loaded
    (model.generation, model.files) are written again; files from an earlier save for which this
    model has no counterpart (a tokenizer) stay.
    Each file is written under a temporary name and renamed, so it is never incomplete. Overwriting
    shards with shards involves several renames; an interruption there leaves neither model loadable
    (never a mixture), so a new folder is safer.
    """
    check_model("model", model)
    check_path("folder", folder)
    check_choice("dtype", dtype, ("F32", "BF16", "F16", "F64"), or_none=True)
    limit = parse_size(max_shard_size)
    _check_saved(model)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = names_of(model.family, model.config)
    tree = {**model.params, "buffers": model.buffers}
    shapes = hub_shapes(tree, names)
    dtypes = {name: dtype for name in shapes} if dtype else model.file_dtypes
    sizes = file_sizes(shapes, model.dtype, dtypes)
    write_folder(folder, sizes, lambda some: to_hub(tree, names, some), dtypes, limit)
    architecture = architecture_of(model.family, model.task)
    settings = {**to_dict(model.config), "architectures": [architecture]}
    for name in ("dtype", "torch_dtype"):  # transformers loads in this dtype
        if name in settings:
            settings[name] = main_dtype(shapes, model.dtype, dtypes)
    write_json(folder / "config.json", settings)
    if model.generation:
        write_json(folder / GENERATION, model.generation)
    for name, content in model.files.items():
        if model.tokenizer is None or name not in VOCABULARIES:
            with replaced(folder / name) as temporary:
                temporary.write_bytes(content)
    if model.tokenizer is not None:
        # keep settings files as they were, unless token names were known from their class alone
        settings_files = {tokenizer_settings.CONFIG, tokenizer_settings.SPECIAL_TOKENS}
        described = model.files.keys() & settings_files
        written = tokenizer_settings.named_tokens(tokenizer_settings.folder_settings(folder))
        complete = described and written == model.tokenizer.named
        model.tokenizer.save(folder / "tokenizer.json" if complete else folder)


def _check_saved(model: Model) -> None:
    """ValueError for anything `load` would refuse, before anything is written."""
    leaves = flatten(model.params)
    shapes = flatten(shapes_of(model.family, model.config, model.task))
    if strange := leaves.keys() ^ shapes.keys():
        expected = "those of the config (save the original of a for_decoding() model)"
        given = f"a difference in {', '.join(sorted(strange)[:3])}"
        raise mismatch("save: params", expected, given)
    dtype = check_dtype(getattr(next(iter(leaves.values())), "dtype", None))
    for path, a in leaves.items():
        if getattr(a, "shape", None) != shapes[path] or a.dtype != dtype:
            raise wrong(f"save: params.{path}", f"a {dtype} array of shape {shapes[path]}", a)
        if not array_module(a).isfinite(a).all():
            raise ValueError(f"save: params.{path}: expected finite numbers, got NaN or infinity")
    for name, contents in (("config", to_dict(model.config)), ("generation", model.generation)):
        try:
            json.dumps(contents)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"save: {name}: expected values JSON can store, got {error}") from None
    check_generation("save: generation", model.generation)
    if not (model.tokenizer is None or isinstance(model.tokenizer, Tokenizer)):
        raise wrong("save: tokenizer", "None or a Tokenizer", model.tokenizer)
    if not isinstance(model.files, dict):
        raise wrong("save: files", "a dict of bytes", model.files)
    for name, content in model.files.items():
        if not isinstance(content, bytes) or name not in COMPANIONS:
            raise wrong("save: files", f"bytes of some of {', '.join(COMPANIONS)}", name)


def gradients_by_hub_name(model: Model, dparams: Tree) -> dict[str, np.ndarray]:
    """A gradient tree under hub names, on the host; ValueError for names that are no parameters."""
    check_model("model", model)
    known = flatten(model.params).keys()
    if not isinstance(dparams, dict) or not dparams or not flatten(dparams).keys() <= known:
        raise wrong("dparams", "gradients of the model's parameters, as from backward", dparams)
    return to_hub(dparams, names_of(model.family, model.config))
