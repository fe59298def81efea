"""Losses on pairs of answers that need no reference model: ORPO and SimPO.

Both take the mean log-probability of an answer's tokens, log P(y|x) = 1/|y| sum_t log pi(y_t|...),
so long answers and short ones compare.
"""

from __future__ import annotations

from typing import Any

from ..backend import array_module
from ..core import Array, Backward, in_float32
from ..shapes import expects
from .preference import bradley_terry
from .targets import counted_weights


@expects("chosen (N,), rejected (N,), weights (N,) numbers or None; lam >= 0")
@in_float32
def orpo(
    chosen: Array,
    rejected: Array,
    *,
    lam: float = 0.1,
    weights: Array | None = None,
    total: Any = None,
) -> tuple[Array, Backward]:
    """loss = sum_n w_n (-log P(y_w|x) - lam log sigmoid(z_n)) / total,

        z = log(odds(y_w) / odds(y_l)),   odds(y) = P / (1 - P).

    Hong et al. 2024, eq. 6 and 7.   The likelihood of the chosen answer is fine-tuning; the odds
    ratio lowers the rejected one, which fine-tuning alone would raise with it.
    chosen, rejected (N,): log P of y_w and y_l, means over tokens (eq. 3), <= 0; weights w (N,) or
    None = 1 -> a scalar in at least float32; total as in cross_entropy.
    With a = log P_w (1 - P_l), b = log P_l (1 - P_w) and L = log(e^a + e^b): z = a - b and
    -log sigmoid(z) = L - a, without overflow.   Keeps the two factors sigmoid(-z) / (1 - P).
    From dz/dlog P_w = 1 / (1 - P_w), dz/dlog P_l = -1 / (1 - P_l):

        dchosen   = -dloss (w / total) (1 + lam sigmoid(-z) / (1 - P_w)),
        drejected =  dloss (w / total) lam sigmoid(-z) / (1 - P_l).

    In the odds, log P is at most minus the dtype's epsilon, all that rounding leaves of a certain
    answer.
    """
    xp = array_module(chosen)
    w, total = counted_weights(chosen, None, weights, total)
    log_p_w, log_p_l = (xp.minimum(x, -xp.finfo(w.dtype).eps) for x in (chosen, rejected))
    log_1_p_w, log_1_p_l = (xp.log(-xp.expm1(x)) for x in (log_p_w, log_p_l))
    a, b = log_p_w + log_1_p_l, log_p_l + log_1_p_w
    L = xp.logaddexp(a, b)
    slope_w, slope_l = xp.exp(log_p_l - L), xp.exp(b - L - log_1_p_l)

    def backward(dloss: Any) -> tuple[Array, Array]:
        d = w * (dloss / total)
        return -d * (1 + lam * slope_w), lam * d * slope_l

    return (w * (lam * (L - a) - chosen)).sum() / total, backward


@expects("chosen (N,), rejected (N,), weights (N,) numbers or None; beta > 0, margin >= 0")
@in_float32
def simpo(
    chosen: Array,
    rejected: Array,
    *,
    beta: float = 2.0,
    margin: float = 1.0,
    weights: Array | None = None,
    total: Any = None,
) -> tuple[Array, Backward]:
    """loss = -sum_n w_n log sigmoid(beta log P(y_w|x) - beta log P(y_l|x) - margin) / total.

    Meng et al. 2024, eq. 6 (their gamma is margin).   The reward is what generation maximises, the
    mean log-probability per token, and not a ratio to a reference.
    Arguments and gradient as in `bradley_terry`, of rewards beta chosen and beta rejected.
    """
    loss, back = bradley_terry(
        beta * chosen, beta * rejected, margin=float(margin), weights=weights, total=total
    )

    def backward(dloss: Any) -> tuple[Array, Array]:
        dchosen, drejected = back(dloss)
        return beta * dchosen, beta * drejected

    return loss, backward
