"""Losses on pairs of answers, one of which is preferred: for a reward model, and for a policy.

DPO, IPO and the hinge loss compare the policy with a reference, ORPO and SimPO (reference_free.py)
do not.
"""

from __future__ import annotations

from typing import Any

from ..arguments import check_number
from ..backend import array_module, at_least_float32
from ..core import Array, Backward, in_float32
from ..layers.activation import log_sigmoid
from ..shapes import check_array, expects
from .targets import counted_weights


@expects("chosen (N,), rejected (N,), weights (N,) numbers or None")
@in_float32
def bradley_terry(
    chosen: Array,
    rejected: Array,
    *,
    margin: Any = None,
    weights: Array | None = None,
    total: Any = None,
) -> tuple[Array, Backward]:
    """loss = -sum_n w_n log sigmoid(z_n) / total,   z = chosen - rejected - margin.

    Ouyang et al. 2022, eq. 1.   Bradley & Terry 1952: of two answers with rewards r and s the first
    is preferred with probability e^r / (e^r + e^s) = sigmoid(r - s).  A margin > 0 asks for a
    larger difference where one answer is clearly better (Touvron et al. 2023b, eq. 2).
    chosen, rejected (N,): rewards; margin (N,), a number or None = 0; weights w (N,) or None = 1
    -> a scalar in at least float32; total as in cross_entropy.
    From (log sigmoid)'(z) = sigmoid(-z):

        dchosen = dz = -dloss (w / total) sigmoid(-z),   drejected = -dz.
    """
    w, total = counted_weights(chosen, None, weights, total)
    z = chosen - rejected
    if margin is not None:
        z = z - checked_margin(margin, z)
    log_p, log_p_back = log_sigmoid(z)

    def backward(dloss: Any) -> tuple[Array, Array]:
        dz = log_p_back(-w * (dloss / total))
        return dz, -dz

    return -(w * log_p).sum() / total, backward


@expects(
    "chosen (N,), rejected (N,), reference_chosen (N,), reference_rejected (N,), "
    "weights (N,) numbers or None; beta > 0, 0 <= smoothing < 0.5"
)
@in_float32
def dpo(
    chosen: Array,
    rejected: Array,
    *,
    reference_chosen: Array,
    reference_rejected: Array,
    beta: float = 0.1,
    smoothing: float = 0.0,
    weights: Array | None = None,
    total: Any = None,
) -> tuple[Array, Backward]:
    """loss = -sum_n w_n ((1 - e) log sigmoid(z_n) + e log sigmoid(-z_n)) / total,

        z = beta (log(pi(y_w|x) / ref(y_w|x)) - log(pi(y_l|x) / ref(y_l|x))).

    Rafailov et al. 2023, eq. 7.   The policy that maximises E[r] - beta KL(pi || ref) is
    pi = ref e^(r/beta) / Z(x) (eq. 4), so r = beta log(pi / ref) + beta log Z(x) (eq. 5).  In
    Bradley-Terry, sigmoid(r_w - r_l), the Z of the common prompt cancels (eq. 6): a policy is its
    own reward model, and z is the difference of its implicit rewards.
    chosen, rejected (N,): log pi of whole answers, the preferred y_w and the other y_l;
    reference_chosen, reference_rejected (N,): log ref of the same; weights w (N,) or None = 1
    -> a scalar in at least float32; total as in cross_entropy.   smoothing e: the preference is
    wrong with probability e (Mitchell 2023).   Equal policy and reference give ln 2.
    From (log sigmoid)'(z) = sigmoid(-z):

        dz = -dloss (w / total) ((1 - e) sigmoid(-z) - e sigmoid(z)),
        dchosen = beta dz,   drejected = -beta dz.

    sigmoid(-z) says how wrong the implicit rewards are about the pair: a pair that is already
    ranked well has little gradient.
    """
    e = smoothing
    w, total = counted_weights(chosen, None, weights, total)
    z = implicit_reward(chosen, reference_chosen, beta=beta)
    z = z - implicit_reward(rejected, reference_rejected, beta=beta)
    right, right_back = log_sigmoid(z)
    wrong, wrong_back = log_sigmoid(-z)

    def backward(dloss: Any) -> tuple[Array, Array]:
        d = -w * (dloss / total)
        dz = right_back((1 - e) * d) - wrong_back(e * d)
        return beta * dz, -beta * dz

    return -(w * ((1 - e) * right + e * wrong)).sum() / total, backward


@expects(
    "chosen (N,), rejected (N,), reference_chosen (N,), reference_rejected (N,), "
    "weights (N,) numbers or None; beta > 0"
)
@in_float32
def ipo(
    chosen: Array,
    rejected: Array,
    *,
    reference_chosen: Array,
    reference_rejected: Array,
    beta: float = 0.1,
    weights: Array | None = None,
    total: Any = None,
) -> tuple[Array, Backward]:
    """loss = sum_n w_n (h_n - 1 / (2 beta))^2 / total,

        h = log(pi(y_w|x) / ref(y_w|x)) - log(pi(y_l|x) / ref(y_l|x)).

    Azar et al. 2024, eq. 17 (their tau is beta).   DPO's loss falls for ever as z grows: where all
    raters prefer y_w, nothing holds the policy to the reference.  Here h has a target, and a margin
    beyond it costs as much as one below.
    Arguments as in `dpo`; chosen and rejected may also be means over the tokens of an answer, so
    that the target does not depend on its length.   Keeps h.

        dh = dloss (2 w / total) (h - 1 / (2 beta)),   dchosen = dh,   drejected = -dh.
    """
    w, total = counted_weights(chosen, None, weights, total)
    h = implicit_reward(chosen, reference_chosen, beta=1.0)
    h = h - implicit_reward(rejected, reference_rejected, beta=1.0)
    error = h - 1 / (2 * beta)

    def backward(dloss: Any) -> tuple[Array, Array]:
        dh = w * error * (2 * dloss / total)
        return dh, -dh

    return (w * error * error).sum() / total, backward


@expects(
    "chosen (N,), rejected (N,), reference_chosen (N,), reference_rejected (N,), "
    "weights (N,) numbers or None; beta > 0"
)
@in_float32
def hinge(
    chosen: Array,
    rejected: Array,
    *,
    reference_chosen: Array,
    reference_rejected: Array,
    beta: float = 0.1,
    weights: Array | None = None,
    total: Any = None,
) -> tuple[Array, Backward]:
    """loss = sum_n w_n max(0, 1 - z_n) / total,   with z of `dpo`.

    Zhao et al. 2023 (SLiC), sec. 2.2: a rank loss with a margin, here of 1 / beta nats, on the
    policy's log-probabilities; with their ratios to a reference: Liu et al. 2024 (RSO), hinge-norm.
    Arguments as in `dpo`.   Keeps where z < 1.

        dz = -dloss (w / total) [z < 1],   dchosen = beta dz,   drejected = -beta dz.

    A pair beyond the margin has no gradient; all others have the same.
    """
    xp = array_module(chosen)
    w, total = counted_weights(chosen, None, weights, total)
    z = implicit_reward(chosen, reference_chosen, beta=beta)
    z = z - implicit_reward(rejected, reference_rejected, beta=beta)
    inside = z < 1

    def backward(dloss: Any) -> tuple[Array, Array]:
        dchosen = xp.where(inside, w, 0) * (-beta * dloss / total)
        return dchosen, -dchosen

    return (w * xp.maximum(1 - z, 0)).sum() / total, backward


@expects("log_probs (...), reference_log_probs (...); beta > 0")
def implicit_reward(log_probs: Array, reference_log_probs: Array, *, beta: float) -> Array:
    """beta log(pi / ref): an answer's reward, up to a constant of its prompt.

    Rafailov et al. 2023, eq. 5.   In at least float32.
    """
    return beta * (at_least_float32(log_probs) - at_least_float32(reference_log_probs))


@expects("chosen (N,), rejected (N,), weights (N,) numbers or None")
def preference_statistics(
    chosen: Array, rejected: Array, *, weights: Array | None = None, total: Any = None
) -> dict[str, Array]:
    """{"accuracy": share of pairs where chosen has the larger reward, "margin": mean difference}.

    chosen, rejected (N,) rewards; a tie counts half.  Both are sums / total, as the losses are.
    Without gradient.
    """
    xp = array_module(chosen)
    difference = at_least_float32(chosen) - at_least_float32(rejected)
    w, total = counted_weights(difference, None, weights, total)
    right = xp.where(difference > 0, 1.0, xp.where(difference == 0, 0.5, 0.0)).astype(w.dtype)
    return {"accuracy": (w * right).sum() / total, "margin": (w * difference).sum() / total}


def checked_margin(margin: Any, z: Array) -> Any:
    """A number, or an array (N,) in z's dtype; ValueError for anything else."""
    if not hasattr(margin, "shape"):
        check_number("bradley_terry: margin", margin)
        return margin
    check_array("bradley_terry: margin", margin, "(N,) numbers", N=z.shape[0])
    return margin.astype(z.dtype)
