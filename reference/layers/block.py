"""One transformer block: attention and feed-forward with their norms and residual connections.

The parts are reference functions that return arrays shaped like x: norm(p, x),
attention(p, x, *shared) and mlp(p, x); residual is pre_norm, post_norm, after_norm, or
deep_norm or scaled_norm with its alpha, from this file.
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


def deep_norm(norm, sublayer, x: np.ndarray, *, alpha: float) -> np.ndarray:
    """y = norm(alpha x + sublayer(x)).                               Wang et al. 2022, sec. 4.1"""
    scaled = zeros(x.shape, like=(x,))
    for i in np.ndindex(x.shape):
        scaled[i] = alpha * x[i]
    return norm(_add(scaled, sublayer(x)))


def scaled_norm(norm, sublayer, x: np.ndarray, *, alpha: float) -> np.ndarray:
    """y = alpha n + sublayer(n),  n = norm(x).           GLM team 2023, the code of ChatGLM-6B"""
    n = norm(x)
    scaled = zeros(n.shape, like=(n,))
    for i in np.ndindex(n.shape):
        scaled[i] = alpha * n[i]
    return _add(scaled, sublayer(n))


def after_norm(norm, sublayer, x: np.ndarray) -> np.ndarray:
    """y = x + norm(sublayer(x)).                                     OLMo team 2025, sec. 3.2"""
    return _add(x, norm(sublayer(x)))


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
    deep_norm:  h = norm1(alpha x + attention(x)),    y = norm2(alpha h + mlp(h))
    after_norm: h = x + norm1(attention(x)),    y = h + norm2(mlp(h))

    p: "norm1", "attention", "norm2", "mlp", the parameters of the four parts.
    x (B, T, D) -> y (B, T, D).  `shared` is passed to attention unchanged.
    Vaswani et al. 2017, sec. 3.1; Xiong et al. 2020, table 1; Wang et al. 2022, sec. 4.1;
    OLMo team 2025, sec. 3.2.
    """
    _refuse_dropout(rate, key)
    h = residual(lambda z: norm(p["norm1"], z), lambda z: attention(p["attention"], z, *shared), x)
    return residual(lambda z: norm(p["norm2"], z), lambda z: mlp(p["mlp"], z), h)


def cross_block(
    p: dict,
    x: np.ndarray,
    context: np.ndarray,
    *shared,
    residual,
    norm,
    attention,
    cross,
    mlp,
    rate: float = 0.0,
    key: None = None,
) -> np.ndarray:
    """post_norm: h = norm1(x + attention(x)),   c = norm2(h + cross(h, context)),
                  y = norm3(c + mlp(c))
    pre_norm:     h = x + attention(norm1(x)),   c = h + cross(norm2(h), context),
                  y = c + mlp(norm3(c))

    p: "norm1", "attention", "norm2", "cross", "norm3", "mlp", the parameters of the six parts.
    x (B, T, D), context (B, S, Dc) -> y (B, T, D).  `shared` is passed to attention unchanged.
    Vaswani et al. 2017, sec. 3.1; Raffel et al. 2020, sec. 2.1.
    """
    _refuse_dropout(rate, key)
    h = residual(lambda z: norm(p["norm1"], z), lambda z: attention(p["attention"], z, *shared), x)
    c = residual(lambda z: norm(p["norm2"], z), lambda z: cross(p["cross"], z, context), h)
    return residual(lambda z: norm(p["norm3"], z), lambda z: mlp(p["mlp"], z), c)


def both_norms_block(
    p: dict, x: np.ndarray, *shared, norm, attention, mlp, rate: float = 0.0, key: None = None
) -> np.ndarray:
    """h = x + after1(attention(before1(x))),   y = h + after2(mlp(before2(h))).

    p: "norm1" and "norm2", each with "before" and "after", the parameters of its two norms;
    "attention", "mlp".   x (B, T, D) -> y (B, T, D).                  Gemma team 2024b, sec. 2
    """
    _refuse_dropout(rate, key)
    attended = attention(p["attention"], norm(p["norm1"]["before"], x), *shared)
    h = _add(x, norm(p["norm1"]["after"], attended))
    transformed = mlp(p["mlp"], norm(p["norm2"]["before"], h))
    return _add(h, norm(p["norm2"]["after"], transformed))


def parallel_block(
    p: dict, x: np.ndarray, *shared, norm, attention, mlp, rate: float = 0.0, key: None = None
) -> np.ndarray:
    """y = x + mlp(norm(x)) + attention(norm(x)).

    p: "norm", "attention", "mlp".   x (B, T, D) -> y (B, T, D).       Chowdhery et al. 2022, sec. 2
    """
    _refuse_dropout(rate, key)
    transformed = mlp(p["mlp"], norm(p["norm"], x))
    attended = attention(p["attention"], norm(p["norm"], x), *shared)
    return _add(_add(x, transformed), attended)


def _refuse_dropout(rate, key) -> None:
    if rate != 0.0 or key is not None:
        raise ValueError(
            f"the reference has no dropout: rate must be 0.0 and key None, not {rate} and {key}"
        )


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
