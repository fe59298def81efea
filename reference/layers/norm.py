"""Normalisation over the last axis."""

import numpy as np

from reference.scalar import numbers, sqrt, zeros


def layernorm(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray | None = None, *, eps: float = 1e-5
) -> np.ndarray:
    """y_d = gamma_d (x_d - mu) / sqrt(var + eps) + beta_d.     Ba, Kiros & Hinton 2016, eq. 3 and 4

    mu = 1/D sum_d x_d,  var = 1/D sum_d (x_d - mu)^2  (biased: divided by D, not D - 1).
    x (..., D), gamma (D,), beta (D,) or None -> y (..., D).
    eps is not in the paper, but in every implementation.
    """
    x = numbers(x)
    width = x.shape[-1]
    y = zeros(x.shape, like=(x, gamma, beta))
    for row in np.ndindex(x.shape[:-1]):
        mean = 0.0
        for d in range(width):
            mean += x[row + (d,)] / width
        variance = 0.0
        for d in range(width):
            variance += (x[row + (d,)] - mean) ** 2 / width
        for d in range(width):
            y[row + (d,)] = gamma[d] * (x[row + (d,)] - mean) / sqrt(variance + eps)
            if beta is not None:
                y[row + (d,)] += beta[d]
    return y


def rmsnorm(x: np.ndarray, gamma: np.ndarray, *, eps: float = 1e-6) -> np.ndarray:
    """y_d = gamma_d x_d / sqrt(1/D sum_d x_d^2 + eps).                 Zhang & Sennrich 2019, eq. 4

    x (..., D), gamma (D,) -> y (..., D).  eps is not in the paper.
    """
    x = numbers(x)
    width = x.shape[-1]
    y = zeros(x.shape, like=(x, gamma))
    for row in np.ndindex(x.shape[:-1]):
        mean_square = 0.0
        for d in range(width):
            mean_square += x[row + (d,)] ** 2 / width
        for d in range(width):
            y[row + (d,)] = gamma[d] * x[row + (d,)] / sqrt(mean_square + eps)
    return y


def unit_rmsnorm(x: np.ndarray, w: np.ndarray, *, eps: float = 1e-6) -> np.ndarray:
    """y_d = (1 + w_d) x_d / sqrt(1/D sum_d x_d^2 + eps): RMSNorm whose gain is 1 + w.

    x (..., D), w (D,) -> y (..., D).                    Gemma team 2024, sec. 2 and released code
    """
    x = numbers(x)
    width = x.shape[-1]
    y = zeros(x.shape, like=(x, w))
    for row in np.ndindex(x.shape[:-1]):
        squares = 0.0
        for d in range(width):
            squares += x[row + (d,)] * x[row + (d,)]
        for d in range(width):
            y[row + (d,)] = (1.0 + w[d]) * x[row + (d,)] / sqrt(squares / width + eps)
    return y
