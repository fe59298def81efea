"""Right and wrong RMSNorms and masked softmaxes in NumPy, for the checks of anybody's code.

WRONG[name] = (component, function, law that sees it, what the row's note says).
"""

from __future__ import annotations

import itertools

import numpy as np

calls = itertools.count()


def rmsnorm(x, gamma, *, eps=1e-6):
    r = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    xhat = x * r

    def backward(dy):
        g = dy * gamma
        dx = r * (g - xhat * (g * xhat).mean(-1, keepdims=True))
        return dx, (dy * xhat).reshape(-1, x.shape[-1]).sum(0)

    return (xhat * gamma).astype(x.dtype), backward


def softmax(x, *, mask=None):
    mask = np.ones(x.shape, bool) if mask is None else np.broadcast_to(mask, x.shape)
    top = np.where(mask, x, -np.inf).max(-1, keepdims=True)
    e = np.where(mask, np.exp(x - np.where(np.isfinite(top), top, 0)), 0)
    total = e.sum(-1, keepdims=True)
    p = e / np.where(total > 0, total, 1)
    return p, lambda dp: p * (dp - (dp * p).sum(-1, keepdims=True))


def changed(change, f=rmsnorm):
    """f, with change(gradients, dy) -> gradients."""

    def wrong(*args, **kwargs):
        y, back = f(*args, **kwargs)
        return y, lambda dy: change(back(dy), dy)

    return wrong


def missing_term(x, gamma, *, eps=1e-6):
    y, back = rmsnorm(x, gamma, eps=eps)
    r = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    return y, lambda dy: (r * dy * gamma, back(dy)[1])


def eps_outside(x, gamma, *, eps=1e-6):
    """Its gradient is right for its value, which is not ours."""
    size = np.sqrt((x * x).mean(-1, keepdims=True))
    r = 1 / (size + eps)

    def backward(dy):
        g = dy * gamma
        return r * (g - x * r * (g * x).mean(-1, keepdims=True) / size), (dy * x * r).reshape(-1, x.shape[-1]).sum(0)

    return x * r * gamma, backward


def writes_into_x(x, gamma, *, eps=1e-6):
    y, back = rmsnorm(x.copy(), gamma, eps=eps)
    x *= 2
    return y, back


def writes_into_dy(x, gamma, *, eps=1e-6):
    y, back = rmsnorm(x, gamma, eps=eps)

    def backward(dy):
        grads = back(dy.copy())
        dy *= gamma
        return grads

    return y, backward


def promotes(x, gamma, *, eps=1e-6):
    y, back = rmsnorm(x, gamma, eps=eps)
    return y * np.float64(1), back


def promotes_a_gradient(x, gamma, *, eps=1e-6):
    return changed(lambda g, dy: (g[0], g[1].astype(np.float64)))(x, gamma, eps=eps)


def other_shape(x, gamma, *, eps=1e-6):
    y, back = rmsnorm(x, gamma, eps=eps)
    return y.reshape(-1), lambda dy: back(dy.reshape(x.shape))


def naive(x, *, mask=None):
    """Overflows, though right for ordinary numbers."""
    mask = np.ones(x.shape, bool) if mask is None else np.broadcast_to(mask, x.shape)
    e = np.where(mask, np.exp(x), 0)
    total = e.sum(-1, keepdims=True)
    p = e / np.where(total > 0, total, 1)
    return p, lambda dp: p * (dp - (dp * p).sum(-1, keepdims=True))


def added_mask(x, *, mask=None):
    """Padding comes through when its score is large."""
    hidden = None if mask is None else np.broadcast_to(mask, x.shape)
    p, back = softmax(x if mask is None else x + np.where(mask, 0, -100).astype(x.dtype))
    if hidden is None:
        return p, back
    seen = hidden.any(-1, keepdims=True)  # empty rows are right
    return p * seen, lambda dp: back(dp * seen)


def uniform_when_empty(x, *, mask=None):
    p, back = softmax(x, mask=mask)
    if mask is None:
        return p, back
    empty = ~np.broadcast_to(mask, x.shape).any(-1, keepdims=True)
    return np.where(empty, 1 / x.shape[-1], p).astype(x.dtype), back


def padding_gets_a_gradient(x, *, mask=None):
    p, back = softmax(x, mask=mask)
    hidden = np.zeros(x.shape, bool) if mask is None else ~np.broadcast_to(mask, x.shape)
    return p, lambda dp: back(dp) + hidden * x.dtype.type(1e-3)


def layernorm(x, gamma, beta=None, *, eps=1e-5):
    """Sums in another order than ours."""
    D = x.shape[-1]
    xhat = x - x.sum(-1, keepdims=True) * (1 / D)
    r = 1 / np.sqrt((xhat * xhat).sum(-1, keepdims=True) * (1 / D) + eps)
    xhat = xhat * r

    def backward(dy):
        g = dy * gamma
        dx = (D * g - g.sum(-1, keepdims=True) - xhat * (g * xhat).sum(-1, keepdims=True)) * (r / D)
        return dx, (dy * xhat).reshape(-1, D).sum(0), None if beta is None else dy.reshape(-1, D).sum(0)

    return xhat * gamma if beta is None else xhat * gamma + beta, backward


ROWS = "rows with nothing to attend to"
WRONG = {
    "a missing term": ("rmsnorm", missing_term, "gradient of x", "case"),
    "one gradient 1% off": ("rmsnorm", changed(lambda g, dy: (g[0], g[1] * 1.01)), "gradient of gamma", "case"),
    "one gradient 1e-13 off": ("rmsnorm", changed(lambda g, dy: (g[0] * (1 + 1e-13), g[1])), "gradient of x", "case"),
    "eps outside the root": ("rmsnorm", eps_outside, "value", "eps=0.1"),
    "writes into x": ("rmsnorm", writes_into_x, "inputs untouched", "x changes"),
    "writes into dy": ("rmsnorm", writes_into_dy, "dy untouched", "case"),
    "promotes the value": ("rmsnorm", promotes, "dtypes", "value is float64, expected float32"),
    "promotes a gradient": ("rmsnorm", promotes_a_gradient, "dtypes", "gradient of gamma is float64, expected float32"),
    "another shape": ("rmsnorm", other_shape, "value", "shape ("),
    "a gradient of another shape": ("rmsnorm", changed(lambda g, dy: (g[0], g[1][None])), "gradient of gamma", "shape (1, "),
    "no gradient": ("rmsnorm", changed(lambda g, dy: (g[0], None)), "gradient of gamma", "there is none"),
    "not linear": ("rmsnorm", changed(lambda g, dy: (g[0], g[1] * (1 + abs(dy).max()))), "linear in dy", "gradient of gamma"),
    "not repeatable": ("rmsnorm", changed(lambda g, dy: (g[0], g[1] * (1 + 3e-16 * (next(calls) % 3)))), "repeatable", "case"),
    "overflows": ("softmax", naive, "finite for large values", "value of arguments times 10000"),
    "padding comes through": ("softmax", added_mask, "padding without influence", "the value changes"),
    "padding gets a gradient": ("softmax", padding_gets_a_gradient, "padding without influence", "gradient of x"),
    "uniform where nothing is seen": ("softmax", uniform_when_empty, ROWS, "value"),
}  # fmt: skip
