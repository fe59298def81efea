"""Files of adapters: LoRA's factors, a prefix, a soft prompt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ...arguments import check_path, mismatch, wrong
from ...backend import array_module, to_device
from ...core import Tree, flatten
from ...files import exists, printable, read_json, write_json
from ...hub.runs import ADAPTER as FACTS
from ...hub.runs import PEFT, PEFT_ADVICE
from ...hub.tensors import read_safetensors, write_safetensors

TENSORS = "adapter.safetensors"


def save_adapter(theta: Tree, folder: str | os.PathLike, facts: dict[str, Any]) -> None:
    """Write theta to adapter.safetensors and facts, with a key "kind", to adapter.json."""
    check_path("folder", folder)
    if not isinstance(theta, dict) or not flatten(theta):
        raise wrong("theta", "a dict of arrays, as in a recipe's result", theta)
    for name, a in flatten(theta).items():
        check_tensor(f"theta: {name}", a)
    tensors = flatten(to_device(theta, "cpu"))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / TENSORS, tensors)
    write_json(folder / FACTS, facts)


def check_tensor(name: str, value: Any) -> None:
    """ValueError unless it is an array of finite floating-point numbers."""
    if not hasattr(value, "dtype") or value.dtype.kind != "f":
        raise wrong(name, "an array of floating-point numbers", value)
    if not array_module(value).isfinite(value).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")


def load_adapter(
    folder: str | os.PathLike, kind: str
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """({path: array}, facts) of a folder.

    ValueError naming the folder if it holds no adapter, one of another kind, or non-finite numbers.
    """
    check_path("folder", folder)
    folder = Path(folder)
    if not exists(folder / TENSORS) or not exists(folder / FACTS):
        given = PEFT_ADVICE if exists(folder / PEFT) else "a folder without them"
        raise mismatch(printable(folder), f"{TENSORS} and {FACTS}", given)
    facts = read_json(folder / FACTS)
    if not isinstance(facts, dict) or facts.get("kind") != kind:
        raise wrong(printable(folder / FACTS), f"an adapter of kind {kind!r}", facts)
    tensors = {name: np.array(a) for name, a in read_safetensors(folder / TENSORS)[0].items()}
    for name, a in tensors.items():
        check_tensor(f"{printable(folder / TENSORS)}: {printable(name)}", a)
    return tensors, facts
