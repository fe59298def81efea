"""Checkpoints: out/step-N/ folders that transformers loads, with what a resume needs beside the model."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import to_device, to_host
from ..core import flatten
from ..files import replaced
from ..models.model import Model
from ..optim.adamw import AdamW
from . import environment, folders, incremental
from .folders import OPTIMIZER, read_trainer
from .settings import Settings


class SaveError(OSError):
    """A checkpoint or the log could not be written."""


@dataclasses.dataclass
class State:
    """What a run has done so far."""

    step: int = 0  # updates done
    tokens: int = 0  # trained on
    seconds: float = 0.0
    best_step: int | None = None
    best_loss: float | None = None  # validation loss, nats a token
    improved_loss: float | None = None  # the last one that was lower by settings.min_improvement
    waited: int = 0  # evaluations since then
    signal: int | None = None  # the one that interrupted this call; not saved

    def saved(self) -> dict[str, Any]:
        """What trainer.json keeps."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "signal"}


def save(out: Path, model: Model, optimizer: AdamW, state: State, settings: Settings, data: str, *, full: bool = True) -> Path:
    """Write out/step-N, then point out/latest and (if it is the best) out/best at it.

    The folder is written under a temporary name, flushed and renamed, and only then named: whenever this is broken off, `latest`
    names a complete checkpoint, and `best`, which a resume puts right, is never ahead of it.
    full=False: an increment is enough (see training.incremental), if settings.full_every does not ask for a full one and it is
    not the best.
    """
    base = None
    if not full and state.best_step != state.step and (out / "latest").exists():
        base = incremental.base_of_next(out, (out / "latest").read_text().strip(), settings.full_every)
    moments = {f"{name}.{path}": to_host(a) for name in "mv" for path, a in getattr(optimizer, name).leaves.items()}
    trainer = {"state": state.saved(), "updates": optimizer.t, "settings": dataclasses.asdict(settings), "data": data,
               "environment": environment.describe(settings.workers, model.device)}  # fmt: skip
    folder = out / f"step-{state.step}"
    with folders.new_folder(folder) as temporary:
        if base is None:
            folders.write_full(temporary, model, moments, trainer)
        else:
            incremental.write(temporary, out / base[0], base[1], model, moments, trainer)
    point(out / "latest", folder.name)
    point_best(out, state)
    return folder


def point(file: Path, name: str) -> None:
    """Make the small text file `file` ("latest", "best") name a checkpoint."""
    with replaced(file) as temporary:
        temporary.write_text(name + "\n")


def point_best(out: Path, state: State) -> None:
    """Make out/best name the best checkpoint, where it does not yet."""
    file = out / "best"
    name = None if state.best_step is None else f"step-{state.best_step}"
    named = file.read_text().strip() if file.exists() else None
    if name is None:
        file.unlink(missing_ok=True)
    elif name != named and (out / name).is_dir():
        point(file, name)


def find(out: Path, name: str = "latest") -> Path:
    """The checkpoint folder that out/latest (or out/best) names; ValueError when there is none."""
    try:
        folder = out / (out / name).read_text().strip()
    except FileNotFoundError:
        if name == "latest" and (first := _first_save(out)):
            return first
        raise ValueError(f"{out}: nothing to resume, there is no file {name!r} in it{_hint(out, name)}") from None
    if folder == out or not folder.is_dir():
        raise ValueError(f"{out / name} names {folder.name!r}, but there is no such folder{_hint(out, name)}")
    return folder


def _hint(out: Path, name: str) -> str:
    return f"; {folders.advice(out)}" if name == "latest" and folders.steps(out) else ""


def started(out: Path) -> bool:
    """Whether `out` holds a run with a checkpoint."""
    return any((out / name).exists() for name in ("latest", "best")) or len(folders.steps(out)) > 1 or bool(_first_save(out))


def _first_save(out: Path) -> Path | None:
    """The checkpoint of a run that was killed in its first save, when the folder had its name but `latest` was not there yet."""
    steps = folders.steps(out)
    if len(steps) != 1 or any((out / name).exists() for name in ("latest", "best")) or not (out / "log.jsonl").exists():
        return None
    folder = out / f"step-{steps[0]}"
    return folder if folders.problem(folder) is None else None


def restore(folder: Path, model: Model, optimizer: AdamW, settings: Settings, data: str) -> State:
    """Put a checkpoint's parameters and moments into the optimiser.

    Refuses a damaged folder, naming another one that is whole, and, by name, what differs from this run.
    """
    if wrong := folders.problem(folder):
        raise ValueError(f"{folder}: {wrong}; {folders.advice(folder.parent, folder.name)}")
    saved, moments, trainer = incremental.read(folder)
    differences = _differences("model", dataclasses.asdict(saved.config), dataclasses.asdict(model.config), free=("source",))
    differences += _differences("settings", trainer["settings"], dataclasses.asdict(settings), free=Settings.FREE)
    if str(saved.dtype) != str(model.dtype):
        differences.append(f"dtype {saved.dtype}, now {model.dtype}")
    if trainer["data"] != data:
        differences.append("the token data")
    if differences:
        raise ValueError(f"cannot resume from {folder} with another configuration: {'; '.join(differences)}")
    expected = {f"{name}.{path}": a.shape for name in "mv" for path, a in optimizer.values.leaves.items()}
    wrong = sorted(expected.keys() ^ moments.keys()) or [n for n, s in expected.items() if moments[n].shape != tuple(s)]
    if wrong:
        raise ValueError(f"{folder / OPTIMIZER}: does not fit the model at {', '.join(wrong[:5])}")
    try:
        state = State(**trainer["state"])
    except TypeError:
        raise ValueError(f"{folder / folders.TRAINER}: expected a state with {', '.join(State().saved())}") from None
    _fill(optimizer.values.leaves, flatten(saved.params), model.device)
    for name in "mv":
        _fill(getattr(optimizer, name).leaves, {k[2:]: a for k, a in moments.items() if k.startswith(f"{name}.")}, model.device)
    optimizer.t = trainer["updates"]
    return state


def environment_note(folder: Path, settings: Settings, device: str) -> str | None:
    """One line when a checkpoint was written with other workers or libraries than go on now; None when with the same."""
    return environment.difference(read_trainer(folder).get("environment", {}), environment.describe(settings.workers, device))


def _fill(leaves: dict[str, Any], arrays: dict[str, Any], device: str) -> None:
    for path, leaf in leaves.items():
        leaf[...] = to_device(arrays[path], device)


def _differences(what: str, saved: dict, now: dict, free: tuple[str, ...] = ()) -> list[str]:
    names = [name for name in {**saved, **now} if name not in free and saved.get(name) != now.get(name)]
    return [f"{what}.{name} was {saved.get(name)!r}, now {now.get(name)!r}" for name in names]


def prune(out: Path, state: State, keep: int) -> None:
    """Remove checkpoints except the last `keep` up to this step, the best, and the bases of increments that stay; and what an
    interrupted save left.

    Folders of later steps stay: a run that was set back to an earlier checkpoint replaces them when it gets there.
    """
    folders.remove_temporaries(out)
    steps = folders.steps(out)
    earlier = [step for step in steps if step <= state.step]
    stay = {*earlier[-keep:], *(step for step in steps if step > state.step)}
    if state.best_step is not None:
        stay.add(state.best_step)
    names = {f"step-{step}" for step in stay}
    names |= {_base(out / name) for name in names}
    for step in reversed(earlier):  # increments go before their bases
        if f"step-{step}" not in names:
            folders.remove(out / f"step-{step}")


def _base(folder: Path) -> str | None:
    try:
        return read_trainer(folder)["increment"]["base"]
    except (ValueError, KeyError, TypeError):  # a full folder, or a damaged one, which needs nothing any more
        return None


def fingerprint(*arrays: np.ndarray) -> str:
    """A hash of token arrays: their sizes, dtypes and contents (of large ones the first and last million tokens)."""
    digest = hashlib.sha256()
    for a in arrays:
        digest.update(f"{a.dtype} {a.shape} ".encode())
        for part in (a[:1_000_000], a[-1_000_000:]):
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
