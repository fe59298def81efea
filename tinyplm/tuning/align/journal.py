"""The journal of a run: its log, progress bar, checkpoints and result."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ...arguments import mismatch, wrong
from ...files import LARGEST_SETTINGS, printable, read_json, write_json
from ...training.checkpoint import State
from ...training.folders import TRAINER, new_folder
from ...training.interrupt import Interrupt, interruptible
from ...training.log import MEASURED, Log, Progress, read
from ...training.step import NonFiniteError, check_finite
from ...training.writers import check_writers
from ..run_folder import LOG, RunFolder, open_folder, with_last_good
from .learner import Learner

FINAL, FACTS = "final", "recipe.json"


class Journal:
    """What a recipe writes: out/log.jsonl, a progress bar, with a learner the checkpoints
    out/step-N (see tuning.run_folder), and at the end the folder out/final.

        with Journal(out, settings.steps, learner=learner, data=data, resume=resume) as journal:
            for step in journal.steps():
                journal.record(step + 1, learner.step(...))
            journal.finish(learner)

    data: what besides the learner's model and settings must be the same on resume, by name: token
    sequences, arrays, numbers, models.  What a recipe keeps from step to step outside the learner
    belongs into `kept`, numbers by name, which checkpoints have, too.
    resume: go on from the latest checkpoint in `out`; bit-identical to an uninterrupted run.
    writers: other programs that get the log, see training.writers.

    history     the values of each step
    validation  {step: values}
    state       the number of steps done, the best validation loss
    """

    def __init__(
        self,
        out: str | Path | None,
        steps: int,
        *,
        progress: bool = True,
        learner: Learner | None = None,
        data: dict[str, Any] | None = None,
        resume: bool = False,
        writers: Sequence[str] = (),
    ) -> None:
        self.writers = check_writers(writers)
        self.out = None if out is None else Path(out)
        self.total, self.learner, self.show = steps, learner, progress
        self.settings: Any = None if learner is None else learner.settings
        self.history: list[dict[str, float]] = []
        self.validation: dict[int, dict[str, float]] = {}
        self.kept: dict[str, float] = {}
        self.state, self.interrupt = State(), Interrupt()
        self.log: Log | None = None
        self.folder: RunFolder | None = None
        with ExitStack() as opened:
            if self.out is not None:
                self._open(opened, self.out, {} if data is None else data, resume)
            self.open = opened.pop_all()
        self.facts: dict[str, Any] = {}  # those of a run that had been finished
        if self.complete and self.out is not None and (self.out / FINAL).exists():
            self.facts = read_json(self.out / FINAL / FACTS, largest=LARGEST_SETTINGS)
        self.finished = bool(self.facts)
        self.progress = Progress(steps, self.state.step, show=progress)
        notes: list[str] = [] if self.folder is None else self.folder.notes
        for note in notes:
            self.progress.say(note)
        if self.finished:
            self.progress.say(f"nothing to do: the run in {self.out} has ended")

    def _open(self, opened: ExitStack, out: Path, data: dict[str, Any], resume: bool) -> None:
        """Lock the folder, go on from its checkpoint, and open the log."""
        learner = self.learner
        if learner is None:
            if resume:
                raise mismatch("resume", "False without a learner", resume)
            open_folder(opened, out, FINAL)
            self.log = Log(out / LOG, writers=self.writers)
            opened.callback(self.log.close)
            return
        options: dict[str, Any] = {"steps": self.total, "result": FINAL, "resume": resume}
        options["writers"] = self.writers
        parts = (out, learner.optimizer, self.settings, {**learner.given, **data})
        device = getattr(learner.model, "device", "cpu")
        self.folder = RunFolder(opened, *parts, **options, prefix="model.", device=device)
        self.log, self.state = self.folder.log, self.folder.state
        if self.state.step:
            learner.resume()
            self._recall(self.folder.trainer, f"{printable(out)}: {TRAINER}")
            for record in read(self.log.path):
                done = self.history[-1]["step"] if self.history else 0
                if record["step"] > done:  # a step's values come before its validation
                    values = {name: v for name, v in record.items() if name not in MEASURED}
                    self.history.append(values)

    def _recall(self, trainer: dict[str, Any], where: str) -> None:
        """What a checkpoint says of `kept` and `validation`."""
        try:
            self.kept = {name: float(value) for name, value in trainer["kept"].items()}
            self.validation = {
                int(step): {name: float(value) for name, value in values.items()}
                for step, values in trainer["validation"]
            }
        except (AttributeError, KeyError, TypeError, ValueError):
            given = {name: trainer.get(name) for name in ("kept", "validation")}
            raise wrong(where, "numbers as kept and validation", given) from None

    def __enter__(self) -> Journal:
        if self.folder is not None:
            notice = "stopping after this step; repeat to stop immediately" if self.show else ""
            self.interrupt = self.open.enter_context(interruptible(notice))
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.progress.close()
        self.open.close()
        if isinstance(error, NonFiniteError) and self.folder is not None:
            raise with_last_good(error, self.out) from None

    # ---------------------------------------------------------------------------------------- steps

    @property
    def complete(self) -> bool:
        """Whether all steps are done, or the patience is exhausted."""
        return self.state.step >= self.total or self._impatient()

    def _impatient(self) -> bool:
        patience = getattr(self.settings, "patience", None)
        return patience is not None and self.state.waited >= patience

    @property
    def signal(self) -> int | None:
        """The number of the signal that interrupted the run."""
        return self.interrupt.signal

    def steps(self) -> Iterator[int]:
        """The numbers, from 0, of the steps that remain.

        After each, a checkpoint is saved if one is due: after settings.save_every steps or
        settings.save_minutes, after the best evaluation and the last step.  SIGINT and SIGTERM end
        the loop after the current step, with a checkpoint.
        """
        every = getattr(self.settings, "save_every", None) or max(1, self.total // 5)
        while not self.complete and self.signal is None:
            step, best = self.state.step, self.state.best_step
            yield step
            self.state.step = step + 1
            if self.folder is not None:
                better = self.state.best_step != best
                if better or self.complete or self.folder.due(every):
                    self.save()
        if self.folder is not None and self.folder.saved_step != self.state.step:
            self.save()

    def save(self) -> None:
        """Write a checkpoint."""
        assert self.folder is not None and self.learner is not None
        task = getattr(self.learner.model, "task", None)
        more = {"kept": self.kept, "validation": list(self.validation.items())}
        self.folder.save(self.learner.save, task=task, **more)

    def record(
        self, step: int, values: dict[str, float], *, shown: tuple[str, ...] = ("loss",)
    ) -> None:
        """Log the values of one step, counted from 1, and show some of them.

        NonFiniteError for a value that is not finite, which is not written.
        """
        check_finite(step - 1, values)
        self.history.append({"step": step, **values})
        self.state.step = step
        self.write(step=step, **values)
        self.progress.update(1, {name: f"{values[name]:.3g}" for name in shown if name in values})

    def judge(self, values: dict[str, float]) -> None:
        """Log the validation values after the steps so far; their "loss" decides which step is the
        best, and when the patience is exhausted."""
        step = self.state.step
        named = {f"validation_{name}": value for name, value in values.items()}
        check_finite(step - 1, named)
        self.validation[step] = values
        self.write(step=step, **named)
        text = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        self.progress.say(f"step {step}: validation {text}")
        if step:  # before the first there is nothing to save
            self.state.judge(values["loss"], getattr(self.settings, "min_improvement", 0.0))
        if self._impatient():
            waited = f"no improvement in {self.state.waited} evaluations"
            self.progress.say(f"step {step}: stopping early, {waited}")

    def write(self, **record: Any) -> None:
        """An extra line of the log, such as an evaluation; it must have `step`."""
        if self.folder is not None:
            with self.folder.writing():
                self.folder.log.write(**record)
        elif self.log is not None:
            self.log.write(**record)

    def finish(self, learner: Learner, **facts: Any) -> None:
        """Save out/final: the model, what a transform learned (tuning.adapters), and recipe.json.

        The folder appears atomically.  For a model whose parameters have no names in a file (a
        prefix) only the adapter is saved.  Nothing is written if the run was interrupted before its
        last step, or had been finished before it was resumed.
        """
        interrupted = self.learner is not None and not self.complete
        if self.out is None or interrupted or self.finished:
            return
        with new_folder(self.out / FINAL) as folder:
            learner.save(folder, result=True)
            write_json(folder / FACTS, {"settings": dataclasses.asdict(learner.settings), **facts})
