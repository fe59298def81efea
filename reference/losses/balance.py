"""Balance between experts."""

import numpy as np

from reference.layers.activation import _sigmoid
from reference.layers.softmax import softmax
from reference.scalar import exp, log, numbers


def _weight(weights: np.ndarray | None, place: tuple) -> float:
    return 1.0 if weights is None else float(weights[place])


def load_balancing_loss(
    logits: np.ndarray,
    *,
    choice: np.ndarray | None = None,
    fractions: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    total: float | None = None,
) -> float:
    """X sum_i f_i P_i: f_i the fraction of tokens that chose expert i, P_i its mean probability.

    Fedus et al. 2022, eq. 4, eq. 5 and eq. 6, where each token chooses one.
    logits (..., X), choice (..., k), weights (...) or None (all 1).  total None: sum of weights.
    """
    logits = numbers(logits)
    X = logits.shape[-1]
    tokens = 0.0
    for n in np.ndindex(logits.shape[:-1]):
        tokens += _weight(weights, n)
    total = (tokens or 1.0) if total is None else total
    p, loss = softmax(logits), 0.0
    for i in range(X):
        count, probability = 0.0, 0.0
        for n in np.ndindex(logits.shape[:-1]):
            if fractions is None and i in choice[n]:
                count += _weight(weights, n)
            probability += _weight(weights, n) * p[n + (i,)]
        f = count / (tokens or 1.0) if fractions is None else float(fractions[i])
        loss += X * f * probability / total
    return loss


def normalised_sigmoid(logits: np.ndarray) -> np.ndarray:
    """s_i / sum_j s_j,  s = sigmoid(logits).               DeepSeek team 2024b, eq. 15 and 19"""
    s = np.vectorize(_sigmoid, otypes=[object])(numbers(logits))
    for n in np.ndindex(s.shape[:-1]):
        total = sum(s[n])
        for i in range(s.shape[-1]):
            s[n + (i,)] = s[n + (i,)] / total
    return s if numbers(logits).dtype == object else s.astype(np.float64)


def sequence_balance_loss(
    logits: np.ndarray,
    *,
    choice: np.ndarray,
    affinities=normalised_sigmoid,
    weights: np.ndarray | None = None,
    total: float | None = None,
) -> float:
    """The mean over sequences of sum_i f_i P_i.              DeepSeek team 2024b, eq. 17 and 20

    f_i = X / (k T) times the number of tokens that chose i, P_i the mean of their affinities.
    logits (..., T, X), choice (..., T, k), weights (..., T) or None (all 1).
    total None: the number of sequences whose weights are not all 0.
    """
    p = affinities(logits)
    T, X, k = p.shape[-2], p.shape[-1], choice.shape[-1]
    loss, sequences = 0.0, 0
    for b in np.ndindex(p.shape[:-2]):
        tokens = sum(_weight(weights, b + (t,)) for t in range(T))
        if tokens == 0.0:
            continue
        sequences += 1
        for i in range(X):
            f, P = 0.0, 0.0
            for t in range(T):
                weight = _weight(weights, b + (t,))
                if i in choice[b + (t,)]:
                    f += weight * X / (k * tokens)
                P += weight * p[b + (t, i)] / tokens
            loss += f * P
    return loss / ((sequences or 1.0) if total is None else total)


def router_z_loss(
    logits: np.ndarray, *, weights: np.ndarray | None = None, total: float | None = None
) -> float:
    """The mean of (log sum_i exp(x_i))^2 over the tokens.                Zoph et al. 2022, eq. 5"""
    logits = numbers(logits)
    loss, tokens = 0.0, 0.0
    for n in np.ndindex(logits.shape[:-1]):
        largest = max(logits[n + (i,)] for i in range(logits.shape[-1]))
        total_e = 0.0
        for i in range(logits.shape[-1]):
            total_e += exp(logits[n + (i,)] - largest)
        loss += _weight(weights, n) * (largest + log(total_e)) ** 2
        tokens += _weight(weights, n)
    return loss / ((tokens or 1.0) if total is None else total)


def updated_bias(bias: np.ndarray, counts: np.ndarray, *, rate: float) -> np.ndarray:
    """Down by rate where an expert's count is above the mean, up where below.

    DeepSeek team 2024b, sec. 2.1.2
    """
    mean = sum(float(c) for c in counts) / len(counts)
    moved = np.array(bias, dtype=np.float64)
    for i in range(len(moved)):
        if counts[i] > mean:
            moved[i] -= rate
        elif counts[i] < mean:
            moved[i] += rate
    return moved
