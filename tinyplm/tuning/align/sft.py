"""Supervised fine-tuning: cross-entropy on answers only.                                   Ouyang et al. 2022, sec. 3.5, step 1

    loss = -sum_i sum_t log p(y_it | x_i, y_i<t) / (number of answer tokens of the step)

The tokens of a prompt are read and not predicted: their targets are ignored, so they have no loss and their logits no gradient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from pathlib import Path
from typing import Any

import numpy as np

from ... import random
from ...arguments import check_out, check_whole
from ...core import IGNORED, Tree
from ...models.model import Model, check_decoder
from ...training.step import check_finite
from ..data.packing import packed_arrays, packing
from ..data.sequences import Sequence, arrays, batch_numbers, check_every, check_sequences
from ..settings import RecipeSettings
from .learner import Journal, Learner, token_log_probs


@dataclasses.dataclass(frozen=True)
class SFTSettings(RecipeSettings):
    """evaluate_every  steps between losses on the validation sequences; None: before and after only
    packed          places of a row that several sequences share, none of which sees another (see tuning.packed), at most the
                    model's context; batch_size then counts rows.  None: each sequence has a row
    """

    evaluate_every: int | None = None
    packed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("evaluate_every", self.evaluate_every, 1, or_none=True)
        check_whole("packed", self.packed, 1, or_none=True)


@dataclasses.dataclass(frozen=True)
class Result:
    """history: the numbers of each step; validation: {step: nats an answer token}, from step 0 on; theta: of the transform."""

    history: list[dict[str, float]]
    validation: dict[int, float]
    theta: Tree


def sft(model: Model, sequences: SequenceOf[Sequence], settings: SFTSettings | None = None, *,
        validation: SequenceOf[Sequence] = (), out: str | Path | None = None, progress: bool = True,
        transform: Callable | None = None, theta: Tree = None) -> Result:  # fmt: skip
    """Train a decoder on sequences; afterwards model.params are those of the last step (of a transform: what it made of theta).

    Each epoch sees every sequence once.  The same seed, workers and libraries give the same bits.
    out/ gets log.jsonl, and final/, a folder that loads; without `out` nothing is written.
    ValueError for sequences that the model cannot read; NonFiniteError for a loss or gradient that is not finite; on any error
    model.params stay what they were.
    """
    settings = SFTSettings.given(settings)
    check_decoder("model", model)
    check_out(out)
    for name, some in (("sequence", sequences), ("validation sequence", validation)):
        check_sequences(some, context=model.config.context, vocabulary=model.config.vocab_size, name=name)
    if not len(sequences):
        raise ValueError("there are no sequences to train on")
    check_whole("packed", settings.packed, 1, model.config.context, or_none=True)
    learner = Learner(model, settings, transform=transform, theta=theta)
    order, losses = random.fold(random.key(settings.seed), 0), {}
    rows = None if settings.packed is None else packing([len(sequence) for sequence in sequences], settings.packed)
    with Journal(out, settings.steps, progress=progress) as journal:

        def evaluate() -> None:
            if not len(validation):
                return
            losses[learner.done] = answer_loss(learner.model, validation, workers=settings.workers)
            check_finite(learner.done - 1, {"validation loss": losses[learner.done]})
            journal.write(step=learner.done, validation_loss=losses[learner.done])
            journal.progress.say(f"step {learner.done}: validation loss {losses[learner.done]:.4f}")

        evaluate()
        for step in range(settings.steps):
            numbers = batch_numbers(len(rows or sequences), settings.batch_size, step, key=order)
            if rows is None:
                batch, total = batch_of([sequences[n] for n in numbers])
            else:
                batch, total = learner_batch(packed_arrays(sequences, [rows[n] for n in numbers], settings.packed))
            journal.record(step + 1, learner.step(batch, answer_likelihood(total)), shown=("loss", "gradient_norm"))
            if settings.evaluate_every and (step + 1) % settings.evaluate_every == 0:
                evaluate()
        if learner.done not in losses:
            evaluate()
        journal.finish(learner, validation=losses)
    model.params = learner.model.params
    return Result(journal.history, losses, learner.theta)


def batch_of(sequences: SequenceOf[Sequence]) -> tuple[dict[str, dict], int]:
    """(the batch for a learner, how many tokens count)."""
    return learner_batch(arrays(sequences))


def learner_batch(values: dict[str, np.ndarray]) -> tuple[dict[str, dict], int]:
    """The same of arrays with "targets" among them."""
    targets = values.pop("targets")
    return {"inputs": values, "targets": {"logits": targets}}, int((targets != IGNORED).sum())


def answer_likelihood(total: int) -> Callable:
    """The loss above for Learner.step: -sum(log_probs) / total, with gradient -1 / total for each; 0 stands where none counts."""

    def loss(outputs: dict, extra: Tree, part: dict) -> tuple[dict, Callable]:
        log_probs = outputs["log_probs"]
        return {"loss": -log_probs.sum() / total}, lambda dloss: ({"log_probs": log_probs * 0 - dloss / total}, None)

    return loss


def answer_loss(model: Model, sequences: SequenceOf[Sequence], *, batch_size: int = 64, workers: int = 1) -> float:
    """The mean of -log p over all tokens that count, nats a token."""
    check_decoder("model", model)
    check_sequences(sequences, context=model.config.context, vocabulary=model.config.vocab_size)
    check_every(sequences)
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        check_whole(name, value, 1)
    total, count = 0.0, 0
    for start in range(0, len(sequences), batch_size):
        batch: dict[str, Any] = arrays(sequences[start : start + batch_size])
        found = token_log_probs(model, batch, batch_size=batch_size, workers=workers)["log_probs"]
        total -= float(found.sum(dtype=np.float64))
        count += int((batch["targets"] != IGNORED).sum())
    return total / count
