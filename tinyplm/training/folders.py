"""Checkpoint folders on disk: atomic writing, checksums, diagnosis of damage."""

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

from ..arguments import mismatch, shown, wrong
from ..files import LARGEST_SETTINGS, printable, read_json, sync_folder, write_json
from ..hub import folders as hub
from ..hub.tensors import read_safetensors, write_safetensors
from ..models.model import Model

CHECKSUMS, TRAINER, OPTIMIZER = "checksums.json", "trainer.json", "optimizer.safetensors"
_FILE_DTYPES = {"float16": "F16", "float32": "F32", "float64": "F64"}


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder; on success add checksums, flush it to disk, rename it to `folder`.

    After a crash `folder` is the old one, the new one, or (briefly, while an old one is replaced)
    absent, but never partial.  On an error the temporary folder is removed.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        files = sorted(file for file in temporary.iterdir())
        write_json(
            temporary / CHECKSUMS,
            {file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in files},
        )
        sync_folder(temporary)
        if folder.exists():
            remove(folder)
        os.rename(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(folder.parent)


def remove(folder: Path) -> None:
    """Delete a folder, renamed first: a half-deleted one must not look like a checkpoint."""
    leaving = folder.with_name(f".{folder.name}.old.tmp")
    shutil.rmtree(leaving, ignore_errors=True)
    os.rename(folder, leaving)
    shutil.rmtree(leaving)


def remove_temporaries(out: Path) -> None:
    """Delete what interrupted writes left in `out`."""
    for rest in out.glob(".*.tmp"):
        if rest.is_dir():
            shutil.rmtree(rest, ignore_errors=True)
        else:
            rest.unlink(missing_ok=True)


def steps(out: Path) -> list[int]:
    """The steps with a folder in `out`, in ascending order."""
    form = re.compile(r"step-(0|[1-9]\d*)", re.ASCII)
    found = [folder for folder in out.glob("step-*") if form.fullmatch(folder.name)]
    return sorted(int(folder.name[5:]) for folder in found if folder.is_dir())


# ------------------------------------------------------------------------------------ a full folder


def write_full(
    folder: Path, model: Model, moments: dict[str, np.ndarray], trainer: dict[str, Any]
) -> None:
    """Write all files of a checkpoint: what transformers loads, the moments, trainer.json.

    Tensors keep the parameters' dtype, whatever dtype the model was loaded from.
    """
    hub.save(model, folder, dtype=_FILE_DTYPES[str(model.dtype)])
    write_safetensors(folder / OPTIMIZER, moments)
    write_json(folder / TRAINER, trainer)


def read_full(folder: Path) -> tuple[Model, dict[str, np.ndarray], dict[str, Any]]:
    """(model on the host, moments, contents of trainer.json) of a full folder."""
    trainer = read_trainer(folder)
    model = hub.load(folder, task=trainer.get("task"))  # older runs do not name it
    return model, read_safetensors(folder / OPTIMIZER)[0], trainer


def read_trainer(folder: Path) -> dict[str, Any]:
    """The contents of trainer.json; ValueError naming the file if they are invalid."""
    file = printable(folder / TRAINER)
    trainer = read_json(folder / TRAINER, largest=LARGEST_SETTINGS)
    required = {"state", "updates", "settings", "data"}
    if not isinstance(trainer, dict) or not required <= trainer.keys():
        raise wrong(file, "an object with state, updates, settings and data", trainer)
    for name in ("state", "settings", "environment", "increment"):
        if not isinstance(trainer.get(name, {}), dict):
            raise ValueError(f"{file}: {wrong(name, 'an object', trainer[name])}")
    if not isinstance(trainer.get("task", ""), str):
        raise ValueError(f"{file}: {wrong('task', 'a string', trainer['task'])}")
    if (increment := trainer.get("increment")) is not None:
        base, number = increment.get("base"), increment.get("number")
        right = isinstance(base, str) and re.fullmatch(r"step-\d{1,18}", base)
        if not right or type(number) is not int:
            raise wrong(f"{file}: increment", "the name and number of its base", increment)
    return trainer


# ------------------------------------------------------------------------------------------- damage


def sha256(file: Path) -> str:
    """The SHA-256 of a file, read in chunks."""
    digest = hashlib.sha256()
    with open(file, "rb") as contents:
        while part := contents.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def problem(folder: Path) -> str | None:
    """What is wrong with a checkpoint folder, in a few words; None if all its files are as saved.

    An increment is intact only if its base is (see training.incremental).
    """
    try:
        sums = read_json(folder / CHECKSUMS, largest=LARGEST_SETTINGS)
        if TRAINER not in sums or not any(name.endswith(".safetensors") for name in sums):
            return f"{CHECKSUMS} does not list the files"
        for name in sums:
            if re.search(r"[/\\:\0]", name) or not 0 < len(name.strip(".")) < 256:
                return f"{CHECKSUMS} lists {shown(name)}, which is not a file name"
        for name, expected in sums.items():
            file = folder / name
            if not file.is_file():
                return f"{printable(name, 80)} is missing"
            if (size := file.stat().st_size) != expected["bytes"]:
                return f"{name} has {size} bytes instead of {shown(expected['bytes'])}"
            if sha256(file) != expected["sha256"]:
                return f"{name} has changed since it was saved (SHA-256 differs)"
        increment = read_trainer(folder).get("increment")
        if increment is None:
            return None
        base = folder.parent / increment["base"]
        if not base.is_dir():
            return f"its base {base.name} is missing"
        if "increment" in read_trainer(base):
            return f"its base {base.name} is not a full checkpoint"
        if damage := problem(base):
            return f"in its base {base.name}, {damage}"
        if sha256(base / CHECKSUMS) != increment["checksums"]:
            return f"its base {base.name} has been replaced"
    except (ValueError, OSError) as error:
        return str(error)
    except (AttributeError, KeyError, TypeError):
        return f"{CHECKSUMS} does not list files with their bytes and SHA-256"
    return None


def check_intact(name: str, folder: Path, *, hint: bool = False) -> None:
    """ValueError if the checkpoint is damaged; hint: name an intact one to resume from."""
    if damage := problem(folder):
        more = f"; {advice(folder.parent, folder.name)}" if hint else ""
        raise mismatch(name, "an intact checkpoint", f"a damaged one: {damage}{more}")


def advice(out: Path, name: str | None = None) -> str:
    """What to do when the checkpoint `name` is unusable: the latest other intact one."""
    for step in reversed(steps(out)):
        other = f"step-{step}"
        if other != name and problem(out / other) is None:
            return f"{other} is intact: to resume from it, write its name to {out / 'latest'}"
    return f"no other checkpoint in {out} is intact: start again in another folder"
