"""Activations: elementwise components f(x) with x of any shape."""

from __future__ import annotations

from ..backend import array_module, erf

_SQRT_2_OVER_PI = 0.7978845608028654
_GELU_CUBIC = 0.044715
_SQRT_HALF = 0.7071067811865476
_INV_SQRT_2PI = 0.3989422804014327


def relu(x):
    """y = max(x, 0).   dx = dy where x > 0, else 0 (0 at the kink).                     Nair & Hinton 2010"""
    xp = array_module(x)

    def backward(dy):
        return dy * (x > 0)

    return xp.maximum(x, 0), backward


def tanh(x):
    """y = tanh(x).   Keeps y.   dx = dy (1 - y^2)."""
    y = array_module(x).tanh(x)

    def backward(dy):
        return dy * (1 - y * y)

    return y, backward


def gelu(x):
    """y = x Phi(x),   Phi(x) = (1 + erf(x / sqrt 2)) / 2, the exact GELU of BERT.      Hendrycks & Gimpel 2016, sec. 2

    Keeps x and Phi(x).   dx = dy * (Phi(x) + x phi(x)),   phi(x) = exp(-x^2 / 2) / sqrt(2 pi).
    """
    xp = array_module(x)
    Phi = erf(x * _SQRT_HALF)
    Phi += 1
    Phi *= 0.5

    def backward(dy):
        phi = xp.exp(x * x * -0.5) * _INV_SQRT_2PI  # 0 where x^2 overflows, as it should be
        return dy * (Phi + x * phi)

    return x * Phi, backward


def gelu_tanh(x):
    """y = x (1 + tanh u) / 2,   u = sqrt(2/pi) (x + 0.044715 x^3): tanh GELU, as in GPT-2.

    Hendrycks & Gimpel 2016, sec. 2.  Keeps x and P = (1 + tanh u) / 2, so y = x P.
    dx = dy * (P + 2 P (1 - P) x du/dx),   du/dx = sqrt(2/pi) (1 + 3 * 0.044715 x^2);   (1 - tanh^2 u) / 2 = 2 P (1 - P).
    """
    xp = array_module(x)
    P = x * x
    P *= _SQRT_2_OVER_PI * _GELU_CUBIC
    P += _SQRT_2_OVER_PI
    P *= x
    xp.tanh(P, out=P)
    P += 1
    P *= 0.5

    def backward(dy):
        # Where |x| > 10, P is exactly 0 or 1 (1 - tanh u < 2^-100), so P (1 - P) is 0 and comes first: x^2 alone would
        # overflow, in float16 from 256 on, and 0 * inf is NaN.
        dx = 1 - P
        dx *= P
        dx *= x
        cubic = dx * x
        cubic *= x
        cubic *= 6 * _SQRT_2_OVER_PI * _GELU_CUBIC
        dx *= 2 * _SQRT_2_OVER_PI
        dx += cubic
        dx += P
        dx *= dy
        return dx

    return x * P, backward


def silu(x):
    """y = x s,   s = sigmoid(x) = 1 / (1 + exp(-x)).         SiLU, Elfwing et al. 2018; Swish, Ramachandran et al. 2017

    Keeps x and s.   dx = dy * s (1 + x (1 - s)).   The sigmoid is computed as (1 + tanh(x/2)) / 2: no overflow.
    """
    xp = array_module(x)
    s = xp.tanh(x * 0.5)
    s += 1
    s *= 0.5

    def backward(dy):
        dx = 1 - s
        dx *= x
        dx += 1
        dx *= s
        dx *= dy
        return dx

    return x * s, backward


# By the names that hub configs use for them.
ACTIVATIONS = {"relu": relu, "gelu": gelu, "gelu_new": gelu_tanh, "gelu_pytorch_tanh": gelu_tanh, "silu": silu, "swish": silu,
               "tanh": tanh}  # fmt: skip
