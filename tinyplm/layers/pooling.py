"""One vector for a sequence: the mean, the maximum, the first or the last of its hidden states; and vectors brought to length 1.

Shapes: x (B, T, D) hidden states, mask (B, T) boolean, True = a token and not padding; pooled (B, D).
"""

from __future__ import annotations

from ..backend import array_module, at_least_float32
from ..shapes import expects
from .mask import check_boolean


@expects("x (B, T, D)")
def mean_pooling(x, *, mask):
    """y_b = sum_t m_bt x_bt / n_b,   n_b = max(1, sum_t m_bt).                        Reimers & Gurevych 2019, sec. 3

    x (B, T, D), mask (B, T) boolean -> y (B, D); zeros where nothing is True.  Keeps m / n (B, T, 1).
    dx_bt = m_bt / n_b dy_b, so that padding gets exactly zero.   ValueError or TypeError when mask is not (B, T) boolean.
    """
    share = _tokens(x, mask).astype(at_least_float32(x[:0]).dtype)
    share = share / array_module(x).maximum(share.sum(axis=1, keepdims=True), 1)

    def backward(dy):
        return (share * at_least_float32(dy)[:, None, :]).astype(x.dtype, copy=False)

    return (share * x).sum(axis=1).astype(x.dtype, copy=False), backward


@expects("x (B, T, D)")
def max_pooling(x, *, mask):
    """y_bd = max of x_btd over the t with m_bt True; zeros where there is none.

    x (B, T, D), mask (B, T) boolean -> y (B, D).  Keeps which t it was (B, 1, D); of equal values the first.
    dx_btd = dy_bd at that t, else 0.   ValueError or TypeError when mask is not (B, T) boolean.
    """
    xp = array_module(x)
    real = _tokens(x, mask)
    some = real.any(axis=1)
    place = xp.where(real, x, float("-inf")).argmax(axis=1)[:, None, :]

    def backward(dy):
        here = (xp.arange(x.shape[1])[None, :, None] == place) & real
        return xp.where(here, dy[:, None, :], 0).astype(x.dtype, copy=False)

    y = xp.take_along_axis(x, place, axis=1)[:, 0]
    return xp.where(some, y, 0).astype(x.dtype, copy=False), backward


@expects("x (B, T, D)")
def cls_pooling(x):
    """y_b = x_b0, the hidden state of [CLS].   x (B, T, D) -> y (B, D).   dx_b0 = dy_b, all others 0."""
    xp = array_module(x)

    def backward(dy):
        dx = xp.zeros(x.shape, dtype=x.dtype)
        dx[:, 0] = dy
        return dx

    return x[:, 0], backward


@expects("x (B, T, D)")
def last_pooling(x, *, mask):
    """y_b = x_bt of the last t with m_bt True, the hidden state in which a decoder has seen the whole sequence; else zeros.

    x (B, T, D), mask (B, T) boolean, padding on either side -> y (B, D).   dx_bt = dy_b at that t, all others 0.
    ValueError or TypeError when mask is not (B, T) boolean.
    """
    xp = array_module(x)
    real = _tokens(x, mask)[:, :, 0]
    T = x.shape[1]
    last = (xp.arange(T) == (T - 1 - real[:, ::-1].argmax(axis=1))[:, None]) & real

    def backward(dy):
        return xp.where(last[:, :, None], dy[:, None, :], 0).astype(x.dtype, copy=False)

    return xp.where(last[:, :, None], x, 0).sum(axis=1).astype(x.dtype, copy=False), backward


@expects("x (..., D); eps > 0")
def l2_normalise(x, *, eps=1e-12):
    """y = x / n,   n = max(|x|, eps),   |x|^2 = sum_d x_d^2.

    x (..., D) -> y (..., D) of length 1 (of less where |x| < eps, and zeros stay zeros).  Keeps y and n (..., 1).
    dx = (dy - y (y . dy)) / n where |x| > eps: what stands along y changes the length only; dx = dy / eps elsewhere.
    """
    xp = array_module(x)
    values = at_least_float32(x)
    length = (values * values).sum(axis=-1, keepdims=True) ** 0.5
    n = xp.maximum(length, eps)
    y = values / n

    def backward(dy):
        dy = at_least_float32(dy)
        along = (y * dy).sum(axis=-1, keepdims=True) * (length > eps)
        return ((dy - y * along) / n).astype(x.dtype, copy=False)

    return y.astype(x.dtype, copy=False), backward


def _tokens(x, mask):
    """The mask as (B, T, 1)."""
    check_boolean(mask)
    if x.ndim != 3 or mask.shape != x.shape[:2]:
        raise ValueError(f"pooling: x {x.shape} and mask {mask.shape} do not fit: expected x (B, T, D), mask (B, T)")
    return mask[:, :, None]
