"""The distribution from which the next token is drawn."""

import math

import numpy as np


def token_distribution(
    logits: np.ndarray, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> np.ndarray:
    """p_v = exp(logits_v / temperature) / sum_u exp(logits_u / temperature), cut by top-k, then by top-p.

    Tokens are ranked by falling probability, equal ones by rising id.
    top-k keeps the first k of the ranking (exactly k, also where the next is equal) and renormalises.
    top-p keeps the shortest beginning of the ranking whose probability reaches p, at least one token, and
    renormalises; p = 1 keeps everything.  temperature 0 is greedy: all the mass on the first largest logit.
    logits (V,), finite or -inf for what is forbidden -> probabilities (V,).
    Temperature and top-p: Holtzman et al. 2020, eq. 4 and eq. 2, 3; top-k: Fan et al. 2018.
    """
    logits = [float(logit) for logit in np.asarray(logits, dtype=np.float64)]
    vocabulary = len(logits)
    if temperature < 0.0:
        raise ValueError(f"temperature must be 0 or more, not {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be 1 or more, not {top_k}")
    if top_p is not None and not 0.0 <= top_p <= 1.0:
        raise ValueError(f"top_p must lie between 0 and 1, not {top_p}")
    largest = max(logits)
    if largest == -math.inf:
        raise ValueError("every token is forbidden: all logits are -inf")

    if temperature == 0.0:
        greedy = np.zeros(vocabulary)
        greedy[logits.index(largest)] = 1.0
        return greedy

    p = _normalise([math.exp((logit - largest) / temperature) for logit in logits])
    # Ranked by logit: the order of p, but p can round two different logits to one probability.
    ranking = sorted(range(vocabulary), key=lambda token: (-logits[token], token))

    if top_k is not None:
        for token in ranking[top_k:]:
            p[token] = 0.0
        p = _normalise(p)

    if top_p is not None and top_p < 1.0:
        reached = 0.0
        kept = 0
        while kept == 0 or (reached < top_p and kept < vocabulary):
            reached += p[ranking[kept]]
            kept += 1
        for token in ranking[kept:]:
            p[token] = 0.0
        p = _normalise(p)

    return np.array(p)


def _normalise(p: list[float]) -> list[float]:
    total = 0.0
    for value in p:
        total += value
    return [value / total for value in p]
