"""From logits to a token: temperature, top-k, top-p.  On the host, in float64: the cost is small and ties are exact."""

from __future__ import annotations

import numpy as np


def token_distribution(logits: np.ndarray, *, temperature: float = 1.0, top_k: int | None = None,
                       top_p: float | None = None) -> np.ndarray:  # fmt: skip
    """The distribution that a token is drawn from: logits (..., V) -> probabilities (..., V), float64.

    p = softmax(logits / temperature); then only the top_k most probable tokens are kept (Fan et al. 2018), then the smallest
    set of most probable ones whose probability reaches top_p (Holtzman et al. 2020, eq. 2), and the rest renormalised.
    Temperature 0 is greedy: all mass on the most probable.  Ties go to the smaller id.
    ValueError for a negative temperature, top_k < 1, or top_p outside (0, 1].
    FloatingPointError when a row holds NaN or inf, or only -inf (-inf is a token that cannot be drawn).
    """
    check_sampling(temperature, top_k, top_p)
    logits = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(largest := logits.max(axis=-1)).all():
        raise FloatingPointError(f"the largest logit is {largest[~np.isfinite(largest)].flat[0]}, expected a finite number")
    order = np.argsort(-logits, axis=-1, kind="stable")  # stable: equal logits stand in the order of their ids
    ranked = np.take_along_axis(logits, order, axis=-1)
    if temperature == 0:
        probabilities = np.zeros_like(ranked)
        probabilities[..., 0] = 1
    else:
        probabilities = np.exp((ranked - ranked[..., :1]) / temperature)
        if top_k is not None:
            probabilities[..., top_k:] = 0
        probabilities /= probabilities.sum(axis=-1, keepdims=True)
        if top_p is not None and top_p < 1:
            before = np.cumsum(probabilities, axis=-1) - probabilities  # the mass of the more probable ones
            probabilities[before >= top_p] = 0
            probabilities /= probabilities.sum(axis=-1, keepdims=True)
    out = np.empty_like(probabilities)
    np.put_along_axis(out, order, probabilities, axis=-1)
    return out


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    if not temperature >= 0:
        raise ValueError(f"temperature must be >= 0, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be an integer >= 1 or None, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1] or None, got {top_p}")


def draw(probabilities: np.ndarray, u: np.ndarray) -> np.ndarray:
    """One token a row by inverting the cumulative distribution at u in [0, 1): (B, V), (B,) -> (B,)."""
    cumulative = np.cumsum(probabilities, axis=-1)
    return (cumulative <= u[:, None] * cumulative[:, -1:]).sum(axis=-1)
