"""From rewards to advantages."""

import math

import numpy as np


def gae(
    rewards: np.ndarray,
    values: np.ndarray,
    mask: np.ndarray,
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> tuple[np.ndarray, np.ndarray]:
    """A_t = sum_l (gamma lam)^l delta_{t+l},  delta_t = r_t + gamma V_{t+1} - V_t.

    mask (N, T): the tokens of an answer, contiguous within a row; V after the last is 0.
    -> advantages, returns = advantages + values; both are 0 outside the mask.
    Schulman et al. 2016, eq. 16.
    """
    advantages = np.zeros(rewards.shape)
    for n in range(rewards.shape[0]):
        places = [t for t in range(rewards.shape[1]) if mask[n, t]]
        deltas = []
        for i, t in enumerate(places):
            following = values[n, places[i + 1]] if i + 1 < len(places) else 0.0
            deltas.append(rewards[n, t] + gamma * following - values[n, t])
        for i, t in enumerate(places):
            advantages[n, t] = sum((gamma * lam) ** k * delta for k, delta in enumerate(deltas[i:]))
    return advantages, np.where(mask, advantages + values, 0.0)


def whiten(x: np.ndarray, mask: np.ndarray, *, shift: bool = True) -> np.ndarray:
    """(x - mean) / sqrt(variance + 1e-8) over the mask, 0 outside.

    Without shift, the mean is added back.
    """
    some = [float(x[i]) for i in np.ndindex(x.shape) if mask[i]]
    if not some:
        return np.zeros(x.shape)
    mean = sum(some) / len(some)
    scale = math.sqrt(sum((v - mean) ** 2 for v in some) / len(some) + 1e-8)
    out = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        if mask[i]:
            out[i] = (float(x[i]) - mean) / scale + (0.0 if shift else mean)
    return out


def group_advantages(
    rewards: np.ndarray, *, group: int, scale: bool = True, eps: float = 1e-4
) -> np.ndarray:
    """(r - mean) / (std + eps) within each group of answers to one prompt.

    std is the sample's (divided by group - 1).  Shao et al. 2024, sec. 4.1.2; without scale,
    r - mean (Liu et al. 2025, sec. 3.2).
    """
    out = []
    for start in range(0, len(rewards), group):
        some = [float(r) for r in rewards[start : start + group]]
        mean = sum(some) / group
        std = math.sqrt(sum((r - mean) ** 2 for r in some) / (group - 1))
        out += [(r - mean) / (std + eps if scale else 1.0) for r in some]
    return np.array(out)


def kl_rewards(
    scores: np.ndarray,
    log_probs: np.ndarray,
    reference_log_probs: np.ndarray,
    mask: np.ndarray,
    *,
    beta: float,
) -> np.ndarray:
    """-beta log(pi / ref) for each token of an answer, plus the answer's score on its last token.

    Ziegler et al. 2019, eq. 2.
    """
    rewards = np.zeros(log_probs.shape)
    for n in range(rewards.shape[0]):
        places = [t for t in range(rewards.shape[1]) if mask[n, t]]
        for t in places:
            rewards[n, t] = -beta * (log_probs[n, t] - reference_log_probs[n, t])
        if places:
            rewards[n, places[-1]] += scores[n]
    return rewards


def adaptive_kl(
    coefficient: float, *, kl: float, target: float, horizon: float, samples: int
) -> float:
    """The next coefficient: beta (1 + e samples / horizon),

    e = clip((KL - target) / target, -0.2, 0.2).
    Ziegler et al. 2019, sec. 2.2 (its K_beta = 0.1 for a batch is samples / horizon here).
    """
    error = min(max((kl - target) / target, -0.2), 0.2)
    return coefficient * (1.0 + error * samples / horizon)


def overlong_punishment(lengths: list[int], *, longest: int, room: int) -> list[float]:
    """0 up to longest - room tokens, then linearly down to -1 at `longest`.

    Yu et al. 2025, eq. 13.
    """
    found = []
    for length in lengths:
        if length <= longest - room:
            found.append(0.0)
        elif length <= longest:
            found.append(((longest - room) - length) / room)
        else:
            found.append(-1.0)
    return found
