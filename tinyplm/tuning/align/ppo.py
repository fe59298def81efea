"""PPO: reinforcement learning from scores of whole answers, such as a reward model's.   Schulman et al. 2017; Ziegler et al. 2019

A round:  draw an answer to each prompt;  score it;  r_t = -beta log(pi / ref), and the score at the end;  advantages by GAE from
a value for each token, whitened;  then some updates with

    loss = clipped_surrogate + value_weight clipped_value_loss - entropy_weight entropy,   means over the answers' tokens.

The value of a place is  V = h w + b,  h the policy's own hidden state there, before the action: one pass through one model gives
both, and the value's error also teaches the model (dh = dV w, dw = sum dV h, db = sum dV).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from pathlib import Path
from typing import Any

import numpy as np

from ... import random
from ...arguments import check_number, check_out, check_whole, wrong
from ...backend import to_device
from ...core import Tree, tree_map
from ...losses import policy
from ...losses.advantages import adaptive_kl, gae, kl_rewards, whiten
from ...models.model import Model, check_decoder
from ...models.protocol import OutputOptions
from ..data.sequences import answered, batch_numbers
from ..settings import RecipeSettings
from .grpo import Reward, check_reference, rewarded, round_prompts
from .learner import Journal, Learner, token_log_probs
from .reward import check_reward_model, score
from .rollouts import Rollouts, answer_mask, rollouts


@dataclasses.dataclass(frozen=True)
class PPOSettings(RecipeSettings):
    """batch_size is the number of prompts of a round; micro_batch_size counts answers.

    max_new_tokens  of an answer; a longer one is cut
    temperature     at which is drawn; the ratios are those of the distribution at this temperature
    epochs          how often a round's answers are gone through
    minibatches     updates in each of them
    clip_ratio      of the ratio
    clip_value      how far a value may go from the old one; None: anywhere
    value_weight, entropy_weight  in the loss
    gamma, lam      of GAE
    beta            of the KL divergence to the reference, in the reward of each token
    kl_target       None: beta stays; else it is adapted so that an answer's KL comes to this (Ziegler et al. 2019, sec. 2.2) ...
    kl_horizon      ... in about so many answers
    cut_score       what an answer that did not end is worth, in place of its score; None: its score
    """

    learning_rate: float = 1e-4
    schedule: str = "constant"
    max_new_tokens: int = 32
    temperature: float = 1.0
    epochs: int = 2
    minibatches: int = 2
    clip_ratio: float = 0.2
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
        for name in ("max_new_tokens", "epochs"):
            check_whole(name, getattr(self, name), 1)
        check_whole("minibatches", self.minibatches, 1, self.samples)
        check_number("clip_ratio", self.clip_ratio, above=0, below=1)
        for name in ("temperature", "kl_horizon"):
            check_number(name, getattr(self, name), above=0)
        for name in ("clip_value", "kl_target"):
            check_number(name, getattr(self, name), above=0, or_none=True)
        for name in ("value_weight", "entropy_weight", "beta"):
            check_number(name, getattr(self, name), least=0)
        for name in ("gamma", "lam"):
            check_number(name, getattr(self, name), least=0, most=1)
        check_number("cut_score", self.cut_score, or_none=True)
        if self.kl_target is not None and self.beta == 0:
            raise wrong("kl_target", "None where beta is 0", self.kl_target)


@dataclasses.dataclass(frozen=True)
class Result:
    """history: the numbers of each round; value: the head {"w" (D,), "b" (1,)}; theta: of the transform, else the parameters."""

    history: list[dict[str, float]]
    value: Tree
    theta: Tree


def ppo(model: Model, prompts: SequenceOf[SequenceOf[int]], reward: Reward, settings: PPOSettings | None = None, *,
        reference: Model | None = None, value: Tree = None, stop_ids: SequenceOf[int] | None = None,
        out: str | Path | None = None, progress: bool = True, transform: Callable | None = None,
        theta: Tree = None) -> Result:  # fmt: skip
    """Train a policy on prompts (token ids); afterwards model.params are those of the last round.

    reward(prompts, answers) as in tuning.grpo, or `model_reward` of a reward model.  reference: by default the model as it came.
    value: the head to start from, {"w" (D,), "b" (1,)}, by default zeros.  stop_ids: what ends an answer, by default
    model.end_ids().
    The log of each round: reward (the mean of what `reward` gave) and its parts, score (cut_score in its place for answers that
    did not end), kl (mean over answers of the sum of log-ratios to the reference), kl_coefficient, value_loss,
    explained_variance (of the returns, by the values), entropy, clip_fraction, update_kl, length, cut.
    ValueError for a reward that is NaN or of the wrong length, or a reference with another vocabulary, and, before anything is
    drawn, for a prompt that does not fit in the context with max_new_tokens; NonFiniteError when the loss or gradient is not
    finite.  On any error model.params stay what they were.
    """
    settings = PPOSettings.given(settings)
    check_decoder("model", model)
    check_out(out)
    reference = check_reference(model, reference)
    prompts = round_prompts(prompts, settings.max_new_tokens, model, reference, reward)
    D = model.params["body"]["tokens"].shape[1]
    value = {"w": np.zeros(D, model.dtype), "b": np.zeros(1, model.dtype)} if value is None else value
    if not isinstance(value, dict) or {n: getattr(a, "shape", None) for n, a in value.items()} != {"w": (D,), "b": (1,)}:
        raise wrong("value", f'{{"w": array ({D},), "b": array (1,)}}', value)
    value = to_device(value, model.device)
    updates = settings.steps * settings.epochs * settings.minibatches
    learner = Learner(model, settings, transform=transform, theta=theta, extra=value, updates=updates)
    key, beta = random.key(settings.seed), settings.beta
    with Journal(out, settings.steps, progress=progress) as journal:
        for step in range(settings.steps):
            numbers = batch_numbers(len(prompts), settings.batch_size, step, key=random.fold(key, 0))
            drawn = rollouts(learner.model, [prompts[n] for n in numbers], stop_ids=stop_ids, workers=settings.workers,
                             max_new_tokens=settings.max_new_tokens, temperature=settings.temperature,
                             seed=random.fold(key, 1, step))  # fmt: skip
            values = rewarded(reward, drawn)
            batch, record = experience(learner, reference, drawn, values["reward"], beta)
            record = {**{name: float(a.mean()) for name, a in values.items()}, **record}
            record |= _updates(learner, batch, random.fold(key, 2, step))
            journal.record(step + 1, record, shown=("reward", "kl", "entropy", "length"))
            if settings.kl_target is not None:
                beta = adaptive_kl(beta, kl=record["kl"], target=settings.kl_target, horizon=settings.kl_horizon,
                                   samples=len(drawn))  # fmt: skip
        value = tree_map(lambda a: a.copy(), learner.extra)
        journal.finish(learner)
    model.params = learner.model.params
    return Result(journal.history, value, learner.theta)


def experience(learner: Learner, reference: Model, drawn: Rollouts, scores: np.ndarray, beta: float) -> tuple[dict, dict]:
    """(the batch for the updates, what is logged of the round): old log-probabilities and values, advantages and returns."""
    settings: Any = learner.settings
    batch = drawn.arrays()
    mask, dtype = answer_mask(batch), learner.model.dtype
    options = {"temperature": settings.temperature, "workers": settings.workers}
    old = token_log_probs(
        learner.model, batch, beside=lambda outputs: {"values": values_of(learner.extra, outputs["hidden"])}, **options
    )
    before = token_log_probs(reference, batch, **options)["log_probs"]
    worth = scores if settings.cut_score is None else np.where(drawn.finished, scores, settings.cut_score)
    rewards = kl_rewards(worth.astype(dtype), old["log_probs"], before, mask, beta=beta)
    values = np.where(mask, old["values"], 0)
    advantages, returns = gae(rewards, values, mask, gamma=settings.gamma, lam=settings.lam)
    spread = returns[mask].var()
    kl = (old["log_probs"] - before).sum(axis=1).mean()
    record = {"score": float(worth.mean()), "kl": float(kl), "kl_coefficient": float(beta),
              "explained_variance": 1 - float((returns - values)[mask].var() / spread) if spread > 0 else 0.0,
              "length": float(drawn.lengths.mean()), "cut": 1 - float(np.mean(drawn.finished))}  # fmt: skip
    arrays = {"old_log_probs": old["log_probs"], "old_values": values, "advantages": whiten(advantages, mask), "returns": returns,
              "weights": mask.astype(dtype)}  # fmt: skip
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return {"inputs": inputs, "targets": {"logits": batch["targets"]}, "loss": arrays}, record


def _updates(learner: Learner, batch: dict[str, dict], key: int) -> dict[str, float]:
    """The updates of one round; the means of their numbers."""
    settings: Any = learner.settings
    outputs = OutputOptions(temperature=settings.temperature, entropy=True)
    numbers: dict[str, list[float]] = {}
    for epoch in range(settings.epochs):
        order = random.generator(random.fold(key, epoch)).permutation(len(batch["inputs"]["input_ids"]))
        for some in np.array_split(order, settings.minibatches):
            part = tree_map(lambda a, some=some: a[some], batch)
            loss = ppo_loss(settings, float(part["loss"]["weights"].sum()))
            for name, number in learner.step(part, loss, outputs).items():
                numbers.setdefault(name, []).append(number)
    return {name: float(np.mean(some)) for name, some in numbers.items()}


def values_of(value: Tree, hidden):
    """V = h w + b;  hidden (N, T, D) -> (N, T)."""
    return hidden @ value["w"] + value["b"]


def ppo_loss(settings: PPOSettings, total: float) -> Callable:
    """The loss above for Learner.step, with its parts and policy_statistics beside it; `total` tokens count in the step."""

    def loss(outputs: dict, extra: Tree, part: dict) -> tuple[dict, Callable]:
        x, H, hidden, old = outputs["log_probs"], outputs["entropy"], outputs["hidden"], part["old_log_probs"]
        scale = {"weights": part["weights"], "total": total}
        surrogate, policy_back = policy.clipped_surrogate(x, old_log_probs=old, advantages=part["advantages"],
                                                          clip=settings.clip_ratio, **scale)  # fmt: skip
        error, value_back = policy.clipped_value_loss(values_of(extra, hidden), old_values=part["old_values"],
                                                      returns=part["returns"], clip=settings.clip_value, **scale)  # fmt: skip
        entropy = (H * part["weights"]).sum() / total
        whole = surrogate + settings.value_weight * error - settings.entropy_weight * entropy
        values = {"loss": whole, "policy_loss": surrogate, "value_loss": error, "entropy": entropy,
                  **policy.policy_statistics(x, old_log_probs=old, clip=settings.clip_ratio, **scale)}  # fmt: skip

        def backward(dloss):
            dV = value_back(settings.value_weight * dloss)
            dH = part["weights"] * (-settings.entropy_weight * dloss / total)
            dextra = {"w": (dV[..., None] * hidden).sum(axis=(0, 1)), "b": dV.sum().reshape(1)}
            return {"log_probs": policy_back(dloss), "entropy": dH, "hidden": dV[..., None] * extra["w"]}, dextra

        return values, backward

    return loss


def model_reward(model: Model, *, offset: float = 0.0, workers: int = 1) -> Reward:
    """A reward model's score (tuning.reward) of prompt and answer, plus the offset, as the reward of `ppo` and `grpo`."""
    check_reward_model(model)
    check_number("offset", offset)
    check_whole("workers", workers, 1)

    def reward(prompts: list[list[int]], answers: list[list[int]]) -> list[float]:
        sequences = [answered(prompt, answer) for prompt, answer in zip(prompts, answers)]
        return (score(model, sequences, workers=workers) + offset).tolist()

    reward.context = model.config.context
    return reward
