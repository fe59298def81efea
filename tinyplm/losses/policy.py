"""Losses of policy gradients on tokens: PPO's clipped surrogate and value loss, the k3 estimate of a KL divergence, GRPO.

All arrays are (N, T), a number for each token of each answer; weights (N, T), 0 where no answer is, and total say what the mean
is taken over:
    GRPO          w = 1 / |o_i| for the tokens of answer o_i, total = the number of answers        Shao et al. 2024, eq. 3
    token mean    w = 1, total = the number of tokens of all answers (None)                        DAPO, Yu et al. 2025, eq. 8
    Dr. GRPO      w = 1, total = answers x longest answer, a constant: no bias by length           Liu et al. 2025, sec. 3.2
The losses are to be minimised, and scalars in at least float32.  What stands at a token of weight 0 has no influence.
"""

from __future__ import annotations

from ..arguments import check_number, is_number, wrong
from ..backend import array_module, at_least_float32
from ..core import add
from ..shapes import expects
from .cross_entropy import counted_weights


@expects("log_probs (N, T), old_log_probs (N, T), advantages (N, T) or (N, 1), weights (N, T) numbers or None; 0 < "
         "clip < 1, clip_high > 0 or None")  # fmt: skip
def clipped_surrogate(log_probs, *, old_log_probs, advantages, clip=0.2, clip_high=None, weights=None, total=None):
    """loss = -sum w min(r A, clip(r, 1 - clip, 1 + clip_high) A) / total,   r = pi(a) / pi_old(a).   Schulman et al. 2017, eq. 7

    log_probs, old_log_probs, weights (N, T), advantages A (N, T) or (N, 1) -> a scalar.  clip_high: of the upper end, if it is
    another one (DAPO, Yu et al. 2025, eq. 10).  At r = 1 this is the policy gradient, since dr/dlog pi = r:

        dlog_probs = -dloss (w / total) A r   where r A <= clip(r) A,   else 0.

    It is 0 where the ratio has left the interval in the direction in which A drives it: the minimum is there the clipped term,
    a constant.  In the other direction the gradient goes on, and can bring the ratio back.
    A log-ratio of 89 or more overflows float32: the loss is then infinite where A < 0, at which recipes stop.
    """
    low, high = ratio_range(clip, clip_high)
    xp = array_module(log_probs)
    w, denominator = counted_weights(log_probs, xp.ones(log_probs.shape, dtype=bool), weights, total)
    ratio = xp.exp(_counted(log_probs, w) - _counted(old_log_probs, w))
    A = advantages.astype(w.dtype, copy=False)
    plain, clipped = ratio * A, xp.clip(ratio, low, high) * A

    def backward(dloss):
        d = xp.where(plain <= clipped, w * plain, 0) * (-dloss / denominator)
        return d.astype(log_probs.dtype, copy=False)

    return -(w * xp.minimum(plain, clipped)).sum() / denominator, backward


@expects("values (N, T), old_values (N, T), returns (N, T), weights (N, T) numbers or None; clip > 0 or None")
def clipped_value_loss(values, *, old_values, returns, clip=0.2, weights=None, total=None):
    """loss = sum w max((V - R)^2, (V' - R)^2) / (2 total),   V' = clip(V, V_old - clip, V_old + clip).

    From the code of Schulman et al. 2017 (the paper has the squared error alone: clip None).  values, old_values, returns (N, T).

        dV = dloss (w / total) (V - R)   where (V - R)^2 >= (V' - R)^2,   else 0.

    Where the clipped term is the larger one, V has left the interval and come nearer to R: it is held back until the next round.
    """
    xp = array_module(values)
    w, denominator = counted_weights(values, xp.ones(values.shape, dtype=bool), weights, total)
    V, old, R = (_counted(a, w) for a in (values, old_values, returns))
    error = V - R
    near = error if clip is None else xp.clip(V, old - clip, old + clip) - R
    square, near_square = error * error, near * near

    def backward(dloss):
        d = xp.where(square >= near_square, w * error, 0) * (dloss / denominator)
        return d.astype(values.dtype, copy=False)

    return 0.5 * (w * xp.maximum(square, near_square)).sum() / denominator, backward


@expects("log_probs (N, T), reference_log_probs (N, T), weights (N, T) numbers or None")
def k3_kl(log_probs, *, reference_log_probs, weights=None, total=None):
    """loss = sum w (e^d - d - 1) / total,   d = log ref(a) - log pi(a).                                Shao et al. 2024, eq. 4

    An estimate of KL(pi || ref) from tokens a that pi drew: E[-d] is that divergence and E[e^d - 1] = 0, which takes variance
    away and makes each term >= 0 (Schulman 2020).  log_probs, reference_log_probs (N, T).

        dlog_probs = dloss (w / total) (1 - e^d).
    """
    xp = array_module(log_probs)
    w, denominator = counted_weights(log_probs, xp.ones(log_probs.shape, dtype=bool), weights, total)
    d = _counted(reference_log_probs, w) - _counted(log_probs, w)
    excess = xp.expm1(d)

    def backward(dloss):
        return (w * excess * (-dloss / denominator)).astype(log_probs.dtype, copy=False)

    return (w * (excess - d)).sum() / denominator, backward


@expects("log_probs (N, T), old_log_probs (N, T), advantages (N, T) or (N, 1), reference_log_probs (N, T) or None, "
         "weights (N, T) numbers or None; 0 < clip < 1, clip_high > 0 or None, beta >= 0")  # fmt: skip
def grpo(log_probs, *, old_log_probs, advantages, reference_log_probs=None, clip=0.2, clip_high=None, beta=0.0, weights=None,
         total=None):  # fmt: skip
    """loss = clipped_surrogate + beta k3_kl, under the same weights and total.                          Shao et al. 2024, eq. 3

    The advantages are those of losses.advantages.group_advantages: the same for all tokens of an answer.  There is no value
    function; what an answer is compared with are the others to the same prompt.  reference_log_probs may be None if beta is 0.
    dlog_probs is clipped_surrogate's at dloss plus k3_kl's at beta dloss.
    """
    if beta > 0 and reference_log_probs is None:
        raise ValueError(f"grpo: expected reference_log_probs unless beta is 0, got beta {beta}")
    loss, surrogate_back = clipped_surrogate(log_probs, old_log_probs=old_log_probs, advantages=advantages, clip=clip,
                                             clip_high=clip_high, weights=weights, total=total)  # fmt: skip
    if beta == 0:
        return loss, surrogate_back
    kl, kl_back = k3_kl(log_probs, reference_log_probs=reference_log_probs, weights=weights, total=total)
    return loss + beta * kl, lambda dloss: add(surrogate_back(dloss), kl_back(beta * dloss))


@expects("log_probs (N, T), old_log_probs (N, T), weights (N, T) numbers or None; 0 < clip < 1, clip_high > 0 or None")
def policy_statistics(log_probs, *, old_log_probs, clip=0.2, clip_high=None, weights=None, total=None):
    """{"clip_fraction": share of tokens whose ratio is outside the interval, "update_kl": k3 estimate of KL(pi_old || pi)}.

    Both are sums under the weights / total, as the losses.  Without gradient.  The tokens are pi_old's, hence the direction.
    """
    low, high = ratio_range(clip, clip_high)
    xp = array_module(log_probs)
    w, denominator = counted_weights(log_probs, xp.ones(log_probs.shape, dtype=bool), weights, total)
    d = _counted(log_probs, w) - _counted(old_log_probs, w)
    excess = xp.expm1(d)
    outside = ((excess < low - 1) | (excess > high - 1)).astype(w.dtype)
    return {"clip_fraction": (w * outside).sum() / denominator, "update_kl": (w * (excess - d)).sum() / denominator}


def ratio_range(clip, clip_high=None):
    """(1 - clip, 1 + clip_high), checked."""
    high = clip if clip_high is None else clip_high
    if not (is_number(clip) and 0 < clip < 1):
        raise wrong("clip", "a number with 0 < clip < 1", clip)
    check_number("clip_high", high, above=0)
    return 1 - clip, 1 + high


def _counted(a, w):
    """a in at least float32, and 0 where the weight is 0: 0 times what overflows there would be NaN."""
    return array_module(a).where(w != 0, at_least_float32(a), 0)
