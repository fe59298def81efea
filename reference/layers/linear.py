"""The linear layer."""

import numpy as np

from reference.scalar import numbers, zeros


def linear(x: np.ndarray, W: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """y[..., j] = sum_i x[..., i] W[i, j] + b[j].

    x (..., Din), W (Din, Dout), b (Dout,) or None -> y (..., Dout).
    Vaswani et al. 2017, eq. 2 (either of its two x W + b).
    """
    x = numbers(x)
    W = numbers(W)
    inputs, outputs = W.shape
    if x.shape[-1] != inputs:
        raise ValueError(f"x has width {x.shape[-1]}, but W expects {inputs}")
    y = zeros(x.shape[:-1] + (outputs,), like=(x, W, b))
    for row in np.ndindex(x.shape[:-1]):
        for j in range(outputs):
            total = 0.0
            for i in range(inputs):
                total += x[row + (i,)] * W[i, j]
            if b is not None:
                total += b[j]
            y[row + (j,)] = total
    return y
