"""One vector for a sequence, from its hidden states; and vectors brought to length 1.

x (B, T, D) hidden states, mask (B, T) boolean, True = a token and not padding; pooled (B, D).
"""

from __future__ import annotations

from ..arguments import wrong
from ..backend import array_module
from ..core import Array, Backward, in_float32
from ..shapes import expects
from .mask import check_boolean


@expects("x (B, T, D)")
@in_float32
def mean_pooling(x: Array, *, mask: Array) -> tuple[Array, Backward]:
    """y_b = sum_t m_bt x_bt / n_b,   n_b = max(1, sum_t m_bt).     Reimers & Gurevych 2019, sec. 3

    x (B, T, D), mask m (B, T) boolean -> y (B, D); zeros where nothing is True.
    Keeps m / n (B, T, 1).   dx_bt = (m_bt / n_b) dy_b, so padding gets exactly zero.
    """
    m = tokens(x, mask).astype(x.dtype)
    share = m / array_module(x).maximum(m.sum(axis=1, keepdims=True), 1)

    def backward(dy: Array) -> Array:
        return share * dy[:, None, :]

    return (share * x).sum(axis=1), backward


@expects("x (B, T, D)")
def max_pooling(x: Array, *, mask: Array) -> tuple[Array, Backward]:
    """y_bd = max_t x_btd over the t with m_bt True; zeros where there is none.

    x (B, T, D), mask m (B, T) boolean -> y (B, D).   Keeps m and t_max (B, 1, D), where the maximum
    is, the first of equal ones.   dx_btd = dy_bd at t = t_max, else 0.
    """
    xp = array_module(x)
    m = tokens(x, mask)
    t_max = xp.where(m, x, float("-inf")).argmax(axis=1)[:, None, :]
    y = xp.take_along_axis(x, t_max, axis=1)[:, 0]

    def backward(dy: Array) -> Array:
        here = (xp.arange(x.shape[1])[None, :, None] == t_max) & m
        return xp.where(here, dy[:, None, :], 0).astype(x.dtype, copy=False)

    return xp.where(m.any(axis=1), y, 0).astype(x.dtype, copy=False), backward


@expects("x (B, T, D)")
def cls_pooling(x: Array) -> tuple[Array, Backward]:
    """y_b = x_b0, the hidden state of [CLS].   x (B, T, D) -> y (B, D).   dx_b0 = dy_b, else 0."""

    def backward(dy: Array) -> Array:
        dx = array_module(x).zeros(x.shape, dtype=x.dtype)
        dx[:, 0] = dy
        return dx

    return x[:, 0], backward


@expects("x (B, T, D)")
def last_pooling(x: Array, *, mask: Array) -> tuple[Array, Backward]:
    """y_b = x_bt at the last t with m_bt True, where a decoder has seen the whole sequence.

    x (B, T, D), mask m (B, T) boolean, padding on either side -> y (B, D); zeros where no m_bt is
    True.   dx_bt = dy_b at that t, else 0.
    """
    xp, T = array_module(x), x.shape[1]
    m = tokens(x, mask)[:, :, 0]
    t_last = T - 1 - m[:, ::-1].argmax(axis=1)
    here = ((xp.arange(T) == t_last[:, None]) & m)[:, :, None]

    def backward(dy: Array) -> Array:
        return xp.where(here, dy[:, None, :], 0).astype(x.dtype, copy=False)

    return xp.where(here, x, 0).sum(axis=1).astype(x.dtype, copy=False), backward


@expects("x (..., D); eps > 0")
@in_float32
def l2_normalise(x: Array, *, eps: float = 1e-12) -> tuple[Array, Backward]:
    """y = x / n,   n = max(|x|, eps),   |x|^2 = sum_d x_d^2.

    x (..., D) -> y (..., D) of length 1 (shorter where |x| < eps; zeros stay zeros).
    Keeps y, |x| and n (..., 1).   dx = (dy - y (y . dy)) / n where |x| > eps: a change of x along y
    changes its length alone;   dx = dy / eps elsewhere.
    """
    xp = array_module(x)
    length = (x * x).sum(axis=-1, keepdims=True) ** 0.5
    n = xp.maximum(length, eps)
    y = x / n

    def backward(dy: Array) -> Array:
        along = (y * dy).sum(axis=-1, keepdims=True)
        return (dy - xp.where(length > eps, y * along, 0)) / n

    return y, backward


def tokens(x: Array, mask: Array) -> Array:
    """The mask as (B, T, 1); ValueError or TypeError when it is not (B, T) boolean."""
    check_boolean(mask)
    if mask.shape != x.shape[:2]:
        raise wrong("pooling: mask", f"booleans of shape {x.shape[:2]}, as x {x.shape} has", mask)
    return mask[:, :, None]
