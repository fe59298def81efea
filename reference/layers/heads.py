"""Heads: logits of classes and of answer spans, and the transform before a vocabulary's logits."""

from collections.abc import Callable

import numpy as np

from reference.layers.activation import tanh
from reference.layers.dropout import dropout
from reference.layers.linear import linear
from reference.layers.norm import layernorm
from reference.scalar import numbers, zeros


def lm_transform(p: dict, x: np.ndarray, *, activation: Callable, eps: float) -> np.ndarray:
    """h = layernorm(activation(x W + b)): the step before a masked language model's output matrix.

    p: W (D, E), b (E,), gamma (E,), beta (E,); x (..., D) -> h (..., E).
    BERT's released code, 2018.
    """
    return layernorm(activation(linear(x, p["W"], p["b"])), p["gamma"], p["beta"], eps=eps)


def pooler(p: dict, x: np.ndarray, *, activation: Callable = tanh, place: int = 0) -> np.ndarray:
    """y = activation(x_place W + b): one token, the first, represents the whole sequence.

    p: W (D, F), b (F,); x (B, T, D) -> y (B, F).  place: the token's position, -1 for the last.
    Devlin et al. 2019, sec. 3.
    """
    x = numbers(x)
    chosen = zeros((x.shape[0], x.shape[2]), like=x)
    for b in range(x.shape[0]):
        for d in range(x.shape[2]):
            chosen[b, d] = x[b, place, d]
    return activation(linear(chosen, p["W"], p["b"]))


def classifier(
    p: dict, x: np.ndarray, *, rate: float = 0.0, key: np.ndarray | None = None
) -> np.ndarray:
    """logits[..., n] = sum_d z[..., d] W[d, n] + b[n],   z = dropout(x).

    p: W (D, N), b (N,); x (B, ..., D) -> logits (B, ..., N).  key (B,); None: no dropout.
    Devlin et al. 2019, sec. 4.1.
    """
    return linear(dropout(x, rate=rate, key=key), p["W"], p["b"])


def dense_classifier(
    p: dict, x: np.ndarray, *, rate: float, key: tuple | None = None
) -> np.ndarray:
    """logits = dropout(tanh(dropout(x_0) W + b)) V + c.

    p["dense"]: W, b; p["out"]: V, c.  x (B, T, D) -> logits (B, N).  key: the keys of the first and
    second dropout, (B,) each; None: no dropout.  RoBERTa's released code.
    """
    x = numbers(x)
    first, second = (None, None) if key is None else key
    z = dropout(x[:, :1], rate=rate, key=first)
    return classifier(p["out"], pooler(p["dense"], z), rate=rate, key=second)


def span_head(p: dict, x: np.ndarray) -> dict[str, np.ndarray]:
    """start_t = S x_t + s,   end_t = E x_t + e: the scores of an answer's first and last token.

    p: W (D, 2) with columns S and E, b (2,) = (s, e);
    x (B, T, D) -> {"start_logits", "end_logits"} (B, T).
    Devlin et al. 2019, sec. 4.2; s and e are only in its released code.
    """
    x = numbers(x)
    scores = {}
    for column, name in enumerate(("start_logits", "end_logits")):
        scores[name] = zeros(x.shape[:2], like=(p["W"], p["b"], x))
        for b, t in np.ndindex(x.shape[:2]):
            total = p["b"][column]
            for d in range(x.shape[2]):
                total += p["W"][d, column] * x[b, t, d]
            scores[name][b, t] = total
    return scores
