"""Adafactor for one matrix or vector of parameters."""

import math

import numpy as np


def rms(a: np.ndarray) -> float:
    """The root mean square of all elements."""
    total = 0.0
    for i in np.ndindex(a.shape):
        total += a[i] ** 2
    return math.sqrt(total / a.size)


def relative_step(t: int, *, warmup_init: bool = False) -> float:
    """rho_t = min(10^-2, 1/sqrt(t)), or min(10^-6 t, 1/sqrt(t)).

    Shazeer & Stern 2018, algorithm 6 and sec. 8.
    """
    return min(1e-6 * t if warmup_init else 1e-2, 1 / math.sqrt(t))


def adafactor_update(
    theta: np.ndarray,
    g: np.ndarray,
    state: dict[str, np.ndarray],
    t: int,
    *,
    rho: float,
    eps1: float = 1e-30,
    eps2: float = 1e-3,
    d: float = 1.0,
    decay_rate: float = 0.8,
    beta1: float = 0.0,
    weight_decay: float = 0.0,
    scale: bool = True,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Update number t = 1, 2, ... Shazeer & Stern 2018, algorithms 4 (matrices) and 5 (vectors).

    alpha_t = max(eps2, RMS(theta)) rho,   beta2_t = 1 - t^-decay_rate          (algorithm 6)
    R_t = beta2_t R + (1 - beta2_t) (G^2 + eps1 1 1^T) 1,  C_t the same with 1^T (G^2 + ...)
    V_t = R_t C_t / (1^T R_t), for vectors V_t = beta2_t V + (1 - beta2_t) (G^2 + eps1)
    U = G / sqrt(V_t),   U^ = U / max(1, RMS(U) / d),   theta <- theta - alpha_t U^

    With beta1: M_t = beta1 M + (1 - beta1) alpha_t U^ is subtracted. weight_decay: theta is also
    reduced by alpha_t weight_decay theta, the old theta. scale=False: alpha_t = rho.
    state: {} before the first update -> the new (theta, state) with R and C, or V, and M.
    """
    theta, g = np.array(theta, dtype=np.float64), np.array(g, dtype=np.float64)
    alpha = max(eps2, rms(theta)) * rho if scale else rho
    beta2 = 1.0 - t ** (-decay_rate)
    new: dict[str, np.ndarray] = {}
    variance = np.zeros(theta.shape)
    if theta.ndim == 2:
        n, m = theta.shape
        new["R"], new["C"] = np.zeros(n), np.zeros(m)
        for i in range(n):
            row = sum(g[i, j] ** 2 + eps1 for j in range(m))
            new["R"][i] = beta2 * (state["R"][i] if state else 0.0) + (1 - beta2) * row
        for j in range(m):
            column = sum(g[i, j] ** 2 + eps1 for i in range(n))
            new["C"][j] = beta2 * (state["C"][j] if state else 0.0) + (1 - beta2) * column
        for i in range(n):
            for j in range(m):
                variance[i, j] = new["R"][i] * new["C"][j] / sum(new["R"])
    else:
        for i in np.ndindex(theta.shape):
            old = state["V"][i] if state else 0.0
            variance[i] = beta2 * old + (1 - beta2) * (g[i] ** 2 + eps1)
        new["V"] = variance
    u = np.zeros(theta.shape)
    for i in np.ndindex(theta.shape):
        u[i] = g[i] / math.sqrt(variance[i])
    clipped = max(1.0, rms(u) / d)
    new_theta, new["M"] = np.zeros(theta.shape), np.zeros(theta.shape)
    for i in np.ndindex(theta.shape):
        old = state["M"][i] if state else 0.0
        new["M"][i] = beta1 * old + (1 - beta1) * alpha * u[i] / clipped
        new_theta[i] = theta[i] - alpha * weight_decay * theta[i] - new["M"][i]
    return new_theta, new
