"""GRPO: reinforcement learning from rewards compared within groups of answers.   Shao et al. 2024

A round: draw prompts, and `group` answers to each from the policy; reward them; normalise the
rewards within each group, A = (r - mean) / std; then update with losses.policy.grpo: the clipped
ratio to the policy that drew the answers, plus beta times the k3 estimate of the KL divergence to
the reference, which is the initial model.  There is no value function.  With a rule as the reward
it is DeepSeek-R1's recipe (DeepSeek-AI 2025, sec. 2.2).  Dr. GRPO, DAPO and GSPO are settings.
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
    check_whole,
    known_arguments,
)
from ...core import Tree
from ...losses import policy, sequence_policy
from ...losses.advantages import group_advantages, overlong_punishment
from ...models.causal_model import CausalModel
from ...models.model import check_decoder
from ...training.writers import check_writers
from .journal import Journal
from .learner import Learner, Loss, token_log_probs
from .recipe import Result, check_reference
from .rollouts import Rollouts, answer_mask
from .rounds import (
    Reward,
    RolloutSettings,
    reward_facts,
    round_prompts,
    run_rounds,
    update_on_minibatches,
)

AGGREGATIONS = ("sequence", "token", "constant")
# Of a token's ratio or an answer's: the loss and its statistics.
RATIOS: dict[str, tuple[Callable, Callable]] = {
    "token": (policy.grpo, policy.policy_statistics),
    "sequence": (sequence_policy.gspo, sequence_policy.sequence_statistics),
}


@dataclasses.dataclass(frozen=True)
class GRPOSettings(RolloutSettings):
    """group            answers per prompt
    ratio            what is clipped: the ratio of each "token", or that of the answer ("sequence",
                     see losses.sequence_policy)
    clip_ratio_high  upper bound on the change of the ratio; None: clip_ratio both ways
    scale            whether advantages are divided by the group's standard deviation
    aggregation      the mean over tokens, see losses.policy: "sequence" (the paper), "token"
                     (DAPO), "constant" (Dr. GRPO)
    redraws          how often a round draws again in place of groups with equal rewards, from
                     which nothing is learned, see redraws
    overlong         within the last `overlong` of max_new_tokens the reward of an answer falls by
                     up to 1, see losses.advantages.overlong_punishment; 0: no punishment

    The methods of the papers:

                clip_ratio  clip_ratio_high  ratio     aggregation  scale  beta   redraws  overlong
        GRPO      0.2         None           token     sequence     True   0.04   0        0
        Dr. GRPO  0.2         None           token     constant     False  0      0        0
        DAPO      0.2         0.28           token     token        True   0      >= 1     >= 1
        GSPO      3e-4        4e-4           sequence  sequence     True   0      0        0

    Shao et al. 2024, eq. 3 and sec. 4.2; Liu et al. 2025, sec. 3.2; Yu et al. 2025, sec. 3
    (overlong: 4096 of 20480 tokens); Zheng et al. 2025, eq. 5 and sec. 5.1.  DAPO's mean is over
    the tokens of a group, here of a minibatch.
    """

    group: int = 8
    clip_ratio_high: float | None = None
    scale: bool = True
    aggregation: str = "sequence"
    ratio: str = "token"
    redraws: int = 0
    overlong: int = 0

    def __post_init__(self) -> None:
        check_whole("group", self.group, 2)  # a single answer has nothing to be compared with
        super().__post_init__()
        check_number("clip_ratio_high", self.clip_ratio_high, above=0, or_none=True)
        check_flag("scale", self.scale)
        check_choice("aggregation", self.aggregation, AGGREGATIONS)
        check_choice("ratio", self.ratio, RATIOS)
        check_whole("redraws", self.redraws)
        check_whole("overlong", self.overlong, 0, self.max_new_tokens)

    @property
    def samples(self) -> int:
        return self.batch_size * self.group


@known_arguments
def grpo(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    reward: Reward,
    settings: GRPOSettings | None = None,
    *,
    reference: CausalModel | None = None,
    stop_ids: Sequence[int] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    writers: Sequence[str] = (),
    transform: Callable | None = None,
    theta: Tree = None,
) -> Result:
    """Train a policy on prompts (token ids) by rewards; model.params become the trained parameters.

    reward(prompts, answers): equally long lists of token ids; an answer includes its end token.
    Returns numbers, or dicts with "reward" and other values, whose means are logged.  It must be
    pure: the same texts get the same rewards, also when a resumed run asks again.
    reference: for beta > 0, by default the initial model.
    stop_ids: the tokens that end an answer, by default model.end_ids().
    Other arguments as in tuning.sft.
    Logged for each round: reward and its deviation, its parts, kl (k3, to the reference, if
    beta > 0), entropy, clip_fraction, update_kl (k3, of the update), length of answers, cut (share
    of truncated answers), even (share of groups with equal rewards); with redraws first_reward and
    redrawn, see redraws; with overlong the mean punishment, which is not part of reward.
    ValueError for a reward that is NaN or of the wrong length, for a reference with another
    vocabulary, and, before anything is drawn, for a prompt that does not fit the context together
    with max_new_tokens; NonFiniteError for a non-finite loss or gradient; on any error model.params
    stay unchanged.
    """
    settings = GRPOSettings.given(settings)
    check_decoder("model", model)
    check_out(out, resume)
    check_writers(writers)
    reference = check_reference(model, reference)
    reader = reference if settings.beta else model
    checked = round_prompts(prompts, settings.max_new_tokens, model, reader, reward)
    learner = Learner(model, settings, transform=transform, theta=theta, updates=settings.updates)

    def update(drawn: Rollouts, rewards: dict[str, np.ndarray], key: int) -> dict[str, float]:
        said, trained = round_statistics(rewards, drawn), rewards["reward"]
        if settings.overlong:
            limits = {"longest": settings.max_new_tokens, "room": settings.overlong}
            punishment = overlong_punishment(drawn.lengths, **limits)
            said["overlong"], trained = float(punishment.mean()), trained + punishment
        batch, loss_of = grpo_batch(learner, settings, reference, drawn, trained)
        return {**said, **update_on_minibatches(learner, batch, loss_of, key=key)}

    data = {"prompts": checked, "reference": reader, "stop_ids": stop_ids}
    data |= reward_facts(reward)
    run: dict[str, Any] = {"learner": learner, "data": data, "resume": resume}
    run["writers"] = writers
    with Journal(out, settings.steps, progress=progress, **run) as journal:
        run_rounds(
            learner, journal, checked, reward, update, samples=settings.group, stop_ids=stop_ids
        )
        journal.finish(learner)
    if journal.complete:
        model.params = learner.model.params
    return Result(journal.history, learner.theta, signal=journal.signal)


def grpo_batch(
    learner: Learner,
    settings: GRPOSettings,
    reference: CausalModel,
    drawn: Rollouts,
    rewards: np.ndarray,
) -> tuple[dict[str, dict], Callable[[dict], Loss]]:
    """(the batch of a round, the loss of a minibatch)."""
    batch, dtype = drawn.arrays(), learner.model.dtype
    options: dict[str, Any] = {"temperature": settings.temperature, "workers": settings.workers}
    advantages = group_advantages(rewards, group=settings.group, scale=settings.scale)
    arrays = {
        "weights": token_weights(answer_mask(batch), settings.aggregation, dtype),
        "advantages": advantages[:, None].astype(dtype),
    }
    if settings.epochs * settings.minibatches > 1:  # else the policy is still the one that drew
        arrays["old_log_probs"] = token_log_probs(learner.model, batch, **options)["log_probs"]
    if settings.beta:
        arrays["reference_log_probs"] = token_log_probs(reference, batch, **options)["log_probs"]

    def loss_of(part: dict) -> Loss:
        samples = len(part["weights"])
        total = {
            "sequence": samples,
            "token": part["weights"].sum(),
            "constant": samples * settings.max_new_tokens,
        }[settings.aggregation]
        return policy_loss(settings, float(total))

    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return {"inputs": inputs, "targets": {"logits": batch["targets"]}, "loss": arrays}, loss_of


def policy_loss(settings: GRPOSettings, total: float) -> Loss:
    """The loss of settings.ratio for Learner.step, with entropy, clip_fraction, update_kl, kl.

    Without "old_log_probs" the policy is still the one that drew the answers: all ratios are 1.
    """
    clips = {"clip": settings.clip_ratio, "clip_high": settings.clip_ratio_high}
    surrogate, statistics = RATIOS[settings.ratio]

    def loss(outputs: dict, extra: Tree, part: dict) -> tuple[dict, Callable]:
        x, scale = outputs["log_probs"], {"weights": part["weights"], "total": total}
        reference = part.get("reference_log_probs")
        ratio = {"old_log_probs": part.get("old_log_probs", x), **clips, **scale}
        options: dict[str, Any] = {"beta": settings.beta, "reference_log_probs": reference}
        value, back = surrogate(x, advantages=part["advantages"], **ratio, **options)
        values = {"loss": value, **statistics(x, **ratio)}
        values["entropy"] = (outputs["entropy"] * part["weights"]).sum() / total
        if reference is not None:
            values["kl"] = policy.k3_kl(x, reference_log_probs=reference, **scale)[0]
        return values, lambda dloss: ({"log_probs": back(dloss)}, None)

    return loss


def token_weights(mask: np.ndarray, aggregation: str, dtype: Any) -> np.ndarray:
    """The weights (N, T) of a mean over tokens; losses.policy has the matching totals."""
    weights = mask.astype(dtype)
    if aggregation == "sequence":
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1)
    return weights


def round_statistics(values: dict[str, np.ndarray], drawn: Rollouts) -> dict[str, float]:
    """Statistics of a round's rewards and answers."""
    groups = values["reward"].reshape(-1, drawn.samples)
    means = {name: float(a.mean()) for name, a in values.items()}
    return {
        **means,
        "reward_deviation": float(values["reward"].std()),
        "length": float(drawn.lengths.mean()),
        "cut": 1 - float(np.mean(drawn.finished)),
        "even": float((groups == groups[:, :1]).all(axis=1).mean()),
    }
