"""Softmax and log-softmax over the last axis."""

from __future__ import annotations

from ..arguments import wrong
from ..backend import array_module, at_least_float32
from ..shapes import expects
from .mask import check_boolean


def masked_softmax(scores, mask=None):
    """The probabilities of `softmax`, in place on scores (at least float32), which the caller owns."""
    xp = array_module(scores)
    if mask is not None:
        check_boolean(mask)
        try:
            xp.copyto(scores, float("-inf"), where=~mask)
        except ValueError:
            raise wrong("mask", f"booleans broadcastable to {scores.shape}", mask) from None
    top = scores.max(axis=-1, keepdims=True)
    scores -= xp.maximum(top, float(xp.finfo(scores.dtype).min))  # finite in an empty row too, so that exp gives 0 there
    xp.exp(scores, out=scores)
    total = scores.sum(axis=-1, keepdims=True)
    total += total == 0  # an empty row: 0 / 1
    scores /= total
    return scores


@expects("x (..., N)")
def softmax(x, *, mask=None):
    """p_i = exp(x_i) / sum_j exp(x_j), over the entries where mask is True; p = 0 elsewhere.

    x (..., N), mask boolean broadcastable to x -> (..., N).  A row with nothing True, or with -inf everywhere, gives
    zeros.  Keeps p.   dx = p * (dp - sum_j dp_j p_j).   TypeError when the mask is not boolean.
    """
    p = masked_softmax(at_least_float32(x) + 0, mask)  # + 0: a copy that may be written into

    def backward(dp):
        dx = p * (dp - (dp * p).sum(axis=-1, keepdims=True))
        return dx.astype(x.dtype, copy=False)

    return p.astype(x.dtype), backward


@expects("x (..., N)")
def log_softmax(x):
    """y_i = x_i - log sum_j exp(x_j).

    x (..., N) -> (..., N).  Keeps y.   dx = dy - exp(y) * sum_j dy_j.
    """
    xp = array_module(x)
    values = at_least_float32(x)
    shifted = values - values.max(axis=-1, keepdims=True)
    y = shifted - xp.log(xp.exp(shifted).sum(axis=-1, keepdims=True))

    def backward(dy):
        dx = dy - xp.exp(y) * dy.sum(axis=-1, keepdims=True, dtype=y.dtype)
        return dx.astype(x.dtype, copy=False)

    return y.astype(x.dtype, copy=False), backward
