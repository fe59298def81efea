"""Activations: scalar functions, applied elementwise."""

import math

import numpy as np

from reference import scalar
from reference.scalar import erf, exp, log, numbers, zeros


def relu(x: np.ndarray) -> np.ndarray:
    """y = max(0, x).                                                  Vaswani et al. 2017, eq. 2"""
    x = numbers(x)
    y = zeros(x.shape, like=x)
    for i in np.ndindex(x.shape):
        y[i] = max(0.0, x[i])
    return y


def tanh(x: np.ndarray) -> np.ndarray:
    """y = (e^x - e^-x) / (e^x + e^-x)."""
    x = numbers(x)
    y = zeros(x.shape, like=x)
    for i in np.ndindex(x.shape):
        y[i] = scalar.tanh(x[i])
    return y


def gelu(x: np.ndarray) -> np.ndarray:
    """y = x Phi(x) = x 1/2 (1 + erf(x / sqrt(2))).                  Hendrycks & Gimpel 2016, sec. 2

    For x << 0, 1 + erf cancels and y is tiny: the absolute error, not the relative one, is about
    1e-16 |x|.
    """
    x = numbers(x)
    y = zeros(x.shape, like=x)
    for i in np.ndindex(x.shape):
        y[i] = x[i] * 0.5 * (1.0 + erf(x[i] / math.sqrt(2.0)))
    return y


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    """y = 1/2 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).

    The approximation in Hendrycks & Gimpel 2016, sec. 2, used by GPT-2.  As for gelu, the absolute
    error is about 1e-16 |x|.
    """
    x = numbers(x)
    y = zeros(x.shape, like=x)
    for i in np.ndindex(x.shape):
        inner = math.sqrt(2.0 / math.pi) * (x[i] + 0.044715 * x[i] ** 3)
        y[i] = 0.5 * x[i] * (1.0 + scalar.tanh(inner))
    return y


def silu(x: np.ndarray) -> np.ndarray:
    """y = x sigmoid(x) = x / (1 + exp(-x)).   Elfwing et al. 2018"""
    x = numbers(x)
    y = zeros(x.shape, like=x)
    for i in np.ndindex(x.shape):
        y[i] = x[i] * _sigmoid(x[i])
    return y


def _sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)) = exp(x) / (1 + exp(x)): the form whose exponent is not positive."""
    if x >= 0.0:
        return 1.0 / (1.0 + exp(-x))
    return exp(x) / (1.0 + exp(x))


def log_sigmoid(z: np.ndarray) -> np.ndarray:
    """y = log(1 / (1 + e^-z)).                 Bradley & Terry 1952; Rafailov et al. 2023, eq. 7"""
    z = numbers(z)
    y = zeros(z.shape, like=z)
    for i in np.ndindex(z.shape):
        y[i] = log(1.0 / (1.0 + exp(-z[i])))
    return y


def soft_cap(x: np.ndarray, *, cap: float) -> np.ndarray:
    """y = cap tanh(x / cap), between -cap and cap.                    Gemma team 2024b, sec. 2"""
    x = numbers(x)
    y = zeros(x.shape, like=x)
    for i in np.ndindex(x.shape):
        y[i] = cap * scalar.tanh(x[i] / cap)
    return y
