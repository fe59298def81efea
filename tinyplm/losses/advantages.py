"""From rewards to advantages: what an action was worth beyond what was expected.  No gradient flows through any of this."""

from __future__ import annotations

from ..arguments import check_number
from ..backend import array_module, at_least_float32, is_host
from ..shapes import expects


@expects("rewards (N, T), values (N, T), mask (N, T) booleans; 0 <= gamma <= 1, 0 <= lam <= 1")
def gae(rewards, values, mask, *, gamma=1.0, lam=0.95):
    """A_t = sum_l (gamma lam)^l delta_{t+l},   delta_t = r_t + gamma V_{t+1} - V_t.                Schulman et al. 2016, eq. 16

    rewards, values (N, T); mask (N, T) booleans, True for the tokens of an answer, which stand together in a row.  Behind the
    last one V is 0.  -> (advantages, returns = advantages + values), both (N, T) and 0 outside the mask.
    lam = 1: all later rewards less the value, unbiased; lam = 0: delta alone, of the least variance.
    """
    xp = array_module(rewards)
    r, V = (xp.where(mask, at_least_float32(a), 0) for a in (rewards, values))
    advantages = xp.zeros_like(r)
    following = ahead = xp.zeros_like(r[:, 0])  # V_{t+1} and A_{t+1}; 0 behind the last token, whatever stands there
    for t in reversed(range(r.shape[1])):
        ahead = xp.where(mask[:, t], r[:, t] + gamma * following - V[:, t] + gamma * lam * ahead, 0)
        following = V[:, t]
        advantages[:, t] = ahead
    return advantages, advantages + V


@expects("x (N, T), mask (N, T) booleans; flag shift")
def whiten(x, mask, *, shift=True):
    """(x - mean) / sqrt(variance + 1e-8) over the mask, 0 outside; shift=False keeps the mean.  x, mask (N, T)."""
    xp = array_module(x)
    x = xp.where(mask, at_least_float32(x), 0)
    count = xp.maximum(mask.sum(), 1).astype(x.dtype)
    mean = x.sum() / count
    centred = xp.where(mask, x - mean, 0)
    scaled = centred * ((centred * centred).sum() / count + 1e-8) ** -0.5
    return scaled if shift else xp.where(mask, scaled + mean, 0)


@expects("rewards (N,) numbers; whole group >= 2, flag scale, eps > 0")
def group_advantages(rewards, *, group, scale=True, eps=1e-4):
    """A = (r - mean) / (std + eps) within each group of `group` answers to one prompt.              Shao et al. 2024, sec. 4.1.2

    rewards (N,), the answers to a prompt side by side -> (N,).  std is that of a sample, over group - 1.  Equal rewards give
    exactly 0: such a prompt teaches nothing.  scale=False leaves r - mean (Liu et al. 2025: the division favours prompts that
    are almost always, or almost never, solved).
    ValueError for groups of one, which can be compared with nothing, rewards that do not make whole groups, and (on the host)
    rewards that are not finite.
    """
    if rewards.shape[0] % group or rewards.shape[0] == 0:
        raise ValueError(f"group_advantages: rewards of shape {rewards.shape} do not make whole groups of {group}")
    xp = array_module(rewards)
    if is_host(rewards) and not xp.isfinite(rewards).all():
        raise ValueError(f"group_advantages: reward {int((~xp.isfinite(rewards)).argmax())} is not a finite number")
    r = at_least_float32(rewards * 1.0).reshape(-1, group)  # * 1.0: a rule's rewards may be booleans
    r = r - r[:, :1]  # equal rewards become zeros, of which no rounding is left in what follows
    centred = r - r.mean(axis=1, keepdims=True)
    if scale:
        centred /= ((centred * centred).sum(axis=1, keepdims=True) / (group - 1)) ** 0.5 + eps
    return centred.reshape(-1)


@expects("scores (N,) numbers, log_probs (N, T), reference_log_probs (N, T), mask (N, T) booleans; beta >= 0")
def kl_rewards(scores, log_probs, reference_log_probs, mask, *, beta):
    """r_t = -beta log(pi(a_t) / ref(a_t)), and the answer's score on its last token.              Ziegler et al. 2019, eq. 2

    scores (N,), the others (N, T) -> (N, T), 0 outside the mask.  Summed over the answer: the score less beta times an
    estimate of KL(pi || ref).
    """
    xp = array_module(log_probs)
    rewards = xp.where(mask, at_least_float32(reference_log_probs) - at_least_float32(log_probs), 0) * beta
    T = mask.shape[1]
    last = T - 1 - mask[:, ::-1].argmax(axis=1)
    ends = (xp.arange(T) == last[:, None]) & mask
    return rewards + xp.where(ends, scores[:, None].astype(rewards.dtype), 0)


def adaptive_kl(coefficient, *, kl, target, horizon, samples):
    """The next KL coefficient: beta (1 + e samples / horizon),   e = clip((KL - target) / target, -0.2, 0.2).

    Ziegler et al. 2019, sec. 2.2: a controller that brings the divergence to the target.  All are numbers; `samples` answers were
    seen in this step; the horizon says how many it takes until the coefficient has changed by up to 20%.
    """
    check_number("adaptive_kl: coefficient", coefficient, least=0)
    check_number("adaptive_kl: kl", kl)
    check_number("adaptive_kl: target", target, above=0)
    check_number("adaptive_kl: horizon", horizon, above=0)
    check_number("adaptive_kl: samples", samples, least=0)
    error = min(max((kl - target) / target, -0.2), 0.2)
    return coefficient * (1 + error * samples / horizon)
