"""What the recipes share: results, the loop over a fixed set of samples, the reference model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ... import random
from ...arguments import mismatch
from ...core import Tree
from ...models.causal_model import CausalModel
from ...models.model import check_decoder
from ..data.sequences import batch_numbers
from .journal import Journal
from .learner import Learner


@dataclasses.dataclass(frozen=True)
class Result:
    """history     the values of each step, or of each round of rollouts
    theta       the trained parameters of the transform; without one, the model's parameters
    validation  {step: values}, from step 0 on; {} without validation samples
    signal      the number of the signal that ended the run before its last step; None: it is whole
    """

    history: list[dict[str, float]]
    theta: Tree
    validation: dict[int, Any] = dataclasses.field(default_factory=dict)
    signal: int | None = dataclasses.field(default=None, kw_only=True)


def run_steps(
    learner: Learner,
    journal: Journal,
    count: int,
    update: Callable[[np.ndarray], dict[str, float]],
    evaluate: Callable[[Any], dict[str, float]] | None,
    *,
    shown: tuple[str, ...],
) -> dict[int, dict[str, float]]:
    """settings.steps updates; every epoch visits each of `count` samples once, in random order.

    update(numbers) trains on the samples with these numbers and returns the values to log.
    evaluate(model) returns validation values; it is called before the first step, after every
    settings.evaluate_every steps and after the last.  Returns these values by step.
    """
    settings: Any = learner.settings
    found, order = journal.validation, random.fold(random.key(settings.seed), 0)

    def validate() -> None:
        if evaluate is not None and journal.state.step not in found:
            journal.judge(evaluate(learner.model))

    if journal.state.step == 0:
        validate()
    for step in journal.steps():
        values = update(batch_numbers(count, settings.batch_size, step, key=order))
        journal.record(step + 1, values, shown=shown)
        every = settings.evaluate_every or settings.steps
        if (step + 1) % every == 0 or step + 1 == settings.steps:
            validate()
    return found


def check_reference(model: CausalModel, reference: CausalModel | None) -> CausalModel:
    """The reference model, by default a copy of the model as it is now.

    ValueError unless it has the policy's vocabulary.
    """
    if reference is None:
        return model._with()
    check_vocabulary("reference", reference, model, "policy")
    return reference


def check_vocabulary(name: str, model: CausalModel, trained: CausalModel, role: str) -> None:
    """ValueError unless the model is a decoder with the vocabulary of the trained one."""
    check_decoder(name, model)
    size = trained.config.vocab_size
    if model.config.vocab_size != size:
        expected = f"a vocabulary of {size} tokens, as the {role} has"
        raise mismatch(name, expected, model.config.vocab_size)
