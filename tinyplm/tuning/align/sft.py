"""Supervised fine-tuning: cross-entropy on answers only. Ouyang et al. 2022, sec. 3.5, step 1

    loss = -sum_i sum_t log p(y_it | x_i, y_i<t) / (number of answer tokens in the step)

Prompt tokens are context only: their targets are ignored, so their logits get no gradient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...arguments import check_number, check_out, check_whole, known_arguments
from ...core import IGNORED, Tree
from ...models.causal_model import CausalModel
from ...models.model import check_decoder
from ...models.routed_model import RoutedModel
from ...training.expert_load import check_router_weights
from ...training.writers import check_writers
from ..data.packing import packed_arrays, packing
from ..data.sequences import TokenSequence, check_sequences, sequence_arrays
from ..settings import EvaluatedSettings
from .journal import Journal
from .learner import Batch, Learner, Loss, token_log_probs
from .recipe import Result, run_steps


@dataclasses.dataclass(frozen=True)
class SFTSettings(EvaluatedSettings):
    """packed: the length of a row that holds several sequences, none seeing another (see
    data.packing), at most the model's context; batch_size then counts rows.  None: one sequence
    per row.
    balance: the weight of the balance loss of a model with experts, added to the loss.
    """

    packed: int | None = None
    balance: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("balance", self.balance, least=0)
        check_whole("packed", self.packed, 1, or_none=True)


@known_arguments
def sft(
    model: CausalModel,
    sequences: Sequence[TokenSequence],
    settings: SFTSettings | None = None,
    *,
    validation: Sequence[TokenSequence] = (),
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    writers: Sequence[str] = (),
    transform: Callable | None = None,
    theta: Tree = None,
) -> Result:
    """Train a decoder on sequences; model.params become the trained parameters.

    transform, theta: train theta, and compute the parameters from it (see adapters.lora.lora_of).
    Each epoch visits every sequence once.  The same seed, workers and libraries give the same bits.
    out/ gets log.jsonl, the checkpoints step-N/ with `latest` and `best` naming one each (see
    tuning.run_folder), and at the end final/, a folder that loads; without `out` nothing is
    written.
    resume: go on from out/latest, with the model, settings and data of the start (see the settings'
    FREE for what may differ; other differences are refused by name).  However a run ended, a
    resumed one is bit-identical in parameters, moments, log and final/.  A run killed before its
    first checkpoint starts anew; one that has ended returns at once.
    SIGINT and SIGTERM end a run with `out` after the current step, with a checkpoint; model.params
    are then unchanged and result.signal is the signal's number.  A second signal acts at once.
    writers: other programs that get the log, too, see training.writers: "tensorboard", "wandb".
    The result's validation is {step: nats per answer token}.
    ValueError for sequences the model cannot read; NonFiniteError for a non-finite loss or
    gradient and SaveError for a full disk, both naming the last good checkpoint; on any error
    model.params stay unchanged.
    """
    settings = SFTSettings.given(settings)
    check_decoder("model", model)
    check_router_weights(settings, isinstance(model, RoutedModel), model)
    check_out(out, resume)
    check_writers(writers)
    limits = {"context": model.config.context, "vocabulary": model.config.vocab_size}
    check_sequences(sequences, **limits, least=1)
    check_sequences(validation, **limits, name="validation sequence")
    room = settings.packed
    check_whole("packed", room, 1, model.config.context, or_none=True)
    learner = Learner(model, settings, transform=transform, theta=theta)
    rows = None if room is None else packing([len(sequence) for sequence in sequences], room)

    def update(numbers: np.ndarray) -> dict[str, float]:
        if rows is None or room is None:
            batch, total = batch_of([sequences[n] for n in numbers])
        else:
            batch, total = learner_batch(packed_arrays(sequences, [rows[n] for n in numbers], room))
        return learner.step(batch, answer_likelihood(total))

    def evaluate(model: CausalModel) -> dict[str, float]:
        return {"loss": answer_loss(model, validation, workers=settings.workers)}

    judge, shown = evaluate if len(validation) else None, ("loss", "gradient_norm")
    data = {"sequences": sequences, "validation": validation}
    run: dict[str, Any] = {"learner": learner, "data": data, "resume": resume}
    run["writers"] = writers
    with Journal(out, settings.steps, progress=progress, **run) as journal:
        found = run_steps(learner, journal, len(rows or sequences), update, judge, shown=shown)
        losses = {step: values["loss"] for step, values in found.items()}
        journal.finish(learner, validation=losses)
    if journal.complete:
        model.params = learner.model.params
    return Result(journal.history, learner.theta, losses, signal=journal.signal)


def batch_of(sequences: Sequence[TokenSequence]) -> tuple[Batch, int]:
    """(the learner's batch, the number of tokens that count)."""
    return learner_batch(sequence_arrays(sequences))


def learner_batch(values: dict[str, np.ndarray]) -> tuple[Batch, int]:
    """(the learner's batch, the number of tokens that count) of arrays that include "targets"."""
    inputs = {name: a for name, a in values.items() if name != "targets"}
    targets = values["targets"]
    return {"inputs": inputs, "targets": {"logits": targets}}, int((targets != IGNORED).sum())


def answer_likelihood(total: int) -> Loss:
    """loss = -sum(log_probs) / total for Learner.step; dlog_probs = -1 / total.

    Ignored positions have log-probability 0.
    """

    def loss(outputs: dict, extra: Tree, part: dict) -> tuple[dict, Callable]:
        log_probs = outputs["log_probs"]

        def backward(dloss: float) -> tuple[dict, Tree]:
            return {"log_probs": log_probs * 0 - dloss / total}, None

        return {"loss": -log_probs.sum() / total}, backward

    return loss


@known_arguments
def answer_loss(
    model: CausalModel,
    sequences: Sequence[TokenSequence],
    *,
    batch_size: int = 64,
    workers: int = 1,
) -> float:
    """The mean of -log p over all tokens that count, in nats per token."""
    check_decoder("model", model)
    limits = {"context": model.config.context, "vocabulary": model.config.vocab_size}
    check_sequences(sequences, **limits, least=1)
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        check_whole(name, value, 1)
    total, count = 0.0, 0
    for start in range(0, len(sequences), batch_size):
        batch: dict[str, Any] = sequence_arrays(sequences[start : start + batch_size])
        found = token_log_probs(model, batch, batch_size=batch_size, workers=workers)["log_probs"]
        total -= float(found.sum(dtype=np.float64))
        count += int((batch["targets"] != IGNORED).sum())
    return total / count
