"""GELUs in pieces that stay in the cache, and all activations by their names in hub configs.

ReLU, tanh and SiLU are the plain forms: for SiLU this form gained less than 1% of a training step.
"""

from __future__ import annotations

from ..backend import array_module
from ..core import Array, Backward, in_float32
from ..layers.activation import GELU_CUBIC, INV_SQRT_2PI, SQRT_2_OVER_PI, relu, silu, tanh
from ..shapes import expects
from ..special import erf
from .blocks import by_blocks


@expects("x (..., N)", hot=True)
@in_float32
def gelu(x: Array) -> tuple[Array, Backward]:
    """layers.activation.gelu in pieces and in place, with `normal_cdf` for Phi.

    In float32 that is a tanh of a polynomial instead of erf.   Keeps x and Phi, as there.
    A training step of BERT takes 16 to 22% longer with the plain form (D 384 and 256).
    """
    xp = array_module(x)
    y, Phi = xp.empty(x.shape, dtype=x.dtype), xp.empty(x.shape, dtype=x.dtype)

    def forward(x: Array, y: Array, Phi: Array) -> None:
        normal_cdf(x, Phi)
        xp.multiply(x, Phi, out=y)

    def backward(dy: Array) -> Array:
        def gradient(x: Array, Phi: Array, dy: Array, dx: Array) -> None:
            xp.multiply(x, x, out=dx)
            dx *= -0.5
            xp.exp(dx, out=dx)  # 0 where x^2 overflows, as it should be
            dx *= INV_SQRT_2PI  # phi(x)
            dx *= x
            dx += Phi
            dx *= dy

        dx = xp.empty(x.shape, dtype=x.dtype)
        by_blocks(gradient, x, Phi, dy, dx)
        return dx

    by_blocks(forward, x, y, Phi)
    return y, backward


@expects("x (..., N)", hot=True)
@in_float32
def gelu_tanh(x: Array) -> tuple[Array, Backward]:
    """layers.activation.gelu_tanh in pieces and in place, without clipping x.

    Keeps x and P, as there.   Computed as dx = dy (P + 2 x P (1 - P) du), du as there.
    A training step of GPT-2 takes 3% longer with the plain form (D 256 and 384).
    """
    xp = array_module(x)
    y, P = xp.empty(x.shape, dtype=x.dtype), xp.empty(x.shape, dtype=x.dtype)

    def forward(x: Array, y: Array, P: Array) -> None:
        xp.multiply(x, x, out=P)
        P *= SQRT_2_OVER_PI * GELU_CUBIC
        P += SQRT_2_OVER_PI
        P *= x  # u
        xp.tanh(P, out=P)
        P += 1
        P *= 0.5
        xp.multiply(x, P, out=y)

    def backward(dy: Array) -> Array:
        def gradient(x: Array, P: Array, dy: Array, dx: Array) -> None:
            # P (1 - P) comes first: it is exactly 0 where |x| > 10, and x^2 alone may overflow.
            xp.subtract(1, P, out=dx)
            dx *= P
            dx *= x
            cubic = dx * x
            cubic *= x
            cubic *= 6 * SQRT_2_OVER_PI * GELU_CUBIC
            dx *= 2 * SQRT_2_OVER_PI
            dx += cubic
            dx += P
            dx *= dy

        dx = xp.empty(x.shape, dtype=x.dtype)
        by_blocks(gradient, x, P, dy, dx)
        return dx

    by_blocks(forward, x, y, P)
    return y, backward


# Phi(x) = (1 + tanh(x P(x^2))) / 2 within 2.9e-8 for |x| <= 6: reference/fit_normal_cdf.py.
# Highest power first.
NORMAL_CDF = (1.75627849e-09, -1.32266323e-07, 3.96477379e-06, -5.53063207e-05, -3.25947336e-05,
              0.0363330844, 0.797884942)  # fmt: skip


def normal_cdf(x: Array, out: Array) -> None:
    """out[...] = Phi(x) = (1 + erf(x / sqrt 2)) / 2, elementwise; both float32 or both float64.

    In float32 it is (1 + tanh(x P(x^2))) / 2 with a polynomial P, a fifth of the work of erf, since
    NumPy's tanh costs no more than two multiplications.  The error is below 2e-7 in float32, most
    of it rounding, and below 4e-15 in float64; in float32 the value is exactly 0 or 1 where
    |x| >= 6.
    """
    xp = array_module(x)
    if x.dtype == "float64":
        out[...] = erf(x * 0.5**0.5)
    else:
        s = x * x
        xp.minimum(s, 36, out=s)  # beyond, tanh(x P(36)) is +-1; and s^6 cannot overflow
        xp.multiply(s, NORMAL_CDF[0], out=out)
        for c in NORMAL_CDF[1:-1]:
            out += c
            out *= s
        out += NORMAL_CDF[-1]
        out *= x
        xp.tanh(out, out=out)
    out += 1
    out *= 0.5


# By the names in hub configs.
ACTIVATIONS = {
    "relu": relu,
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "silu": silu,
    "swish": silu,
    "tanh": tanh,
}
