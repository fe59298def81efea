"""KTO: a loss on single answers, each judged desirable or not.          Ethayarajh et al. 2024"""

from __future__ import annotations

from typing import Any

from ..arguments import check_number
from ..backend import array_module, is_host
from ..core import Array, Backward, in_float32
from ..layers.activation import log_sigmoid
from ..shapes import check_array, expects
from .preference import implicit_reward
from .targets import counted_weights


@expects(
    "log_probs (N,), reference_log_probs (N,), desirable (N,) booleans, "
    "weights (N,) numbers or None; beta > 0, desirable_weight >= 0, undesirable_weight >= 0"
)
@in_float32
def kto(
    log_probs: Array,
    *,
    reference_log_probs: Array,
    desirable: Array,
    kl: Any,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
    weights: Array | None = None,
    total: Any = None,
) -> tuple[Array, Backward]:
    """loss = sum_n w_n lam_n (1 - sigmoid(s_n)) / total,

        s = beta (r - kl) for a desirable answer,   beta (kl - r) for another,
        r = log(pi(y|x) / ref(y|x)).

    Ethayarajh et al. 2024, eq. 8.   sigmoid is the value of an answer in prospect theory: concave
    in gains over the reference point kl, convex in losses.  lam is desirable_weight or
    undesirable_weight; with n of each, desirable_weight n_desirable should be 1 to 1.5 times
    undesirable_weight n_undesirable (eq. 9).
    log_probs (N,): log pi of whole answers; reference_log_probs (N,): log ref of the same; kl: a
    number or () >= 0, see `reference_point`, without gradient; weights w (N,) or None = 1 -> a
    scalar in at least float32; total as in cross_entropy.   Keeps sigmoid(s) sigmoid(-s).
    From sigmoid' = sigmoid(s) sigmoid(-s):

        dlog_probs = -dloss (w / total) lam sigmoid(s) sigmoid(-s) (+-beta),   + where desirable.

    It is largest at the reference point: answers that are far from it on either side, clear ones
    and perhaps wrongly labelled ones, are left alone.
    """
    xp = array_module(log_probs)
    check_point(kl)
    w, total = counted_weights(log_probs, None, weights, total)
    sign = xp.where(desirable, 1.0, -1.0).astype(w.dtype) * float(beta)
    lam = xp.where(desirable, float(desirable_weight), float(undesirable_weight)).astype(w.dtype)
    s = sign * (implicit_reward(log_probs, reference_log_probs, beta=1.0) - kl)
    log_loss, log_value = log_sigmoid(-s)[0], log_sigmoid(s)[0]

    def backward(dloss: Any) -> Array:
        return w * lam * sign * xp.exp(log_value + log_loss) * (-dloss / total)

    return (w * lam * xp.exp(log_loss)).sum() / total, backward


@expects("log_probs (N,), reference_log_probs (N,), weights (N,) numbers or None")
def reference_point(
    log_probs: Array,
    reference_log_probs: Array,
    *,
    weights: Array | None = None,
    total: Any = None,
) -> Array:
    """max(0, sum_n w_n log(pi(y'|x_n) / ref(y'|x_n)) / total): KTO's estimate of KL(pi || ref).

    Ethayarajh et al. 2024, sec. 4.1.   y' is an answer to another prompt: no answer needs to be
    drawn from pi.  The estimate is biased, so it is cut off at 0, which a divergence is not below.
    log_probs, reference_log_probs (N,) of answers y' to prompts x -> ().  Without gradient.
    """
    r = implicit_reward(log_probs, reference_log_probs, beta=1.0)
    w, total = counted_weights(r, None, weights, total)
    return array_module(r).maximum((w * r).sum() / total, 0)


def check_point(kl: Any) -> None:
    """ValueError unless it is a number >= 0, or a 0-d array (read on the host only)."""
    if hasattr(kl, "shape"):
        check_array("kto: kl", kl, "() numbers")
        if not is_host(kl):
            return
        kl = float(kl)
    check_number("kto: kl", kl, least=0)
