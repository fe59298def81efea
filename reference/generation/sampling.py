"""The distribution of the next token, and changes to the logits against repetition."""

import math
from collections.abc import Iterable, Sequence

import numpy as np


def token_distribution(
    logits: np.ndarray,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> np.ndarray:
    """p_v = exp(logits_v / temperature) / sum_u exp(logits_u / temperature); top-k, top-p, min-p.

    Tokens are ranked by decreasing probability, ties by increasing id.
    top-k keeps the first k of the ranking (exactly k, even if the next is equal) and renormalises.
    top-p keeps the shortest prefix of the ranking whose probability reaches p, at least one token,
    and renormalises; p = 1 keeps everything. temperature 0 is greedy: all mass on the first largest
    logit. min-p drops every token whose probability at that point is below min_p times the largest,
    and renormalises; 0 drops nothing, 1 all but the largest and its ties.
    logits (V,), finite or -inf for forbidden tokens -> probabilities (V,).
    Temperature and top-p: Holtzman et al. 2020, eq. 4 and eq. 2, 3; top-k: Fan et al. 2018; min-p:
    Nguyen et al. 2024.
    """
    logits = [float(logit) for logit in np.asarray(logits, dtype=np.float64)]
    vocabulary = len(logits)
    if temperature < 0.0:
        raise ValueError(f"temperature: expected >= 0, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k: expected >= 1, got {top_k}")
    if top_p is not None and not 0.0 <= top_p <= 1.0:
        raise ValueError(f"top_p: expected 0 to 1, got {top_p}")
    if min_p is not None and not 0.0 <= min_p <= 1.0:
        raise ValueError(f"min_p: expected 0 to 1, got {min_p}")
    largest = max(logits)
    if largest == -math.inf:
        raise ValueError("logits: expected one above -inf, got none")

    if temperature == 0.0:
        greedy = np.zeros(vocabulary)
        greedy[logits.index(largest)] = 1.0
        return greedy

    p = _normalise([math.exp((logit - largest) / temperature) for logit in logits])
    # Rank by logit, not p: p may round two different logits to one probability.
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

    if min_p is not None:
        threshold = min_p * max(p)
        for token in range(vocabulary):
            if p[token] < threshold:
                p[token] = 0.0
        p = _normalise(p)

    return np.array(p)


def penalise_repetition(logits: np.ndarray, seen: Iterable[int], *, penalty: float) -> np.ndarray:
    """y_v = logits_v / penalty if logits_v > 0, else logits_v penalty, for every v in seen.

    Others keep their logit. A token is penalised once, however often it was seen. A penalty of 1
    changes nothing; below 1 it rewards repetition. logits (V,), seen ids in [0, V) -> y (V,).
    Keskar et al. 2019 (CTRL), sec. 4.1, which always divides; the rule for negative logits, which
    the penalty would otherwise favour, is that of transformers.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if not penalty > 0.0:
        raise ValueError(f"penalty: expected > 0, got {penalty}")
    seen = _tokens(seen, len(logits))
    y = np.zeros(logits.shape)
    for token in range(len(logits)):
        if token not in seen:
            y[token] = logits[token]
        elif logits[token] > 0.0:
            y[token] = logits[token] / penalty
        else:
            y[token] = logits[token] * penalty
    return y


def ban_repeated_ngrams(logits: np.ndarray, ids: Sequence[int], *, n: int) -> np.ndarray:
    """y_v = -inf if ids contains the n-gram (ids[-(n-1)], ..., ids[-1], v); else logits_v.

    n = 1 bans every token of ids. logits (V,), ids so far in [0, V) -> y (V,).
    Paulus et al. 2017, sec. 2.5 (there n = 3).
    """
    logits = np.asarray(logits, dtype=np.float64)
    if n < 1:
        raise ValueError(f"n: expected >= 1, got {n}")
    ids = _tokens(ids, len(logits))
    ngrams = [ids[start : start + n] for start in range(len(ids) - n + 1)]
    last = ids[max(len(ids) - (n - 1), 0) :]
    y = np.zeros(logits.shape)
    for token in range(len(logits)):
        y[token] = -math.inf if last + [token] in ngrams else logits[token]
    return y


def _tokens(ids: Iterable[int], vocabulary: int) -> list[int]:
    ids = [int(token) for token in ids]
    for token in ids:
        if not 0 <= token < vocabulary:
            raise ValueError(f"ids: expected 0 to {vocabulary - 1}, got {token}")
    return ids


def _normalise(p: list[float]) -> list[float]:
    total = 0.0
    for value in p:
        total += value
    return [value / total for value in p]
