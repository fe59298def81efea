"""Checkpoints: out/step-N/, a folder that transformers loads, plus the state needed to resume."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import check_number, check_path, check_whole, mismatch, shown
from ..backend import array_module, to_device, to_host
from ..core import flatten
from ..files import printable, read_text, replaced
from ..models.model import Model
from ..optim import Optimizer
from . import environment, folders, incremental
from .folders import OPTIMIZER, read_trainer
from .monitor import improves
from .settings import Settings
from .step import NonFiniteError

# settings that older runs do not have, with values that change nothing
LATER = {
    "optimizer": "adamw",
    "balance": None,
    "z_loss": 0.0,
    "multi_token": 0.3,
    "bias_rate": 1e-3,
}


class SaveError(OSError):
    """A checkpoint or the log could not be written."""


@dataclasses.dataclass
class State:
    """The progress of a run."""

    step: int = 0  # completed updates
    tokens: int = 0  # trained on so far
    seconds: float = 0.0
    best_step: int | None = None
    best_loss: float | None = None  # validation loss, nats per token
    improved_loss: float | None = None  # the last improvement by settings.min_improvement or more
    waited: int = 0  # evaluations since that improvement
    cycle: int = 0  # the step at which the cycle of the learning rate began, see Settings
    signal: int | None = None  # that interrupted this call; not saved

    def judge(self, loss: float, least: float) -> bool:
        """Note a validation loss, of which `least` is an improvement; True if it is the best."""
        better = self.best_loss is None or loss < self.best_loss
        if better:
            self.best_step, self.best_loss = self.step, loss
        if improves(loss, self.improved_loss, least):
            self.improved_loss, self.waited = loss, 0
        else:
            self.waited += 1
        return better

    def saved(self) -> dict[str, Any]:
        """The fields stored in trainer.json."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "signal"}

    @classmethod
    def read(cls, saved: dict[str, Any], steps: int) -> State:
        """The state stored in the trainer.json of a run of `steps` steps.

        ValueError naming the first invalid key.
        """
        if not saved or not saved.keys() <= cls().saved().keys():
            raise mismatch("state", f"the keys {', '.join(cls().saved())}", shown(list(saved)))
        state = cls(**saved)
        check_whole("state.step", state.step, 0, steps)
        for name in ("tokens", "waited"):
            check_whole(f"state.{name}", getattr(state, name))
        check_whole("state.best_step", state.best_step, 0, state.step, or_none=True)
        check_whole("state.cycle", state.cycle, 0, min(state.step, steps - 1))
        check_number("state.seconds", state.seconds, least=0)
        for name in ("best_loss", "improved_loss"):
            check_number(f"state.{name}", getattr(state, name), or_none=True)
        return state


def save(
    out: Path,
    model: Model,
    optimizer: Optimizer,
    state: State,
    settings: Settings,
    data: str,
    *,
    full: bool = True,
) -> Path:
    """Write out/step-N, then update out/latest and, if this is the best checkpoint, out/best.

    The folder is written under a temporary name, flushed to disk and renamed before the two files
    are updated.  So after a crash `latest` always names a complete checkpoint, and `best` is never
    ahead of it; resuming repairs `best`.
    full=False: an increment is enough (see training.incremental), unless settings.full_every asks
    for a full checkpoint or this one is the best.
    """
    base = None
    if not full and state.best_step != state.step and (latest := _read_name(out / "latest")):
        base = incremental.base_of_next(out, latest, settings.full_every)
    moments = {name: to_host(a) for name, a in optimizer.state.items()}
    trainer = {
        "state": state.saved(),
        "updates": optimizer.t,
        "settings": dataclasses.asdict(settings),
        "data": data,
        "task": model.task,  # a file may be read for several
        "environment": environment.describe(settings.workers, model.device),
    }
    folder = out / f"step-{state.step}"
    with folders.new_folder(folder) as temporary:
        if base is None:
            folders.write_full(temporary, model, moments, trainer)
        else:
            incremental.write(temporary, out / base[0], base[1], model, moments, trainer)
    point(out / "latest", folder.name)
    point_best(out, state)
    return folder


def check_values(optimizer: Optimizer, step: int) -> None:
    """NonFiniteError for parameters that are not finite, which must not be saved."""
    values = optimizer.values.buffer
    if not bool(array_module(values).isfinite(values).all()):
        expected = "finite numbers after the update, got NaN or infinity"
        raise NonFiniteError(f"step {step}: parameters: expected {expected}")


def unwritable(error: OSError, out: Path, step: int) -> SaveError:
    """The SaveError for an OSError while writing into a run's folder."""
    what = f"{error.filename or out}: cannot be written ({error.strerror or error})"
    return SaveError(f"{what} after step {step}; {last_good(out)}")


def last_good(out: Path) -> str:
    """Where to resume from, for the message of an error."""
    if not (out / "latest").exists():
        return "no checkpoint has been saved"
    return f"the last good checkpoint is {find(out)}"


def point(file: Path, name: str) -> None:
    """Make the text file `file` ("latest" or "best") name a checkpoint."""
    with replaced(file) as temporary:
        temporary.write_text(name + "\n")


def point_best(out: Path, state: State) -> None:
    """Update out/best to name the best checkpoint."""
    file = out / "best"
    name = None if state.best_step is None else f"step-{state.best_step}"
    if name is None:
        file.unlink(missing_ok=True)
    elif name != _read_name(file) and (out / name).is_dir():
        point(file, name)


def _read_name(file: Path) -> str | None:
    """The folder name in `file` ("latest" or "best"); None if it is missing or invalid."""
    try:
        name = read_text(file, largest=1000).strip()
    except ValueError:
        return None
    return name if _is_name(name) else None


def _is_name(text: str) -> bool:
    return re.fullmatch(r"[^/\\:\0\n]{1,100}", text) is not None and text not in (".", "..")


def find(out: Path, name: str = "latest") -> Path:
    """The checkpoint folder named by out/latest (or out/best); ValueError if there is none."""
    check_path("out", out)
    out = Path(out)
    file = out / name
    if not file.exists():
        if name == "latest" and (first := _first_save(out)):
            return first
        raise mismatch(printable(out), "a run to resume", f"no file {name!r}{_hint(out, name)}")
    try:
        folder = read_text(file, largest=1000).strip()
    except ValueError as error:
        raise ValueError(f"{error}; expected the name of a checkpoint{_hint(out, name)}") from None
    if not _is_name(folder) or not (out / folder).is_dir():
        raise mismatch(
            printable(file), "the name of a checkpoint folder", f"{shown(folder)}{_hint(out, name)}"
        )
    return out / folder


def _hint(out: Path, name: str) -> str:
    return f"; {folders.advice(out)}" if name == "latest" and folders.steps(out) else ""


def started(out: Path) -> bool:
    """Whether `out` holds a run with a checkpoint, or a finished tuning run (`final`)."""
    check_path("out", out)
    out = Path(out)
    pointed = any((out / name).exists() for name in ("latest", "best", "final"))
    return pointed or len(folders.steps(out)) > 1 or bool(_first_save(out))


def _first_save(out: Path) -> Path | None:
    """The checkpoint of a run killed in its first save, after the rename, before `latest`."""
    steps = folders.steps(out)
    pointed = any((out / name).exists() for name in ("latest", "best"))
    if len(steps) != 1 or pointed or not (out / "log.jsonl").exists():
        return None
    folder = out / f"step-{steps[0]}"
    return folder if folders.problem(folder) is None else None


def restore(
    folder: Path,
    model: Model,
    optimizer: Optimizer,
    settings: Settings,
    data: str,
    extend: str | None = None,
) -> State:
    """Load a checkpoint's parameters and moments into the optimiser, its buffers into the model.

    Refuses a damaged folder, naming an intact one, and a run whose configuration differs, naming
    the differences.  extend: how the rate continues if there are more steps now (see Settings).
    """
    folders.check_intact(str(folder), folder, hint=True)
    saved, moments, trainer = incremental.read(folder)
    where = printable(folder / folders.TRAINER)
    before, now = dataclasses.asdict(saved.config), dataclasses.asdict(model.config)
    differences = _differences("model", before, now, free=("source",))
    now = dataclasses.asdict(settings)
    before = {**LATER, **trainer["settings"]}
    differences += _differences("settings", before, now, free=(*Settings.FREE, "steps"))
    if str(saved.dtype) != str(model.dtype):
        differences.append(f"dtype {saved.dtype}, now {model.dtype}")
    if trainer["data"] != data:
        differences.append("the token data")
    if differences:
        raise mismatch(
            folder, "the configuration of this run", f"another: {'; '.join(differences)}"
        )
    kinds = {name: (tuple(a.shape), "f") for name, a in optimizer.state.items()}
    found = {name: (a.shape, a.dtype.kind) for name, a in moments.items()}
    if bad := sorted(name for name in kinds | found if kinds.get(name) != found.get(name)):
        names = ", ".join(printable(n, 80) for n in bad[:3])
        raise mismatch(
            printable(folder / OPTIMIZER), "the moments of this model", f"others at {names}"
        )
    try:
        check_whole("settings.steps", before.get("steps"), 1)
        state = State.read(trainer["state"], before["steps"])
        check_whole("updates", trainer["updates"], 0, state.step)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if settings.steps < before["steps"]:
        expected = f"at least {shown(before['steps'])}, as in {where}"
        raise mismatch("settings.steps", expected, settings.steps)
    if before["steps"] != settings.steps:
        state.cycle = settings.extended(before["steps"], state.step, state.cycle, extend)
    _fill(optimizer.values.leaves, flatten(saved.params), model.device)
    _fill(optimizer.state, moments, model.device)
    model.buffers = to_device(saved.buffers, model.device)
    optimizer.t = trainer["updates"]
    return state


def environment_note(folder: Path, settings: Settings, device: str) -> str | None:
    """One line if the checkpoint was written with other libraries or workers, or on another device;
    else None.
    """
    return environment.difference(
        read_trainer(folder).get("environment", {}), environment.describe(settings.workers, device)
    )


def _fill(leaves: dict[str, Any], arrays: dict[str, Any], device: str) -> None:
    for path, leaf in leaves.items():
        leaf[...] = to_device(arrays[path], device)


def _differences(what: str, saved: dict, now: dict, free: tuple[str, ...] = ()) -> list[str]:
    found = [
        f"{what}.{printable(name, 40)} was {shown(saved.get(name))}, now {shown(now.get(name))}"
        for name in {**saved, **now}
        if name not in free and saved.get(name) != now.get(name)
    ]
    return found if len(found) <= 3 else [*found[:3], f"and {len(found) - 3} more"]


def prune(out: Path, state: State, keep: int) -> None:
    """Delete checkpoints and leftovers of interrupted saves.

    Kept are the last `keep` checkpoints up to this step, the best one, the bases of kept
    increments, and later steps: a run set back to an earlier checkpoint overwrites them when it
    reaches them.
    """
    folders.remove_temporaries(out)
    steps = folders.steps(out)
    earlier = [step for step in steps if step <= state.step]
    stay = {*earlier[-keep:], *(step for step in steps if step > state.step)}
    if state.best_step is not None:
        stay.add(state.best_step)
    names = {f"step-{step}" for step in stay}
    names |= {base for name in names if (base := _base(out / name))}
    for step in reversed(earlier):  # increments before their bases
        if f"step-{step}" not in names:
            folders.remove(out / f"step-{step}")


def tidy(out: Path, state: State, keep: int, *, best: bool = True) -> None:
    """Repair `out` after a crash: put it into the state of a clean stop at this step.

    best: the file `best` names the best checkpoint.
    """
    if state.step:
        prune(out, state, keep)  # first: the disk may be full
        if not (out / "latest").exists():
            point(out / "latest", f"step-{state.step}")
        if best:
            point_best(out, state)
    elif (out / "log.jsonl").exists():  # killed before its first checkpoint was complete
        folders.remove_temporaries(out)


def _base(folder: Path) -> str | None:
    try:
        return read_trainer(folder)["increment"]["base"]
    # a full folder, or a damaged one, which needs no base
    except (ValueError, KeyError, TypeError):
        return None


def fingerprint(*arrays: np.ndarray) -> str:
    """A hash of the sizes, dtypes and contents of token arrays.

    Of a large array only the first and the last million tokens are hashed.
    """
    digest = hashlib.sha256()
    for a in arrays:
        digest.update(f"{a.dtype} {a.shape} ".encode())
        for part in (a[:1_000_000], a[-1_000_000:]):
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
