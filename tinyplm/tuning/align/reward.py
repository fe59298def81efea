"""A reward model from preference pairs: a decoder with one score, larger for the chosen answer.

    loss = -log sigmoid(r(x, y_w) - r(x, y_l) - margin)                  Ouyang et al. 2022, eq. 1

losses/preference.py has the loss with its gradient.
Only differences are learned: adding a constant to all rewards leaves the loss unchanged.  The
result's `offset` makes their mean over the training answers 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...arguments import check_list, check_number, check_out, check_whole, known_arguments, mismatch
from ...backend import array_module, to_device, to_host
from ...core import Tree, map_shards
from ...losses import preference
from ...models.model import Model, check_model
from ...training.writers import check_writers
from ..data.pairs import Pair, check_every_pair, check_pairs
from ..data.sequences import TokenSequence, check_every
from ..settings import EvaluatedSettings
from .journal import Journal
from .learner import Learner, Loss
from .recipe import Result, run_steps


@dataclasses.dataclass(frozen=True)
class RewardSettings(EvaluatedSettings):
    """batch_size counts pairs."""


@dataclasses.dataclass(frozen=True)
class RewardResult(Result):
    """offset: added to all scores, it makes their mean over the training answers 0."""

    offset: float = 0.0


@known_arguments
def reward(
    model: Model,
    pairs: Sequence[Pair],
    settings: RewardSettings | None = None,
    *,
    margins: Sequence[float] = (),
    validation: Sequence[Pair] = (),
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    writers: Sequence[str] = (),
    transform: Callable | None = None,
    theta: Tree = None,
) -> RewardResult:
    """Train a reward model on pairs (chosen, rejected); model.params become the trained parameters.

    model: a decoder with task "sequence_classification" and one label, made by load(folder,
    task=..., labels=["reward"]) or create. margins: the least difference in reward for each pair
    (Touvron et al. 2023b, eq. 2). Logged for each step, and in the result's validation: loss,
    accuracy, margin (the mean difference of the rewards).  Other arguments as in tuning.sft.
    ValueError for pairs whose prompts differ; NonFiniteError for a non-finite loss or gradient; on
    any error model.params stay unchanged.
    """
    settings = RewardSettings.given(settings)
    check_reward_model(model)
    check_out(out, resume)
    check_writers(writers)
    check_list("margins", margins, "a number for each pair")
    # the score reads the last token too, which no other token has to predict
    limits = {"context": model.config.context - 1, "vocabulary": model.config.vocab_size}
    check_pairs(pairs, **limits, least=1)
    check_pairs(validation, **limits, name="validation pair")
    if len(margins) not in (0, len(pairs)):
        raise mismatch("margins", f"one for each of {len(pairs)} pairs", len(margins))
    for n, value in enumerate(margins):
        check_number(f"margins[{n}]", value)
    margin = np.asarray(margins if len(margins) else [0.0] * len(pairs), dtype=np.float64)
    learner = Learner(model, settings, transform=transform, theta=theta)

    def update(numbers: np.ndarray) -> dict[str, float]:
        rows = whole_arrays([sequence for n in numbers for sequence in pairs[n]])
        inputs = {name: a.reshape(len(numbers), 2, -1) for name, a in rows.items()}
        batch = {"inputs": inputs, "loss": {"margin": margin[numbers].astype(model.dtype)}}
        return learner.step(batch, reward_loss(len(numbers)))

    def evaluate(model: Model) -> dict[str, float]:
        return pair_scores(model, validation, workers=settings.workers)

    judge, shown = evaluate if len(validation) else None, ("loss", "accuracy", "margin")
    data = {"pairs": pairs, "margins": margins, "validation": validation}
    run: dict[str, Any] = {"learner": learner, "data": data, "resume": resume}
    run["writers"] = writers
    with Journal(out, settings.steps, progress=progress, **run) as journal:
        found = run_steps(learner, journal, len(pairs), update, judge, shown=shown)
        offset = journal.facts.get("offset", 0.0)  # of a run that had been finished
        if journal.complete and not journal.finished:
            scores = score(learner.model, [s for p in pairs for s in p], workers=settings.workers)
            offset = -float(scores.mean())
        journal.finish(learner, validation=found, offset=offset)
    if journal.complete:
        model.params = learner.model.params
    return RewardResult(journal.history, learner.theta, found, offset, signal=journal.signal)


def reward_loss(pairs: int) -> Loss:
    """losses.preference.bradley_terry for Learner.step, with `pairs` pairs in the whole step."""

    def loss(outputs: dict, extra: Tree, part: dict) -> tuple[dict, Callable]:
        scores = outputs["logits"][..., 0]  # (N, 2)
        chosen, rejected = scores[:, 0], scores[:, 1]
        value, back = preference.bradley_terry(chosen, rejected, margin=part["margin"], total=pairs)
        values = {"loss": value, **preference.preference_statistics(chosen, rejected, total=pairs)}

        def backward(dloss: float) -> tuple[dict, Tree]:
            return {"logits": array_module(scores).stack(back(dloss), axis=1)[..., None]}, None

        return values, backward

    return loss


@known_arguments
def score(
    model: Model, sequences: Sequence[TokenSequence], *, batch_size: int = 64, workers: int = 1
) -> np.ndarray:
    """The rewards (N,) of whole sequences (prompt, answer, end token), without the offset."""
    check_reward_model(model)
    check_every(sequences)
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        check_whole(name, value, 1)
    found = []

    def forward(part: dict) -> np.ndarray:
        return to_host(model.outputs(to_device(part, model.device))["logits"][:, 0])

    for start in range(0, len(sequences), batch_size):
        rows = whole_arrays(sequences[start : start + batch_size])
        model.inputs(**rows)  # runs the model's own checks
        found += map_shards(forward, rows, min(workers, len(rows["input_ids"])))
    return np.concatenate(found)


@known_arguments
def pair_scores(model: Model, pairs: Sequence[Pair], *, workers: int = 1) -> dict[str, float]:
    """{"loss", "accuracy", "margin"} of pairs."""
    check_every_pair(pairs, least=1)
    sequences = [sequence for pair in pairs for sequence in pair]
    chosen, rejected = score(model, sequences, workers=workers).reshape(-1, 2).T
    values = preference.preference_statistics(chosen, rejected)
    values = {"loss": preference.bradley_terry(chosen, rejected)[0], **values}
    return {name: float(value) for name, value in values.items()}


def whole_arrays(sequences: Sequence[TokenSequence]) -> dict[str, np.ndarray]:
    """{"input_ids", "attention_mask"} (N, T) of all tokens, padded on the right."""
    T = max(len(sequence.ids) for sequence in sequences)
    ids, mask = np.zeros((2, len(sequences), T), np.int64)
    for n, sequence in enumerate(sequences):
        ids[n, : len(sequence.ids)], mask[n, : len(sequence.ids)] = sequence.ids, 1
    return {"input_ids": ids, "attention_mask": mask}


def check_reward_model(model: Model) -> None:
    """ValueError unless the model is a decoder that gives a text one score."""
    check_model("model", model)
    labels = getattr(model.config, "num_labels", 0)
    decoder = hasattr(model.config, "SCORED")
    if model.task != "sequence_classification" or not decoder or labels != 1:
        expected = "a decoder with task sequence_classification and one label"
        raise ValueError(f"model: expected {expected}, got {model!r} with {labels}")
