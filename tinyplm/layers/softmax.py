"""Softmax and log-softmax over the last axis."""

from __future__ import annotations

from ..backend import array_module, at_least_float32


def masked_softmax(scores, mask=None):
    """The probabilities of `softmax`, in place on scores (at least float32), which the caller owns."""
    xp = array_module(scores)
    if mask is not None:
        xp.copyto(scores, float(xp.finfo(scores.dtype).min), where=~mask)
    scores -= scores.max(axis=-1, keepdims=True)
    xp.exp(scores, out=scores)
    total = scores.sum(axis=-1, keepdims=True)
    if mask is not None:
        total = xp.where(mask.any(axis=-1, keepdims=True), total, float("inf")).astype(scores.dtype, copy=False)
    scores /= total
    return scores


def softmax(x, *, mask=None):
    """p_i = exp(x_i) / sum_j exp(x_j), over the entries where mask is True; p = 0 elsewhere.

    x (..., N), mask boolean broadcastable to x -> (..., N).  A row where nothing is True gives zeros.  Keeps p.
    dx = p * (dp - sum_j dp_j p_j).
    """
    p = masked_softmax(at_least_float32(x) + 0, mask)  # + 0: a copy that may be written into

    def backward(dp):
        dx = p * (dp - (dp * p).sum(axis=-1, keepdims=True))
        return dx.astype(x.dtype, copy=False)

    return p.astype(x.dtype), backward


def log_softmax(x):
    """y_i = x_i - log sum_j exp(x_j).

    x (..., N) -> (..., N).  Keeps y.   dx = dy - exp(y) * sum_j dy_j.
    """
    xp = array_module(x)
    values = at_least_float32(x)
    shifted = values - values.max(axis=-1, keepdims=True)
    y = shifted - xp.log(xp.exp(shifted).sum(axis=-1, keepdims=True))

    def backward(dy):
        dx = dy - xp.exp(y) * dy.sum(axis=-1, keepdims=True)
        return dx.astype(x.dtype, copy=False)

    return y.astype(x.dtype, copy=False), backward
