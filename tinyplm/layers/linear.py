"""Linear layer."""

from __future__ import annotations

from ..backend import sum_float32
from ..core import Array, Backward
from ..shapes import expects


@expects("x (..., Din), W (Din, Dout), b (Dout,) or None", hot=True)
def linear(x: Array, W: Array, b: Array | None = None) -> tuple[Array, Backward]:
    """y = x W + b.

    x (..., Din), W (Din, Dout), b (Dout,) or None -> y (..., Dout).   Keeps x and W.
    dx = dy W^T,   dW = x^T dy and db = sum dy, both summed over all leading positions.
    ValueError when the shapes do not fit.
    """
    check_weights(W, b)
    rows = x.reshape(-1, x.shape[-1])  # one product of two matrices, the fast case on every device
    y = rows @ W
    if b is not None:
        y += b

    def backward(dy: Array) -> tuple[Array, Array, Array | None]:
        return linear_gradients(x, W, b, dy)

    return y.reshape(*x.shape[:-1], W.shape[1]), backward


def linear_gradients(
    x: Array, W: Array, b: Array | None, dy: Array
) -> tuple[Array, Array, Array | None]:
    """(dx, dW, db) of y = x W + b, as above; also for a caller that recomputes x."""
    rows, drows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    dx = (drows @ W.T).reshape(x.shape)
    return dx, rows.T @ drows, None if b is None else sum_float32(drows, axis=0)


def check_weights(W: Array, b: Array | None) -> None:
    """ValueError where a bias, or a W of three axes, would broadcast."""
    if W.ndim != 2 or (b is not None and b.shape != W.shape[1:]):
        shape = None if b is None else b.shape
        raise ValueError(
            f"linear: W, b: expected (Din, Dout) and (Dout,), got {W.shape} and {shape}"
        )
