"""The log-probability of each target token and the entropy of its distribution."""

import numpy as np

from reference.layers.activation import soft_cap
from reference.layers.linear import linear
from reference.scalar import exp, log, number, zeros


def log_probs(
    logits: np.ndarray, *, targets: np.ndarray, temperature: float = 1.0, ignore_index: int = -100
) -> dict[str, np.ndarray]:
    """log p[target] and the entropy -sum_v p[v] log p[v] of p = softmax(logits / temperature).

    Both are 0 where the target is ignored.
    """
    chosen, entropy = (zeros(targets.shape, like=logits) for _ in range(2))
    for i in np.ndindex(targets.shape):
        if targets[i] == ignore_index:
            continue
        scores = [number(z) / temperature for z in logits[i]]
        top = max(scores)
        normaliser = top + log(sum(exp(z - top) for z in scores))
        logs = [z - normaliser for z in scores]
        chosen[i] = logs[targets[i]]
        entropy[i] = -sum(exp(value) * value for value in logs)
    return {"log_probs": chosen, "entropy": entropy}


def vocabulary_log_probs(
    x: np.ndarray,
    W: np.ndarray,
    b: np.ndarray | None = None,
    *,
    targets: np.ndarray,
    temperature: float = 1.0,
    cap: float | None = None,
    ignore_index: int = -100,
    chunk: int | None = None,
) -> dict[str, np.ndarray]:
    """log_probs(z),  z = x W + b; with a cap, cap tanh(z / cap) takes the place of z.

    `chunk` (tokens at a time) affects memory, not values: unused here.
    cap: Gemma team 2024b, sec. 2.
    """
    z = linear(x, W, b)
    if cap is not None:
        z = soft_cap(z, cap=cap)
    return log_probs(z, targets=targets, temperature=temperature, ignore_index=ignore_index)
