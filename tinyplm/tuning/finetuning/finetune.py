"""Fine-tuning on labelled samples by epochs, with early stopping; the best epoch is kept."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ... import random
from ...arguments import check_out, check_whole, known_arguments, mismatch, wrong
from ...backend import to_device
from ...core import IGNORED, Tree, tree_map, unflatten
from ...files import printable, read_json, write_json
from ...hub import folders as hub
from ...models.model import Model, check_model
from ...optim.layerwise import layerwise_rates
from ...training.checkpoint import State
from ...training.folders import TRAINER, check_intact, new_folder
from ...training.interrupt import Interrupt, interruptible
from ...training.log import Progress
from ...training.settings import optimizer_of
from ...training.step import NonFiniteError, accumulate, check_finite
from ...training.writers import check_writers
from ..run_folder import RunFolder, with_last_good
from ..settings import TuningSettings
from .freezing import joined, upper_part
from .predict import outputs_and_loss
from .samples import Samples, check_samples, training_batches

BEST, FACTS = "best", "tuning.json"


@dataclasses.dataclass(frozen=True)
class FinetuneResult:
    """best_epoch  counted from 1
    scores      of that epoch on the validation samples
    history     the scores of all epochs
    steps       updates
    seconds     of training
    signal      the number of the signal that ended the run early; None: it is whole
    """

    best_epoch: int
    scores: dict[str, float]
    history: list[dict[str, float]]
    steps: int
    seconds: float
    signal: int | None = None


@known_arguments
def finetune(
    model: Model,
    train: Samples,
    validation: Samples,
    settings: TuningSettings | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    writers: Sequence[str] = (),
) -> FinetuneResult:
    """Train a model with a head for labels, or a decoder by cloze (`cloze_classification`);
    model.params become the best epoch's.

    Each epoch visits every sample once, in an order given by seed and epoch.  The same seed,
    workers and libraries give the same bits.  out/ gets log.jsonl, the checkpoints step-N/ with
    `latest` naming the last (see tuning.run_folder), and best/, a folder that tinyplm and
    transformers load, with the scores in tuning.json, atomically replaced by each better epoch;
    without `out` nothing is written.
    resume, signals, writers: as for tuning.sft; a run may also go on within an epoch.
    NonFiniteError for a non-finite loss or gradient; on any error model.params stay unchanged, and
    out/best is the best epoch so far.
    """
    settings = TuningSettings.given(settings)
    check_out(out, resume)
    writers = check_writers(writers)
    _check(model, train, validation, settings)
    folder, trained = None if out is None else Path(out), train.model_for(model)
    with ExitStack() as held:
        how = (folder, resume, progress, writers)
        run = _Run(held, trained, train, validation, settings, *how)
        run.train()
    if run.finished():
        model.params = run.best
    scores = run.history[run.best_epoch - 1] if run.history else {}
    done = (run.state.step, run.state.seconds, run.interrupt.signal)
    return FinetuneResult(run.best_epoch, scores, run.history, *done)


def _check(model: Model, train: Samples, validation: Samples, settings: TuningSettings) -> None:
    check_model("model", model)
    if isinstance(train, Samples):
        train.model_for(model)
    if settings.auxiliary and not (hasattr(model.config, "SCORED") and model.task != "causal_lm"):
        raise mismatch("auxiliary", f"0, since {model!r} has no score head", settings.auxiliary)
    for name, samples in (("training", train), ("validation", validation)):
        check_samples(f"{name} samples", samples)
        if len(samples) == 0 or not samples.targets:
            raise ValueError(f"{name} samples: expected samples with labels, got none")
    if type(train) is not type(validation):
        expected, given = f"{type(train).__name__}, as for training", type(validation).__name__
        raise mismatch("validation samples", expected, given)
    if settings.metric not in (None, "loss", *validation.measures):
        expected = f"None, loss or one of {', '.join(validation.measures)}"
        raise wrong("metric", expected, settings.metric)


class _Run:
    """The state of one run."""

    def __init__(
        self,
        held: ExitStack,
        model: Model,
        train: Samples,
        validation: Samples,
        settings: TuningSettings,
        out: Path | None,
        resume: bool,
        progress: bool,
        writers: Sequence[str],
    ) -> None:
        self.train_samples, self.validation, self.settings = train, validation, settings
        part, self.frozen = upper_part(model.params, settings.trained_layers)
        decay = settings.layer_decay
        rates = None if decay == 1 else layerwise_rates(model.params, decay)
        self.optimizer = optimizer_of(part, settings, rates)
        self.model = model.with_params(joined(self.optimizer.params, model.params))
        self.key = random.key(settings.seed)
        self.steps = -(-len(train) // settings.batch_size)  # in an epoch
        self.total = settings.epochs * self.steps
        self.state, self.best_epoch = State(), 0
        self.best: Tree = None
        self.history: list[dict[str, float]] = []
        self.folder: RunFolder | None = None
        if out is not None:
            data = {"model": model, "training": train, "validation": validation}
            options: dict[str, Any] = {"steps": self.total, "result": BEST, "resume": resume}
            options["writers"] = writers
            parts = (out, self.optimizer, settings, data)
            self.folder = RunFolder(held, *parts, **options, device=model.device)
            self.state = self.folder.state
            if self.folder.trainer:
                self.recall(self.folder)
        self.progress = Progress(self.total, self.state.step, show=progress)
        held.callback(self.progress.close)
        notes = [] if self.folder is None else self.folder.notes
        for note in [*notes, *(["nothing to do: the run has ended"] if self.finished() else [])]:
            self.progress.say(note)
        self.interrupt = Interrupt()
        if self.folder is not None:
            notice = "stopping after this step; repeat to stop immediately" if progress else ""
            self.interrupt = held.enter_context(interruptible(notice))

    def recall(self, folder: RunFolder) -> None:
        """Go on from what a checkpoint says, and repair best/ if the run was killed before it."""
        trainer = folder.trainer
        where = f"{printable(folder.out)}: {TRAINER}"
        check_whole(f"{where}: best_epoch", trainer.get("best_epoch"), 0, self.settings.epochs)
        self.best_epoch, history = trainer["best_epoch"], trainer.get("history")
        names = {"loss", *self.validation.measures}
        rows: list[Any] = history if isinstance(history, list) else [None]
        if not all(isinstance(scores, dict) and names <= scores.keys() for scores in rows):
            expected = f"a list of scores with {', '.join(sorted(names))}"
            raise wrong(f"{where}: history", expected, history)
        self.history = rows
        if self.best_epoch > len(self.history):
            raise wrong(f"{where}: best_epoch", f"at most {len(self.history)}", self.best_epoch)
        if not self.best_epoch:
            return
        self.best = self.model.params
        if self.state.best_step != self.state.step:
            best = folder.out / f"step-{self.state.best_step}"
            check_intact(str(best), best)
            self.best = unflatten(folder.parameters(best), self.model.params)
        self.best = to_device(_copy(self.best), self.model.device)
        if self.saved_epoch(folder.out / BEST / FACTS) != self.best_epoch:
            self.save_best(self.model.with_params(self.best))

    @staticmethod
    def saved_epoch(facts: Path) -> Any:
        """The epoch in best/; None if there is none."""
        found = read_json(facts) if facts.exists() else None
        return found.get("epoch") if isinstance(found, dict) else None

    def finished(self) -> bool:
        done, patience = len(self.history), self.settings.patience
        impatient = patience is not None and done - self.best_epoch >= patience
        return done == self.settings.epochs or impatient

    def train(self) -> None:
        """All epochs; NonFiniteError naming the last checkpoint."""
        try:
            while not self.finished() and self.interrupt.signal is None:
                self.epoch()
        except NonFiniteError as error:
            raise with_last_good(error, None if self.folder is None else self.folder.out) from None

    def epoch(self) -> None:
        """An epoch, or what remains of it; a signal ends it after the current step."""
        settings, state, start = self.settings, self.state, time.perf_counter()
        order = random.fold(self.key, 0, len(self.history))
        batches = training_batches(self.train_samples.lengths, settings.batch_size, key=order)
        done = state.step - len(self.history) * self.steps
        for numbers in itertools.islice(batches, done, None):
            self.update(numbers)
            done += 1
            stopping = self.interrupt.signal is not None
            if done < self.steps and self.folder is not None:
                if stopping or self.folder.due(settings.save_every):
                    self.clock(start)
                    self.save()
                    start = time.perf_counter()
                if stopping:
                    return
        self.clock(start)
        self.judge()

    def clock(self, start: float) -> None:
        """Add the seconds since `start` to those of training."""
        self.state.seconds += time.perf_counter() - start

    def update(self, numbers: np.ndarray) -> None:
        """One step."""
        settings, optimizer, step = self.settings, self.optimizer, self.state.step
        inputs, targets = self.train_samples.batch(numbers)
        if settings.auxiliary:
            targets["language_model"] = next_tokens(**inputs)
        key = random.fold(self.key, 1, step) if settings.dropout else None
        options: dict[str, Any] = {"settings": settings, "frozen": self.frozen, "key": key}
        loss = float(accumulate(self.model, optimizer, inputs, targets, **options))
        norm = optimizer.gradient_norm(workers=settings.workers)
        check_finite(step, {"loss": loss, "gradient norm": float(norm)})
        rate = settings.rate(step, self.total)
        optimizer.step(rate, clip=settings.clip, norm=norm, workers=settings.workers)
        self.state.step += 1
        self.write(step=step + 1, loss=loss, learning_rate=rate, gradient_norm=float(norm))
        shown = {"loss": f"{loss:.3f}", "norm": f"{float(norm):.2f}", "lr": f"{rate:.1e}"}
        self.progress.update(1, shown)

    def judge(self) -> None:
        """Score the model on the validation samples; keep the parameters if they are the best."""
        size, workers, step = self.settings.batch_size, self.settings.workers, self.state.step
        outputs, loss = outputs_and_loss(
            self.model, self.validation, batch_size=size, workers=workers
        )
        assert loss is not None  # the samples have labels
        check_finite(step - 1, {"validation loss": loss})
        scores = {**self.validation.score(outputs), "loss": loss}
        metric = self.settings.metric or self.validation.measures[0]
        self.history.append(scores)
        named = {f"validation_{name}": value for name, value in scores.items()}
        self.write(step=step, epoch=len(self.history), **named)
        text = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        self.progress.say(f"epoch {len(self.history)}: {text}")
        best = self.history[self.best_epoch - 1][metric]
        improved = self.best_epoch == 0 or better(metric, scores[metric], best)
        if improved:
            self.best_epoch, self.state.best_step = len(self.history), step
            self.best = _copy(self.model.params)
        self.save()
        if improved:
            self.save_best(self.model)

    def save(self) -> None:
        """Write a checkpoint."""
        if self.folder is not None:
            facts = {"history": self.history, "best_epoch": self.best_epoch}
            write = functools.partial(hub.save, self.model)
            self.folder.save(write, task=self.model.task, **facts)

    def save_best(self, model: Model) -> None:
        """Write out/best, after the checkpoint that says so (see recall)."""
        if self.folder is None:
            return
        with self.folder.writing(), new_folder(self.folder.out / BEST) as folder:
            hub.save(model, folder)
            facts = {"epoch": self.best_epoch, "scores": self.history[self.best_epoch - 1]}
            settings = {"settings": dataclasses.asdict(self.settings)}
            write_json(folder / FACTS, facts | settings)

    def write(self, **record: Any) -> None:
        if self.folder is not None:
            with self.folder.writing():
                self.folder.log.write(**record)


def next_tokens(input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
    """A language model's targets (..., T): the next token; IGNORED if either token is padding."""
    targets = np.full(input_ids.shape, IGNORED)
    real = (attention_mask[..., 1:] == 1) & (attention_mask[..., :-1] == 1)
    targets[..., :-1] = np.where(real, input_ids[..., 1:], IGNORED)
    return targets


def better(metric: str, value: float, best: float) -> bool:
    """Whether a metric's value beats the best so far: a smaller loss, or more of anything else."""
    return value < best if metric == "loss" else value > best


def _copy(params: Tree) -> Tree:
    return tree_map(lambda a: a.copy(), params)
