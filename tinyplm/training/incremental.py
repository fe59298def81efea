"""Incremental checkpoints: only what changed since the last full one.

With settings.full_every = k, every k-th save is a full folder.  The saves between hold
increment.safetensors and a trainer.json that names their base, the last full folder.  Each tensor
(parameters, the model's buffers, optimiser state) is treated as a flat array in blocks of 1024
elements; a block is written if any of its bytes differ from the base's.

The saving depends on what is trained.  Dense training with AdamW changes nearly every number in
every step, so an increment is as large as a full folder.  With most parameters frozen (adapters,
soft prompts, a frozen body) their blocks never differ and an increment is tiny.  Either way the
base is read and verified at every save: increments save disk space, not time.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import check_path, mismatch, shown
from ..backend import to_host
from ..core import flatten
from ..files import printable, write_json
from ..hub.runs import INCREMENT as FILE
from ..hub.tensors import read_safetensors, write_safetensors
from ..models.model import Model
from .folders import (
    CHECKSUMS,
    TRAINER,
    check_intact,
    new_folder,
    problem,
    read_full,
    read_trainer,
    sha256,
    write_full,
)

BLOCK = 1024  # elements


def base_of_next(out: Path, latest: str, full_every: int) -> tuple[str, int] | None:
    """(base, position in its series) of the increment that follows the checkpoint `latest`.

    None if a full folder is due, or if the base is missing or damaged.
    """
    if full_every == 1:
        return None
    try:
        increment = read_trainer(out / latest).get("increment") or {"base": latest, "number": 0}
    except ValueError:
        return None
    base, number = increment["base"], increment["number"] + 1
    return None if number >= full_every or problem(out / base) else (base, number)


def write(
    folder: Path,
    base: Path,
    number: int,
    model: Model,
    moments: dict[str, np.ndarray],
    trainer: dict[str, Any],
) -> None:
    """Write increment.safetensors and trainer.json.

    A changed tensor is stored as `name:blocks`, its block numbers, and `name:data`, their elements
    concatenated.  Memory: the base's parameters, what changed, and 8 bytes for each changed element
    of one tensor at a time.
    """
    base_model, base_moments, _ = read_full(base)
    old = _tensors(base_model, base_moments)
    parts: dict[str, np.ndarray] = {}
    for name, new in _tensors(model, moments).items():
        blocks = changed_blocks(new, old[name])
        if len(blocks):
            flat = np.ascontiguousarray(new).reshape(-1)
            parts[f"{name}:blocks"] = blocks
            parts[f"{name}:data"] = flat[_elements(blocks, new.size)]
    write_safetensors(folder / FILE, parts)
    increment = {"base": base.name, "number": number, "checksums": sha256(base / CHECKSUMS)}
    write_json(folder / TRAINER, {**trainer, "increment": increment})


def full_folder(folder: Path) -> Path:
    """The folder itself or, of an increment, its base: a model folder that can be loaded."""
    increment = read_trainer(folder).get("increment")
    return folder if increment is None else folder.parent / increment["base"]


def read(folder: Path) -> tuple[Model, dict[str, np.ndarray], dict[str, Any]]:
    """(model on the host, moments, contents of trainer.json) of a full folder or an increment."""
    trainer, full = read_trainer(folder), full_folder(folder)
    if full == folder:
        return read_full(folder)
    model, moments, _ = read_full(full)
    parts, _ = read_safetensors(folder / FILE)
    tensors = _tensors(model, moments)
    for name in _changed(parts, tensors, printable(folder / FILE)):
        # the moments are mapped read-only
        array = tensors[name].copy() if name in moments else tensors[name]
        array.reshape(-1)[_elements(parts[f"{name}:blocks"], array.size)] = parts[f"{name}:data"]
        if name in moments:
            moments[name] = array
    return model, moments, trainer


def _changed(parts: dict[str, np.ndarray], tensors: dict[str, np.ndarray], file: str) -> list[str]:
    """The names of the tensors in an increment; ValueError if their blocks do not fit the base."""
    names = [key.removesuffix(":blocks") for key in parts if key.endswith(":blocks")]
    if parts.keys() != {f"{name}:{kind}" for name in names for kind in ("blocks", "data")}:
        raise mismatch(file, "NAME:blocks and NAME:data for each tensor", shown(list(parts)))
    for name in names:
        blocks, data, old = parts[f"{name}:blocks"], parts[f"{name}:data"], tensors.get(name)
        if old is None or not _fits(blocks, data, old):
            given = f"{shown(blocks)} with {shown(data)}"
            raise mismatch(f"{file}: {printable(name, 80)}", "blocks of its base", given)
    return names


def _fits(blocks: np.ndarray, data: np.ndarray, old: np.ndarray) -> bool:
    """Whether blocks and data replace a part of a tensor of the base."""
    if data.dtype != old.dtype or blocks.dtype != np.int64 or not blocks.ndim == data.ndim == 1:
        return False
    if not len(blocks) or (np.diff(blocks) <= 0).any():
        return False
    inside = blocks[0] >= 0 and blocks[-1] * BLOCK < old.size
    return inside and len(data) == len(_elements(blocks, old.size))


def replay(folder: str | os.PathLike, out_folder: str | os.PathLike) -> None:
    """Write the full folder that an increment stands for, bit-equal to a full save at that step."""
    for name, path in (("folder", folder), ("out_folder", out_folder)):
        check_path(name, path)
    folder, out_folder = Path(folder), Path(out_folder)
    check_intact(str(folder), folder)
    if out_folder.exists():
        raise ValueError(f"out_folder: expected a new folder, got {out_folder}, which exists")
    model, moments, trainer = read(folder)
    trainer.pop("increment", None)
    with new_folder(out_folder) as temporary:
        write_full(temporary, model, moments, trainer)


def changed_blocks(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """The numbers (int64) of the blocks in which two arrays differ in any bit."""
    if new.shape != old.shape or new.dtype != old.dtype:
        expected = f"the shape and dtype of new, {new.dtype} {new.shape}"
        raise mismatch("old", expected, f"{old.dtype} {old.shape}")
    bits = np.dtype(f"u{new.dtype.itemsize}")  # as integers: 0.0 and -0.0 differ, NaN equals itself
    different = np.not_equal(*(np.ascontiguousarray(a).reshape(-1).view(bits) for a in (new, old)))
    if not different.size:
        return np.empty(0, np.int64)
    return np.flatnonzero(np.logical_or.reduceat(different, np.arange(0, different.size, BLOCK)))


def _elements(blocks: np.ndarray, size: int) -> np.ndarray:
    """The element numbers of these blocks; the last block of a tensor may be short."""
    elements = (blocks[:, None] * BLOCK + np.arange(BLOCK)).reshape(-1)
    return elements[elements < size]


def _tensors(model: Model, moments: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    trees = {"values": model.params, "buffers": model.buffers}
    return {path: to_host(a) for path, a in flatten(trees).items()} | moments
