"""Softmax and log-softmax over the last axis."""

from __future__ import annotations

from ..backend import array_module
from ..core import Array, Backward, in_float32
from ..shapes import broadcastable, expects
from .mask import check_boolean


@expects("x (..., N)")
@in_float32
def softmax(x: Array, *, mask: Array | None = None) -> tuple[Array, Backward]:
    """p_i = exp(x_i) / sum_j exp(x_j), over the entries where mask is True; p = 0 elsewhere.

    x (..., N), mask boolean and broadcastable to x -> p (..., N).   Keeps p.
    A row with no True entry, or with -inf everywhere, gives zeros.
    dx = p * (dp - sum_j dp_j p_j).   TypeError when the mask is not boolean.
    """
    xp = array_module(x)
    if mask is not None:
        check_boolean(mask)
        x = xp.where(broadcastable("mask", mask, x.shape), x, float("-inf"))
    top = x.max(axis=-1, keepdims=True)  # cancels, so that no exponential overflows
    e = xp.exp(x - xp.maximum(top, float(xp.finfo(x.dtype).min)))  # 0, not NaN, in an empty row
    total = e.sum(axis=-1, keepdims=True)
    p = e / (total + (total == 0))  # an empty row: 0 / 1

    def backward(dp: Array) -> Array:
        return p * (dp - (dp * p).sum(axis=-1, keepdims=True))

    return p, backward


@expects("x (..., N)")
@in_float32
def log_softmax(x: Array) -> tuple[Array, Backward]:
    """y_i = x_i - log sum_j exp(x_j).

    x (..., N) -> y (..., N).   Keeps y.   dx = dy - exp(y) * sum_j dy_j.
    """
    xp = array_module(x)
    s = x - x.max(axis=-1, keepdims=True)  # so that no exponential overflows
    y = s - xp.log(xp.exp(s).sum(axis=-1, keepdims=True))

    def backward(dy: Array) -> Array:
        return dy - xp.exp(y) * dy.sum(axis=-1, keepdims=True)

    return y, backward
