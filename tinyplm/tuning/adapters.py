"""What a transform of parameters has learned, in files of its own: LoRA's factors, a prefix, a soft prompt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from ..arguments import shown
from ..backend import to_device
from ..core import Tree, flatten
from ..files import named, read_json, replaced, write_json
from ..tensor_files import read_safetensors

TENSORS, FACTS = "adapter.safetensors", "adapter.json"


def save_adapter(theta: Tree, folder: str | os.PathLike, facts: dict[str, Any]) -> None:
    """Write theta, by its paths, and facts with "kind" into a folder: adapter.safetensors and adapter.json, each as a whole."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.ascontiguousarray(a) for name, a in flatten(to_device(theta, "cpu")).items()}
    with replaced(folder / TENSORS) as temporary:
        save_file(tensors, temporary)
    write_json(folder / FACTS, facts)


def load_adapter(folder: str | os.PathLike, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """({path: array}, facts) of a folder; ValueError that names it where there is no adapter, or one of another kind."""
    folder = Path(folder)
    if not (folder / TENSORS).exists() or not (folder / FACTS).exists():
        raise ValueError(f"{folder}: expected {TENSORS} and {FACTS}, as save_adapter writes them")
    facts = read_json(folder / FACTS)
    if not isinstance(facts, dict) or facts.get("kind") != kind:
        raise ValueError(f"{named(folder / FACTS)}: expected an adapter of kind {kind!r}, got {shown(facts)}")
    return {name: np.array(a) for name, a in read_safetensors(folder / TENSORS)[0].items()}, facts
