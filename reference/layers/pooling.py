"""Pooling a sequence into one vector, and normalisation to unit length."""

import numpy as np

from reference.scalar import number, sqrt, zeros


def mean_pooling(x: np.ndarray, *, mask: np.ndarray) -> np.ndarray:
    """y[b] = the mean of x[b, t] over the t with mask[b, t], zeros if there is none.

    x (B, T, D), mask (B, T) -> y (B, D).
    """
    batch, length, width = x.shape
    y = zeros((batch, width), like=x)
    for b in range(batch):
        tokens = [t for t in range(length) if mask[b, t]]
        for d in range(width):
            if tokens:
                y[b, d] = sum(number(x[b, t, d]) for t in tokens) / len(tokens)
    return y


def max_pooling(x: np.ndarray, *, mask: np.ndarray) -> np.ndarray:
    """y[b, d] = the largest x[b, t, d] over the t with mask[b, t], 0 if there is none."""
    batch, length, width = x.shape
    y = zeros((batch, width), like=x)
    for b in range(batch):
        for d in range(width):
            y[b, d] = max([number(x[b, t, d]) for t in range(length) if mask[b, t]], default=0.0)
    return y


def cls_pooling(x: np.ndarray) -> np.ndarray:
    """y[b] = x[b, 0]."""
    return np.array([[number(value) for value in sequence[0]] for sequence in x])


def last_pooling(x: np.ndarray, *, mask: np.ndarray) -> np.ndarray:
    """The hidden state of the last token that is not padding; zeros if there is none."""
    y = zeros((x.shape[0], x.shape[2]), like=x)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            if mask[b, t]:
                y[b] = x[b, t]
    return y


def l2_normalise(x: np.ndarray, *, eps: float = 1e-12) -> np.ndarray:
    """y = x / max(|x|, eps) for every vector x along the last axis."""
    y = zeros(x.shape, like=x)
    for i in np.ndindex(x.shape[:-1]):
        length = sqrt(sum(number(value) ** 2 for value in x[i]))
        for d in range(x.shape[-1]):
            y[i + (d,)] = number(x[i + (d,)]) / max(length, eps)
    return y
