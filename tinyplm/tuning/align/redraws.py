"""Dynamic sampling: groups whose answers all have the same reward are drawn again. Yu et al. 2025

Such a group has no gradient: all its advantages are 0.  As a policy improves, ever more prompts are
always solved, and the batch that teaches shrinks.  DAPO (sec. 3.2, eq. 11) draws answers to other
prompts in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ... import random
from ...arguments import mismatch
from ..data.sequences import batch_numbers
from .rollouts import Rollouts

Rewards = dict[str, np.ndarray]


def uneven_groups(
    drawn: Rollouts,
    rewards: Rewards,
    draw: Callable[[Sequence[int], int], tuple[Rollouts, Rewards]],
    *,
    prompts: int,
    limit: int,
    key: int,
) -> tuple[Rollouts, Rewards, dict[str, float]]:
    """(answers, rewards, values to log) in which groups of equal rewards are replaced.

    draw(numbers, seed) -> answers to the prompts with these numbers, of `prompts`, and rewards.
    After `limit` further draws, groups that are still even stay, so that the size of a round does
    not change.  Draw number n takes its prompts and its seed from the key, n and the number of
    groups to replace alone, and so a round is a function of the policy and the key.
    Logged: first_reward, the mean before any group was replaced (afterwards solved and hopeless
    prompts are missing from the mean), and redrawn, the number of groups drawn in addition.
    """
    first, redrawn = float(rewards["reward"].mean()), 0
    for attempt in range(1, limit + 1):
        places = even_groups(rewards["reward"], drawn.samples)
        if not len(places):
            break
        seed = random.fold(key, attempt)
        numbers = batch_numbers(prompts, len(places), 0, key=random.fold(seed, 0))
        new, new_rewards = draw(numbers.tolist(), random.fold(seed, 1))
        if new_rewards.keys() != rewards.keys():
            expected = f"the parts {list(rewards)}, as for the answers before"
            raise mismatch("reward", expected, list(new_rewards))
        drawn = replaced_groups(drawn, new, places)
        rows = answers_of(places, drawn.samples)
        rewards = {name: a.copy() for name, a in rewards.items()}
        for name, a in rewards.items():
            a[rows] = new_rewards[name]
        redrawn += len(places)
    return drawn, rewards, {"first_reward": first, "redrawn": float(redrawn)}


def even_groups(rewards: np.ndarray, samples: int) -> np.ndarray:
    """The numbers of the groups whose rewards are all equal."""
    groups = rewards.reshape(-1, samples)
    return np.flatnonzero((groups == groups[:, :1]).all(axis=1))


def replaced_groups(drawn: Rollouts, new: Rollouts, places: np.ndarray) -> Rollouts:
    """The rollouts with groups number `places` from `new`, in its order."""
    prompts, answers, finished = list(drawn.prompts), list(drawn.answers), list(drawn.finished)
    for n, row in enumerate(answers_of(places, drawn.samples).tolist()):
        prompts[row], answers[row], finished[row] = new.prompts[n], new.answers[n], new.finished[n]
    return Rollouts(prompts, answers, finished, drawn.samples)


def answers_of(places: np.ndarray, samples: int) -> np.ndarray:
    """The numbers of the answers in these groups."""
    return (places[:, None] * samples + np.arange(samples)).reshape(-1)
