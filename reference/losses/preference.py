"""Losses on pairs of a preferred and a rejected answer."""

import numpy as np

from reference.scalar import exp, log, number


def _sigmoid(z: float) -> float:
    return 1.0 / (1.0 + exp(-z))


def _weighted_mean(values: list[float], weights: np.ndarray | None, total: float | None) -> float:
    weights = [1.0] * len(values) if weights is None else [float(w) for w in weights]
    if total is None:
        total = sum(weights) if sum(weights) != 0.0 else 1.0
    return sum(w * value for w, value in zip(weights, values)) / total


def bradley_terry(
    chosen: np.ndarray,
    rejected: np.ndarray,
    *,
    margin: np.ndarray | float | None = None,
    weights: np.ndarray | None = None,
    total: float | None = None,
) -> float:
    """The mean of -log sigmoid(r_chosen - r_rejected - margin).

    Ouyang et al. 2022, eq. 1; Touvron et al. 2023b, eq. 2.
    """
    values = []
    for n in range(len(chosen)):
        m = 0.0 if margin is None else float(np.broadcast_to(margin, chosen.shape)[n])
        values.append(-log(_sigmoid(number(chosen[n]) - number(rejected[n]) - m)))
    return _weighted_mean(values, weights, total)


def dpo(
    chosen: np.ndarray,
    rejected: np.ndarray,
    *,
    reference_chosen: np.ndarray,
    reference_rejected: np.ndarray,
    beta: float = 0.1,
    smoothing: float = 0.0,
    weights: np.ndarray | None = None,
    total: float | None = None,
) -> float:
    """The mean of -log sigmoid(beta log(pi(w)/ref(w)) - beta log(pi(l)/ref(l))).

    smoothing e, for labels that are wrong with probability e: (1 - e) times this, plus e times the
    loss of the swapped pair.                                            Rafailov et al. 2023, eq. 7
    """
    values = []
    for n in range(len(chosen)):
        z = beta * ((chosen[n] - reference_chosen[n]) - (rejected[n] - reference_rejected[n]))
        right, turned = -log(_sigmoid(number(z))), -log(_sigmoid(-number(z)))
        values.append((1.0 - smoothing) * right + smoothing * turned)
    return _weighted_mean(values, weights, total)


def ipo(
    chosen: np.ndarray,
    rejected: np.ndarray,
    *,
    reference_chosen: np.ndarray,
    reference_rejected: np.ndarray,
    beta: float = 0.1,
    weights: np.ndarray | None = None,
    total: float | None = None,
) -> float:
    """The mean of (h - 1 / (2 tau))^2,  h = log((pi(w) ref(l)) / (pi(l) ref(w))),  tau = beta.

    Azar et al. 2024, eq. 17.
    """
    values = []
    for n in range(len(chosen)):
        h = number(chosen[n]) + reference_rejected[n] - number(rejected[n]) - reference_chosen[n]
        values.append((h - 0.5 / beta) ** 2)
    return _weighted_mean(values, weights, total)


def hinge(
    chosen: np.ndarray,
    rejected: np.ndarray,
    *,
    reference_chosen: np.ndarray,
    reference_rejected: np.ndarray,
    beta: float = 0.1,
    weights: np.ndarray | None = None,
    total: float | None = None,
) -> float:
    """The mean of max(0, 1 - beta (log(pi(w)/ref(w)) - log(pi(l)/ref(l)))).

    Zhao et al. 2023; Liu et al. 2024.
    """
    values = []
    for n in range(len(chosen)):
        z = beta * ((chosen[n] - reference_chosen[n]) - (rejected[n] - reference_rejected[n]))
        values.append(max(0.0, 1.0 - number(z)))
    return _weighted_mean(values, weights, total)


def _log_odds(log_p) -> float:
    p = exp(number(log_p))
    return log(p / (1.0 - p))


def orpo(
    chosen: np.ndarray,
    rejected: np.ndarray,
    *,
    lam: float = 0.1,
    weights: np.ndarray | None = None,
    total: float | None = None,
) -> float:
    """The mean of -log P(w) - lam log sigmoid(log(odds(w) / odds(l))),  odds = P / (1 - P).

    Hong et al. 2024, eq. 6 and 7.
    """
    values = []
    for n in range(len(chosen)):
        ratio = _log_odds(chosen[n]) - _log_odds(rejected[n])
        values.append(-number(chosen[n]) - lam * log(_sigmoid(ratio)))
    return _weighted_mean(values, weights, total)


def simpo(
    chosen: np.ndarray,
    rejected: np.ndarray,
    *,
    beta: float = 2.0,
    margin: float = 1.0,
    weights: np.ndarray | None = None,
    total: float | None = None,
) -> float:
    """The mean of -log sigmoid(beta log P(w) - beta log P(l) - gamma),  gamma = margin.

    log P is the mean log-probability of an answer's tokens.             Meng et al. 2024, eq. 6
    """
    values = []
    for n in range(len(chosen)):
        z = beta * number(chosen[n]) - beta * number(rejected[n]) - margin
        values.append(-log(_sigmoid(z)))
    return _weighted_mean(values, weights, total)


def kto(
    log_probs: np.ndarray,
    *,
    reference_log_probs: np.ndarray,
    desirable: np.ndarray,
    kl: float,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
    weights: np.ndarray | None = None,
    total: float | None = None,
) -> float:
    """The mean of lambda_y - v(x, y), v the value of the answer relative to z0 = kl, a constant.

    v = lambda_D sigmoid(beta (r - z0)) for a desirable answer, lambda_U sigmoid(beta (z0 - r)) for
    another; r = log(pi(y|x) / ref(y|x)).                          Ethayarajh et al. 2024, eq. 8
    """
    values = []
    for n in range(len(log_probs)):
        r = number(log_probs[n]) - float(reference_log_probs[n])
        if desirable[n]:
            values.append(desirable_weight * (1.0 - _sigmoid(beta * (r - float(kl)))))
        else:
            values.append(undesirable_weight * (1.0 - _sigmoid(beta * (float(kl) - r))))
    return _weighted_mean(values, weights, total)


def reference_point(log_probs: np.ndarray, reference_log_probs: np.ndarray) -> float:
    """max(0, mean of log(pi(y'|x) / ref(y'|x))), y' unrelated to x.  Ethayarajh et al. 2024, 4.1"""
    ratios = [float(a) - float(b) for a, b in zip(log_probs, reference_log_probs)]
    return max(0.0, sum(ratios) / len(ratios))
