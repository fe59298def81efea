"""Direct preference optimisation: a policy from preference pairs, without sampling.

    loss = -log sigmoid(beta (log pi(y_w|x)/ref(y_w|x) - log pi(y_l|x)/ref(y_l|x)))
                                                                        Rafailov et al. 2023, eq. 7

and other losses on pairs in its place, listed in pair_losses.py.  losses/preference.py has the loss
with its gradient, losses/answers.py the sum over an answer.
The reference is the initial model; its log-probabilities are computed once, before the first step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...arguments import (
    check_choice,
    check_flag,
    check_number,
    check_out,
    known_arguments,
    mismatch,
    wrong,
)
from ...core import Tree
from ...losses.answers import pair_log_probs
from ...models.causal_model import CausalModel
from ...models.model import check_decoder
from ...training.writers import check_writers
from ..data.pairs import Pair, check_pairs, joint_arrays, pair_arrays
from ..settings import EvaluatedSettings
from .journal import Journal
from .learner import Batch, Learner, Loss, token_log_probs
from .pair_losses import PAIR_LOSSES, divisors, judged_pairs
from .recipe import Result, check_reference, run_steps


@dataclasses.dataclass(frozen=True)
class DPOSettings(EvaluatedSettings):
    """batch_size counts pairs.

    loss       "dpo", "ipo", "hinge", "orpo" or "simpo", see pair_losses; the last two have no
               reference
    beta       reward per nat of log-probability gained; larger values stay closer to the reference.
               SimPO's paper has 2 to 2.5.  ORPO has none
    smoothing  assumed share of wrong preferences, with loss "dpo" (conservative DPO)
    lam        weight of the odds ratio, with loss "orpo"
    margin     by which SimPO's rewards are to differ, with loss "simpo"; its paper has
               0.3 to 1.6 with beta 2 to 2.5
    means      log-probabilities as means over an answer's tokens, not sums; None: as in the paper
               of the loss.  The authors of IPO ran it with means, as TRL does
    joint      both answers of a pair in one row behind a prompt that is read once (see
               pairs.joint_arrays): the same numbers, to rounding, for fewer tokens; False: two rows
    """

    learning_rate: float = 1e-5
    loss: str = "dpo"
    beta: float = 0.1
    smoothing: float = 0.0
    lam: float = 0.1
    margin: float = 0.0
    means: bool | None = None
    joint: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("beta", self.beta, above=0)
        check_number("smoothing", self.smoothing, least=0, below=0.5)
        check_number("lam", self.lam, least=0)
        check_number("margin", self.margin, least=0)
        if self.means is not None:
            check_flag("means", self.means)
        check_flag("joint", self.joint)
        check_choice("loss", self.loss, PAIR_LOSSES)
        for name, loss in (("smoothing", "dpo"), ("margin", "simpo")):
            if getattr(self, name) and self.loss != loss:
                expected = f'0 with loss "{self.loss}", since only "{loss}" has one'
                raise mismatch(name, expected, getattr(self, name))


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
    writers: Sequence[str] = (),
    transform: Callable | None = None,
    theta: Tree = None,
) -> Result:
    """Train a policy on pairs (chosen, rejected); model.params become the trained parameters.

    Logged for each step, and in the result's validation: loss; accuracy, the share of pairs whose
    chosen answer has the larger implicit reward; margin, the mean difference of the two rewards;
    chosen and rejected, their means.  Both means may fall: the loss depends on the difference
    alone.  The reward is beta log(pi / ref); beta log pi for simpo, log pi for orpo, of means over
    tokens (so that -chosen is ORPO's likelihood term).
    Other arguments as in tuning.sft.
    ValueError for pairs whose prompts differ, a reference with another vocabulary, or one for a
    loss without reference;
    NonFiniteError for a non-finite loss or gradient; on any error model.params stay unchanged.
    """
    settings = DPOSettings.given(settings)
    check_decoder("model", model)
    check_out(out, resume)
    check_writers(writers)
    limits = {"context": model.config.context, "vocabulary": model.config.vocab_size}
    check_pairs(pairs, **limits, least=1)
    check_pairs(validation, **limits, name="validation pair")
    workers = settings.workers
    if not PAIR_LOSSES[settings.loss].reference and reference is not None:
        raise wrong("reference", f'None with loss "{settings.loss}", which has none', reference)
    reference = check_reference(model, reference)
    lengths = divisors(validation, settings, model.dtype)
    learner = Learner(model, settings, transform=transform, theta=theta)

    def update(numbers: np.ndarray) -> dict[str, float]:
        batch = dpo_batch([pairs[n] for n in numbers], before[numbers], settings)
        return learner.step(batch, dpo_loss(settings, len(numbers)))

    def evaluate(model: CausalModel) -> dict[str, float]:
        now = answer_log_probs(model, validation, workers=workers)
        return pair_statistics(now, held_out, settings, lengths=lengths)

    judge, shown = evaluate if len(validation) else None, ("loss", "accuracy", "margin")
    data = {"pairs": pairs, "validation": validation, "reference": reference}
    run: dict[str, Any] = {"learner": learner, "data": data, "resume": resume}
    run["writers"] = writers
    with Journal(out, settings.steps, progress=progress, **run) as journal:
        before, held_out = (
            reference_log_probs(reference, [] if journal.complete else some, settings)
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
    loss["lengths"] = divisors(pairs, settings, reference.dtype)
    return {"targets": {"logits": values.pop("targets")}, "inputs": values, "loss": loss}


def dpo_loss(settings: DPOSettings, pairs: int) -> Loss:
    """The loss for Learner.step, with statistics to log; `pairs` in the whole step."""

    def loss(outputs: dict, extra: Tree, part: dict) -> tuple[dict, Callable]:
        sums, sums_back = pair_log_probs(outputs["log_probs"], second=part["second"])
        reference, lengths = part["reference"], part["lengths"]
        values, back = judged_pairs(sums, reference, settings, pairs, lengths=lengths)

        def backward(dloss: float) -> tuple[dict, Tree]:
            return {"log_probs": sums_back(back(dloss))}, None

        return values, backward

    return loss


def reference_log_probs(
    reference: CausalModel, pairs: Sequence[Pair], settings: DPOSettings
) -> np.ndarray:
    """answer_log_probs of the reference; 0 for a loss that has none."""
    if PAIR_LOSSES[settings.loss].reference:
        return answer_log_probs(reference, pairs, workers=settings.workers)
    return np.zeros((len(pairs), 2), reference.dtype)


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
    now: np.ndarray, reference: np.ndarray, settings: DPOSettings, *, lengths: Any = 1
) -> dict[str, float]:
    """{"loss", "accuracy", "margin", "chosen", "rejected"} from log-probabilities (N, 2)."""
    values, _ = judged_pairs(now, reference, settings, len(now), lengths=lengths)
    return {name: float(value) for name, value in values.items()}
