"""One transformer block: attention and feed-forward, each with a norm and a residual connection.

The parts are reference functions that return arrays shaped like x: norm(p, x),
attention(p, x, *shared) and mlp(p, x); residual is pre_norm or post_norm from this file.
"""

import numpy as np

from reference.scalar import numbers, zeros


def pre_norm(norm, sublayer, x: np.ndarray) -> np.ndarray:
    """y = x + sublayer(norm(x)).

    Radford et al. 2019, sec. 2.3; Xiong et al. 2020, table 1 (right).
    """
    return _add(x, sublayer(norm(x)))


def post_norm(norm, sublayer, x: np.ndarray) -> np.ndarray:
    """y = norm(x + sublayer(x)).

    Vaswani et al. 2017, sec. 3.1; Xiong et al. 2020, table 1 (left).
    """
    return norm(_add(x, sublayer(x)))


def block(
    p: dict,
    x: np.ndarray,
    *shared,
    residual,
    norm,
    attention,
    mlp,
    rate: float = 0.0,
    key: None = None,
) -> np.ndarray:
    """pre_norm:   h = x + attention(norm1(x)),    y = h + mlp(norm2(h))
    post_norm:  h = norm1(x + attention(x)),    y = norm2(h + mlp(h))

    p: "norm1", "attention", "norm2", "mlp", the parameters of the four parts.
    x (B, T, D) -> y (B, T, D).  `shared` is passed to attention unchanged.
    Vaswani et al. 2017, sec. 3.1; Xiong et al. 2020, table 1.
    """
    if rate != 0.0 or key is not None:
        raise ValueError(
            f"the reference has no dropout: rate must be 0.0 and key None, not {rate} and {key}"
        )
    h = residual(lambda z: norm(p["norm1"], z), lambda z: attention(p["attention"], z, *shared), x)
    return residual(lambda z: norm(p["norm2"], z), lambda z: mlp(p["mlp"], z), h)


def _add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """y[i] = a[i] + b[i], for two arrays of the same shape."""
    a = numbers(a)
    b = numbers(b)
    if a.shape != b.shape:
        raise ValueError(f"a sublayer must keep the shape: {a.shape} became {b.shape}")
    y = zeros(a.shape, like=(a, b))
    for i in np.ndindex(a.shape):
        y[i] = a[i] + b[i]
    return y
