"""Increments: checkpoints that hold only what changed since the last full one.

With settings.full_every = k every k-th save is a full folder.  Those between hold increment.safetensors and a trainer.json
that names the full folder they build on, their base.  Every tensor, of parameters and of both moments, is seen as a flat array
in blocks of 1024 elements; a block is written if any of its bytes differs from the base's.

How much that saves depends on what is trained.  Dense training with AdamW changes nearly every number in every step, so there
an increment is as large as a full folder and gains nothing.  Where most parameters are frozen (adapters, soft prompts, a frozen
body) their blocks never differ, and nearly everything is gained.  Either way the base is read and checked at every save: what is
spared is room on the disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import check_path
from ..backend import to_host
from ..core import flatten
from ..files import named, write_json
from ..hub.tensors import read_safetensors, write_safetensors
from ..models.model import Model
from .folders import CHECKSUMS, TRAINER, new_folder, problem, read_full, read_trainer, sha256, write_full

BLOCK = 1024  # elements
FILE = "increment.safetensors"


def base_of_next(out: Path, latest: str, full_every: int) -> tuple[str, int] | None:
    """(name of the base, number in its row) of the increment to be saved after the checkpoint called `latest`.

    None when a full folder is due, or when somebody has removed or damaged what an increment would need.
    """
    if full_every == 1:
        return None
    try:
        increment = read_trainer(out / latest).get("increment") or {"base": latest, "number": 0}
    except ValueError:
        return None
    base, number = increment["base"], increment["number"] + 1
    return None if number >= full_every or problem(out / base) else (base, number)


def write(folder: Path, base: Path, number: int, model: Model, moments: dict[str, np.ndarray], trainer: dict[str, Any]) -> None:
    """increment.safetensors and trainer.json.  Needs the memory of the base's parameters, of what changed, and, for one tensor
    at a time, of an 8-byte number for each changed element.

    Of a changed tensor there are `name:blocks`, the numbers of its blocks, and `name:data`, their elements one after another.
    """
    base_model, base_moments, _ = read_full(base)
    old = _tensors(base_model, base_moments)
    parts: dict[str, np.ndarray] = {}
    for name, new in _tensors(model, moments).items():
        blocks = changed_blocks(new, old[name])
        if len(blocks):
            parts[f"{name}:blocks"] = blocks
            parts[f"{name}:data"] = np.ascontiguousarray(new).reshape(-1)[_elements(blocks, new.size)]
    write_safetensors(folder / FILE, parts)
    increment = {"base": base.name, "number": number, "checksums": sha256(base / CHECKSUMS)}
    write_json(folder / TRAINER, {**trainer, "increment": increment})


def read(folder: Path) -> tuple[Model, dict[str, np.ndarray], dict[str, Any]]:
    """(model on the host, moments, contents of trainer.json) of a full folder or of an increment."""
    trainer = read_trainer(folder)
    if "increment" not in trainer:
        return read_full(folder)
    model, moments, _ = read_full(folder.parent / trainer["increment"]["base"])
    parts, _ = read_safetensors(folder / FILE)
    tensors = _tensors(model, moments)
    for name in _changed(parts, tensors, named(folder / FILE)):
        array = tensors[name] if name.startswith("values.") else tensors[name].copy()  # the moments are a read-only map
        array.reshape(-1)[_elements(parts[f"{name}:blocks"], array.size)] = parts[f"{name}:data"]
        if not name.startswith("values."):
            moments[name] = array
    return model, moments, trainer


def _changed(parts: dict[str, np.ndarray], tensors: dict[str, np.ndarray], file: str) -> list[str]:
    """The names of the tensors of which an increment has blocks; ValueError for blocks that are not those of its base."""
    names = [key.removesuffix(":blocks") for key in parts if key.endswith(":blocks")]
    if parts.keys() != {f"{name}:{kind}" for name in names for kind in ("blocks", "data")}:
        raise ValueError(f"{file}: expected NAME:blocks and NAME:data for each tensor that changed")
    for name in names:
        blocks, data, old = parts[f"{name}:blocks"], parts[f"{name}:data"], tensors.get(name)
        good = old is not None and data.dtype == old.dtype and blocks.dtype == np.int64 and blocks.ndim == data.ndim == 1
        good = good and len(blocks) > 0 and (np.diff(blocks) > 0).all() and 0 <= blocks[0] and blocks[-1] * BLOCK < old.size
        if not good or len(data) != len(_elements(blocks, old.size)):
            raise ValueError(f"{file}: the blocks of {named(name, 80)} do not fit its base")
    return names


def replay(folder: Path, out_folder: Path) -> None:
    """Write the full folder that an increment stands for: bit-equal to a full save at that step."""
    for name, path in (("folder", folder), ("out_folder", out_folder)):
        check_path(name, path)
    folder, out_folder = Path(folder), Path(out_folder)
    if wrong := problem(folder):
        raise ValueError(f"{folder}: {wrong}")
    if out_folder.exists():
        raise ValueError(f"{out_folder} exists already: give the name of a new folder")
    model, moments, trainer = read(folder)
    trainer.pop("increment", None)
    with new_folder(out_folder) as temporary:
        write_full(temporary, model, moments, trainer)


def changed_blocks(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """The numbers (int64) of the blocks in which two arrays of one shape and dtype differ in any bit."""
    if new.shape != old.shape or new.dtype != old.dtype:
        raise ValueError(f"expected arrays of one shape and dtype, got {new.dtype} {new.shape} and {old.dtype} {old.shape}")
    bits = np.dtype(f"u{new.dtype.itemsize}")  # as whole numbers, so that 0.0 and -0.0 differ and NaN equals itself
    different = np.not_equal(*(np.ascontiguousarray(a).reshape(-1).view(bits) for a in (new, old)))
    if not different.size:
        return np.empty(0, np.int64)
    return np.flatnonzero(np.logical_or.reduceat(different, np.arange(0, different.size, BLOCK)))


def _elements(blocks: np.ndarray, size: int) -> np.ndarray:
    """The numbers of the elements in these blocks; the last block of a tensor may be short."""
    elements = (blocks[:, None] * BLOCK + np.arange(BLOCK)).reshape(-1)
    return elements[elements < size]


def _tensors(model: Model, moments: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**{f"values.{path}": to_host(a) for path, a in flatten(model.params).items()}, **moments}
