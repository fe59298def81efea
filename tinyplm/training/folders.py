"""Checkpoint folders as such: written whole or not at all, their checksums, what is wrong with a damaged one."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import shown, wrong
from ..files import LARGEST_SETTINGS, named, read_json, sync_folder, write_json
from ..hub import folders as hub
from ..hub.tensors import read_safetensors, write_safetensors
from ..models.model import Model

CHECKSUMS, TRAINER, OPTIMIZER = "checksums.json", "trainer.json", "optimizer.safetensors"
_FILE_DTYPES = {"float16": "F16", "float32": "F32", "float64": "F64"}


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` to write into; at the end it gets its checksums, is flushed to disk and renamed.

    Whatever breaks this off, `folder` is the old one, the new one, or (for a moment, where there was an old one) not there;
    never a part.  On an error the temporary folder is removed.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        files = sorted(file for file in temporary.iterdir())
        write_json(temporary / CHECKSUMS, {file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in files})
        sync_folder(temporary)
        if folder.exists():
            remove(folder)
        os.rename(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(folder.parent)


def remove(folder: Path) -> None:
    """Remove a folder, which first loses its name: broken off half-way, it cannot be taken for a checkpoint."""
    leaving = folder.with_name(f".{folder.name}.old.tmp")
    shutil.rmtree(leaving, ignore_errors=True)
    os.rename(folder, leaving)
    shutil.rmtree(leaving)


def remove_temporaries(out: Path) -> None:
    """Remove what interrupted writes have left in `out`."""
    for rest in out.glob(".*.tmp"):
        if rest.is_dir():
            shutil.rmtree(rest, ignore_errors=True)
        else:
            rest.unlink(missing_ok=True)


def steps(out: Path) -> list[int]:
    """The steps that have a folder in `out`, in order."""
    found = [folder for folder in out.glob("step-*") if re.fullmatch(r"step-(0|[1-9]\d*)", folder.name, re.ASCII)]
    return sorted(int(folder.name[5:]) for folder in found if folder.is_dir())


# --------------------------------------------------------------------------------------------------- a full folder


def write_full(folder: Path, model: Model, moments: dict[str, np.ndarray], trainer: dict[str, Any]) -> None:
    """All files of a checkpoint: what transformers loads, the moments, and trainer.json.

    The tensors keep the parameters' own dtype, whatever file they came from.
    """
    hub.save(model, folder, dtype=_FILE_DTYPES[str(model.dtype)])
    write_safetensors(folder / OPTIMIZER, moments)
    write_json(folder / TRAINER, trainer)


def read_full(folder: Path) -> tuple[Model, dict[str, np.ndarray], dict[str, Any]]:
    """(model on the host, moments, contents of trainer.json) of a full folder."""
    return hub.load(folder), read_safetensors(folder / OPTIMIZER)[0], read_trainer(folder)


def read_trainer(folder: Path) -> dict[str, Any]:
    """The contents of trainer.json; ValueError that names it when they are not those of a checkpoint."""
    file = named(folder / TRAINER)
    trainer = read_json(folder / TRAINER, largest=LARGEST_SETTINGS)
    if not isinstance(trainer, dict) or not {"state", "updates", "settings", "data"} <= trainer.keys():
        raise ValueError(f"{file}: expected an object with state, updates, settings and data")
    for name in ("state", "settings", "environment", "increment"):
        if not isinstance(trainer.get(name, {}), dict):
            raise ValueError(f"{file}: {wrong(name, 'an object', trainer[name])}")
    if (increment := trainer.get("increment")) is not None:
        base, number = increment.get("base"), increment.get("number")
        if not isinstance(base, str) or not re.fullmatch(r"step-\d{1,18}", base) or type(number) is not int:
            raise ValueError(f"{file}: increment: expected the name of its base and its number, got {shown(increment)}")
    return trainer


# --------------------------------------------------------------------------------------------------------- damage


def sha256(file: Path) -> str:
    """The hash of a file's contents, read in parts."""
    digest = hashlib.sha256()
    with open(file, "rb") as contents:
        while part := contents.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def problem(folder: Path) -> str | None:
    """What is wrong with a checkpoint folder, in a few words; None for one whose files are all as they were saved.

    An increment needs its base as well (see training.incremental).
    """
    try:
        sums = read_json(folder / CHECKSUMS, largest=LARGEST_SETTINGS)
        if TRAINER not in sums or not any(name.endswith(".safetensors") for name in sums):
            return f"{CHECKSUMS} does not list the files"
        if strange := [name for name in sums if re.search(r"[/\\:\0]", name) or not 0 < len(name.strip(".")) < 256]:
            return f"{CHECKSUMS} lists {shown(strange[0])}, which is no file of this folder"
        for name, expected in sums.items():
            file = folder / name
            if not file.is_file():
                return f"{named(name, 80)} is missing"
            if (size := file.stat().st_size) != expected["bytes"]:
                return f"{name} has {size} bytes, but was saved with {shown(expected['bytes'])}"
            if sha256(file) != expected["sha256"]:
                return f"{name} was changed after it was saved (another SHA-256)"
        increment = read_trainer(folder).get("increment")
        if increment is None:
            return None
        base = folder.parent / increment["base"]
        if not base.is_dir():
            return f"it holds only what changed since {base.name}, which is missing"
        if "increment" in read_trainer(base):
            return f"it holds only what changed since {base.name}, which is not a full checkpoint itself"
        if wrong := problem(base):
            return f"it holds only what changed since {base.name}, where {wrong}"
        if sha256(base / CHECKSUMS) != increment["checksums"]:
            return f"it holds only what changed since another {base.name} than the one that is there now"
    except (ValueError, OSError) as error:
        return str(error)
    except (AttributeError, KeyError, TypeError):
        return f"{CHECKSUMS} is not a list of the files with their bytes and SHA-256"
    return None


def advice(out: Path, name: str | None = None) -> str:
    """How to go on when the checkpoint called `name` cannot be used: the latest other one that is whole."""
    for step in reversed(steps(out)):
        other = f"step-{step}"
        if other != name and problem(out / other) is None:
            return f"{other} is whole: to go on from there, write its name into {out / 'latest'} and resume again"
    return f"no other checkpoint in {out} is whole: start again in another folder"
