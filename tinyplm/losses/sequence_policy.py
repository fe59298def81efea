"""GSPO: the policy gradient with one importance ratio per answer.                Zheng et al. 2025

Arrays, weights w and total as in policy.py.  An answer's tokens are those of weight other than 0,
its weight is the sum of theirs: with w = 1 / |y| and total = the number of answers each counts
alike (the paper).
"""

from __future__ import annotations

from typing import Any

from ..arguments import wrong
from ..backend import array_module
from ..core import Array, Backward, add, in_float32
from ..shapes import expects
from .policy import counted, k3_kl, ratio_range
from .targets import counted_weights


@expects(
    "log_probs (N, T), old_log_probs (N, T), advantages (N, 1), weights (N, T) numbers or None; "
    "0 < clip < 1, clip_high > 0 or None"
)
@in_float32
def sequence_surrogate(
    log_probs: Array,
    *,
    old_log_probs: Array,
    advantages: Array,
    clip: float = 0.2,
    clip_high: float | None = None,
    weights: Array | None = None,
    total: Any = None,
) -> tuple[Array, Backward]:
    """loss = -sum_i W_i min(s_i A_i, s_i' A_i) / total,   W_i = sum_t w_it,

        s_i = (pi(y_i|x) / pi_old(y_i|x))^(1/|y_i|) = exp(1/|y_i| sum_t log pi(y_it)/pi_old(y_it)),
        s' = clip(s, 1 - clip, 1 + clip_high).

    Zheng et al. 2025, eq. 5 and 7.   The reward is for an answer, and so is the ratio: that of a
    token, one sample of its distribution, corrects nothing and adds noise that grows with the
    length.  A geometric mean varies less than a token's ratio: clips are about 1000 times smaller.
    log_probs, old_log_probs, weights w (N, T), advantages A (N, 1) -> a scalar.
    Keeps s A, and w's tokens.   With ds_i/dlog pi_it = s_i / |y_i|:

        dlog_probs_it = -dloss (W_i / total) s_i A_i / |y_i|   where s A <= s' A,   else 0.

    The variant GSPO-token (eq. 13) has the same gradient where, as here, all tokens of an answer
    have the same advantage.
    """
    xp = array_module(log_probs)
    low, high = ratio_range(clip, clip_high)
    w, total = counted_weights(log_probs, None, weights, total)
    log_s, share = mean_log_ratio(log_probs, old_log_probs, w)
    s, W = xp.exp(log_s), w.sum(axis=1, keepdims=True)
    A = advantages.astype(w.dtype, copy=False)
    sA, clipped = s * A, xp.clip(s, low, high) * A

    def backward(dloss: Any) -> Array:
        return xp.where(sA <= clipped, W * sA, 0) * share * (-dloss / total)

    return -(W * xp.minimum(sA, clipped)).sum() / total, backward


@expects(
    "log_probs (N, T), old_log_probs (N, T), advantages (N, 1), "
    "reference_log_probs (N, T) or None, weights (N, T) numbers or None; "
    "0 < clip < 1, clip_high > 0 or None, beta >= 0"
)
@in_float32
def gspo(
    log_probs: Array,
    *,
    old_log_probs: Array,
    advantages: Array,
    reference_log_probs: Array | None = None,
    clip: float = 0.2,
    clip_high: float | None = None,
    beta: float = 0.0,
    weights: Array | None = None,
    total: Any = None,
) -> tuple[Array, Backward]:
    """loss = sequence_surrogate + beta k3_kl, with the same weights w and total.

    Zheng et al. 2025, eq. 5, and the KL term of GRPO (Shao et al. 2024, eq. 3).   Arguments as in
    policy.grpo, but advantages A are (N, 1).   dlog_probs is the sum of both terms'.
    """
    if beta > 0 and reference_log_probs is None:
        raise wrong("gspo: reference_log_probs", f"an array with beta {beta}", None)
    loss, surrogate_back = sequence_surrogate(
        log_probs,
        old_log_probs=old_log_probs,
        advantages=advantages,
        clip=clip,
        clip_high=clip_high,
        weights=weights,
        total=total,
    )
    if beta == 0:
        return loss, surrogate_back
    kl, kl_back = k3_kl(
        log_probs, reference_log_probs=reference_log_probs, weights=weights, total=total
    )

    def backward(dloss: Any) -> Array:
        return add(surrogate_back(dloss), kl_back(beta * dloss))

    return loss + beta * kl, backward


@expects(
    "log_probs (N, T), old_log_probs (N, T), weights (N, T) numbers or None; "
    "0 < clip < 1, clip_high > 0 or None"
)
def sequence_statistics(
    log_probs: Array,
    *,
    old_log_probs: Array,
    clip: float = 0.2,
    clip_high: float | None = None,
    weights: Array | None = None,
    total: Any = None,
) -> dict[str, Array]:
    """{"clip_fraction": share of answers whose ratio s is outside the interval, "update_kl"}.

    update_kl as in policy.policy_statistics, from tokens.  Sums of weighted terms / total, without
    gradient.
    """
    low, high = ratio_range(clip, clip_high)
    w, total = counted_weights(log_probs, None, weights, total)
    excess = array_module(log_probs).expm1(mean_log_ratio(log_probs, old_log_probs, w)[0])
    outside = ((excess < low - 1) | (excess > high - 1)).astype(w.dtype)
    update_kl, _ = k3_kl(old_log_probs, reference_log_probs=log_probs, weights=weights, total=total)
    return {"clip_fraction": (w * outside).sum() / total, "update_kl": update_kl}


def mean_log_ratio(log_probs: Array, old_log_probs: Array, w: Array) -> tuple[Array, Array]:
    """(log s (N, 1), each token's share of the mean (N, T): 1 / |y|, 0 where the weight is 0)."""
    tokens = (w != 0).astype(w.dtype)
    share = tokens / array_module(w).maximum(tokens.sum(axis=1, keepdims=True), 1)
    log_ratio = counted(log_probs, w) - counted(old_log_probs, w)
    return (log_ratio * share).sum(axis=1, keepdims=True), share
