"""Direct preference optimisation: a policy from preference pairs, without a reward model and without sampling.

    loss = -log sigmoid(beta (log pi(y_w|x)/ref(y_w|x) - log pi(y_l|x)/ref(y_l|x)))                    Rafailov et al. 2023, eq. 7

The reference is the model as it came; its log-probabilities of all answers are computed once, before the first step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from pathlib import Path

import numpy as np

from ... import random
from ...arguments import check_flag, check_number, check_out, check_whole
from ...backend import array_module
from ...core import Tree
from ...losses import preference
from ...losses.answers import pair_log_probs
from ...models.model import Model, check_decoder
from ..data.pairs import Pair, check_pairs, joint_arrays, pair_arrays
from ..data.sequences import batch_numbers
from ..settings import RecipeSettings
from .grpo import check_reference
from .learner import Journal, Learner, token_log_probs


@dataclasses.dataclass(frozen=True)
class DPOSettings(RecipeSettings):
    """batch_size counts pairs.

    beta            how much a change of log-probability counts as reward; a larger one keeps nearer to the reference
    smoothing       share of preferences that are taken to be wrong
    joint           both answers of a pair in one row, behind a prompt that is read once (see pairs.joint_arrays): the same
                    numbers, to rounding, for fewer tokens; False: two rows
    evaluate_every  steps between looks at the validation pairs; None: before and after only
    """

    learning_rate: float = 1e-5
    beta: float = 0.1
    smoothing: float = 0.0
    joint: bool = True
    evaluate_every: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("beta", self.beta, above=0)
        check_number("smoothing", self.smoothing, least=0, below=0.5)
        check_flag("joint", self.joint)
        check_whole("evaluate_every", self.evaluate_every, 1, or_none=True)


@dataclasses.dataclass(frozen=True)
class Result:
    """history: the numbers of each step; validation: {step: {"loss", "accuracy", "margin", "chosen", "rejected"}}, from step 0;
    theta: of the transform, else the parameters."""

    history: list[dict[str, float]]
    validation: dict[int, dict[str, float]]
    theta: Tree


def dpo(model: Model, pairs: SequenceOf[Pair], settings: DPOSettings | None = None, *, validation: SequenceOf[Pair] = (),
        reference: Model | None = None, out: str | Path | None = None, progress: bool = True,
        transform: Callable | None = None, theta: Tree = None) -> Result:  # fmt: skip
    """Train a policy on pairs (chosen, rejected); afterwards model.params are those of the last step.

    Each epoch sees every pair once.  The log of each step: loss, accuracy (share of pairs whose chosen answer has the larger
    implicit reward), margin (mean difference of these), chosen and rejected (their means).  Both may fall: the loss asks
    for their difference alone.
    ValueError for pairs whose prompts differ, or a reference with another vocabulary; NonFiniteError for a loss or gradient that
    is not finite; on any error model.params stay what they were.
    """
    settings = DPOSettings.given(settings)
    check_decoder("model", model)
    check_out(out)
    for name, some in (("pair", pairs), ("validation pair", validation)):
        check_pairs(some, context=model.config.context, vocabulary=model.config.vocab_size, name=name)
    if not len(pairs):
        raise ValueError("there are no pairs to train on")
    reference = check_reference(model, reference)
    before = answer_log_probs(reference, pairs, workers=settings.workers)
    held_out = answer_log_probs(reference, validation, workers=settings.workers) if len(validation) else None
    learner = Learner(model, settings, transform=transform, theta=theta)
    order, found = random.fold(random.key(settings.seed), 0), {}
    with Journal(out, settings.steps, progress=progress) as journal:

        def evaluate() -> None:
            if held_out is None:
                return
            now = answer_log_probs(learner.model, validation, workers=settings.workers)
            found[learner.done] = values = pair_statistics(now, held_out, settings)
            journal.write(step=learner.done, **{f"validation_{name}": value for name, value in values.items()})
            journal.progress.say(f"step {learner.done}: validation loss {values['loss']:.4f}, accuracy {values['accuracy']:.3f}")

        evaluate()
        for step in range(settings.steps):
            numbers = batch_numbers(len(pairs), settings.batch_size, step, key=order)
            batch = batch_of([pairs[n] for n in numbers], before[numbers], settings)
            journal.record(step + 1, learner.step(batch, dpo_loss(settings, len(numbers))), shown=("loss", "accuracy", "margin"))
            if settings.evaluate_every and (step + 1) % settings.evaluate_every == 0:
                evaluate()
        if learner.done not in found:
            evaluate()
        journal.finish(learner, validation=found)
    model.params = learner.model.params
    return Result(journal.history, found, learner.theta)


def batch_of(pairs: SequenceOf[Pair], reference: np.ndarray, settings: DPOSettings) -> dict[str, dict]:
    """The batch for a learner; reference (N, 2): the log-probabilities of the answers by the reference."""
    values = joint_arrays(pairs) if settings.joint else pair_arrays(pairs)
    loss = {"reference": reference, "second": values.pop("second")}
    return {"targets": {"logits": values.pop("targets")}, "inputs": values, "loss": loss}


def dpo_loss(settings: DPOSettings, pairs: int) -> Callable:
    """losses.preference.dpo for Learner.step, of `pairs` pairs in the whole step, with what is logged beside it."""

    def loss(outputs: dict, extra: Tree, part: dict) -> tuple[dict, Callable]:
        answers, answers_back = pair_log_probs(outputs["log_probs"], second=part["second"])
        chosen, rejected = answers.T
        references = {"reference_chosen": part["reference"][:, 0], "reference_rejected": part["reference"][:, 1]}
        value, back = preference.dpo(
            chosen, rejected, beta=settings.beta, smoothing=settings.smoothing, total=pairs, **references
        )
        rewards = [preference.implicit_reward(a, r, beta=settings.beta) for a, r in zip((chosen, rejected), references.values())]
        values = {"loss": value, **preference.preference_statistics(*rewards, total=pairs),
                  "chosen": rewards[0].sum() / pairs, "rejected": rewards[1].sum() / pairs}  # fmt: skip

        def backward(dloss):
            danswers = array_module(answers).stack(back(dloss), axis=1)
            return {"log_probs": answers_back(danswers)}, None

        return values, backward

    return loss


def answer_log_probs(model: Model, pairs: SequenceOf[Pair], *, batch_size: int = 32, workers: int = 1) -> np.ndarray:
    """log p of each whole answer, (N, 2): chosen, rejected."""
    parts = []
    for i in range(0, len(pairs), batch_size):
        batch = pair_arrays(pairs[i : i + batch_size])
        tokens = token_log_probs(model, batch, workers=workers)["log_probs"]
        parts.append(pair_log_probs(tokens, second=batch["second"])[0])
    return np.concatenate(parts)


def pair_statistics(now: np.ndarray, reference: np.ndarray, settings: DPOSettings) -> dict[str, float]:
    """{"loss", "accuracy", "margin", "chosen", "rejected"} of pairs by their log-probabilities (N, 2), as dpo_loss gives them."""
    chosen, rejected = (preference.implicit_reward(now[:, i], reference[:, i], beta=settings.beta) for i in (0, 1))
    loss, _ = preference.dpo(now[:, 0], now[:, 1], reference_chosen=reference[:, 0], reference_rejected=reference[:, 1],
                             beta=settings.beta, smoothing=settings.smoothing)  # fmt: skip
    values = {
        "loss": loss,
        **preference.preference_statistics(chosen, rejected),
        "chosen": chosen.mean(),
        "rejected": rejected.mean(),
    }
    return {name: float(value) for name, value in values.items()}
