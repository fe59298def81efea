"""Layer normalisation and root-mean-square normalisation, over the last axis."""

from __future__ import annotations

from ..backend import array_module, at_least_float32, by_blocks
from ..shapes import expects


def _mean(x):
    return x.sum(axis=-1, keepdims=True) / x.shape[-1]  # NumPy's mean is 10 microseconds slower, a lot for one token


def _check(x, gamma, beta, eps):
    """What would broadcast, or be rounded to integers, without an error."""
    if not gamma.size or gamma.shape != x.shape[-1:] or (beta is not None and beta.shape != gamma.shape) or not eps >= 0:
        raise ValueError(f"norm: x {x.shape} and gamma {gamma.shape} do not fit")


def _sum_leading(x):
    return x.reshape(-1, x.shape[-1]).sum(axis=0)


@expects("x (..., D), gamma (D,), beta (D,) or None; eps >= 0", hot=True)
def layernorm(x, gamma, beta=None, *, eps=1e-5):
    """y = gamma * xhat + beta,   xhat = (x - mean(x)) * r,   r = 1 / sqrt(var(x) + eps).        Ba et al. 2016, eq. 3-4

    x (..., D), gamma (D,), beta (D,) or None -> y (..., D); var is the biased variance (divided by D).
    Keeps x, which the residual stream holds anyway, and mean and r (..., 1); xhat is computed again in the backward.
    With dxhat = gamma * dy:   dx = r * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat)),
    dgamma = sum(dy * xhat),   dbeta = sum(dy), summed over all positions.   ValueError when gamma or beta is not (D,).
    """
    _check(x, gamma, beta, eps)
    mean = _mean(at_least_float32(x))
    y = x - mean
    r = (_mean(y * y) + eps) ** -0.5
    y *= r  # now xhat
    y *= gamma
    if beta is not None:
        y += beta

    def backward(dy):
        def gradient(x, mean, r, dy, dx):
            dy = at_least_float32(dy)
            xhat = x - mean
            xhat *= r
            products = dy * xhat
            sums[0] += products.sum(axis=0)
            sums[1] += dy.sum(axis=0)
            xhat *= products @ share  # mean(dxhat * xhat), as one product with a vector
            xhat += dy @ share  # mean(dxhat)
            xp.multiply(dy, gamma, out=dx)  # now dxhat
            dx -= xhat
            dx *= r

        xp, number = array_module(x), mean.dtype
        share = gamma.astype(number)[:, None] / len(gamma)
        sums, dx = xp.zeros((2, len(gamma)), dtype=number), xp.empty(x.shape, dtype=number)
        by_blocks(gradient, x, mean, r, dy, dx)
        dgamma, dbeta = sums.astype(gamma.dtype, copy=False)
        return dx.astype(x.dtype, copy=False), dgamma, None if beta is None else dbeta

    return y.astype(x.dtype, copy=False), backward


@expects("x (..., D), gamma (D,); eps >= 0", hot=True)
def rmsnorm(x, gamma, *, eps=1e-6):
    """y = gamma * xhat,   xhat = x * r,   r = 1 / sqrt(mean(x^2) + eps).             Zhang & Sennrich 2019, eq. 4

    x (..., D), gamma (D,) -> y (..., D).  Keeps x and r (..., 1); xhat is computed again in the backward.
    With dxhat = gamma * dy:   dx = r * (dxhat - xhat * mean(dxhat * xhat)),   dgamma = sum(dy * xhat)
    over all positions.   ValueError when gamma is not (D,).
    """
    _check(x, gamma, None, eps)
    values = at_least_float32(x)
    r = (_mean(values * values) + eps) ** -0.5
    y = values * r
    y *= gamma

    def backward(dy):
        dy = at_least_float32(dy)
        xhat = x * r
        dx = dy * gamma
        products = dy * xhat
        dgamma = _sum_leading(products).astype(gamma.dtype, copy=False)
        products *= gamma  # now dxhat * xhat
        xhat *= _mean(products)
        dx -= xhat
        dx *= r
        return dx.astype(x.dtype, copy=False), dgamma

    return y.astype(x.dtype, copy=False), backward
