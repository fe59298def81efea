"""Checkpoints: out/step-N/ folders that transformers loads, with what a resume needs beside the model."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import check_number, check_path, check_whole, shown
from ..backend import to_device, to_host
from ..core import flatten
from ..files import named, read_text, replaced
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

    @classmethod
    def read(cls, saved: dict[str, Any], steps: int) -> State:
        """From what a trainer.json has, of a run of `steps` steps; ValueError that names the key that is wrong."""
        if not saved or not saved.keys() <= cls().saved().keys():
            raise ValueError(f"expected a state with {', '.join(cls().saved())}, got {shown(list(saved))}")
        state = cls(**saved)
        check_whole("state.step", state.step, 0, steps)
        for name in ("tokens", "waited"):
            check_whole(f"state.{name}", getattr(state, name))
        check_whole("state.best_step", state.best_step, 0, state.step, or_none=True)
        check_number("state.seconds", state.seconds, least=0)
        for name in ("best_loss", "improved_loss"):
            check_number(f"state.{name}", getattr(state, name), or_none=True)
        return state


def save(out: Path, model: Model, optimizer: AdamW, state: State, settings: Settings, data: str, *, full: bool = True) -> Path:
    """Write out/step-N, then point out/latest and (if it is the best) out/best at it.

    The folder is written under a temporary name, flushed and renamed, and only then named: whenever this is broken off, `latest`
    names a complete checkpoint, and `best`, which a resume puts right, is never ahead of it.
    full=False: an increment is enough (see training.incremental), if settings.full_every does not ask for a full one and it is
    not the best.
    """
    base = None
    if not full and state.best_step != state.step and (latest := _read_name(out / "latest")):
        base = incremental.base_of_next(out, latest, settings.full_every)
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
    if name is None:
        file.unlink(missing_ok=True)
    elif name != _read_name(file) and (out / name).is_dir():
        point(file, name)


def _read_name(file: Path) -> str | None:
    """The name of a folder beside it that `file` ("latest", "best") holds; None if it is missing or holds anything else."""
    try:
        name = read_text(file, largest=1000).strip()
    except ValueError:
        return None
    return name if _is_name(name) else None


def _is_name(text: str) -> bool:
    return re.fullmatch(r"[^/\\:\0\n]{1,100}", text) is not None and text not in (".", "..")


def find(out: Path, name: str = "latest") -> Path:
    """The checkpoint folder that out/latest (or out/best) names; ValueError when there is none."""
    check_path("out", out)
    out = Path(out)
    file = out / name
    if not file.exists():
        if name == "latest" and (first := _first_save(out)):
            return first
        raise ValueError(f"{named(out)}: nothing to resume, there is no file {name!r} in it{_hint(out, name)}")
    try:
        folder = read_text(file, largest=1000).strip()
    except ValueError as error:
        raise ValueError(f"{error}; expected the name of a checkpoint{_hint(out, name)}") from None
    if not _is_name(folder) or not (out / folder).is_dir():
        raise ValueError(f"{named(file)} names {shown(folder)}, but there is no such folder{_hint(out, name)}")
    return out / folder


def _hint(out: Path, name: str) -> str:
    return f"; {folders.advice(out)}" if name == "latest" and folders.steps(out) else ""


def started(out: Path) -> bool:
    """Whether `out` holds a run with a checkpoint, or a finished run of a recipe of tuning/, in `final`."""
    check_path("out", out)
    out = Path(out)
    named = any((out / name).exists() for name in ("latest", "best", "final"))
    return named or len(folders.steps(out)) > 1 or bool(_first_save(out))


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
    where = named(folder / folders.TRAINER)
    differences = _differences("model", dataclasses.asdict(saved.config), dataclasses.asdict(model.config), free=("source",))
    differences += _differences("settings", trainer["settings"], dataclasses.asdict(settings), free=Settings.FREE)
    if str(saved.dtype) != str(model.dtype):
        differences.append(f"dtype {saved.dtype}, now {model.dtype}")
    if trainer["data"] != data:
        differences.append("the token data")
    if differences:
        raise ValueError(f"cannot resume from {folder} with another configuration: {'; '.join(differences)}")
    expected = {f"{name}.{path}": a.shape for name in "mv" for path, a in optimizer.values.leaves.items()}
    wrong = sorted(expected.keys() ^ moments.keys())
    wrong = wrong or [n for n, s in expected.items() if moments[n].shape != tuple(s) or moments[n].dtype.kind != "f"]
    if wrong:
        raise ValueError(f"{named(folder / OPTIMIZER)}: does not fit the model at {', '.join(named(n, 80) for n in wrong[:3])}")
    try:
        state = State.read(trainer["state"], settings.steps)
        check_whole("updates", trainer["updates"], 0, state.step)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
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
    found = [f"{what}.{named(name, 40)} was {shown(saved.get(name))}, now {shown(now.get(name))}" for name in names]
    return found if len(found) <= 3 else [*found[:3], f"and {len(found) - 3} more"]


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
