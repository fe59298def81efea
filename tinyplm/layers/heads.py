"""Heads: from hidden states to classes of a sequence or its tokens, to the ends of a span, to what an output matrix
multiplies."""

from __future__ import annotations

from ..arguments import wrong
from ..backend import array_module
from ..random import fold
from ..shapes import expects
from .activation import activated, tanh
from .dropout import dropout
from .linear import linear
from .norm import layernorm


@expects("p {W b gamma beta}, x (..., D); eps >= 0, function activation")
def lm_transform(p, x, *, activation, eps):
    """h = layernorm(activation(x W + b)), what BERT's masked-LM head does before the output matrix.   Its released code, 2018

    p: W (D, E), b (E,), gamma and beta (E,); x (..., D) -> (..., E).  backward gives (dp, dx), by the chain of the three parts.
    """
    h, linear_back = linear(x, p["W"], p["b"])
    a, activation_back = activated("lm_transform", activation, h)
    y, norm_back = layernorm(a, p["gamma"], p["beta"], eps=eps)

    def backward(dy):
        da, dgamma, dbeta = norm_back(dy)
        dx, dW, db = linear_back(activation_back(da))
        return {"W": dW, "b": db, "gamma": dgamma, "beta": dbeta}, dx

    return y, backward


@expects("p {W b}, x (B, T, D); whole place, function activation")
def pooler(p, x, *, activation=tanh, place=0):
    """y = activation(x_place W + b): one vector for a sequence, from its first token [CLS].        Devlin et al. 2019, sec. 3.1

    p: W (D, F), b (F,); x (B, T, D) -> (B, F).  place: 0, or -1 for the last token.
    With dh the gradient of x_place W + b:   dW = x_place^T dh,   db = sum dh,   dx_place = dh W^T, and all other dx are 0.
    """
    if not -x.shape[1] <= place < x.shape[1]:
        raise wrong("pooler: place", f"a place in a sequence of {x.shape[1]}", place)
    h, linear_back = linear(x[:, place], p["W"], p["b"])
    y, activation_back = activated("pooler", activation, h)

    def backward(dy):
        dfirst, dW, db = linear_back(activation_back(dy))
        dx = array_module(x).zeros_like(x)
        dx[:, place] = dfirst
        return {"W": dW, "b": db}, dx

    return y, backward


@expects("p {W b}, x (B, ..., D), key (B,) keys or None; 0 <= rate < 1")
def classifier(p, x, *, rate=0.0, key=None):
    """logits = dropout(x) W + b.                                                               Devlin et al. 2019, sec. 4

    p: W (D, N), b (N,); x (B, ..., D) -> (B, ..., N).  key (B,) or None.   backward gives (dp, dx).
    """
    dropped, drop_back = dropout(x, rate=rate, key=key)
    logits, linear_back = linear(dropped, p["W"], p["b"])

    def backward(dlogits):
        dx, dW, db = linear_back(dlogits)
        return {"W": dW, "b": db}, drop_back(dx)

    return logits, backward


@expects("p {dense out}, x (B, T, D), key (B,) keys or None; 0 <= rate < 1")
def dense_classifier(p, x, *, rate=0.0, key=None):
    """logits = dropout(tanh(dropout(x_0) W + b)) V + c: a classifier with a pooler of its own, as in RoBERTa's released code.

    p: {"dense": W (D, D), b (D,); "out": W (D, N), b (N,)}; x (B, T, D) -> (B, N).  key (B,) or None.
    backward gives (dp, dx), by the chain of the parts; all dx but that of the first token are 0.
    """
    first, drop_back = dropout(x[:, :1], rate=rate, key=fold(key, 0))
    pooled, pooler_back = pooler(p["dense"], first)
    logits, classifier_back = classifier(p["out"], pooled, rate=rate, key=fold(key, 1))

    def backward(dlogits):
        dout, dpooled = classifier_back(dlogits)
        ddense, dfirst = pooler_back(dpooled)
        dx = array_module(x).zeros_like(x)
        dx[:, :1] = drop_back(dfirst)
        return {"dense": ddense, "out": dout}, dx

    return logits, backward


@expects("p {W b}, x (B, T, D)")
def span_head(p, x):
    """start_logits = x W[:, 0] + b[0],   end_logits = x W[:, 1] + b[1].                        Devlin et al. 2019, sec. 4.2

    p: W (D, 2), b (2,); x (B, T, D) -> {"start_logits", "end_logits"} (B, T).  backward gives (dp, dx); no gradient is zero.
    """
    logits, linear_back = linear(x, p["W"], p["b"])

    def backward(doutputs):
        dlogits = array_module(x).zeros_like(logits)
        for i, name in enumerate(("start_logits", "end_logits")):
            if doutputs.get(name) is not None:
                dlogits[..., i] = doutputs[name]
        dx, dW, db = linear_back(dlogits)
        return {"W": dW, "b": db}, dx

    return {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}, backward
