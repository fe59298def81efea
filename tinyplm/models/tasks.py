"""Tasks of encoders: what stands on the hidden states, under the name of transformers' class.

A family's TASKS is {name: Task}, with some of the names

    masked_lm  pretraining (masked_lm and next sentence or sentence order)  next_sentence  sequence_classification
    token_classification  question_answering  multiple_choice  pooled (the hub's pooler alone)  body (no head)

and XLNet's permutation_lm.  The outputs of a model are "hidden" (B, T, D) and its head's:

    logits         (B, T, V) of a language model, (B, labels) of sequences, (B, T, labels) of tokens, (B, choices)
    pair_logits    (B, 2) beside a language model: next sentence or sentence order
    start_logits, end_logits  (B, T) of answers                             pooled  (B, D)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..kernels.activation import ACTIVATIONS
from ..layers.heads import classifier, lm_transform, pooler, span_head
from ..losses.cross_entropy import cross_entropy
from ..losses.regression import binary_cross_entropy, mean_squared_error


class Task(NamedTuple):
    """architecture    transformers' class
    shapes          shapes(config): the tree of shapes of params["head"]
    language_model  component (p_head, hidden, *, config) -> h (..., E), position by position, as wide as the embedding table;
                    models.encoder_task makes the logits h W + b of it.  None: no vocabulary
    outputs         component (p_head, hidden, *, config, key) -> {name: array} of all other outputs; None: there are none
    Their backwards take {name: gradient}, in which a missing or None part is zero, and may give partial trees of p_head.
    """

    architecture: str
    shapes: Callable[[Any], dict]
    language_model: Callable | None = None
    outputs: Callable | None = None


def loss_of(targets, config) -> Callable:
    """The loss of an output other than a language model's, by its targets: cross-entropy for class numbers (integers).

    For rows (B, labels) of floats binary cross-entropy, each a probability; squared error, each a number, if there is one label
    or problem_type says so.
    """
    if targets.dtype.kind in "iu":
        return cross_entropy
    return mean_squared_error if config.num_labels == 1 or config.problem_type == "regression" else binary_cross_entropy


def dense(n_in: int, n_out: int) -> dict:
    """The shapes of a linear layer with bias."""
    return {"W": (n_in, n_out), "b": (n_out,)}


def norm_shapes(width: int) -> dict:
    return {"gamma": (width,), "beta": (width,)}


def block_shapes(width: int, inner: int) -> dict:
    """Of a block of attention and a feed-forward layer (see layers.block) with all its biases."""
    attention = {f"{kind}{name}": (width, width) if kind == "W" else (width,) for name in "qkvo" for kind in "Wb"}
    mlp = {"W1": (width, inner), "b1": (inner,), "W2": (inner, width), "b2": (width,)}
    return {"attention": attention, "norm1": norm_shapes(width), "mlp": mlp, "norm2": norm_shapes(width)}


def lm_shapes(width: int, vocabulary: int, inner: int | None = None) -> dict:
    """Of a masked-LM head whose output matrix is the embedding table (vocabulary, inner)."""
    inner = width if inner is None else inner
    return {"transform": {**dense(width, inner), **norm_shapes(inner)}, "bias": (vocabulary,)}


def pooled_shapes(width: int, **parts: int) -> dict:
    """Of a pooler, and of linear layers on it with so many outputs."""
    return {"pooler": dense(width, width), **{name: dense(width, outputs) for name, outputs in parts.items()}}


def lm_head(p, hidden, *, config, activation=None):
    """layers.heads.lm_transform by the config's layer_norm_eps and hidden_act, or another activation; p = {"transform", ...}."""
    activation = ACTIVATIONS[config.hidden_act] if activation is None else activation
    h, back = lm_transform(p["transform"], hidden, activation=activation, eps=config.layer_norm_eps)

    def backward(dh):
        dtransform, dhidden = back(dh)
        return {"transform": dtransform}, dhidden

    return h, backward


def pooled_head(p, hidden, *, key=None, rate=0.0, part="classifier", name="logits", **pooling):
    """{name: classifier(dropout(pooler(hidden)))} (B, N); p = {"pooler", part, ...}; pooling: see layers.heads.pooler."""
    pooled, pooler_back = pooler(p["pooler"], hidden, **pooling)
    logits, back = classifier(p[part], pooled, rate=rate, key=key)

    def backward(doutputs):
        dpart, dpooled = back(doutputs[name])
        dpooler, dhidden = pooler_back(dpooled)
        return {"pooler": dpooler, part: dpart}, dhidden

    return {name: logits}, backward


def token_head(p, hidden, *, key=None, rate=0.0):
    """{"logits": classifier(dropout(hidden))} (B, T, N); p = {"tokens"}."""
    logits, back = classifier(p["tokens"], hidden, rate=rate, key=key)

    def backward(doutputs):
        dtokens, dhidden = back(doutputs["logits"])
        return {"tokens": dtokens}, dhidden

    return {"logits": logits}, backward


def answer_head(p, hidden):
    """{"start_logits", "end_logits"} (B, T); p = {"span"}."""
    outputs, back = span_head(p["span"], hidden)

    def backward(doutputs):
        dspan, dhidden = back(doutputs)
        return {"span": dspan}, dhidden

    return outputs, backward


def bare_pooler(p, hidden, **pooling):
    """{"pooled": pooler(hidden)} (B, D); p = {"pooler"}."""
    pooled, back = pooler(p["pooler"], hidden, **pooling)

    def backward(doutputs):
        dpooler, dhidden = back(doutputs["pooled"])
        return {"pooler": dpooler}, dhidden

    return {"pooled": pooled}, backward
