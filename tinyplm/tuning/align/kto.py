"""KTO: a policy from answers that are judged one by one, desirable or not. Ethayarajh et al. 2024

    loss = lam_y (1 - sigmoid(+-beta (log(pi(y|x) / ref(y|x)) - kl))),   + for a desirable y   eq. 8

losses/feedback.py has the loss with its gradient.  The reference point kl is an estimate of
KL(pi || ref) without gradient: before each update, the policy reads the prompts of the batch with
answers to other prompts (data.feedback.mismatched).  The reference is the initial model; its
log-probabilities of both are computed once, before the first step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ... import random
from ...arguments import check_number, check_out, known_arguments, mismatch
from ...backend import array_module
from ...core import Tree
from ...losses import feedback as losses
from ...losses.preference import implicit_reward
from ...models.causal_model import CausalModel
from ...models.model import check_decoder
from ...training.writers import check_writers
from ..data.feedback import Feedback, check_feedback, mismatched
from ..data.sequences import TokenSequence, sequence_arrays
from ..settings import EvaluatedSettings
from .journal import Journal
from .learner import Batch, Learner, Loss, token_log_probs
from .recipe import Result, check_reference, run_steps


@dataclasses.dataclass(frozen=True)
class KTOSettings(EvaluatedSettings):
    """batch_size counts answers; the reference point needs more than a few.

    beta                reward per nat of log-probability gained; larger values stay closer to the
                        reference
    desirable_weight    of desirable answers
    undesirable_weight  of the others.  With unequal numbers of both, the paper has
                        desirable_weight n_desirable = 1 to 1.5 times undesirable_weight
                        n_undesirable (eq. 9; 1 to 4/3 times in its first version, and in TRL)
    """

    learning_rate: float = 1e-5
    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("beta", self.beta, above=0)
        for name in ("desirable_weight", "undesirable_weight"):
            check_number(name, getattr(self, name), least=0)


@known_arguments
def kto(
    model: CausalModel,
    feedback: Sequence[Feedback],
    settings: KTOSettings | None = None,
    *,
    validation: Sequence[Feedback] = (),
    reference: CausalModel | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    writers: Sequence[str] = (),
    transform: Callable | None = None,
    theta: Tree = None,
) -> Result:
    """Train a policy on answers with True (desirable) or False; model.params become the trained.

    Logged for each step, and in the result's validation: loss; kl, the reference point in nats;
    accuracy, the share of answers whose log-ratio to the reference is on the right side of it;
    desirable and undesirable, the mean implicit rewards beta log(pi / ref) of either, and margin,
    their difference, which are missing where a batch has only one of both.
    Other arguments as in tuning.sft.
    ValueError for fewer than two answers or a reference with another vocabulary; NonFiniteError for
    a non-finite loss or gradient; on any error model.params stay unchanged.
    """
    settings = KTOSettings.given(settings)
    check_decoder("model", model)
    check_out(out, resume)
    check_writers(writers)
    limits = {"context": model.config.context, "vocabulary": model.config.vocab_size}
    check_feedback(feedback, **limits, least=2)  # another answer is needed
    check_feedback(validation, **limits, name="validation")
    if len(validation) == 1:
        raise mismatch("validation", "no answers, or 2 and more", 1)
    reference = check_reference(model, reference)
    learner = Learner(model, settings, transform=transform, theta=theta)

    def update(numbers: np.ndarray) -> dict[str, float]:
        some = seen.take(numbers)
        kl = some.reference_point(learner.model, settings)
        batch = kto_batch(some)
        return {**learner.step(batch, kto_loss(settings, kl, some.desirable)), "kl": kl}

    def evaluate(model: CausalModel) -> dict[str, float]:
        kl = held_out.reference_point(model, settings)
        now = sums(model, held_out.sequences, settings)
        values, _ = judged_answers(
            now, held_out.reference, held_out.desirable, settings, kl, held_out.desirable
        )
        return {**{name: float(value) for name, value in values.items()}, "kl": kl}

    judge, shown = evaluate if len(validation) else None, ("loss", "accuracy", "margin", "kl")
    data = {"feedback": feedback, "validation": validation, "reference": reference}
    run: dict[str, Any] = {"learner": learner, "data": data, "resume": resume}
    run["writers"] = writers
    with Journal(out, settings.steps, progress=progress, **run) as journal:
        seen, held_out = (
            Judged.of(reference, [] if journal.complete else some, settings)
            for some in (feedback, validation)
        )
        found = run_steps(learner, journal, len(feedback), update, judge, shown=shown)
        journal.finish(learner, validation=found)
    if journal.complete:
        model.params = learner.model.params
    return Result(journal.history, learner.theta, found, signal=journal.signal)


@dataclasses.dataclass(frozen=True)
class Judged:
    """sequences         N answers to their prompts
    others            the prompts with answers to other prompts
    desirable         (N,) booleans
    reference         (N,) log-probabilities of the answers under the reference
    others_reference  the same of `others`
    """

    sequences: list[TokenSequence]
    others: list[TokenSequence]
    desirable: np.ndarray
    reference: np.ndarray
    others_reference: np.ndarray

    @classmethod
    def of(cls, model: CausalModel, samples: Sequence[Feedback], settings: KTOSettings) -> Judged:
        """Samples read by the reference model."""
        sequences = [sequence for sequence, _ in samples]
        key = random.fold(random.key(settings.seed), 2)
        others = mismatched(samples, context=model.config.context, key=key)
        labels = np.array([label for _, label in samples], bool)
        read = (sums(model, some, settings) for some in (sequences, others))
        return cls(sequences, others, labels, *read)

    def take(self, numbers: np.ndarray) -> Judged:
        """The samples with these numbers."""
        return Judged(
            [self.sequences[n] for n in numbers],
            [self.others[n] for n in numbers],
            self.desirable[numbers],
            self.reference[numbers],
            self.others_reference[numbers],
        )

    def reference_point(self, model: CausalModel, settings: KTOSettings) -> float:
        """losses.feedback.reference_point of the policy `model`."""
        now = sums(model, self.others, settings)
        return float(losses.reference_point(now, self.others_reference))


def sums(
    model: CausalModel, sequences: Sequence[TokenSequence], settings: KTOSettings
) -> np.ndarray:
    """(N,): log p of each whole answer, without gradient, 64 at a time."""
    parts = [np.empty(0, model.dtype)]
    for start in range(0, len(sequences), 64):
        batch = sequence_arrays(sequences[start : start + 64])
        found = token_log_probs(model, batch, workers=settings.workers)["log_probs"]
        parts.append(found.sum(axis=1))
    return np.concatenate(parts)


def kto_batch(some: Judged) -> Batch:
    """The learner's batch."""
    values = sequence_arrays(some.sequences)
    targets = values.pop("targets")
    loss = {"reference": some.reference, "desirable": some.desirable}
    return {"inputs": values, "targets": {"logits": targets}, "loss": loss}


def kto_loss(settings: KTOSettings, kl: float, whole: np.ndarray) -> Loss:
    """losses.feedback.kto for Learner.step, with statistics to log.

    whole: `desirable` of all answers of the step, on the host.
    """

    def loss(outputs: dict, extra: Tree, part: dict) -> tuple[dict, Callable]:
        log_probs = outputs["log_probs"]
        given = (part["reference"], part["desirable"], settings, kl, whole)
        values, back = judged_answers(log_probs.sum(axis=1), *given)

        def backward(dloss: float) -> tuple[dict, Tree]:
            dsums = back(dloss)[:, None]
            return {"log_probs": array_module(dsums).broadcast_to(dsums, log_probs.shape)}, None

        return values, backward

    return loss


def judged_answers(
    now: Any, reference: Any, desirable: Any, settings: KTOSettings, kl: float, whole: np.ndarray
) -> tuple[dict[str, Any], Callable]:
    """(values of some answers of a step, backward(dloss) of "loss"); whole as in kto_loss."""
    names = ("beta", "desirable_weight", "undesirable_weight")
    options = {name: getattr(settings, name) for name in names} | {"total": len(whole), "kl": kl}
    loss, back = losses.kto(now, reference_log_probs=reference, desirable=desirable, **options)
    rewards = implicit_reward(now, reference, beta=settings.beta)
    right = (rewards > settings.beta * kl) == desirable
    values = {"loss": loss, "accuracy": right.sum() / len(whole)}
    count = {"desirable": int(whole.sum()), "undesirable": int((~whole).sum())}
    means = {
        name: (rewards * of).sum() / count[name]
        for name, of in (("desirable", desirable), ("undesirable", ~desirable))
        if count[name]
    }
    if len(means) == 2:
        means["margin"] = means["desirable"] - means["undesirable"]
    return {**values, **means}, back
