"""Policy-gradient losses on tokens: PPO's clipped surrogate and value loss, the k3 KL, and GRPO.

All arrays are (N, T), a number for each token of each answer.  weights w (N, T), 0 outside the
answer, and total define the mean:
    GRPO         w = 1 / |o_i| for the tokens of answer o_i, total = the number of answers
                 Shao et al. 2024, eq. 3
    token mean   w = 1, total = the number of tokens of all answers (None)
                 DAPO, Yu et al. 2025, eq. 8
    Dr. GRPO     w = 1, total = answers x longest answer, a constant: no bias by length
                 Liu et al. 2025, sec. 3.2
The losses are scalars in at least float32, to be minimised.  Tokens of weight 0 have no influence,
whatever their values.
"""

from __future__ import annotations

from typing import Any

from ..arguments import check_number, is_number, wrong
from ..backend import array_module, at_least_float32
from ..core import Array, Backward, add, in_float32
from ..shapes import expects
from .targets import counted_weights


@expects(
    "log_probs (N, T), old_log_probs (N, T), advantages (N, T) or (N, 1), "
    "weights (N, T) numbers or None; 0 < clip < 1, clip_high > 0 or None"
)
@in_float32
def clipped_surrogate(
    log_probs: Array,
    *,
    old_log_probs: Array,
    advantages: Array,
    clip: float = 0.2,
    clip_high: float | None = None,
    weights: Array | None = None,
    total: Any = None,
) -> tuple[Array, Backward]:
    """loss = -sum w min(r A, r' A) / total,   r = pi(a) / pi_old(a),

        r' = clip(r, 1 - clip, 1 + clip_high).

    Schulman et al. 2017, eq. 7.   log_probs log pi(a), old_log_probs, weights w (N, T), advantages
    A (N, T) or (N, 1) -> a scalar.   clip_high: for the upper end where it differs from clip
    (DAPO, Yu et al. 2025, eq. 10).   Keeps w, r A and r' A.   Since dr/dlog pi = r:

        dlog_probs = -dloss (w / total) r A   where r A <= r' A,   else 0.

    At r = 1 that is the policy gradient.  It is 0 where the ratio has left the interval in the
    direction in which A drives it: there the minimum is r' A, a constant.  In the other direction
    the gradient remains, and can bring the ratio back.
    A log-ratio of 89 or more overflows float32: the loss is then infinite where A < 0, and the
    recipes stop.
    """
    xp = array_module(log_probs)
    low, high = ratio_range(clip, clip_high)
    w, total = counted_weights(log_probs, None, weights, total)
    r = xp.exp(counted(log_probs, w) - counted(old_log_probs, w))
    A = advantages.astype(w.dtype, copy=False)
    rA, clipped = r * A, xp.clip(r, low, high) * A

    def backward(dloss: Any) -> Array:
        return xp.where(rA <= clipped, w * rA, 0) * (-dloss / total)

    return -(w * xp.minimum(rA, clipped)).sum() / total, backward


@expects(
    "values (N, T), old_values (N, T), returns (N, T), weights (N, T) numbers or None; "
    "clip > 0 or None"
)
@in_float32
def clipped_value_loss(
    values: Array,
    *,
    old_values: Array,
    returns: Array,
    clip: float | None = 0.2,
    weights: Array | None = None,
    total: Any = None,
) -> tuple[Array, Backward]:
    """loss = sum w max((V - R)^2, (V' - R)^2) / (2 total).

    V' = clip(V, V_old - clip, V_old + clip).   From the code of Schulman et al. 2017; the paper's
    eq. 9 has the squared error alone (clip=None).
    values V, old_values V_old, returns R, weights w (N, T) -> a scalar.   Keeps V - R and V' - R.

        dV = dloss (w / total) (V - R)   where (V - R)^2 >= (V' - R)^2,   else 0.

    Where the clipped term is larger, V has left the interval towards R, and is held back until the
    next round.
    """
    xp = array_module(values)
    w, total = counted_weights(values, None, weights, total)
    V, old, R = (counted(a, w) for a in (values, old_values, returns))
    error = V - R
    clipped = error if clip is None else xp.clip(V, old - clip, old + clip) - R

    def backward(dloss: Any) -> Array:
        return xp.where(error**2 >= clipped**2, w * error, 0) * (dloss / total)

    return (w * xp.maximum(error**2, clipped**2)).sum() / 2 / total, backward


@expects("log_probs (N, T), reference_log_probs (N, T), weights (N, T) numbers or None")
@in_float32
def k3_kl(
    log_probs: Array,
    *,
    reference_log_probs: Array,
    weights: Array | None = None,
    total: Any = None,
) -> tuple[Array, Backward]:
    """loss = sum w (e^d - 1 - d) / total,   d = log ref(a) - log pi(a).     Shao et al. 2024, eq. 4

    An estimate of KL(pi || ref) from tokens a that pi drew: E[-d] is that divergence, and
    e^d - 1, whose mean is 0, reduces the variance and makes each term >= 0 (Schulman 2020).
    log_probs log pi(a), reference_log_probs log ref(a), weights w (N, T) -> a scalar.
    Keeps w and e^d - 1.   Since dd/dlog pi = -1:

        dlog_probs = -dloss (w / total) (e^d - 1).
    """
    w, total = counted_weights(log_probs, None, weights, total)
    d = counted(reference_log_probs, w) - counted(log_probs, w)
    excess = array_module(d).expm1(d)  # e^d - 1

    def backward(dloss: Any) -> Array:
        return w * excess * (-dloss / total)

    return (w * (excess - d)).sum() / total, backward


@expects(
    "log_probs (N, T), old_log_probs (N, T), advantages (N, T) or (N, 1), "
    "reference_log_probs (N, T) or None, weights (N, T) numbers or None; "
    "0 < clip < 1, clip_high > 0 or None, beta >= 0"
)
@in_float32
def grpo(
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
    """loss = clipped_surrogate + beta k3_kl, with the same weights w and total.

    Shao et al. 2024, eq. 3.   log_probs, old_log_probs, reference_log_probs, w (N, T), advantages A
    (N, T) or (N, 1) -> a scalar.   A is losses.advantages.group_advantages, the same for all tokens
    of an answer: there is no value function, an answer is compared with the others to its prompt.
    reference_log_probs may be None if beta is 0.
    With r and r' of `clipped_surrogate`, and d of `k3_kl`:

        dlog_probs = -dloss (w / total) (r A [r A <= r' A] + beta (e^d - 1)).
    """
    if beta > 0 and reference_log_probs is None:
        raise wrong("grpo: reference_log_probs", f"an array with beta {beta}", None)
    loss, surrogate_back = clipped_surrogate(
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
def policy_statistics(
    log_probs: Array,
    *,
    old_log_probs: Array,
    clip: float = 0.2,
    clip_high: float | None = None,
    weights: Array | None = None,
    total: Any = None,
) -> dict[str, Array]:
    """{"clip_fraction": share of tokens whose ratio is outside the interval, "update_kl": k3's KL}.

    update_kl estimates KL(pi_old || pi), since pi_old drew the tokens.  Both are sums of weighted
    terms / total, as the losses are.  Without gradient.
    """
    low, high = ratio_range(clip, clip_high)
    w, total = counted_weights(log_probs, None, weights, total)
    d = counted(log_probs, w) - counted(old_log_probs, w)
    excess = array_module(d).expm1(d)
    outside = ((excess < low - 1) | (excess > high - 1)).astype(w.dtype)
    return {
        "clip_fraction": (w * outside).sum() / total,
        "update_kl": (w * (excess - d)).sum() / total,
    }


def ratio_range(clip: float, clip_high: float | None = None) -> tuple[float, float]:
    """(1 - clip, 1 + clip_high), checked."""
    high = clip if clip_high is None else clip_high
    if not (is_number(clip) and 0 < clip < 1):
        raise wrong("clip", "a number with 0 < clip < 1", clip)
    check_number("clip_high", high, above=0)
    return 1 - clip, 1 + high


def counted(a: Array, w: Array) -> Array:
    """a in at least float32, 0 where the weight is 0: 0 times an overflow would be NaN."""
    return array_module(a).where(w != 0, at_least_float32(a), 0)
