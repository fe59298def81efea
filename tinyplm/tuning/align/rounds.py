"""Rounds of reinforcement learning: draw answers, reward them, update the policy on minibatches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ... import random
from ...arguments import check_number, check_takes, check_whole, listed, mismatch, shown
from ...core import tree_map
from ...models.causal_model import CausalModel
from ...models.protocol import OutputOptions
from ..data.sequences import batch_numbers
from ..settings import RecipeSettings
from .journal import Journal
from .learner import Learner, Loss
from .redraws import uneven_groups
from .rollouts import Rollouts, check_prompts, rollout_context, rollouts

# reward(prompts, answers) -> for each answer a number, or a dict whose "reward" is trained on and
# whose other values are logged.  It must be pure, the same answers getting the same rewards: a run
# that is resumed asks again.  An attribute `context`, if it exists, limits prompt and answer.
# If it has `records`, one for each prompt, it also takes numbers, those of the answers' prompts.
Reward = Callable[..., Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class RolloutSettings(RecipeSettings):
    """batch_size is the number of prompts per round; micro_batch_size counts answers.

    max_new_tokens  of an answer; longer ones are truncated
    temperature     of sampling; the ratios compare distributions at this temperature
    epochs          passes over the answers of a round
    minibatches     updates per pass
    clip_ratio      bound on the change of the probability ratio
    beta            weight of the KL divergence to the reference
    """

    learning_rate: float = 1e-4
    schedule: str = "constant"
    max_new_tokens: int = 32
    temperature: float = 1.0
    epochs: int = 1
    minibatches: int = 1
    clip_ratio: float = 0.2
    beta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_new_tokens", "epochs"):
            check_whole(name, getattr(self, name), 1)
        check_whole("minibatches", self.minibatches, 1, self.samples)
        check_number("temperature", self.temperature, above=0)
        check_number("clip_ratio", self.clip_ratio, above=0, below=1)
        check_number("beta", self.beta, least=0)

    @property
    def updates(self) -> int:
        """Updates in all rounds together."""
        return self.steps * self.epochs * self.minibatches


def run_rounds(
    learner: Learner,
    journal: Journal,
    prompts: list[list[int]],
    reward: Reward,
    update: Callable[[Rollouts, dict[str, np.ndarray], int], dict[str, float]],
    *,
    samples: int = 1,
    stop_ids: Sequence[int] | None = None,
) -> None:
    """settings.steps rounds, each on batch_size prompts with `samples` answers per prompt.

    update(drawn, rewards, key) trains on the answers and returns the values to log.
    With settings.redraws, groups of equal rewards are drawn again, see redraws.
    """
    settings: Any = learner.settings
    key, redraws = random.key(settings.seed), getattr(settings, "redraws", 0)

    def draw(numbers: Sequence[int], seed: int) -> tuple[Rollouts, dict[str, np.ndarray]]:
        drawn = rollouts(
            learner.model,
            [prompts[n] for n in numbers],
            samples=samples,
            stop_ids=stop_ids,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            seed=seed,
            workers=settings.workers,
        )
        return drawn, rewarded(reward, drawn, np.asarray(numbers))

    for step in journal.steps():
        numbers = batch_numbers(len(prompts), settings.batch_size, step, key=random.fold(key, 0))
        drawn, rewards = draw(numbers.tolist(), random.fold(key, 1, step))
        more: dict[str, float] = {}
        if redraws:
            seen: dict[str, Any] = {"prompts": len(prompts), "key": random.fold(key, 3, step)}
            drawn, rewards, more = uneven_groups(drawn, rewards, draw, limit=redraws, **seen)
        record = {**update(drawn, rewards, random.fold(key, 2, step)), **more}
        journal.record(step + 1, record, shown=("reward", "kl", "entropy", "length"))


def update_on_minibatches(
    learner: Learner, batch: dict[str, dict], loss_of: Callable[[dict], Loss], *, key: int
) -> dict[str, float]:
    """settings.epochs passes over a round's answers, each with settings.minibatches updates.

    loss_of(arrays) is the loss of a minibatch, given its part of batch["loss"].  Returns the mean
    of each value over the updates.
    """
    settings: Any = learner.settings
    outputs = OutputOptions(temperature=settings.temperature, entropy=True)
    found: dict[str, list[float]] = {}
    for epoch in range(settings.epochs):
        draw = random.generator(random.fold(key, epoch))
        order = draw.permutation(len(batch["inputs"]["input_ids"]))
        for numbers in np.array_split(order, settings.minibatches):
            part = tree_map(lambda a, numbers=numbers: a[numbers], batch)
            values = learner.step(part, loss_of(part["loss"]), outputs)
            for name, value in values.items():
                found.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def round_prompts(
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    model: CausalModel,
    reference: CausalModel,
    reward: Reward,
) -> list[list[int]]:
    """The prompts, checked against the contexts of the policy, the reference and the reward."""
    check_takes("reward", reward, "prompts", "answers")
    contexts = [rollout_context(model), reference.config.context, getattr(reward, "context", None)]
    context = min(context for context in contexts if context is not None)
    limits = {"vocabulary": model.config.vocab_size, "context": context}
    checked = check_prompts(prompts, max_new_tokens=max_new_tokens, **limits)
    records = getattr(reward, "records", None)
    if records is not None and len(records) != len(checked):
        raise mismatch("reward", f"{len(checked)} records, one per prompt", len(records))
    return checked


def reward_facts(reward: Reward) -> dict[str, Any]:
    """What a resumed run must be given again of a reward: its model (ppo.model_reward), or the
    records that its rule looks at (rules.record_reward)."""
    names = [name for name in ("model", "offset", "records") if hasattr(reward, name)]
    return {f"reward.{name}": getattr(reward, name) for name in names}


def rewarded(
    reward: Reward, drawn: Rollouts, numbers: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """{"reward": (N,) float64, and any other parts}; ValueError unless they are finite numbers.

    numbers: of the prompts that were drawn for, each in the list that the recipe was given.
    """
    known: dict[str, Any] = {}
    if numbers is not None and getattr(reward, "records", None) is not None:
        known["numbers"] = np.repeat(numbers, drawn.samples).tolist()
    values = reward([list(p) for p in drawn.prompts], [list(a) for a in drawn.answers], **known)
    values = listed("reward", values, f"a list of {len(drawn)} rewards")
    if len(values) != len(drawn):
        raise mismatch("reward", f"{len(drawn)} rewards, one per answer", len(values))
    rows = [r if isinstance(r, dict) else {"reward": r} for r in values]
    for n, row in enumerate(rows):
        if row.keys() != rows[0].keys() or "reward" not in row:
            expected = '"reward" and the same parts for all answers'
            raise mismatch("reward", expected, f"{list(row)} for answer {n}")
        for name, value in row.items():
            if isinstance(value, str) or not np.isscalar(value) or not np.isfinite(value):
                raise mismatch(
                    f"reward: answer {n}", f"a finite number as {name}", shown(value, 60)
                )
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
