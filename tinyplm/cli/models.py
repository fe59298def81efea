"""What --model names: a folder, the folder of a run, a family, or a published size."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from .. import hub
from ..arguments import mismatch
from ..families import FAMILIES, family, family_of
from ..files import LARGEST_SETTINGS, printable, read_json
from ..hub.runs import model_folder
from ..models.config import from_dict
from ..models.model import Model
from .parser import Parser


class Named(NamedTuple):
    """folder: of a model or a run; otherwise the family, and its published size or None."""

    folder: Path | None = None
    family: ModuleType | None = None
    size: str | None = None


def model_option(parser: Parser, default: str | None = None, *, help: str = "") -> None:
    text = help or "Model: a folder as on the hub, or the --out of a run."
    parser.option("--model", default, text, metavar="MODEL", needed=default is None)


def named(name: str) -> Named:
    """What a name stands for.  A family or a size wins over a folder of the same name: ./gpt2."""
    if name in FAMILIES:
        return Named(family=family(name))
    for model_type in FAMILIES:
        if name in family(model_type).SIZES:
            return Named(family=family(model_type), size=name)
    if Path(name).is_dir():
        return Named(folder=model_folder(name, "--model"))
    expected = "a folder, a family (such as gpt2) or a published size (such as gpt2-medium)"
    raise mismatch("--model", expected, f"{name!r}, which is none of them")


def existing_folder(name: str, option: str = "--model") -> Path:
    """The folder of a model that a folder, or a run, stands for."""
    if Path(name).is_dir():
        return model_folder(name, option)
    try:
        named(name)
    except ValueError:
        raise mismatch(
            option, "the folder of a model, or of a run", f"{name!r}: no such folder"
        ) from None
    given = f"{name}, which has neither trained parameters nor a tokenizer: pretrain it first"
    raise mismatch(option, "the folder of a model", given)


def open_model(
    name: str, options: argparse.Namespace, *, option: str = "--model", **settings: Any
) -> Model:
    """The model of a folder or run, on the device and with the dtype of the options.

    option: which names it, for messages.  settings: as for tinyplm.load.  A missing
    tokenizer is reported by text_tokenizer().
    """
    folder = existing_folder(name, option)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return hub.load(folder, dtype=options.dtype, device=options.device, **settings)


def read_config(folder: Path) -> Any:
    """The config of a model folder, without its tensors."""
    settings = read_json(folder / "config.json", largest=LARGEST_SETTINGS)
    try:
        return from_dict(family_of(settings).Config, settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{printable(folder / 'config.json')}: {error}") from None


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
