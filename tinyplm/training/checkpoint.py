"""Checkpoints: out/step-N/ folders that transformers loads, with what a resume needs beside the model."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from .. import hub
from ..backend import to_device, to_host
from ..core import flatten
from ..files import replaced, sync_folder
from ..models.model import Model
from ..optim.adamw import AdamW
from ..tensor_files import read_json, read_safetensors, write_json, write_safetensors
from .settings import Settings

_FILE_DTYPES = {"float16": "F16", "float32": "F32", "float64": "F64"}


@dataclasses.dataclass
class State:
    """What a run has done so far."""

    step: int = 0  # updates done
    tokens: int = 0  # targets trained on
    seconds: float = 0.0
    best_step: int | None = None
    best_loss: float | None = None  # validation loss, nats a token


def save(out: Path, model: Model, optimizer: AdamW, state: State, settings: Settings, data: str) -> Path:
    """Write out/step-N, then point out/best (if it is the best) and out/latest at it.

    The folder is written under a temporary name, flushed and renamed, and only then named: whenever this is broken off, `latest`
    names a complete checkpoint.  The tensors keep the parameters' own dtype, whatever file they came from.
    """
    folder = out / f"step-{state.step}"
    temporary = out / f".step-{state.step}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    hub.save(model, temporary, dtype=_FILE_DTYPES[str(model.dtype)])
    moments = {f"{name}.{path}": to_host(a) for name in "mv" for path, a in getattr(optimizer, name).leaves.items()}
    write_safetensors(temporary / "optimizer.safetensors", moments)
    write_json(temporary / "trainer.json", {
        "state": dataclasses.asdict(state), "updates": optimizer.t, "settings": dataclasses.asdict(settings), "data": data,
    })  # fmt: skip
    sync_folder(temporary)
    if folder.exists():
        shutil.rmtree(folder)
    os.rename(temporary, folder)
    sync_folder(out)
    if state.best_step == state.step:
        point(out / "best", folder.name)
    point(out / "latest", folder.name)
    return folder


def point(file: Path, name: str) -> None:
    """Make the small text file `file` ("latest", "best") name a checkpoint."""
    with replaced(file) as temporary:
        temporary.write_text(name + "\n")


def find(out: Path, name: str = "latest") -> Path:
    """The checkpoint folder that out/latest (or out/best) names; ValueError when there is none."""
    try:
        folder = out / (out / name).read_text().strip()
    except FileNotFoundError:
        raise ValueError(f"{out}: nothing to resume, there is no file {name!r} in it") from None
    if folder == out or not folder.is_dir():
        raise ValueError(f"{out / name} names {folder.name!r}, but there is no such folder")
    return folder


def restore(folder: Path, model: Model, optimizer: AdamW, settings: Settings, data: str) -> State:
    """Put a checkpoint's parameters and moments into the optimiser.  Refuses, by name, what differs from this run."""
    trainer = read_json(folder / "trainer.json")
    if not isinstance(trainer, dict) or not {"state", "updates", "settings", "data"} <= trainer.keys():
        raise ValueError(f"{folder / 'trainer.json'}: expected an object with state, updates, settings and data")
    saved = hub.load(folder, device=model.device)
    differences = _differences("model", dataclasses.asdict(saved.config), dataclasses.asdict(model.config), free=("source",))
    differences += _differences("settings", trainer["settings"], dataclasses.asdict(settings), free=Settings.FREE)
    if str(saved.dtype) != str(model.dtype):
        differences.append(f"dtype {saved.dtype}, now {model.dtype}")
    if trainer["data"] != data:
        differences.append("the token data")
    if differences:
        raise ValueError(f"cannot resume from {folder} with another configuration: {'; '.join(differences)}")
    _fill(optimizer.values.leaves, flatten(saved.params), model.device)
    file = folder / "optimizer.safetensors"
    tensors, _ = read_safetensors(file)
    expected = {f"{name}.{path}": a.shape for name in "mv" for path, a in optimizer.values.leaves.items()}
    wrong = sorted(expected.keys() ^ tensors.keys()) or [n for n, s in expected.items() if tensors[n].shape != tuple(s)]
    if wrong:
        raise ValueError(f"{file}: does not fit the model at {', '.join(wrong[:5])}")
    for name in "mv":
        _fill(getattr(optimizer, name).leaves, {k[2:]: a for k, a in tensors.items() if k.startswith(f"{name}.")}, model.device)
    optimizer.t = trainer["updates"]
    return State(**trainer["state"])


def _fill(leaves: dict[str, Any], arrays: dict[str, Any], device: str) -> None:
    for path, leaf in leaves.items():
        leaf[...] = to_device(arrays[path], device)


def _differences(what: str, saved: dict, now: dict, free: tuple[str, ...] = ()) -> list[str]:
    names = [name for name in {**saved, **now} if name not in free and saved.get(name) != now.get(name)]
    return [f"{what}.{name} was {saved.get(name)!r}, now {now.get(name)!r}" for name in names]


def prune(out: Path, state: State, keep: int) -> None:
    """Remove checkpoints except the last `keep` up to this step and the best, and what an interrupted save left.

    Folders of later steps stay: a run that was set back to an earlier checkpoint replaces them when it gets there.
    """
    for rest in out.glob(".step-*.tmp"):
        shutil.rmtree(rest, ignore_errors=True)
    for rest in out.glob(".*.tmp"):
        rest.unlink()
    steps = sorted(int(f.name[5:]) for f in out.glob("step-*") if f.is_dir() and f.name[5:].isdigit())
    steps = [step for step in steps if step <= state.step]
    for step in steps[:-keep]:
        if step != state.best_step:
            shutil.rmtree(out / f"step-{step}")


def fingerprint(*arrays: np.ndarray) -> str:
    """A hash of token arrays: their sizes, dtypes and contents (of large ones the first and last million tokens)."""
    digest = hashlib.sha256()
    for a in arrays:
        digest.update(f"{a.dtype} {a.shape} ".encode())
        for part in (a[:1_000_000], a[-1_000_000:]):
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
