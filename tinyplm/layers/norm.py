"""Layer normalisation and root-mean-square normalisation, over the last axis."""

from __future__ import annotations

from ..core import Array, Backward, in_float32
from ..shapes import expects


@expects("x (..., D), gamma (D,), beta (D,) or None; eps >= 0", hot=True)
@in_float32
def layernorm(
    x: Array, gamma: Array, beta: Array | None = None, *, eps: float = 1e-5
) -> tuple[Array, Backward]:
    """y = gamma * xhat + beta,   xhat = (x - mean(x)) * r,   r = 1 / sqrt(var(x) + eps).

    x (..., D), gamma (D,), beta (D,) or None -> y (..., D).               Ba et al. 2016, eq. 3-4
    mean and var are over the last axis; var is the biased variance (divided by D).
    Keeps xhat (..., D) and r (..., 1).
    With dxhat = gamma * dy:   dx = r * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat)),
    dgamma = sum(dy * xhat),   dbeta = sum(dy), summed over all positions.
    """
    check_affine(x, gamma, beta)
    centred = x - mean(x)
    r = (mean(centred**2) + eps) ** -0.5
    xhat = centred * r

    def backward(dy: Array) -> tuple[Array, Array, Array | None]:
        dxhat = dy * gamma
        dx = r * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat))
        return dx, sum_leading(dy * xhat), None if beta is None else sum_leading(dy)

    y = xhat * gamma
    return y if beta is None else y + beta, backward


@expects("x (..., D), gamma (D,); eps >= 0", hot=True)
@in_float32
def rmsnorm(x: Array, gamma: Array, *, eps: float = 1e-6) -> tuple[Array, Backward]:
    """y = gamma * xhat,   xhat = x * r,   r = 1 / sqrt(mean(x^2) + eps).

    x (..., D), gamma (D,) -> y (..., D).                         Zhang & Sennrich 2019, eq. 4
    Keeps xhat (..., D) and r (..., 1).
    With dxhat = gamma * dy:   dx = r * (dxhat - xhat * mean(dxhat * xhat)),
    dgamma = sum(dy * xhat), summed over all positions.
    """
    check_affine(x, gamma)
    r = (mean(x**2) + eps) ** -0.5
    xhat = x * r

    def backward(dy: Array) -> tuple[Array, Array]:
        dxhat = dy * gamma
        dx = r * (dxhat - xhat * mean(dxhat * xhat))
        return dx, sum_leading(dy * xhat)

    return xhat * gamma, backward


@expects("x (..., D), w (D,); eps >= 0", hot=True)
@in_float32
def unit_rmsnorm(x: Array, w: Array, *, eps: float = 1e-6) -> tuple[Array, Backward]:
    """y = gamma * xhat,   gamma = 1 + w: rmsnorm whose gain is stored as its distance from 1.

    Gemma team 2024, released code.   x (..., D), w (D,) -> y (..., D).
    xhat, r, dx and dw = dgamma as in `rmsnorm`.
    """
    check_affine(x, w)
    gamma = 1 + w
    r = (mean(x**2) + eps) ** -0.5
    xhat = x * r

    def backward(dy: Array) -> tuple[Array, Array]:
        dxhat = dy * gamma
        dx = r * (dxhat - xhat * mean(dxhat * xhat))
        return dx, sum_leading(dy * xhat)

    return xhat * gamma, backward


def mean(x: Array) -> Array:
    """The mean over the last axis, (..., D) -> (..., 1)."""
    return x.sum(axis=-1, keepdims=True) / x.shape[-1]


def sum_leading(x: Array) -> Array:
    """The sum over all axes but the last, (..., D) -> (D,)."""
    return x.reshape(-1, x.shape[-1]).sum(axis=0)


def check_affine(x: Array, gamma: Array, beta: Array | None = None) -> None:
    """ValueError for what would broadcast, and for rows of no numbers."""
    if (
        gamma.shape != x.shape[-1:]
        or not gamma.size
        or (beta is not None and beta.shape != gamma.shape)
    ):
        shapes = [None if a is None else a.shape for a in (x, gamma, beta)]
        raise ValueError(f"norm: x, gamma, beta: expected (..., D), (D,), (D,), got {shapes}")
