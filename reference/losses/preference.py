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
