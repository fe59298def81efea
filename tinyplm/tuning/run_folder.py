"""The folder of a tuning run: locked, resumed from its latest checkpoint, saved into.

out/log.jsonl   the values of each step
out/step-N/     a checkpoint: a folder that loads, or an adapter (see tuning.adapters.files); other
                trained parameters (extra.safetensors), the moments, trainer.json
out/latest      the name of the last checkpoint
out/best        that of the best one, by validation loss
out/final/      the result (of finetune: out/best/)

training.checkpoint and training.folders, which pretraining uses, write and check all this.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..arguments import check_whole, mismatch, wrong
from ..backend import to_device, to_host
from ..core import flatten
from ..files import printable, sole_writer, write_json
from ..hub import folders as hub
from ..hub.tensors import read_safetensors, write_safetensors
from ..optim import Optimizer
from ..training import checkpoint, environment, folders
from ..training.checkpoint import State
from ..training.folders import OPTIMIZER, TRAINER
from ..training.log import Log, missing_steps
from ..training.step import NonFiniteError
from .adapters.files import TENSORS
from .identity import differences, identity

LOG, EXTRA = "log.jsonl", "extra.safetensors"
RUN = "run.json"  # the options of a command, written before the run begins


class RunFolder:
    """`state` is the progress of the run, `trainer` what the checkpoint resumed from says of it ({}
    for a run from its start), `notes` lines to show.

    optimizer: gets the values and moments of the checkpoint.
    data: what must be the same on resume, arguments of the recipe by name, models among them.
    prefix: of the names that the model's parameters have in the optimiser.
    result: the name of the folder of the result.
    ValueError if another process writes into the folder; without resume, if there is a run; with
    it, if there is none, if its checkpoint is damaged, naming an intact one, or if settings or data
    differ.  Nothing is changed before all of that is checked.
    """

    def __init__(
        self,
        held: ExitStack,
        out: Path,
        optimizer: Optimizer,
        settings: Any,
        data: dict[str, Any],
        *,
        steps: int,
        result: str,
        resume: bool = False,
        prefix: str = "",
        device: str = "cpu",
        writers: Sequence[str] = (),
    ) -> None:
        self.out, self.result, self.settings, self.steps = out, result, settings, steps
        self.optimizer, self.prefix, self.device = optimizer, prefix, device
        self.state, self.trainer = State(), dict[str, Any]()
        self.notes: list[str] = []
        folder = open_folder(held, out, result, resume)
        self.data = {name: identity(value) for name, value in data.items()}
        if folder is not None:
            self._restore(folder)
        with self.writing():
            checkpoint.tidy(out, self.state, settings.keep, best=result != "best")
            self.log = Log(out / LOG, last_step=self.state.step, writers=writers)
        held.callback(self.log.close)
        self.saved_step, self.saved_at = self.state.step, time.perf_counter()

    # ------------------------------------------------------------------------------------- resuming

    def _restore(self, folder: Path) -> None:
        """Fill the optimiser and the state, after all checks."""
        folders.check_intact(str(folder), folder, hint=True)
        trainer = folders.read_trainer(folder)
        self._check_same(folder, trainer)
        values = self.parameters(folder, trainer)
        moments, _ = read_safetensors(folder / OPTIMIZER)
        optimizer = self.optimizer
        for file, leaves, arrays in (
            (folder, optimizer.values.leaves, values),
            (folder / OPTIMIZER, optimizer.state, moments),
        ):
            for name, leaf in leaves.items():
                found = arrays.get(name)
                if found is None or found.shape != leaf.shape or found.dtype.kind != "f":
                    where = f"{printable(file)}: {printable(name, 80)}"
                    raise wrong(where, f"numbers of shape {leaf.shape}", found)
        try:
            self.state = State.read(trainer["state"], self.steps)
            check_whole("updates", trainer["updates"])
        except ValueError as error:
            raise ValueError(f"{printable(folder / TRAINER)}: {error}") from None
        for leaves, arrays in ((optimizer.values.leaves, values), (optimizer.state, moments)):
            for name, leaf in leaves.items():
                leaf[...] = to_device(arrays[name], self.device)
        optimizer.t, self.trainer = trainer["updates"], trainer
        described = environment.describe(self.settings.workers, self.device)
        changed = environment.difference(trainer.get("environment", {}), described)
        self.notes += filter(None, (changed, missing_steps(self.out / LOG, self.state.step)))

    def _check_same(self, folder: Path, trainer: dict[str, Any]) -> None:
        """ValueError naming up to three differences between the run and what is given now."""
        kind, saved = type(self.settings), trainer["settings"]
        if trainer.get("recipe") != kind.__name__:
            given = printable(str(trainer.get("recipe", "pretraining")), 40)
            raise mismatch(folder, f"a checkpoint of a run with {kind.__name__}", given)
        now = json.loads(json.dumps(dataclasses.asdict(self.settings)))
        older = dataclasses.asdict(kind())  # settings that older runs do not have
        fixed = [name for name in now if name not in kind.FREE]
        before = {name: saved.get(name, older[name]) for name in fixed}
        found = differences("settings", before, {name: now[name] for name in fixed})
        found += differences("", trainer["data"], self.data)
        if found:
            more = [f"and {len(found) - 3} more"] if len(found) > 3 else []
            raise ValueError("; ".join([*found[:3], *more]))

    def parameters(self, folder: Path, trainer: dict[str, Any] | None = None) -> dict[str, Any]:
        """The trained parameters in a checkpoint, on the host, by their names in the optimiser."""
        trainer = folders.read_trainer(folder) if trainer is None else trainer
        if (folder / TENSORS).exists():
            model: Any = read_safetensors(folder / TENSORS)[0]
        else:
            model = flatten(hub.load(folder, task=trainer.get("task")).params)
        extra = read_safetensors(folder / EXTRA)[0] if (folder / EXTRA).exists() else {}
        named = {f"{self.prefix}{path}": a for path, a in model.items()}
        return named | {f"extra.{path}": a for path, a in extra.items()}

    # --------------------------------------------------------------------------------------- saving

    def due(self, every: int | None) -> bool:
        """Whether to save after this step: every so many steps, and by settings.save_minutes.

        Saving does not affect the numbers, so the clock does not break exact resume.
        """
        minutes = self.settings.save_minutes
        if minutes is not None and time.perf_counter() - self.saved_at >= 60 * minutes:
            return True
        return every is not None and self.state.step % every == 0

    def save(self, write: Callable[[Path], None], *, task: str | None, **more: Any) -> None:
        """Write out/step-N and name it in out/latest; write(folder) writes the parameters.

        more: what else trainer.json gets.  SaveError, naming the last good checkpoint, if the disk
        is full; NonFiniteError, writing nothing, for parameters that are not finite.
        """
        state, optimizer, settings = self.state, self.optimizer, self.settings
        checkpoint.check_values(optimizer, state.step)
        trainer = {
            "recipe": type(settings).__name__,
            "state": state.saved(),
            "updates": optimizer.t,
            "settings": dataclasses.asdict(settings),
            "data": self.data,
            "task": task or "",
            "environment": environment.describe(settings.workers, self.device),
            **more,
        }
        folder = self.out / f"step-{state.step}"
        with self.writing():
            self.log.sync()
            with folders.new_folder(folder) as temporary:
                write(temporary)
                moments = {name: to_host(a) for name, a in optimizer.state.items()}
                write_safetensors(temporary / OPTIMIZER, moments)
                write_json(temporary / TRAINER, trainer)
            checkpoint.point(self.out / "latest", folder.name)
            if self.result != "best":
                checkpoint.point_best(self.out, state)
            checkpoint.prune(self.out, state, settings.keep)
        self.saved_step, self.saved_at = state.step, time.perf_counter()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Within the block, an OSError becomes a SaveError that names the last good checkpoint."""
        try:
            yield
        except checkpoint.SaveError:
            raise
        except OSError as error:
            raise checkpoint.unwritable(error, self.out, self.state.step) from error


def open_folder(held: ExitStack, out: Path, result: str, resume: bool = False) -> Path | None:
    """Lock `out` until `held` is closed; the checkpoint to resume from, or None to start anew.

    A run killed before its first checkpoint starts anew.
    """
    if resume and not out.is_dir():
        raise mismatch(out, "a run to resume", "no such folder")
    held.enter_context(sole_writer(out))
    logged = (out / LOG).exists()
    if not resume:
        if logged or (out / result).exists() or checkpoint.started(out):
            expected = "one with a run: resume it, or choose another folder"
            raise mismatch(out, "a folder without a run", expected)
        return None
    marks = [out / name for name in ("latest", result)]
    if folders.steps(out) or any(mark.exists() for mark in marks):
        return checkpoint.find(out)
    named = {file.name for file in out.iterdir() if not file.name.endswith(".tmp")}
    if not logged and named - {RUN}:
        raise mismatch(out, "a run to resume", f"a folder without {LOG}")
    return None


def with_last_good(error: NonFiniteError, out: Path | None) -> NonFiniteError:
    """The same error, naming the checkpoint to resume from."""
    return error if out is None else NonFiniteError(f"{error}; {checkpoint.last_good(out)}")
