"""Heads: from hidden states to classes, to the ends of a span, to what meets the output matrix."""

from __future__ import annotations

from ..arguments import wrong
from ..backend import array_module
from ..core import Array, Backward, Component, Tree
from ..random import fold
from ..shapes import expects
from .activation import activated, tanh
from .dropout import dropout
from .linear import linear
from .norm import layernorm


@expects("p {W b gamma beta}, x (..., D); eps >= 0, function activation")
def lm_transform(p: Tree, x: Array, *, activation: Component, eps: float) -> tuple[Array, Backward]:
    """y = layernorm(a),   a = activation(h),   h = x W + b: the masked-LM head before its matrix.

    BERT's released code, 2018.   p: W (D, N), b, gamma and beta (N,), N the width of the embedding
    table; x (..., D) -> y (..., N).
    da from the norm,   dh = da * activation'(h),   dW = x^T dh,   db = sum dh,   dx = dh W^T.
    backward returns (dp, dx).
    """
    h, h_back = linear(x, p["W"], p["b"])
    a, a_back = activated("lm_transform", activation, h)
    y, y_back = layernorm(a, p["gamma"], p["beta"], eps=eps)

    def backward(dy: Array) -> tuple[Tree, Array]:
        da, dgamma, dbeta = y_back(dy)
        dx, dW, db = h_back(a_back(da))
        return {"W": dW, "b": db, "gamma": dgamma, "beta": dbeta}, dx

    return y, backward


@expects("p {W b}, x (B, T, D); whole place, function activation")
def pooler(
    p: Tree, x: Array, *, activation: Component = tanh, place: int = 0
) -> tuple[Array, Backward]:
    """y = activation(h),   h = x_place W + b: one vector for a sequence.

    Devlin et al. 2019, sec. 3.1.
    p: W (D, N), b (N,); x (B, T, D) -> y (B, N).   place: 0 for [CLS], -1 for the last token.
    dh = dy * activation'(h),   dW = x_place^T dh,   db = sum dh,   dx_place = dh W^T, all other dx
    are 0.   backward returns (dp, dx).
    """
    if not -x.shape[1] <= place < x.shape[1]:
        raise wrong("pooler: place", f"a place in a sequence of {x.shape[1]}", place)
    h, h_back = linear(x[:, place], p["W"], p["b"])
    y, y_back = activated("pooler", activation, h)

    def backward(dy: Array) -> tuple[Tree, Array]:
        dx_place, dW, db = h_back(y_back(dy))
        dx = array_module(x).zeros_like(x)
        dx[:, place] = dx_place
        return {"W": dW, "b": db}, dx

    return y, backward


@expects("p {W b}, x (B, ..., D), key (B,) keys or None; 0 <= rate < 1")
def classifier(
    p: Tree, x: Array, *, rate: float = 0.0, key: Array | None = None
) -> tuple[Array, Backward]:
    """logits = dropout(x) W + b.                                        Devlin et al. 2019, sec. 4

    p: W (D, N), b (N,); x (B, ..., D) -> logits (B, ..., N).   key (B,) or None.
    With h = dropout(x):   dW = h^T dlogits,   db = sum dlogits,   dh = dlogits W^T, and dx is dh
    taken back through the dropout.   backward returns (dp, dx).
    """
    h, drop_back = dropout(x, rate=rate, key=key)
    logits, linear_back = linear(h, p["W"], p["b"])

    def backward(dlogits: Array) -> tuple[Tree, Array]:
        dh, dW, db = linear_back(dlogits)
        return {"W": dW, "b": db}, drop_back(dh)

    return logits, backward


@expects("p {dense out}, x (B, T, D), key (B,) keys or None; 0 <= rate < 1")
def dense_classifier(
    p: Tree, x: Array, *, rate: float = 0.0, key: Array | None = None
) -> tuple[Array, Backward]:
    """logits = classifier(p["out"], h),   h = pooler(p["dense"], dropout(x_0)), as in RoBERTa.

    Its released code: tanh in the pooler, a dropout before each matrix.
    p: {"dense": W (D, D), b (D,); "out": W (D, N), b (N,)}; x (B, T, D) -> logits (B, N).
    key (B,) or None.   backward returns (dp, dx), by the chain of the parts; dx is 0 after the
    first token.
    """
    first, drop_back = dropout(x[:, :1], rate=rate, key=fold(key, 0))
    h, pooler_back = pooler(p["dense"], first)
    logits, classifier_back = classifier(p["out"], h, rate=rate, key=fold(key, 1))

    def backward(dlogits: Array) -> tuple[Tree, Array]:
        dout, dh = classifier_back(dlogits)
        ddense, dfirst = pooler_back(dh)
        dx = array_module(x).zeros_like(x)
        dx[:, :1] = drop_back(dfirst)
        return {"dense": ddense, "out": dout}, dx

    return logits, backward


@expects("p {W b}, x (B, T, D)")
def span_head(p: Tree, x: Array) -> tuple[dict[str, Array], Backward]:
    """start_logits = x W[:, 0] + b[0],   end_logits = x W[:, 1] + b[1].

    Devlin et al. 2019, sec. 4.2.
    p: W (D, 2), b (2,); x (B, T, D) -> {"start_logits", "end_logits"}, each (B, T).
    With dlogits (B, T, 2) the two gradients side by side, a missing one zero:   the gradients are
    those of `linear`.   backward returns (dp, dx).
    """
    logits, linear_back = linear(x, p["W"], p["b"])
    names = ("start_logits", "end_logits")

    def backward(doutputs: dict[str, Array | None]) -> tuple[Tree, Array]:
        dlogits = array_module(x).zeros_like(logits)
        for i, name in enumerate(names):
            if (d := doutputs.get(name)) is not None:
                dlogits[..., i] = d
        dx, dW, db = linear_back(dlogits)
        return {"W": dW, "b": db}, dx

    return {name: logits[..., i] for i, name in enumerate(names)}, backward
