"""GRPO: reinforcement learning from a rule's rewards, each answer compared with others to the same prompt.  Shao et al. 2024

A round:  draw prompts, and `group` answers to each from the policy;  reward them;  A = (r - mean) / std within each group;
then some updates with  losses.policy.grpo:  the clipped ratio to the policy that drew, and beta times the k3 estimate of the
KL divergence to the reference, which is the model as it came.  There is no value function and no reward model: DeepSeek-R1's
recipe (DeepSeek-AI 2025, sec. 2.2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from pathlib import Path
from typing import Any

import numpy as np

from ... import random
from ...arguments import check_choice, check_flag, check_number, check_out, check_takes, check_whole, listed, shown
from ...core import Tree, tree_map
from ...losses import policy
from ...losses.advantages import group_advantages
from ...models.model import Model, check_decoder
from ...models.protocol import OutputOptions
from ..data.sequences import batch_numbers
from ..settings import RecipeSettings
from .learner import Journal, Learner, token_log_probs
from .rollouts import Rollouts, answer_mask, check_prompts, rollout_context, rollouts

AGGREGATIONS = ("sequence", "token", "constant")


@dataclasses.dataclass(frozen=True)
class GRPOSettings(RecipeSettings):
    """batch_size is the number of prompts of a round; micro_batch_size counts answers.

    group           answers to each prompt
    max_new_tokens  of an answer; a longer one is cut
    temperature     at which is drawn; the ratios are those of the distribution at this temperature
    epochs          how often a round's answers are gone through
    minibatches     updates in each of them
    clip_ratio, clip_ratio_high  of the ratio, downwards and upwards (None: the same)
    beta            of the KL divergence to the reference; 0: without one
    scale           whether advantages are divided by the group's standard deviation
    aggregation     the mean over tokens, see losses.policy: "sequence" (the paper), "token" (DAPO), "constant" (Dr. GRPO)
    """

    learning_rate: float = 1e-4
    schedule: str = "constant"
    group: int = 8
    max_new_tokens: int = 32
    temperature: float = 1.0
    epochs: int = 1
    minibatches: int = 1
    clip_ratio: float = 0.2
    clip_ratio_high: float | None = None
    beta: float = 0.0
    scale: bool = True
    aggregation: str = "sequence"

    def __post_init__(self) -> None:
        check_whole("group", self.group, 2)  # an answer alone can be compared with nothing
        super().__post_init__()
        check_whole("max_new_tokens", self.max_new_tokens, 1)
        check_whole("epochs", self.epochs, 1)
        check_whole("minibatches", self.minibatches, 1, self.samples)
        check_number("temperature", self.temperature, above=0)
        check_number("beta", self.beta, least=0)
        check_number("clip_ratio", self.clip_ratio, above=0, below=1)
        check_number("clip_ratio_high", self.clip_ratio_high, above=0, or_none=True)
        check_flag("scale", self.scale)
        check_choice("aggregation", self.aggregation, AGGREGATIONS)

    @property
    def samples(self) -> int:
        return self.batch_size * self.group


@dataclasses.dataclass(frozen=True)
class Result:
    """history: the numbers of each round; theta: of the transform, else the parameters."""

    history: list[dict[str, float]]
    theta: Tree


# reward(prompts, answers) -> a number for each answer, or a dict of numbers of which "reward" is the one that counts.
# An attribute `context`, if it has one, is the length of prompt and answer that it can read.
Reward = Callable[[list[list[int]], list[list[int]]], SequenceOf[Any]]


def grpo(model: Model, prompts: SequenceOf[SequenceOf[int]], reward: Reward, settings: GRPOSettings | None = None, *,
         reference: Model | None = None, stop_ids: SequenceOf[int] | None = None, out: str | Path | None = None,
         progress: bool = True, transform: Callable | None = None, theta: Tree = None) -> Result:  # fmt: skip
    """Train a policy on prompts (token ids) by a rule; afterwards model.params are those of the last round.

    reward(prompts, answers): both lists of token ids, an answer with the token that ended it, as many of each as answers.  It
    gives numbers, or dicts with "reward" and parts of it, whose means are logged.
    reference: for beta > 0, by default the model as it came.  stop_ids: what ends an answer, by default model.end_ids().
    The log of each round: reward and its deviation, parts, kl (k3, to the reference, if beta > 0), entropy, clip_fraction,
    update_kl (k3, of the update), length of answers, cut (share that did not end), even (share of groups with equal rewards).
    ValueError for a reward that is NaN or of the wrong length, or a reference with another vocabulary, and, before anything is
    drawn, for a prompt that does not fit in the context with max_new_tokens; NonFiniteError when the loss or gradient is not
    finite.  On any error model.params stay what they were.
    """
    settings = GRPOSettings.given(settings)
    check_decoder("model", model)
    check_out(out)
    reference = check_reference(model, reference)
    prompts = round_prompts(prompts, settings.max_new_tokens, model, reference if settings.beta else model, reward)
    updates = settings.steps * settings.epochs * settings.minibatches
    learner = Learner(model, settings, transform=transform, theta=theta, updates=updates)
    key = random.key(settings.seed)
    with Journal(out, settings.steps, progress=progress) as journal:
        for step in range(settings.steps):
            numbers = batch_numbers(len(prompts), settings.batch_size, step, key=random.fold(key, 0))
            drawn = rollouts(learner.model, [prompts[n] for n in numbers], samples=settings.group, stop_ids=stop_ids,
                             max_new_tokens=settings.max_new_tokens, temperature=settings.temperature,
                             seed=random.fold(key, 1, step), workers=settings.workers)  # fmt: skip
            values = rewarded(reward, drawn)
            record = {**round_statistics(values, drawn)}
            record |= _updates(learner, reference, drawn, values["reward"], random.fold(key, 2, step))
            journal.record(step + 1, record, shown=("reward", "kl", "entropy", "length"))
        journal.finish(learner)
    model.params = learner.model.params
    return Result(journal.history, learner.theta)


def _updates(learner: Learner, reference: Model, drawn: Rollouts, rewards: np.ndarray, key: int) -> dict[str, float]:
    """The updates of one round; the means of their numbers."""
    settings: Any = learner.settings
    batch, N = drawn.arrays(), len(drawn)
    mask, dtype = answer_mask(batch), learner.model.dtype
    options = {"temperature": settings.temperature, "workers": settings.workers}
    advantages = group_advantages(rewards, group=settings.group, scale=settings.scale)
    arrays = {"weights": token_weights(mask, settings.aggregation, dtype), "advantages": advantages[:, None].astype(dtype)}
    if settings.epochs * settings.minibatches > 1:  # else the policy is still the one that drew
        arrays["old_log_probs"] = token_log_probs(learner.model, batch, **options)["log_probs"]
    if settings.beta:
        arrays["reference_log_probs"] = token_log_probs(reference, batch, **options)["log_probs"]
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    whole = {"inputs": inputs, "targets": {"logits": batch["targets"]}, "loss": arrays}
    outputs = OutputOptions(temperature=settings.temperature, entropy=True)
    numbers: dict[str, list[float]] = {}
    for epoch in range(settings.epochs):
        order = random.generator(random.fold(key, epoch)).permutation(N)
        for some in np.array_split(order, settings.minibatches):
            part = tree_map(lambda a, some=some: a[some], whole)
            total = {"sequence": len(some), "token": part["loss"]["weights"].sum(),
                     "constant": len(some) * settings.max_new_tokens}[settings.aggregation]  # fmt: skip
            loss = policy_loss(settings, float(total))
            for name, value in learner.step(part, loss, outputs).items():
                numbers.setdefault(name, []).append(value)
    return {name: float(np.mean(some)) for name, some in numbers.items()}


def policy_loss(settings: GRPOSettings, total: float) -> Callable:
    """losses.policy.grpo for Learner.step, with entropy, clip_fraction, update_kl and kl beside it.  Without "old_log_probs" the
    policy is the one that drew: the ratios are 1."""
    clip = {"clip": settings.clip_ratio, "clip_high": settings.clip_ratio_high}

    def loss(outputs: dict, extra: Tree, part: dict) -> tuple[dict, Callable]:
        x, scale = outputs["log_probs"], {"weights": part["weights"], "total": total}
        reference = part.get("reference_log_probs")
        old = part.get("old_log_probs", x)
        value, back = policy.grpo(x, old_log_probs=old, advantages=part["advantages"], **clip, **scale,
                                  beta=settings.beta, reference_log_probs=reference)  # fmt: skip
        values = {"loss": value, **policy.policy_statistics(x, old_log_probs=old, **clip, **scale)}
        values["entropy"] = (outputs["entropy"] * part["weights"]).sum() / total
        if reference is not None:
            values["kl"] = policy.k3_kl(x, reference_log_probs=reference, **scale)[0]
        return values, lambda dloss: ({"log_probs": back(dloss)}, None)

    return loss


def token_weights(mask: np.ndarray, aggregation: str, dtype: Any) -> np.ndarray:
    """The weights (N, T) of a mean over tokens; the totals that belong to them are in losses.policy."""
    weights = mask.astype(dtype)
    return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1) if aggregation == "sequence" else weights


def check_reference(model: Model, reference: Model | None) -> Model:
    """The reference, by default a model with the present parameters; ValueError for another vocabulary."""
    if reference is None:
        return model._with()
    check_decoder("reference", reference)
    if reference.config.vocab_size != model.config.vocab_size:
        raise ValueError(f"the reference has a vocabulary of {reference.config.vocab_size} tokens, the policy of "
                         f"{model.config.vocab_size}: expected the same")  # fmt: skip
    return reference


def round_prompts(prompts: SequenceOf[SequenceOf[int]], max_new_tokens: int, model: Model, reference: Model, reward: Reward
                  ) -> list[list[int]]:  # fmt: skip
    """The prompts, checked against the contexts of all that read prompt and answer: policy, reference, and a reward's model."""
    check_takes("reward", reward, "prompts", "answers")
    contexts = [rollout_context(model), reference.config.context, getattr(reward, "context", None)]
    return check_prompts(prompts, max_new_tokens=max_new_tokens, vocabulary=model.config.vocab_size,
                         context=min(context for context in contexts if context is not None))  # fmt: skip


def rewarded(reward: Reward, drawn: Rollouts) -> dict[str, np.ndarray]:
    """{"reward" (N,) float64, and its parts, if any}; ValueError for what is no number, NaN, or not one for each answer."""
    given = reward([list(p) for p in drawn.prompts], [list(a) for a in drawn.answers])
    given = listed("the reward function", given, f"a list of {len(drawn)} rewards")
    if len(given) != len(drawn):
        raise ValueError(f"the reward function gave {len(given)} rewards for {len(drawn)} answers")
    rows = [r if isinstance(r, dict) else {"reward": r} for r in given]
    for n, row in enumerate(rows):
        if row.keys() != rows[0].keys() or "reward" not in row:
            raise ValueError(f'the reward function gave {list(row)} for answer {n}: expected "reward" and the same parts for all')
        for name, value in row.items():
            if isinstance(value, str) or not np.isscalar(value) or not np.isfinite(value):
                raise ValueError(f"the reward function gave {name} = {shown(value, 60)} for answer {n}: expected a finite number")
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def round_statistics(values: dict[str, np.ndarray], drawn: Rollouts) -> dict[str, float]:
    """What a round's rewards and answers say before any update."""
    groups = values["reward"].reshape(-1, drawn.samples)
    found = {name: float(a.mean()) for name, a in values.items()}
    return {**found, "reward_deviation": float(values["reward"].std()), "length": float(drawn.lengths.mean()),
            "cut": 1 - float(np.mean(drawn.finished)), "even": float((groups == groups[:, :1]).all(axis=1).mean())}  # fmt: skip
