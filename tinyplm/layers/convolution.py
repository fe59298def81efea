"""Convolution along the sequence."""

from __future__ import annotations

from ..backend import array_module, sum_float32
from ..shapes import expects
from .activation import activated
from .dropout import dropout
from .norm import layernorm


@expects("x (B, T, D), W (K, Din, Dout), b (Dout,) or None; whole groups >= 1")
def convolution(x, W, b=None, *, groups=1):
    """y[t] = sum_i x[t + i - m] W[i] + b,   m = (K - 1) / 2,   x = 0 before and after the sequence.        LeCun et al. 1989

    x (B, T, D), W (K, D / groups, Dout) with K odd, b (Dout,) or None -> y (B, T, Dout).  With groups, the channels are cut
    into as many parts, each output part seeing its input part alone; all is written with a leading axis of groups.
    One product: patches (groups, B T, K D / groups), the K neighbours of each place side by side, by W as a matrix.
    Keeps x.   dW = patches^T dy,   db = sum dy,   and dx[t] = sum_i dpatches_i[t - i + m] with dpatches = dy W^T.
    ValueError when K is even or the channels do not fit.
    """
    xp = array_module(x)
    B, T, D = x.shape
    K, Din, Dout = W.shape
    m = (K - 1) // 2
    if K % 2 == 0 or D != groups * Din or Dout % groups:
        raise ValueError(f"convolution: x {x.shape} and W {W.shape} with {groups} groups: expected x (B, T, groups * Din) and "
                         "W (K, Din, Dout), K odd and Dout a multiple of groups")  # fmt: skip
    matrix = W.reshape(K * Din, groups, Dout // groups).transpose(1, 0, 2)  # (groups, K Din, Dout / groups)

    def patches():
        padded = xp.zeros((groups, B, T + K - 1, Din), dtype=x.dtype)
        padded[:, :, m : m + T] = x.reshape(B, T, groups, Din).transpose(2, 0, 1, 3)
        return xp.concatenate([padded[:, :, i : i + T] for i in range(K)], axis=-1).reshape(groups, B * T, K * Din)

    y = (patches() @ matrix).transpose(1, 0, 2).reshape(B, T, Dout)
    if b is not None:
        y = y + b

    def backward(dy):
        by_group = dy.reshape(B * T, groups, Dout // groups).transpose(1, 0, 2)
        dmatrix = patches().swapaxes(-1, -2) @ by_group
        dpatches = (by_group @ matrix.swapaxes(-1, -2)).reshape(groups, B, T, K, Din)
        dpadded = xp.zeros((groups, B, T + K - 1, Din), dtype=x.dtype)
        for i in range(K):
            dpadded[:, :, i : i + T] += dpatches[:, :, :, i]
        dx = dpadded[:, :, m : m + T].transpose(1, 2, 0, 3).reshape(B, T, D)
        db = None if b is None else sum_float32(dy, axis=(0, 1))
        return dx, dmatrix.transpose(1, 0, 2).reshape(K, Din, Dout), db

    return y, backward


@expects("p {W b gamma beta}, x (B, T, D), residual (B, T, D), real (B, T) booleans or None; eps >= 0, whole groups >= 1, "
         "function activation")  # fmt: skip
def convolution_layer(p, x, residual, *, activation, eps, groups=1, real=None, rate=0.0, key=None):
    """y = r * layernorm(residual + activation(dropout(convolution(x)))),   r = 1 at real tokens, 0 at padding.

    What DeBERTa v2 adds to its first layer, x being that layer's input and residual its output (He et al. 2021, released code).
    p: W (K, D / groups, D), b, gamma and beta (D,); x, residual (B, T, D), real (B, T) booleans or None for all -> (B, T, D).
    backward gives (dp, dx, dresidual), by the chain of the parts.
    """
    r = 1 if real is None else real[..., None].astype(x.dtype)
    c, convolution_back = convolution(x, p["W"], p["b"], groups=groups)
    dropped, drop_back = dropout(c, rate=rate, key=key)
    a, activation_back = activated("convolution_layer", activation, dropped)
    y, norm_back = layernorm(residual + a, p["gamma"], p["beta"], eps=eps)

    def backward(dy):
        dresidual, dgamma, dbeta = norm_back(dy * r)
        dx, dW, db = convolution_back(drop_back(activation_back(dresidual)))
        return {"W": dW, "b": db, "gamma": dgamma, "beta": dbeta}, dx, dresidual

    return y * r, backward
