"""Convolution along the sequence."""

import numpy as np

from reference.layers.norm import layernorm
from reference.scalar import numbers, zeros


def convolution(
    x: np.ndarray, W: np.ndarray, b: np.ndarray | None = None, *, groups: int = 1
) -> np.ndarray:
    """y[n, t, j] = sum_i sum_d x[n, t + i - (K - 1) / 2, g Din + d] W[i, d, j] + b[j].

    A cross-correlation; g is the group of output j, and x = 0 outside the sequence.  The channels
    are split into groups: the Din inputs of group g reach only the outputs of that group.
    x (B, T, groups * Din), W (K, Din, Dout) with K odd, b (Dout,) or None -> y (B, T, Dout).
    """
    x = numbers(x)
    K, Din, Dout = W.shape
    B, T, _ = x.shape
    y = zeros((B, T, Dout), like=(x, W, b))
    for n, t, j in np.ndindex(B, T, Dout):
        group = j // (Dout // groups)
        for i in range(K):
            place = t + i - (K - 1) // 2
            if 0 <= place < T:
                for d in range(Din):
                    y[n, t, j] += x[n, place, group * Din + d] * W[i, d, j]
        if b is not None:
            y[n, t, j] += b[j]
    return y


def convolution_layer(
    p: dict,
    x: np.ndarray,
    residual: np.ndarray,
    *,
    activation,
    eps: float,
    groups: int = 1,
    real=None,
):
    """y = layernorm(residual + activation(convolution(x))) at real tokens, 0 at padding.

    The convolution after DeBERTa v2's first layer, from its released code: x is the layer's input,
    residual its output.  Without dropout.
    p: W (K, I, D), b, gamma and beta (D,); x and residual (B, T, D); real (B, T) booleans, or None
    if all are real -> y (B, T, D).
    """
    c = convolution(x, p["W"], p["b"], groups=groups)
    B, T, _ = c.shape
    total = zeros(c.shape, like=(residual, c))
    a = activation(c)
    for i in np.ndindex(c.shape):
        total[i] = residual[i] + a[i]
    y = layernorm(total, p["gamma"], p["beta"], eps=eps)
    for n, t in np.ndindex(B, T):
        if real is not None and not real[n, t]:
            y[n, t] = 0.0
    return y
