"""Gemma's RMSNorm, cheaper for a single token."""

from __future__ import annotations

from ..core import Array, Backward, in_float32
from ..layers.norm import check_affine, mean, sum_leading
from ..shapes import expects


@expects("x (..., D), w (D,); eps >= 0", hot=True)
@in_float32
def unit_rmsnorm(x: Array, w: Array, *, eps: float = 1e-6) -> tuple[Array, Backward]:
    """layers.norm.unit_rmsnorm; of a single row mean(x^2) is an inner product, and r a scalar.

    NumPy computes with scalars faster than with arrays of one number.   With the plain form a
    decoding step of Gemma 2, which has four norms a layer, takes 2 to 4% longer (L 4, D 256).
    """
    check_affine(x, w)
    gamma = 1 + w
    r = (_mean_square(x) + eps) ** -0.5
    xhat = x * r

    def backward(dy: Array) -> tuple[Array, Array]:
        dxhat = dy * gamma
        dx = r * (dxhat - xhat * mean(dxhat * xhat))
        return dx, sum_leading(dy * xhat)

    return xhat * gamma, backward


def _mean_square(x: Array) -> Array:
    """mean(x^2), (..., D) -> (..., 1), or () where x has one row."""
    D = x.shape[-1]
    if x.size != D:
        return mean(x**2)
    row = x.reshape(D)
    return row.dot(row) / D
