"""From rewards to advantages: how much better an action was than expected.  Without gradients."""

from __future__ import annotations

from ..arguments import check_number, wrong
from ..backend import array_module, at_least_float32, is_host
from ..core import Array
from ..shapes import expects


@expects("rewards (N, T), values (N, T), mask (N, T) booleans; 0 <= gamma <= 1, 0 <= lam <= 1")
def gae(
    rewards: Array, values: Array, mask: Array, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Array, Array]:
    """A_t = sum_l (gamma lam)^l delta_{t+l},   delta_t = r_t + gamma V_{t+1} - V_t.

    Schulman et al. 2016, eq. 16.   rewards, values (N, T); mask (N, T) booleans, True for the
    tokens of an answer, which are contiguous; V is 0 after the last one.
    -> (advantages, returns = advantages + values), both (N, T) and 0 outside the mask.
    lam = 1: the sum of all later rewards less the value, unbiased; lam = 0: delta alone, of least
    variance.
    """
    xp = array_module(rewards)
    r, V = (xp.where(mask, at_least_float32(a), 0) for a in (rewards, values))
    A = xp.zeros_like(r)
    next_V = next_A = xp.zeros_like(r[:, 0])
    for t in reversed(range(r.shape[1])):  # A_t = delta_t + gamma lam A_{t+1}
        delta = r[:, t] + gamma * next_V - V[:, t]
        next_A = xp.where(mask[:, t], delta + gamma * lam * next_A, 0)
        next_V = V[:, t]
        A[:, t] = next_A
    return A, A + V


@expects("x (N, T), mask (N, T) booleans; flag shift")
def whiten(x: Array, mask: Array, *, shift: bool = True) -> Array:
    """(x - mean) / sqrt(variance + 1e-8) over the mask, 0 outside; shift=False keeps the mean."""
    xp = array_module(x)
    x = xp.where(mask, at_least_float32(x), 0)
    count = xp.maximum(mask.sum(), 1).astype(x.dtype)
    mean = x.sum() / count
    centred = xp.where(mask, x - mean, 0)
    scaled = centred * ((centred * centred).sum() / count + 1e-8) ** -0.5
    return scaled if shift else xp.where(mask, scaled + mean, 0)


@expects("rewards (N,) numbers; whole group >= 2, flag scale, eps > 0")
def group_advantages(rewards: Array, *, group: int, scale: bool = True, eps: float = 1e-4) -> Array:
    """A = (r - mean) / (std + eps) within each group of `group` answers to one prompt.

    Shao et al. 2024, sec. 4.1.2.   rewards (N,), the answers to a prompt side by side -> (N,).
    std is that of a sample, over group - 1.  Equal rewards give exactly 0: such a prompt teaches
    nothing.  scale=False gives r - mean (Liu et al. 2025: the division favours prompts that are
    almost always, or almost never, solved).
    ValueError for groups of one, which have nothing to compare with, for rewards that do not make
    whole groups, and (on the host) for rewards that are not finite.
    """
    if rewards.shape[0] % group or rewards.shape[0] == 0:
        raise wrong("group_advantages: rewards", f"whole groups of {group}", rewards)
    xp = array_module(rewards)
    if is_host(rewards) and not xp.isfinite(rewards).all():
        bad = int((~xp.isfinite(rewards)).argmax())
        raise wrong("group_advantages: rewards", "finite numbers", float(rewards[bad]))
    # * 1.0: a rule's rewards may be booleans
    r = at_least_float32(rewards * 1.0).reshape(-1, group)
    r = r - r[:, :1]  # equal rewards become exact zeros, so what follows has no rounding of them
    centred = r - r.mean(axis=1, keepdims=True)
    if scale:
        std = ((centred * centred).sum(axis=1, keepdims=True) / (group - 1)) ** 0.5
        centred = centred / (std + eps)
    return centred.reshape(-1)


@expects("lengths (N,) integers; whole longest >= 1, whole room >= 1")
def overlong_punishment(lengths: Array, *, longest: int, room: int) -> Array:
    """min(0, max(-1, (longest - room - length) / room)), to be added to an answer's reward.

    DAPO, Yu et al. 2025, eq. 13 (their L_max and L_cache).   lengths (N,), tokens of answers ->
    (N,) float64: 0 up to longest - room, then down to -1 at `longest`, where answers are truncated.
    To count a truncated answer simply as wrong is noise, since its start may have been right.
    """
    if room > longest:
        raise wrong("overlong_punishment: room", f"an integer from 1 to {longest}", room)
    xp = array_module(lengths)
    return xp.clip((longest - room - lengths) / room, -1.0, 0.0)


@expects(
    "scores (N,) numbers, log_probs (N, T), reference_log_probs (N, T), mask (N, T) booleans; "
    "beta >= 0"
)
def kl_rewards(
    scores: Array, log_probs: Array, reference_log_probs: Array, mask: Array, *, beta: float
) -> Array:
    """r_t = -beta log(pi(a_t) / ref(a_t)), and the answer's score added at its last token.

    Ziegler et al. 2019, eq. 2.   scores (N,), the others (N, T) -> (N, T), 0 outside the mask.
    Summed over the answer: the score less beta times an estimate of KL(pi || ref).
    """
    xp, T = array_module(log_probs), mask.shape[1]
    log_ratio = at_least_float32(log_probs) - at_least_float32(reference_log_probs)
    rewards = xp.where(mask, -beta * log_ratio, 0)
    last = T - 1 - mask[:, ::-1].argmax(axis=1)
    at_last = (xp.arange(T) == last[:, None]) & mask
    return rewards + xp.where(at_last, scores[:, None].astype(rewards.dtype), 0)


def adaptive_kl(
    coefficient: float, *, kl: float, target: float, horizon: float, samples: float
) -> float:
    """The next KL coefficient: beta (1 + e samples / horizon).

    e = clip(KL / target - 1, -0.2, 0.2).   Ziegler et al. 2019, sec. 2.2: a controller that brings
    the divergence to the target.  All are numbers; `samples` answers were seen in this step; after
    `horizon` answers the coefficient has changed by up to 20%.
    """
    check_number("adaptive_kl: coefficient", coefficient, least=0)
    check_number("adaptive_kl: kl", kl)
    check_number("adaptive_kl: target", target, above=0)
    check_number("adaptive_kl: horizon", horizon, above=0)
    check_number("adaptive_kl: samples", samples, least=0)
    error = min(max((kl - target) / target, -0.2), 0.2)
    return coefficient * (1 + error * samples / horizon)
