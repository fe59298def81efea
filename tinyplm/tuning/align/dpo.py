"""Direct preference optimisation: a policy from preference pairs, without sampling.

    loss = -log sigmoid(beta (log pi(y_w|x)/ref(y_w|x) - log pi(y_l|x)/ref(y_l|x)))
                                                                        Rafailov et al. 2023, eq. 7

losses/preference.py has the loss with its gradient, losses/answers.py the sum over an answer.
The reference is the initial model; its log-probabilities are computed once, before the first step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...arguments import check_flag, check_number, check_out, known_arguments
from ...backend import array_module
from ...core import Tree
from ...losses import preference
from ...losses.answers import pair_log_probs
from ...models.causal_model import CausalModel
from ...models.model import check_decoder
from ..data.pairs import Pair, check_pairs, joint_arrays, pair_arrays
from ..settings import EvaluatedSettings
from .journal import Journal
from .learner import Batch, Learner, Loss, token_log_probs
from .recipe import Result, check_reference, run_steps


@dataclasses.dataclass(frozen=True)
class DPOSettings(EvaluatedSettings):
    """batch_size counts pairs.

    beta       reward per nat of log-probability gained; larger values stay closer to the reference
    smoothing  assumed share of wrong preferences
    joint      both answers of a pair in one row behind a prompt that is read once (see
               pairs.joint_arrays): the same numbers, to rounding, for fewer tokens; False: two rows
    """

    learning_rate: float = 1e-5
    beta: float = 0.1
    smoothing: float = 0.0
    joint: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("beta", self.beta, above=0)
        check_number("smoothing", self.smoothing, least=0, below=0.5)
        check_flag("joint", self.joint)


@known_arguments
def dpo(
    model: CausalModel,
    pairs: Sequence[Pair],
    settings: DPOSettings | None = None,
    *,
    validation: Sequence[Pair] = (),
    reference: CausalModel | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    transform: Callable | None = None,
    theta: Tree = None,
) -> Result:
    """Train a policy on pairs (chosen, rejected); model.params become the trained parameters.

    Logged for each step, and in the result's validation: loss; accuracy, the share of pairs whose
    chosen answer has the larger implicit reward; margin, the mean difference of the two rewards;
    chosen and rejected, their means.  Both means may fall: the loss depends on the difference
    alone.
    Other arguments as in tuning.sft.
    ValueError for pairs whose prompts differ, or a reference with another vocabulary;
    NonFiniteError for a non-finite loss or gradient; on any error model.params stay unchanged.
    """
    settings = DPOSettings.given(settings)
    check_decoder("model", model)
    check_out(out, resume)
    limits = {"context": model.config.context, "vocabulary": model.config.vocab_size}
    check_pairs(pairs, **limits, least=1)
    check_pairs(validation, **limits, name="validation pair")
    workers = settings.workers
    reference = check_reference(model, reference)
    learner = Learner(model, settings, transform=transform, theta=theta)

    def update(numbers: np.ndarray) -> dict[str, float]:
        batch = dpo_batch([pairs[n] for n in numbers], before[numbers], settings)
        return learner.step(batch, dpo_loss(settings, len(numbers)))

    def evaluate(model: CausalModel) -> dict[str, float]:
        now = answer_log_probs(model, validation, workers=workers)
        return pair_statistics(now, held_out, settings)

    judge, shown = evaluate if len(validation) else None, ("loss", "accuracy", "margin")
    data = {"pairs": pairs, "validation": validation, "reference": reference}
    run: dict[str, Any] = {"learner": learner, "data": data, "resume": resume}
    with Journal(out, settings.steps, progress=progress, **run) as journal:
        before, held_out = (
            answer_log_probs(reference, [] if journal.complete else some, workers=workers)
            for some in (pairs, validation)
        )
        found = run_steps(learner, journal, len(pairs), update, judge, shown=shown)
        journal.finish(learner, validation=found)
    if journal.complete:
        model.params = learner.model.params
    return Result(journal.history, learner.theta, found, signal=journal.signal)


def dpo_batch(pairs: Sequence[Pair], reference: np.ndarray, settings: DPOSettings) -> Batch:
    """The learner's batch; reference (N, 2): the answers' log-probabilities under the reference."""
    values = joint_arrays(pairs) if settings.joint else pair_arrays(pairs)
    loss = {"reference": reference, "second": values.pop("second")}
    return {"targets": {"logits": values.pop("targets")}, "inputs": values, "loss": loss}


def dpo_loss(settings: DPOSettings, pairs: int) -> Loss:
    """losses.preference.dpo for Learner.step, with statistics to log; `pairs` in the whole step."""

    def loss(outputs: dict, extra: Tree, part: dict) -> tuple[dict, Callable]:
        answers, answers_back = pair_log_probs(outputs["log_probs"], second=part["second"])
        values, back = judged_pairs(answers, part["reference"], settings, pairs)

        def backward(dloss: float) -> tuple[dict, Tree]:
            danswers = array_module(answers).stack(back(dloss), axis=1)
            return {"log_probs": answers_back(danswers)}, None

        return values, backward

    return loss


def answer_log_probs(
    model: CausalModel, pairs: Sequence[Pair], *, batch_size: int = 32, workers: int = 1
) -> np.ndarray:
    """log p of each whole answer, (N, 2): chosen, rejected."""
    parts = [np.empty((0, 2), model.dtype)]
    for i in range(0, len(pairs), batch_size):
        batch = pair_arrays(pairs[i : i + batch_size])
        tokens = token_log_probs(model, batch, workers=workers)["log_probs"]
        parts.append(pair_log_probs(tokens, second=batch["second"])[0])
    return np.concatenate(parts)


def pair_statistics(
    now: np.ndarray, reference: np.ndarray, settings: DPOSettings
) -> dict[str, float]:
    """{"loss", "accuracy", "margin", "chosen", "rejected"} from log-probabilities (N, 2)."""
    values, _ = judged_pairs(now, reference, settings, len(now))
    return {name: float(value) for name, value in values.items()}


def judged_pairs(
    now: Any, reference: Any, settings: DPOSettings, total: int
) -> tuple[dict[str, Any], Callable]:
    """(values of N of `total` pairs, backward(dloss) of "loss"), from log-probabilities (N, 2)."""
    before = {"reference_chosen": reference[:, 0], "reference_rejected": reference[:, 1]}
    options = {"beta": settings.beta, "smoothing": settings.smoothing, "total": total}
    loss, back = preference.dpo(now[:, 0], now[:, 1], **before, **options)
    chosen, rejected = preference.implicit_reward(now, reference, beta=settings.beta).T
    values = {"loss": loss, **preference.preference_statistics(chosen, rejected, total=total)}
    values |= {"chosen": chosen.sum() / total, "rejected": rejected.sum() / total}
    return values, back
