"""Linear layer."""

from __future__ import annotations

from ..backend import sum_float32


def linear(x, W, b=None):
    """y = x W + b.

    x (..., Din), W (Din, Dout), b (Dout,) or None -> y (..., Dout).  Keeps x.
    dx = dy W^T,   dW = sum over all leading positions of x^T dy,   db = sum of dy.
    ValueError when x's width is not W's first dimension, or b's not its second.
    """
    if W.ndim != 2:
        raise ValueError(f"linear: W has shape {W.shape}, expected (Din, Dout)")
    if x.shape[-1:] != W.shape[:1]:
        raise ValueError(f"linear: x {x.shape} does not fit W {W.shape}: expected x (..., {W.shape[0]})")
    if b is not None and b.shape != W.shape[1:]:
        raise ValueError(f"linear: b has shape {b.shape}, expected {W.shape[1:]}")
    rows = x.reshape(-1, x.shape[-1])  # one matmul of two matrices, the fast case on every device
    y = rows @ W
    if b is not None:
        y += b

    def backward(dy):
        return linear_gradients(x, W, b, dy)

    return y.reshape(*x.shape[:-1], W.shape[1]), backward


def linear_gradients(x, W, b, dy):
    """(dx, dW, db) of y = x W + b, as above: for whoever does not keep x, but computes it again."""
    rows, dy = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    dx = (dy @ W.T).reshape(x.shape)
    return dx, rows.T @ dy, None if b is None else sum_float32(dy, axis=0)
