"""Losses on pairs of answers of which one is preferred: for a reward model, and for a policy itself."""

from __future__ import annotations

from ..arguments import check_number
from ..backend import array_module, at_least_float32
from ..shapes import check_array, expects
from .cross_entropy import counted_weights


@expects("chosen (N,), rejected (N,), weights (N,) numbers or None")
def bradley_terry(chosen, rejected, *, margin=None, weights=None, total=None):
    """loss = sum_n w_n (-log sigmoid(r_n - s_n - m_n)) / total,   r = chosen, s = rejected.      Ouyang et al. 2022, eq. 1

    Bradley & Terry 1952: of two answers with rewards r and s the first is preferred with probability e^r / (e^r + e^s) =
    sigmoid(r - s); this is the likelihood of what people preferred.  A margin m > 0 asks more of pairs that differ clearly
    (Touvron et al. 2023b, eq. 2).  chosen, rejected (N,), margin (N,), a number or None, weights (N,) or None = 1 -> a scalar in
    at least float32; `total` as in cross_entropy.  With z = r - s - m, from (log sigmoid)' = sigmoid(-z):

        dr = -dloss (w / total) sigmoid(-z),   ds = -dr.
    """
    z = at_least_float32(chosen) - at_least_float32(rejected)
    if margin is not None:
        if hasattr(margin, "shape"):
            check_array("bradley_terry: margin", margin, "(N,) numbers", N=z.shape[0])
        else:
            check_number("bradley_terry: margin", margin, or_none=True)
        z = z - (margin.astype(z.dtype) if hasattr(margin, "shape") else margin)
    return _preference_loss(chosen, rejected, z, 1.0, 0.0, weights, total)


@expects("chosen (N,), rejected (N,), reference_chosen (N,), reference_rejected (N,), weights (N,) numbers or "
         "None; beta > 0, 0 <= smoothing < 0.5")  # fmt: skip
def dpo(chosen, rejected, *, reference_chosen, reference_rejected, beta=0.1, smoothing=0.0, weights=None, total=None):
    """loss = sum_n w_n (-(1 - e) log sigmoid(z_n) - e log sigmoid(-z_n)) / total,                   Rafailov et al. 2023, eq. 7

        z = beta (log pi(y_w|x) / ref(y_w|x) - log pi(y_l|x) / ref(y_l|x)).

    From reward to loss: the policy that is best for  E[r] - beta KL(pi || ref)  is  pi = ref e^(r/beta) / Z(x)  (eq. 4), so that
    r = beta log(pi / ref) + beta log Z(x)  (eq. 5).  Put into Bradley-Terry, sigmoid(r_w - r_l), the Z of the common prompt
    falls out (eq. 6): a policy is its own reward model, and z is the difference of its implicit rewards.
    chosen, rejected (N,): log-probabilities of whole answers by the policy, reference_* by the reference -> a scalar in at least
    float32.  smoothing e: the preference is wrong with probability e (Mitchell 2023).  policy = reference gives ln 2.

        dchosen = -dloss (w / total) beta ((1 - e) sigmoid(-z) - e sigmoid(z)),   drejected = -dchosen.

    sigmoid(-z) is how wrong the implicit rewards are about the pair: what is ranked well already has little gradient.
    """
    z = implicit_reward(chosen, reference_chosen, beta=beta) - implicit_reward(rejected, reference_rejected, beta=beta)
    return _preference_loss(chosen, rejected, z, beta, smoothing, weights, total)


@expects("log_probs (...), reference_log_probs (...); beta > 0")
def implicit_reward(log_probs, reference_log_probs, *, beta):
    """beta log(pi / ref), an answer's reward but for a number that all answers to a prompt have.   Rafailov et al. 2023, eq. 5"""
    return beta * (at_least_float32(log_probs) - at_least_float32(reference_log_probs))


def _preference_loss(chosen, rejected, z, slope, e, weights, total):
    """sum w (-(1 - e) log sigmoid(z) - e log sigmoid(-z)) / total, where dz/dchosen = slope = -dz/drejected.

    -log sigmoid(z) = log(1 + exp(-|z|)) + max(-z, 0): no exponential that overflows.  And -log sigmoid(-z) is z more.
    """
    xp = array_module(z)
    w, denominator = counted_weights(z, xp.ones(z.shape, dtype=bool), weights, total)
    small = xp.exp(-xp.abs(z))
    loss = (w * (xp.log1p(small) + xp.maximum(-z, 0) + e * z)).sum()

    def backward(dloss):
        wrong = xp.where(z < 0, 1, small) / (1 + small)  # sigmoid(-z);  (1 - e) sigmoid(-z) - e sigmoid(z) = sigmoid(-z) - e
        d = w * (e - wrong) * (slope * dloss / denominator)
        return d.astype(chosen.dtype, copy=False), (-d).astype(rejected.dtype, copy=False)

    return loss / denominator, backward


@expects("chosen (N,), rejected (N,), weights (N,) numbers or None")
def preference_statistics(chosen, rejected, *, weights=None, total=None):
    """{"accuracy": share of pairs whose chosen answer has the larger reward, ties counted half; "margin": mean difference}.

    chosen, rejected (N,) rewards; both are sums / total, as the losses.  Without gradient.
    """
    xp = array_module(chosen)
    difference = at_least_float32(chosen) - at_least_float32(rejected)
    w, denominator = counted_weights(difference, xp.ones(difference.shape, dtype=bool), weights, total)
    right = xp.where(difference > 0, 1.0, xp.where(difference == 0, 0.5, 0.0)).astype(w.dtype)
    return {"accuracy": (w * right).sum() / denominator, "margin": (w * difference).sum() / denominator}
