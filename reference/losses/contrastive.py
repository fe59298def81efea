"""InfoNCE: -log of the positive's share among all candidates.  van den Oord et al. 2018, eq. 4."""

import numpy as np

from reference.scalar import exp, log, number


def info_nce(
    a: np.ndarray,
    b: np.ndarray,
    *,
    targets: np.ndarray,
    temperature: float = 1.0,
    weights: np.ndarray | None = None,
    total: float | None = None,
) -> float:
    """loss = sum_i w_i (-log(f(a_i, b_t) / sum_j f(a_i, b_j))) / total,

    f(a, b) = exp(a . b / temperature),  t = targets[i].
    a (B, D), b (N, D), targets (B,), -100 for anchors to ignore; total None: the sum of the weights
    of the others.
    """
    loss, counted = 0.0, 0.0
    for i in range(len(a)):
        if targets[i] == -100:
            continue
        ratios = [
            exp(sum(number(x) * number(y) for x, y in zip(a[i], candidate)) / temperature)
            for candidate in b
        ]
        weight = 1.0 if weights is None else float(weights[i])
        loss += weight * -log(ratios[targets[i]] / sum(ratios))
        counted += weight
    if total is None:
        total = counted if counted != 0.0 else 1.0
    return loss / total


def symmetric_info_nce(
    a: np.ndarray,
    b: np.ndarray,
    *,
    temperature: float = 1.0,
    weights: np.ndarray | None = None,
    total: float | None = None,
) -> float:
    """The mean of info_nce(a, b) and info_nce(b, a), where row i of a matches row i of b.

    Radford et al. 2021, fig. 3.
    """
    settings = {
        "targets": np.arange(len(a)),
        "temperature": temperature,
        "weights": weights,
        "total": total,
    }
    return (info_nce(a, b, **settings) + info_nce(b, a, **settings)) / 2
