"""Cross-entropy against target tokens, with label smoothing and weights."""

import numpy as np

from reference.layers.activation import soft_cap
from reference.layers.linear import linear
from reference.layers.softmax import log_softmax
from reference.scalar import number, numbers


def cross_entropy(
    logits: np.ndarray,
    *,
    targets: np.ndarray,
    weights: np.ndarray | None = None,
    total: float | None = None,
    smoothing: float = 0.0,
    ignore_index: int = -100,
) -> float:
    """loss = sum_i w_i nll_i / total,  over the i whose target is not ignore_index.

    nll_i = (1 - smoothing) (-log p_i[target_i]) + smoothing 1/V sum_v (-log p_i[v]),
    p_i = softmax(logits_i).
    logits (..., V), targets (...) integers, weights (...) or None (all 1) -> loss, a float.
    total None: the sum of those w_i; if that sum is 0, so is the loss.
    Radford et al. 2018, eq. 1; smoothing: Szegedy et al. 2016, sec. 7.
    """
    logits = numbers(logits)
    targets = np.asarray(targets)
    vocabulary = logits.shape[-1]
    if targets.shape != logits.shape[:-1]:
        raise ValueError(f"targets have shape {targets.shape}, but logits {logits.shape}")
    if weights is not None:
        weights = np.broadcast_to(np.asarray(weights, dtype=np.float64), targets.shape)
    log_p = log_softmax(logits)
    loss = 0.0
    counted = 0.0
    for i in np.ndindex(targets.shape):
        target = int(targets[i])
        if target == ignore_index:
            continue
        if not 0 <= target < vocabulary:
            raise ValueError(
                f"target {target} is neither {ignore_index} nor in a vocabulary of {vocabulary}"
            )
        nll = (1.0 - smoothing) * -log_p[i + (target,)]
        if smoothing != 0.0:
            for v in range(vocabulary):
                nll += smoothing * -log_p[i + (v,)] / vocabulary
        weight = 1.0 if weights is None else weights[i]
        loss += weight * nll
        counted += weight
    if total is None:
        if counted == 0.0:
            return 0.0
        total = counted
    return number(loss / total)


def vocabulary_cross_entropy(
    x: np.ndarray,
    W: np.ndarray,
    b: np.ndarray | None = None,
    *,
    targets: np.ndarray,
    weights: np.ndarray | None = None,
    total: float | None = None,
    smoothing: float = 0.0,
    cap: float | None = None,
    ignore_index: int = -100,
    chunk: int | None = None,
) -> float:
    """loss = cross_entropy(z),  z = x W + b; with a cap, cap tanh(z / cap) takes the place of z.

    x (..., D), W (D, V), b (V,) or None, targets and weights (...) -> loss, a float.
    `chunk` (tokens at a time) affects memory, not the value: it is unused here.
    cap: Gemma team 2024b, sec. 2.
    """
    z = linear(x, W, b)
    return cross_entropy(
        z if cap is None else soft_cap(z, cap=cap),
        targets=targets,
        weights=weights,
        total=total,
        smoothing=smoothing,
        ignore_index=ignore_index,
    )
