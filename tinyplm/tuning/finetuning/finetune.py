"""Fine-tuning on labelled samples by epochs, with early stopping; the best epoch is kept."""

from __future__ import annotations

import dataclasses
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ... import random
from ...arguments import check_out, known_arguments, mismatch, wrong
from ...core import IGNORED, Tree, tree_map
from ...files import write_json
from ...hub import folders as hub
from ...models.model import Model, check_model
from ...optim.layerwise import layerwise_rates
from ...training.folders import new_folder
from ...training.log import Progress
from ...training.settings import optimizer_of
from ...training.step import accumulate, check_finite
from ..align.learner import open_log
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
    """

    best_epoch: int
    scores: dict[str, float]
    history: list[dict[str, float]]
    steps: int
    seconds: float


@known_arguments
def finetune(
    model: Model,
    train: Samples,
    validation: Samples,
    settings: TuningSettings | None = None,
    *,
    out: str | Path | None = None,
    progress: bool = True,
) -> FinetuneResult:
    """Train a model with a head for labels, or a decoder by cloze (`cloze_classification`);
    model.params become the best epoch's.

    Each epoch visits every sample once, in an order given by seed and epoch.  The same seed,
    workers and libraries give the same bits.  out/ gets log.jsonl and best/, a folder that tinyplm
    and transformers load, with the scores in tuning.json, atomically replaced by each better epoch;
    without `out` nothing is written.
    NonFiniteError for a non-finite loss or gradient; on any error model.params stay unchanged, and
    out/best is the best epoch so far.
    """
    settings = TuningSettings.given(settings)
    check_out(out)
    _check(model, train, validation, settings)
    trained = train.model_for(model)
    run = _Run(trained, train, validation, settings, None if out is None else Path(out), progress)
    try:
        while not run.finished():
            run.epoch()
    finally:
        run.close()
    model.params = run.best
    scores = run.history[run.best_epoch - 1]
    return FinetuneResult(run.best_epoch, scores, run.history, run.step, run.seconds)


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
        model: Model,
        train: Samples,
        validation: Samples,
        settings: TuningSettings,
        out: Path | None,
        progress: bool,
    ) -> None:
        self.train, self.validation, self.settings, self.out = train, validation, settings, out
        part, self.frozen = upper_part(model.params, settings.trained_layers)
        decay = settings.layer_decay
        rates = None if decay == 1 else layerwise_rates(model.params, decay)
        self.optimizer = optimizer_of(part, settings, rates)
        self.model = model.with_params(joined(self.optimizer.params, model.params))
        self.key = random.key(settings.seed)
        self.total = settings.epochs * -(-len(train) // settings.batch_size)
        self.step, self.seconds, self.best_epoch = 0, 0.0, 0
        self.best: Tree = None
        self.history: list[dict[str, float]] = []
        self.log, self.open = None, ExitStack()
        if out is not None:
            self.log = open_log(self.open, out, BEST)
        self.progress = Progress(self.total, 0, show=progress)

    def finished(self) -> bool:
        done, patience = len(self.history), self.settings.patience
        impatient = patience is not None and done - self.best_epoch >= patience
        return done == self.settings.epochs or impatient

    def epoch(self) -> None:
        settings, start = self.settings, time.perf_counter()
        order = random.fold(self.key, 0, len(self.history))
        for numbers in training_batches(self.train.lengths, settings.batch_size, key=order):
            self.update(numbers)
        self.seconds += time.perf_counter() - start
        self.judge()

    def update(self, numbers: np.ndarray) -> None:
        """One step."""
        settings, optimizer = self.settings, self.optimizer
        inputs, targets = self.train.batch(numbers)
        if settings.auxiliary:
            targets["language_model"] = next_tokens(**inputs)
        key = random.fold(self.key, 1, self.step) if settings.dropout else None
        options: dict[str, Any] = {"settings": settings, "frozen": self.frozen, "key": key}
        loss = float(accumulate(self.model, optimizer, inputs, targets, **options))
        norm = optimizer.gradient_norm(workers=settings.workers)
        check_finite(self.step, {"loss": loss, "gradient norm": float(norm)})
        rate = settings.rate(self.step, self.total)
        optimizer.step(rate, clip=settings.clip, norm=norm, workers=settings.workers)
        self.step += 1
        self.write(step=self.step, loss=loss, learning_rate=rate, gradient_norm=float(norm))
        shown = {"loss": f"{loss:.3f}", "norm": f"{float(norm):.2f}", "lr": f"{rate:.1e}"}
        self.progress.update(1, shown)

    def judge(self) -> None:
        """Score the model on the validation samples; keep the parameters if they are the best."""
        size, workers = self.settings.batch_size, self.settings.workers
        outputs, loss = outputs_and_loss(
            self.model, self.validation, batch_size=size, workers=workers
        )
        assert loss is not None  # the samples have labels
        check_finite(self.step - 1, {"validation loss": loss})
        scores = {**self.validation.score(outputs), "loss": loss}
        metric = self.settings.metric or self.validation.measures[0]
        self.history.append(scores)
        self.write(step=self.step, epoch=len(self.history), **scores)
        text = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        self.progress.say(f"epoch {len(self.history)}: {text}")
        best = self.history[self.best_epoch - 1][metric]
        if self.best_epoch == 0 or better(metric, scores[metric], best):
            self.best_epoch = len(self.history)
            self.best = _copy(self.model.params)
            self.save(scores)

    def save(self, scores: dict[str, float]) -> None:
        if self.out is None:
            return
        with new_folder(self.out / BEST) as folder:
            hub.save(self.model, folder)
            facts = {"epoch": self.best_epoch, "scores": scores}
            settings = {"settings": dataclasses.asdict(self.settings)}
            write_json(folder / FACTS, facts | settings)

    def write(self, **record: Any) -> None:
        if self.log is not None:
            self.log.write(**record)

    def close(self) -> None:
        self.progress.close()
        self.open.close()


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
