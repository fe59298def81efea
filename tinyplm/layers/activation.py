"""Activations: elementwise components f(x), x (..., N)."""

from __future__ import annotations

from typing import Any

from ..arguments import wrong
from ..backend import array_module
from ..core import Array, Backward, Component, in_float32
from ..shapes import expects
from ..special import erf

SQRT_2_OVER_PI = 0.7978845608028654
INV_SQRT_2PI = 0.3989422804014327
INV_SQRT_2 = 0.7071067811865476
GELU_CUBIC = 0.044715


@expects("x (..., N)", hot=True)
def relu(x: Array) -> tuple[Array, Backward]:
    """y = max(x, 0).   Keeps x.   dx = dy where x > 0, else 0.            Nair & Hinton 2010"""
    xp = array_module(x)

    def backward(dy: Array) -> Array:
        return dy * (x > 0)

    return xp.maximum(x, 0), backward


@expects("x (..., N)", hot=True)
def tanh(x: Array) -> tuple[Array, Backward]:
    """y = tanh(x).   Keeps y.   dx = dy (1 - y^2)."""
    y = array_module(x).tanh(x)

    def backward(dy: Array) -> Array:
        return dy * (1 - y * y)

    return y, backward


@expects("x (..., N); cap > 0", hot=True)
@in_float32
def soft_cap(x: Array, *, cap: float) -> tuple[Array, Backward]:
    """y = cap tanh(x / cap): near x where |x| is small, never beyond cap.

    Gemma team 2024b, sec. 2.   Keeps y.   dx = dy (1 - (y / cap)^2).
    """
    y = cap * array_module(x).tanh(x / cap)

    def backward(dy: Array) -> Array:
        return dy * (1 - (y / cap) ** 2)

    return y, backward


def capped(x: Array, cap: float | None) -> tuple[Array, Backward]:
    """soft_cap(x), or x itself for None."""
    return (x, lambda dy: dy) if cap is None else soft_cap(x, cap=cap)


@expects("x (..., N)", hot=True)
@in_float32
def gelu(x: Array) -> tuple[Array, Backward]:
    """y = x Phi(x),   Phi(x) = (1 + erf(x / sqrt 2)) / 2: the exact GELU, as in BERT.

    Hendrycks & Gimpel 2016, sec. 2.   Keeps x and Phi(x).
    dx = dy * (Phi(x) + x phi(x)),   phi(x) = exp(-x^2 / 2) / sqrt(2 pi).
    """
    xp = array_module(x)
    Phi = (1 + erf(x * INV_SQRT_2)) / 2

    def backward(dy: Array) -> Array:
        phi = xp.exp(-x * x / 2) * INV_SQRT_2PI
        return dy * (Phi + x * phi)

    return x * Phi, backward


@expects("x (..., N)", hot=True)
@in_float32
def gelu_tanh(x: Array) -> tuple[Array, Backward]:
    """y = x P,   P = (1 + tanh u) / 2,   u = sqrt(2/pi) (x + 0.044715 x^3): tanh GELU, as in GPT-2.

    Hendrycks & Gimpel 2016, sec. 2.   Keeps x and P.
    dx = dy * (P + x dP),   dP = 2 P (1 - P) du,   du = sqrt(2/pi) (1 + 3 * 0.044715 x^2),
    where dP and du are derivatives with respect to x, and 1 - tanh^2 u = 4 P (1 - P).
    """
    xp = array_module(x)
    c = xp.clip(x, -10, 10)  # beyond, P is exactly 0 or 1, and x^3 could overflow
    P = (1 + xp.tanh(SQRT_2_OVER_PI * (c + GELU_CUBIC * c * c * c))) / 2

    def backward(dy: Array) -> Array:
        du = SQRT_2_OVER_PI * (1 + 3 * GELU_CUBIC * c * c)
        dP = 2 * P * (1 - P) * du
        return dy * (P + x * dP)

    return x * P, backward


@expects("x (..., N)", hot=True)
@in_float32
def silu(x: Array) -> tuple[Array, Backward]:
    """y = x s,   s = sigmoid(x) = 1 / (1 + exp(-x)).

    SiLU, Elfwing et al. 2018; Swish, Ramachandran et al. 2017.   Keeps y and s.
    dx = dy * (s + y (1 - s)),   since ds/dx = s (1 - s).
    """
    s = sigmoid(x)
    y = x * s

    def backward(dy: Array) -> Array:
        return dy * (s + y * (1 - s))

    return y, backward


@expects("z (..., N), u (..., N); alpha > 0, limit > 0", hot=True)
@in_float32
def clamped_swiglu(
    z: Array, u: Array, *, alpha: float = 1.702, limit: float = 7.0
) -> tuple[Array, Backward]:
    """y = a s (v + 1),   s = sigmoid(alpha a),   a = min(z, limit),   v = clip(u, -limit, limit).

    OpenAI 2025, sec. 2.2: SwiGLU, clamped, with a residual.
    z, u (..., N) -> y (..., N).   Keeps z, u, a, s and v.
    dv = dy a s,   da = dy (v + 1) (s + alpha a s (1 - s));   dz = da where z <= limit, du = dv
    where |u| <= limit, else 0.   backward returns (dz, du).   ValueError for different shapes.
    """
    if z.shape != u.shape:
        raise wrong("clamped_swiglu: u", f"the shape of z, {z.shape}", u)
    xp = array_module(z)
    a, v = xp.minimum(z, limit), xp.clip(u, -limit, limit)
    s = sigmoid(alpha * a)

    def backward(dy: Array) -> tuple[Array, Array]:
        da = dy * (v + 1) * (s + alpha * a * s * (1 - s))
        return da * (z <= limit), dy * a * s * (xp.abs(u) <= limit)

    return a * s * (v + 1), backward


@expects("z (...)")
@in_float32
def log_sigmoid(z: Array) -> tuple[Array, Backward]:
    """y = log sigmoid(z) = min(z, 0) - log(1 + exp(-|z|)): no exponential overflows.

    z (...) -> y (...).   Keeps z and y.
    dz = dy sigmoid(-z),   and sigmoid(-z) = exp(y - z), since log sigmoid(-z) = y - z.
    """
    xp = array_module(z)
    y = xp.minimum(z, 0) - xp.log1p(xp.exp(-xp.abs(z)))

    def backward(dy: Array) -> Array:
        return dy * xp.exp(y - z)

    return y, backward


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), as (1 + tanh(x / 2)) / 2, which does not overflow."""
    return (1 + array_module(x).tanh(x / 2)) / 2


def activated(caller: str, activation: Component, x: Array) -> tuple[Array, Backward]:
    """activation(x); ValueError for a function that is no component, such as np.tanh.

    Without the check, an array of length two would be unpacked as (y, backward).
    """
    result: Any = activation(x)
    if type(result) is not tuple or len(result) != 2 or not callable(result[1]):
        raise wrong(f"{caller}: activation", "a component, which returns (y, backward)", activation)
    return result
