"""A reward model from preference pairs: a decoder with one score, trained so that the chosen answer has the larger one.

    loss = -log sigmoid(r(x, y_w) - r(x, y_l) - margin)                                              Ouyang et al. 2022, eq. 1

Only differences are learned: a number added to all rewards changes no loss.  `offset` in the result makes their mean 0 over the
training answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from pathlib import Path

import numpy as np

from ... import random
from ...arguments import check_list, check_number, check_out, check_whole
from ...backend import array_module, to_device, to_host
from ...core import Tree, map_shards
from ...losses import preference
from ...models.model import Model, check_model
from ..data.pairs import Pair, check_every_pair, check_pairs
from ..data.sequences import Sequence, batch_numbers, check_every
from ..settings import RecipeSettings
from .learner import Journal, Learner


@dataclasses.dataclass(frozen=True)
class RewardSettings(RecipeSettings):
    """batch_size counts pairs.  evaluate_every: steps between looks at the validation pairs; None: before and after only."""

    evaluate_every: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("evaluate_every", self.evaluate_every, 1, or_none=True)


@dataclasses.dataclass(frozen=True)
class Result:
    """history: the numbers of each step; validation: {step: {"loss", "accuracy", "margin"}}, from step 0; offset: what to add to
    the scores so that their mean over the training answers is 0; theta: of the transform, else the parameters."""

    history: list[dict[str, float]]
    validation: dict[int, dict[str, float]]
    offset: float
    theta: Tree


def reward(model: Model, pairs: SequenceOf[Pair], settings: RewardSettings | None = None, *, margins: SequenceOf[float] = (),
           validation: SequenceOf[Pair] = (), out: str | Path | None = None, progress: bool = True,
           transform: Callable | None = None, theta: Tree = None) -> Result:  # fmt: skip
    """Train a reward model on pairs (chosen, rejected); afterwards model.params are those of the last step.

    model: a decoder with task "sequence_classification" and one label: load(folder, task=..., labels=["reward"]), or create.
    margins: of each pair, by how much its answers should differ at least (Touvron et al. 2023b, eq. 2).
    The log of each step: loss, accuracy, margin (mean difference of the rewards).
    ValueError for pairs whose prompts differ; NonFiniteError for a loss or gradient that is not finite; on any error model.params
    stay what they were.
    """
    settings = RewardSettings.given(settings)
    check_reward_model(model)
    check_out(out)
    check_list("margins", margins, "a number for each pair")
    for name, some in (("pair", pairs), ("validation pair", validation)):
        check_pairs(some, context=model.config.context - 1, vocabulary=model.config.vocab_size, name=name)
    if not len(pairs):
        raise ValueError("there are no pairs to train on")
    if len(margins) and len(margins) != len(pairs):
        raise ValueError(f"expected a margin for each of {len(pairs)} pairs, got {len(margins)}")
    for n, value in enumerate(margins):
        check_number(f"margins[{n}]", value)
    margin = np.zeros(len(pairs)) if not len(margins) else np.asarray(margins, dtype=np.float64)
    learner = Learner(model, settings, transform=transform, theta=theta)
    order, found = random.fold(random.key(settings.seed), 0), {}
    with Journal(out, settings.steps, progress=progress) as journal:

        def evaluate() -> None:
            if not len(validation):
                return
            found[learner.done] = values = pair_scores(learner.model, validation, workers=settings.workers)
            journal.write(step=learner.done, **{f"validation_{name}": value for name, value in values.items()})
            journal.progress.say(f"step {learner.done}: validation loss {values['loss']:.4f}, accuracy {values['accuracy']:.3f}")

        evaluate()
        for step in range(settings.steps):
            numbers = batch_numbers(len(pairs), settings.batch_size, step, key=order)
            rows = whole_arrays([sequence for n in numbers for sequence in pairs[n]])
            inputs = {name: a.reshape(len(numbers), 2, -1) for name, a in rows.items()}
            batch = {"inputs": inputs, "loss": {"margin": margin[numbers].astype(model.dtype)}}
            values = learner.step(batch, reward_loss(len(numbers)))
            journal.record(step + 1, values, shown=("loss", "accuracy", "margin"))
            if settings.evaluate_every and (step + 1) % settings.evaluate_every == 0:
                evaluate()
        if learner.done not in found:
            evaluate()
        offset = -float(score(learner.model, [s for pair in pairs for s in pair], workers=settings.workers).mean())
        journal.finish(learner, validation=found, offset=offset)
    model.params = learner.model.params
    return Result(journal.history, found, offset, learner.theta)


def reward_loss(pairs: int) -> Callable:
    """losses.preference.bradley_terry for Learner.step, of `pairs` pairs in the whole step."""

    def loss(outputs: dict, extra: Tree, part: dict) -> tuple[dict, Callable]:
        scores = outputs["logits"][..., 0]  # (N, 2)
        chosen, rejected = scores[:, 0], scores[:, 1]
        value, back = preference.bradley_terry(chosen, rejected, margin=part["margin"], total=pairs)
        values = {"loss": value, **preference.preference_statistics(chosen, rejected, total=pairs)}

        def backward(dloss):
            return {"logits": array_module(scores).stack(back(dloss), axis=1)[..., None]}, None

        return values, backward

    return loss


def score(model: Model, sequences: SequenceOf[Sequence], *, batch_size: int = 64, workers: int = 1) -> np.ndarray:
    """The reward of each whole sequence (prompt, answer and the token that ends it), (N,) on the host, without the offset."""
    check_reward_model(model)
    check_every(sequences)
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        check_whole(name, value, 1)
    found = []

    def forward(part: dict) -> np.ndarray:
        return to_host(model.outputs(to_device(part, model.device))["logits"][:, 0])

    for start in range(0, len(sequences), batch_size):
        rows = whole_arrays(sequences[start : start + batch_size])
        model.inputs(**rows)  # once through the model's own checks
        found += map_shards(forward, rows, min(workers, len(rows["input_ids"])))
    return np.concatenate(found)


def pair_scores(model: Model, pairs: SequenceOf[Pair], *, workers: int = 1) -> dict[str, float]:
    """{"loss", "accuracy", "margin"} of pairs."""
    check_every_pair(pairs, least=1)
    scores = score(model, [sequence for pair in pairs for sequence in pair], workers=workers).reshape(-1, 2)
    values = {"loss": preference.bradley_terry(*scores.T)[0], **preference.preference_statistics(*scores.T)}
    return {name: float(value) for name, value in values.items()}


def whole_arrays(sequences: SequenceOf[Sequence]) -> dict[str, np.ndarray]:
    """{"input_ids", "attention_mask"} (N, T) of all tokens, also the last, padded on the right: what a reward model reads."""
    T = max(len(sequence.ids) for sequence in sequences)
    ids, mask = np.zeros((len(sequences), T), np.int64), np.zeros((len(sequences), T), np.int64)
    for n, sequence in enumerate(sequences):
        ids[n, : len(sequence.ids)], mask[n, : len(sequence.ids)] = sequence.ids, 1
    return {"input_ids": ids, "attention_mask": mask}


def check_reward_model(model: Model) -> None:
    """ValueError unless it is a decoder that gives a text one number."""
    check_model("model", model)
    labels = getattr(model.config, "num_labels", 0)
    if model.task != "sequence_classification" or not hasattr(model.config, "SCORED") or labels != 1:
        raise ValueError(f"a reward model: expected a decoder with task sequence_classification and one label, got {model!r} "
                         f"with {labels}")  # fmt: skip
