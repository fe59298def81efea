"""Convolution along the sequence."""

from __future__ import annotations

from ..backend import array_module, sum_float32
from ..core import Array, Backward, Component, Tree
from ..shapes import expects
from .activation import activated
from .dropout import dropout
from .norm import layernorm


@expects("x (B, T, D), W (K, Din, Dout), b (Dout,) or None; whole groups >= 1")
def convolution(
    x: Array, W: Array, b: Array | None = None, *, groups: int = 1
) -> tuple[Array, Backward]:
    """y[t] = sum_i x[t + i - m] W[i] + b,   m = (K - 1) / 2,   x = 0 outside the sequence.

    LeCun et al. 1989.   x (B, T, D), W (K, D / groups, Dout) with K odd, b (Dout,) or None
    -> y (B, T, Dout).   groups cuts the channels into equal parts; each output part sees its own
    input part alone.  Computed as one product with a leading axis of groups: patches
    (groups, B T, K D / groups), the K neighbours of each place side by side, times W as a matrix.
    Keeps x.   dW = patches^T dy,   db = sum dy,   dpatches = dy W^T,
    dx[t] = sum_i dpatches_i[t - i + m], with dpatches_i the part that belongs to W[i].
    ValueError when K is even or the channels do not fit.
    """
    xp = array_module(x)
    B, T, D = x.shape
    K, Din, Dout = W.shape
    m = (K - 1) // 2
    if K % 2 == 0 or D != groups * Din or Dout % groups:
        raise ValueError(
            "convolution: x, W: expected (B, T, groups * Din) and (K, Din, Dout), K odd and Dout "
            f"a multiple of groups, got {x.shape} and {W.shape} with {groups} groups"
        )
    matrix = W.reshape(K * Din, groups, Dout // groups).transpose(1, 0, 2)

    def patches() -> Array:
        padded = xp.zeros((groups, B, T + K - 1, Din), dtype=x.dtype)
        padded[:, :, m : m + T] = x.reshape(B, T, groups, Din).transpose(2, 0, 1, 3)
        neighbours = xp.concatenate([padded[:, :, i : i + T] for i in range(K)], axis=-1)
        return neighbours.reshape(groups, B * T, K * Din)

    y = (patches() @ matrix).transpose(1, 0, 2).reshape(B, T, Dout)

    def backward(dy: Array) -> tuple[Array, Array, Array | None]:
        by_group = dy.reshape(B * T, groups, Dout // groups).transpose(1, 0, 2)
        dmatrix = patches().swapaxes(-1, -2) @ by_group
        dpatches = (by_group @ matrix.swapaxes(-1, -2)).reshape(groups, B, T, K, Din)
        dpadded = xp.zeros((groups, B, T + K - 1, Din), dtype=x.dtype)
        for i in range(K):
            dpadded[:, :, i : i + T] += dpatches[:, :, :, i]
        dx = dpadded[:, :, m : m + T].transpose(1, 2, 0, 3).reshape(B, T, D)
        dW = dmatrix.transpose(1, 0, 2).reshape(K, Din, Dout)
        return dx, dW, None if b is None else sum_float32(dy, axis=(0, 1))

    return y if b is None else y + b, backward


@expects(
    "p {W b gamma beta}, x (B, T, D), residual (B, T, D), real (B, T) booleans or None; "
    "eps >= 0, whole groups >= 1, function activation"
)
def convolution_layer(
    p: Tree,
    x: Array,
    residual: Array,
    *,
    activation: Component,
    eps: float,
    groups: int = 1,
    real: Array | None = None,
    rate: float = 0.0,
    key: Array | None = None,
) -> tuple[Array, Backward]:
    """y = r * layernorm(residual + a),   a = activation(d),   d = dropout(convolution(x)).

    r is 0 at padding, else 1.   What DeBERTa v2 adds to its first layer, whose input is x and whose
    output is residual (He et al. 2021, released code).
    p: W (K, D / groups, D), b, gamma and beta (D,); x, residual (B, T, D), real (B, T) booleans,
    True at tokens, or None for all -> y (B, T, D).
    dresidual = r * dy taken back through the norm; it is the gradient of a, too, and goes on to dx.
    backward returns (dp, dx, dresidual).
    """
    r = 1 if real is None else real[..., None].astype(x.dtype)
    c, convolution_back = convolution(x, p["W"], p["b"], groups=groups)
    d, drop_back = dropout(c, rate=rate, key=key)
    a, activation_back = activated("convolution_layer", activation, d)
    y, norm_back = layernorm(residual + a, p["gamma"], p["beta"], eps=eps)

    def backward(dy: Array) -> tuple[Tree, Array, Array]:
        dresidual, dgamma, dbeta = norm_back(dy * r)
        dx, dW, db = convolution_back(drop_back(activation_back(dresidual)))
        return {"W": dW, "b": db, "gamma": dgamma, "beta": dbeta}, dx, dresidual

    return y * r, backward
