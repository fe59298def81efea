"""Activations: elementwise components f(x), x (..., N)."""

from __future__ import annotations

from ..arguments import wrong
from ..backend import array_module, by_blocks, normal_cdf
from ..shapes import expects

_SQRT_2_OVER_PI = 0.7978845608028654
_GELU_CUBIC = 0.044715
_INV_SQRT_2PI = 0.3989422804014327


@expects("x (..., N)", hot=True)
def relu(x):
    """y = max(x, 0).   dx = dy where x > 0, else 0 (0 at the kink).                     Nair & Hinton 2010"""
    xp = array_module(x)

    def backward(dy):
        return dy * (x > 0)

    return xp.maximum(x, 0), backward


@expects("x (..., N)", hot=True)
def tanh(x):
    """y = tanh(x).   Keeps y.   dx = dy (1 - y^2)."""
    y = array_module(x).tanh(x)

    def backward(dy):
        return dy * (1 - y * y)

    return y, backward


@expects("x (..., N)", hot=True)
def gelu(x):
    """y = x Phi(x),   Phi(x) = (1 + erf(x / sqrt 2)) / 2, the exact GELU of BERT.      Hendrycks & Gimpel 2016, sec. 2

    Keeps x and Phi(x).   dx = dy * (Phi(x) + x phi(x)),   phi(x) = exp(-x^2 / 2) / sqrt(2 pi).
    """
    xp = array_module(x)
    y, Phi = xp.empty(x.shape, dtype=x.dtype), xp.empty(x.shape, dtype=x.dtype)

    def forward(x, y, Phi):
        normal_cdf(x, Phi)
        xp.multiply(x, Phi, out=y)

    def backward(dy):
        def gradient(x, Phi, dy, dx):
            xp.multiply(x, x, out=dx)
            dx *= -0.5
            xp.exp(dx, out=dx)  # 0 where x^2 overflows, as it should be
            dx *= _INV_SQRT_2PI
            dx *= x
            dx += Phi
            dx *= dy

        dx = xp.empty(x.shape, dtype=x.dtype)
        by_blocks(gradient, x, Phi, dy, dx)
        return dx

    by_blocks(forward, x, y, Phi)
    return y, backward


@expects("x (..., N)", hot=True)
def gelu_tanh(x):
    """y = x (1 + tanh u) / 2,   u = sqrt(2/pi) (x + 0.044715 x^3): tanh GELU, as in GPT-2.

    Hendrycks & Gimpel 2016, sec. 2.  Keeps x and P = (1 + tanh u) / 2, so y = x P.
    dx = dy * (P + 2 P (1 - P) x du/dx),   du/dx = sqrt(2/pi) (1 + 3 * 0.044715 x^2);   (1 - tanh^2 u) / 2 = 2 P (1 - P).
    """
    xp = array_module(x)
    y, P = xp.empty(x.shape, dtype=x.dtype), xp.empty(x.shape, dtype=x.dtype)

    def forward(x, y, P):
        xp.multiply(x, x, out=P)
        P *= _SQRT_2_OVER_PI * _GELU_CUBIC
        P += _SQRT_2_OVER_PI
        P *= x
        xp.tanh(P, out=P)
        P += 1
        P *= 0.5
        xp.multiply(x, P, out=y)

    def backward(dy):
        def gradient(x, P, dy, dx):
            # Where |x| > 10, P is exactly 0 or 1 (1 - tanh u < 2^-100), so P (1 - P) is 0 and comes first: x^2 alone would
            # overflow, in float16 from 256 on, and 0 * inf is NaN.
            xp.subtract(1, P, out=dx)
            dx *= P
            dx *= x
            cubic = dx * x
            cubic *= x
            cubic *= 6 * _SQRT_2_OVER_PI * _GELU_CUBIC
            dx *= 2 * _SQRT_2_OVER_PI
            dx += cubic
            dx += P
            dx *= dy

        dx = xp.empty(x.shape, dtype=x.dtype)
        by_blocks(gradient, x, P, dy, dx)
        return dx

    by_blocks(forward, x, y, P)
    return y, backward


@expects("x (..., N)", hot=True)
def silu(x):
    """y = x s,   s = sigmoid(x) = 1 / (1 + exp(-x)).         SiLU, Elfwing et al. 2018; Swish, Ramachandran et al. 2017

    Keeps x and s.   dx = dy * s (1 + x (1 - s)).   The sigmoid is computed as (1 + tanh(x/2)) / 2: no overflow.
    """
    xp = array_module(x)
    y, s = xp.empty(x.shape, dtype=x.dtype), xp.empty(x.shape, dtype=x.dtype)

    def forward(x, y, s):
        xp.multiply(x, 0.5, out=s)
        xp.tanh(s, out=s)
        s += 1
        s *= 0.5
        xp.multiply(x, s, out=y)

    def backward(dy):
        def gradient(x, s, dy, dx):
            xp.subtract(1, s, out=dx)
            dx *= x
            dx += 1
            dx *= s
            dx *= dy

        dx = xp.empty(x.shape, dtype=x.dtype)
        by_blocks(gradient, x, s, dy, dx)
        return dx

    by_blocks(forward, x, y, s)
    return y, backward


# By the names that hub configs use for them.
ACTIVATIONS = {"relu": relu, "gelu": gelu, "gelu_new": gelu_tanh, "gelu_pytorch_tanh": gelu_tanh, "silu": silu, "swish": silu,
               "tanh": tanh}  # fmt: skip


def activated(caller, activation, x):
    """activation(x); ValueError for a plain function such as np.tanh: an array of two would be taken for (y, backward)."""
    result = activation(x)
    if type(result) is not tuple or len(result) != 2 or not callable(result[1]):
        raise wrong(f"{caller}: activation", "a component, which gives (y, backward)", activation)
    return result
