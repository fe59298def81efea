"""Linear layer."""

from __future__ import annotations

from ..backend import sum_float32
from ..shapes import expects


@expects("x (..., Din), W (Din, Dout), b (Dout,) or None", hot=True)
def linear(x, W, b=None):
    """y = x W + b.

    x (..., Din), W (Din, Dout), b (Dout,) or None -> y (..., Dout).  Keeps x.
    dx = dy W^T,   dW = sum over all leading positions of x^T dy,   db = sum of dy.
    ValueError when the shapes do not fit.
    """
    if W.ndim != 2 or (b is not None and b.shape != W.shape[1:]):
        raise ValueError(f"linear: W {W.shape} and b do not fit")
    rows = x.reshape(-1, x.shape[-1])  # one matmul of two matrices, the fast case on every device
    y = rows @ W
    if b is not None:
        y += b

    def backward(dy):
        return linear_gradients(x, W, b, dy)

    return y.reshape(*x.shape[:-1], W.shape[1]), backward


def linear_gradients(x, W, b, dy):
    """(dx, dW, db) of y = x W + b, as above: for callers that recompute x."""
    rows, dy = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    dx = (dy @ W.T).reshape(x.shape)
    return dx, rows.T @ dy, None if b is None else sum_float32(dy, axis=0)
