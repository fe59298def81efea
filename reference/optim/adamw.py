"""AdamW for one array of parameters."""

import math

import numpy as np


def adamw_update(
    theta: np.ndarray,
    g: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    t: int,
    *,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Update number t = 1, 2, ... of every element.    Loshchilov & Hutter 2019, Algorithm 2

    m <- beta1 m + (1 - beta1) g,          m^ = m / (1 - beta1^t)
    v <- beta2 v + (1 - beta2) g^2,        v^ = v / (1 - beta2^t)
    theta <- theta - lr weight_decay theta - lr m^ / (sqrt(v^) + eps), the old theta throughout.
    The paper's alpha and eta_t are a single `lr`, which also scales the decay, as in
    torch.optim.AdamW.
    theta, g, m, v of one shape -> the new (theta, m, v). m = v = 0 before the first update.
    """
    if t < 1:
        raise ValueError(f"t: expected >= 1, got {t}")
    theta, g, m, v = (np.array(a, dtype=np.float64) for a in (theta, g, m, v))
    new_theta, new_m, new_v = np.zeros(theta.shape), np.zeros(theta.shape), np.zeros(theta.shape)
    for i in np.ndindex(theta.shape):
        new_m[i] = beta1 * m[i] + (1.0 - beta1) * g[i]
        new_v[i] = beta2 * v[i] + (1.0 - beta2) * g[i] ** 2
        m_hat = new_m[i] / (1.0 - beta1**t)
        v_hat = new_v[i] / (1.0 - beta2**t)
        step = lr * m_hat / (math.sqrt(v_hat) + eps)
        new_theta[i] = theta[i] - lr * weight_decay * theta[i] - step
    return new_theta, new_m, new_v
