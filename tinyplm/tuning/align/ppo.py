"""PPO: reinforcement learning from scores of whole answers, such as a reward model's.
                                                         Schulman et al. 2017; Ziegler et al. 2019

A round: draw an answer to each prompt and score it; r_t = -beta log(pi / ref), plus the score at
the end; advantages by GAE from a value per token, whitened; then updates with

    loss = clipped_surrogate + value_weight clipped_value_loss - entropy_weight entropy,

each a mean over the answers' tokens.  The value of a token is V = h w + b with h the policy's own
hidden state before the token: one pass through one model yields policy and value, and the error of
the value trains the model too (dh = dV w, dw = sum dV h, db = sum dV).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...arguments import check_number, check_out, check_whole, known_arguments, wrong
from ...backend import to_device
from ...core import Tree, tree_map
from ...losses import policy
from ...losses.advantages import adaptive_kl, gae, kl_rewards, whiten
from ...models.causal_model import CausalModel
from ...models.model import Model, check_decoder
from ...training.writers import check_writers
from ..data.sequences import answered
from .journal import Journal
from .learner import Learner, Loss, token_log_probs
from .recipe import Result, check_reference
from .reward import check_reward_model, score
from .rollouts import Rollouts, answer_mask
from .rounds import (
    Reward,
    RolloutSettings,
    reward_facts,
    round_prompts,
    run_rounds,
    update_on_minibatches,
)


@dataclasses.dataclass(frozen=True)
class PPOSettings(RolloutSettings):
    """clip_value    bound on the change of a value; None: no bound
    value_weight, entropy_weight  weights in the loss
    gamma, lam    of GAE
    beta          weight of the KL divergence to the reference, in the reward of each token
    kl_target     adapt beta until the KL per answer is this (Ziegler et al. 2019, sec. 2.2); None:
                  beta is fixed
    kl_horizon    answers that the adaptation takes, roughly
    cut_score     replaces the score of a truncated answer; None: its own score
    """

    epochs: int = 2
    minibatches: int = 2
    clip_value: float | None = 0.2
    value_weight: float = 0.1
    entropy_weight: float = 0.0
    gamma: float = 1.0
    lam: float = 0.95
    beta: float = 0.05
    kl_target: float | None = None
    kl_horizon: float = 2000.0
    cut_score: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("kl_horizon", self.kl_horizon, above=0)
        for name in ("clip_value", "kl_target"):
            check_number(name, getattr(self, name), above=0, or_none=True)
        for name in ("value_weight", "entropy_weight"):
            check_number(name, getattr(self, name), least=0)
        for name in ("gamma", "lam"):
            check_number(name, getattr(self, name), least=0, most=1)
        check_number("cut_score", self.cut_score, or_none=True)
        if self.kl_target is not None and self.beta == 0:
            raise wrong("kl_target", "None if beta is 0", self.kl_target)


@dataclasses.dataclass(frozen=True)
class PPOResult(Result):
    """value: the trained value head {"w" (D,), "b" (1,)}."""

    value: Tree = None


@known_arguments
def ppo(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    reward: Reward,
    settings: PPOSettings | None = None,
    *,
    reference: CausalModel | None = None,
    value: Tree = None,
    stop_ids: Sequence[int] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    writers: Sequence[str] = (),
    transform: Callable | None = None,
    theta: Tree = None,
) -> PPOResult:
    """Train a policy on prompts (token ids) by rewards; model.params become the trained parameters.

    reward: as in tuning.grpo, or `model_reward` of a reward model.  reference: by default the
    initial model.  value: the initial value head {"w" (D,), "b" (1,)}, by default zeros.  stop_ids:
    the tokens that end an answer, by default model.end_ids().  Other arguments as in tuning.sft.
    Logged for each round: reward (the mean of the rewards) and its parts, score (the same with
    cut_score for truncated answers), kl (mean over answers of the summed log-ratios to the
    reference), kl_coefficient, value_loss, explained_variance (of the returns, by the values),
    entropy, clip_fraction, update_kl, length, cut (share of truncated answers).
    ValueError for a reward that is NaN or of the wrong length, for a reference with another
    vocabulary, and, before anything is drawn, for a prompt that does not fit the context together
    with max_new_tokens; NonFiniteError for a non-finite loss or gradient; on any error model.params
    stay unchanged.
    """
    settings = PPOSettings.given(settings)
    check_decoder("model", model)
    check_out(out, resume)
    check_writers(writers)
    reference = check_reference(model, reference)
    checked = round_prompts(prompts, settings.max_new_tokens, model, reference, reward)
    head = value_head(model, value)
    options = {"extra": head, "updates": settings.updates}
    learner = Learner(model, settings, transform=transform, theta=theta, **options)

    def update(drawn: Rollouts, rewards: dict[str, np.ndarray], key: int) -> dict[str, float]:
        beta = journal.kept.get("beta", settings.beta)
        batch, record = experience(learner, reference, drawn, rewards["reward"], beta)
        values = update_on_minibatches(learner, batch, loss_of, key=key)
        if settings.kl_target is not None:
            target = {"target": settings.kl_target, "horizon": settings.kl_horizon}
            beta = adaptive_kl(beta, kl=record["kl"], **target, samples=len(drawn))
            journal.kept["beta"] = float(beta)
        return {**{name: float(a.mean()) for name, a in rewards.items()}, **record, **values}

    def loss_of(part: dict) -> Loss:
        return ppo_loss(settings, float(part["weights"].sum()))

    data = {"prompts": checked, "reference": reference, "value": head}
    data |= {"stop_ids": stop_ids, **reward_facts(reward)}
    run: dict[str, Any] = {"learner": learner, "data": data, "resume": resume}
    run["writers"] = writers
    with Journal(out, settings.steps, progress=progress, **run) as journal:
        run_rounds(learner, journal, checked, reward, update, stop_ids=stop_ids)
        head = tree_map(lambda a: a.copy(), learner.extra)
        journal.finish(learner)
    if journal.complete:
        model.params = learner.model.params
    return PPOResult(journal.history, learner.theta, value=head, signal=journal.signal)


def value_head(model: CausalModel, value: Tree = None) -> Tree:
    """{"w" (D,), "b" (1,)} on the model's device: the given head, checked, or zeros."""
    D = model.width
    shapes = {"w": (D,), "b": (1,)}
    if value is None:
        value = {name: np.zeros(shape, model.dtype) for name, shape in shapes.items()}
    found = value.items() if isinstance(value, dict) else ()
    if {name: getattr(a, "shape", None) for name, a in found} != shapes:
        raise wrong("value", f'{{"w": array ({D},), "b": array (1,)}}', value)
    return to_device(value, model.device)


def experience(
    learner: Learner, reference: CausalModel, drawn: Rollouts, scores: np.ndarray, beta: float
) -> tuple[dict, dict]:
    """(batch for the updates, values to log) of a round: log-probabilities, advantages, returns."""
    settings: Any = learner.settings
    batch = drawn.arrays()
    mask, dtype = answer_mask(batch), learner.model.dtype
    options: dict[str, Any] = {"temperature": settings.temperature, "workers": settings.workers}

    def values_at(outputs: dict) -> dict:
        return {"values": values_of(learner.extra, outputs["hidden"])}

    old = token_log_probs(learner.model, batch, beside=values_at, **options)
    before = token_log_probs(reference, batch, **options)["log_probs"]
    cut_score = scores if settings.cut_score is None else settings.cut_score
    worth = np.where(drawn.finished, scores, cut_score)
    rewards = kl_rewards(worth.astype(dtype), old["log_probs"], before, mask, beta=beta)
    values = np.where(mask, old["values"], 0)
    advantages, returns = gae(rewards, values, mask, gamma=settings.gamma, lam=settings.lam)
    spread, error = returns[mask].var(), (returns - values)[mask].var()
    kl = (old["log_probs"] - before).sum(axis=1).mean()
    record = {
        "score": float(worth.mean()),
        "kl": float(kl),
        "kl_coefficient": float(beta),
        "explained_variance": 1 - float(error / spread) if spread > 0 else 0.0,
        "length": float(drawn.lengths.mean()),
        "cut": 1 - float(np.mean(drawn.finished)),
    }
    arrays = {
        "old_log_probs": old["log_probs"],
        "old_values": values,
        "advantages": whiten(advantages, mask),
        "returns": returns,
        "weights": mask.astype(dtype),
    }
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return {"inputs": inputs, "targets": {"logits": batch["targets"]}, "loss": arrays}, record


def values_of(value: Tree, hidden: Any) -> Any:
    """V = h w + b;  hidden (N, T, D) -> (N, T)."""
    return hidden @ value["w"] + value["b"]


def ppo_loss(settings: PPOSettings, total: float) -> Loss:
    """The loss above for Learner.step, with statistics to log; `total` tokens in the whole step."""

    def loss(outputs: dict, extra: Tree, part: dict) -> tuple[dict, Callable]:
        x, H, hidden = outputs["log_probs"], outputs["entropy"], outputs["hidden"]
        scale = {"weights": part["weights"], "total": total}
        ratio = {"old_log_probs": part["old_log_probs"], "clip": settings.clip_ratio, **scale}
        surrogate, policy_back = policy.clipped_surrogate(x, advantages=part["advantages"], **ratio)
        change = {"old_values": part["old_values"], "clip": settings.clip_value, **scale}
        error, value_back = policy.clipped_value_loss(
            values_of(extra, hidden), returns=part["returns"], **change
        )
        entropy = (H * part["weights"]).sum() / total
        whole = surrogate + settings.value_weight * error - settings.entropy_weight * entropy
        values = {
            "loss": whole,
            "policy_loss": surrogate,
            "value_loss": error,
            "entropy": entropy,
            **policy.policy_statistics(x, **ratio),
        }

        def backward(dloss: float) -> tuple[dict, Tree]:
            dV = value_back(settings.value_weight * dloss)
            dH = part["weights"] * (-settings.entropy_weight * dloss / total)
            dextra = {"w": (dV[..., None] * hidden).sum(axis=(0, 1)), "b": dV.sum().reshape(1)}
            dhidden = dV[..., None] * extra["w"]
            return {"log_probs": policy_back(dloss), "entropy": dH, "hidden": dhidden}, dextra

        return values, backward

    return loss


@dataclasses.dataclass(frozen=True)
class ModelReward:
    """A reward model as a reward function."""

    model: Model
    offset: float
    workers: int

    @property
    def context(self) -> int | None:
        """The longest prompt plus answer it can read."""
        return self.model.config.context

    def __call__(self, prompts: list[list[int]], answers: list[list[int]]) -> list[float]:
        sequences = [answered(prompt, answer) for prompt, answer in zip(prompts, answers)]
        return (score(self.model, sequences, workers=self.workers) + self.offset).tolist()


@known_arguments
def model_reward(model: Model, *, offset: float = 0.0, workers: int = 1) -> ModelReward:
    """A reward for ppo and grpo: a reward model's score of prompt and answer, plus the offset."""
    check_reward_model(model)
    check_number("offset", offset)
    check_whole("workers", workers, 1)
    return ModelReward(model, offset, workers)
