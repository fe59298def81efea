"""Tasks of encoders: the heads on the hidden states, each named as transformers' class.

A family's TASKS is {name: Task}, with some of the names

    masked_lm, permutation_lm (XLNet)
    pretraining (masked_lm and next sentence or sentence order), next_sentence
    sequence_classification, multiple_choice, token_classification, question_answering
    pooled (the hub's pooler alone), body (no head)

The outputs of a model are "hidden" (B, T, D) and its head's:

    logits         (B, T, V) of a language model, (B, labels) of sequences, (B, T, labels) of
                   tokens, (B, choices)
    pair_logits    (B, 2) with a language model: next sentence or sentence order
    start_logits, end_logits  (B, T) of answers
    pooled         (B, D)

First the losses, shapes and heads, then the makers with which a family writes its table.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ..core import Tree, named
from ..kernels.activation import ACTIVATIONS
from ..layers.dropout import dropout
from ..layers.heads import classifier, dense_classifier, lm_transform, pooler, span_head
from ..losses.cross_entropy import cross_entropy
from ..losses.regression import binary_cross_entropy, mean_squared_error


class Task(NamedTuple):
    """One row of the table.

    architecture    transformers' class
    shapes          shapes(config): the tree of shapes of params["head"]
    language_model  component (p_head, hidden, *, config) -> h (..., E), position by position, as
                    wide as the embedding table, of which encoder_heads makes the logits
                    h W + b; None: no vocabulary
    outputs         component (p_head, hidden, *, config, key) -> {name: array} of all other
                    outputs; None: there are none

    Their backwards take {name: gradient}, in which a missing or None part is zero, and may give
    partial trees of p_head.
    """

    architecture: str
    shapes: Callable[[Any], dict]
    language_model: Callable | None = None
    outputs: Callable | None = None


def loss_of(targets: Any, config: Any) -> Callable:
    """The loss of an output other than a language model's, chosen by its targets.

    Class numbers (integers): cross-entropy.  Rows (B, labels) of floats: squared error if there is
    one label or problem_type says so, else binary cross-entropy.
    """
    if targets.dtype.kind in "iu":
        return cross_entropy
    regression = config.num_labels == 1 or config.problem_type == "regression"
    return mean_squared_error if regression else binary_cross_entropy


def dense(n_in: int, n_out: int) -> dict:
    """The shapes of a linear layer with bias."""
    return {"W": (n_in, n_out), "b": (n_out,)}


def norm_shapes(width: int) -> dict:
    return {"gamma": (width,), "beta": (width,)}


def block_shapes(width: int, inner: int) -> dict:
    """Of a block of attention and a feed-forward layer (see layers.block) with all its biases."""
    shapes = {"W": (width, width), "b": (width,)}
    attention = {f"{kind}{name}": shapes[kind] for name in "qkvo" for kind in "Wb"}
    mlp = {"W1": (width, inner), "b1": (inner,), "W2": (inner, width), "b2": (width,)}
    norm1, norm2 = norm_shapes(width), norm_shapes(width)
    return {"attention": attention, "norm1": norm1, "mlp": mlp, "norm2": norm2}


def lm_shapes(width: int, vocabulary: int, inner: int | None = None) -> dict:
    """Of a masked-LM head whose output matrix is the embedding table (vocabulary, inner)."""
    inner = width if inner is None else inner
    return {"transform": {**dense(width, inner), **norm_shapes(inner)}, "bias": (vocabulary,)}


def pooled_shapes(width: int, **parts: int) -> dict:
    """Of a pooler, and of linear layers on it with so many outputs."""
    layers = {name: dense(width, outputs) for name, outputs in parts.items()}
    return {"pooler": dense(width, width), **layers}


Outputs = tuple[dict[str, Any], Callable]


def lm_head(
    p: Tree, hidden: Any, *, config: Any, activation: Callable | None = None
) -> tuple[Any, Callable]:
    """lm_transform with the config's layer_norm_eps and hidden_act, or another activation.

    p = {"transform", ...}.
    """
    activation = ACTIVATIONS[config.hidden_act] if activation is None else activation
    transform = named("head.transform", lm_transform)
    h, back = transform(p["transform"], hidden, activation=activation, eps=config.layer_norm_eps)

    def backward(dh):
        dtransform, dhidden = back(dh)
        return {"transform": dtransform}, dhidden

    return h, backward


def pooled_head(
    p: Tree,
    hidden: Any,
    *,
    key: Any = None,
    rate: float = 0.0,
    part: str = "classifier",
    name: str = "logits",
    **pooling: Any,
) -> Outputs:
    """{name: classifier(dropout(pooler(hidden)))} (B, N).

    p = {"pooler", part, ...}; pooling: activation and place, see layers.heads.pooler.
    """
    pooled, pooler_back = pooler(p["pooler"], hidden, **pooling)
    logits, back = classifier(p[part], pooled, rate=rate, key=key)

    def backward(doutputs):
        dpart, dpooled = back(doutputs[name])
        dpooler, dhidden = pooler_back(dpooled)
        return {"pooler": dpooler, part: dpart}, dhidden

    return {name: logits}, backward


def token_head(p: Tree, hidden: Any, *, key: Any = None, rate: float = 0.0) -> Outputs:
    """{"logits": classifier(dropout(hidden))} (B, T, N); p = {"tokens"}."""
    logits, back = classifier(p["tokens"], hidden, rate=rate, key=key)

    def backward(doutputs):
        dtokens, dhidden = back(doutputs["logits"])
        return {"tokens": dtokens}, dhidden

    return {"logits": logits}, backward


def answer_head(p: Tree, hidden: Any) -> Outputs:
    """{"start_logits", "end_logits"} (B, T); p = {"span"}."""
    outputs, back = span_head(p["span"], hidden)

    def backward(doutputs):
        dspan, dhidden = back(doutputs)
        return {"span": dspan}, dhidden

    return outputs, backward


def bare_pooler(p: Tree, hidden: Any, **pooling: Any) -> Outputs:
    """{"pooled": pooler(hidden)} (B, D); p = {"pooler"}."""
    pooled, back = pooler(p["pooler"], hidden, **pooling)

    def backward(doutputs):
        dpooler, dhidden = back(doutputs["pooled"])
        return {"pooler": dpooler}, dhidden

    return {"pooled": pooled}, backward


# ------------------------------------------------------------------------- makers of the table

Number = Callable[[Any], float]  # of a config, such as a dropout rate


def zero(config: Any) -> float:
    return 0.0


def num_labels(config: Any) -> int:
    return config.num_labels


def masked_lm(prefix: str, *, width: str = "hidden_size", activation: Any = None) -> Task:
    """`lm_head`; `width`: the field with the width of the table of tokens."""

    def shapes(config):
        return lm_shapes(config.hidden_size, config.vocab_size, getattr(config, width))

    return Task(f"{prefix}ForMaskedLM", shapes, partial(lm_head, activation=activation))


def bare_lm(architecture: str) -> Task:
    """A language model with logits = hidden tokens^T + bias: nothing precedes the output matrix."""

    def shapes(config):
        return {"bias": (config.vocab_size,)}

    return Task(architecture, shapes, lambda p, h, *, config: (h, lambda dh: (None, dh)))


def pooled(
    architecture: str,
    *,
    outputs: Callable[[Any], int],
    rate: Number = zero,
    pooling: Callable[[Any], dict] = lambda config: {},
    part: str = "classifier",
    name: str = "logits",
) -> Task:
    """`pooled_head` with outputs(config) numbers, dropout rate(config), and pooling(config)."""

    def shapes(config):
        return pooled_shapes(config.hidden_size, **{part: outputs(config)})

    def head(p, hidden, *, config, key):
        options = {"rate": rate(config), "part": part, "name": name, **pooling(config)}
        return pooled_head(p, hidden, key=key, **options)

    return Task(architecture, shapes, None, head)


def classes(prefix: str, **options: Any) -> Task:
    """Classes of sequences by the pooler; options: rate and pooling, see `pooled`."""
    return pooled(f"{prefix}ForSequenceClassification", outputs=num_labels, **options)


def choices(prefix: str, **options: Any) -> Task:
    """One number a choice by the pooler; options: as in `classes`."""
    return pooled(f"{prefix}ForMultipleChoice", outputs=lambda config: 1, **options)


def dense_classes(prefix: str, *, rate: Number = zero) -> Task:
    """`dense_classifier` of the first state, with dropout rate(config)."""

    def shapes(config):
        D = config.hidden_size
        return {"dense": dense(D, D), "out": dense(D, config.num_labels)}

    def head(p, hidden, *, config, key):
        logits, back = dense_classifier(p, hidden, rate=rate(config), key=key)
        return {"logits": logits}, lambda doutputs: back(doutputs["logits"])

    return Task(f"{prefix}ForSequenceClassification", shapes, None, head)


def next_sentence(prefix: str) -> Task:
    architecture = f"{prefix}ForNextSentencePrediction"
    return pooled(architecture, outputs=lambda config: 2, part="pair")


def pretraining(
    prefix: str, lm: Task, *, outputs: Callable[[Any], int], rate: Number = zero
) -> Task:
    """A masked LM, and classes of pairs of sentences by the pooler, the output "pair_logits"."""
    pair = pooled("", outputs=outputs, rate=rate, part="pair", name="pair_logits")

    def shapes(config):
        return lm.shapes(config) | pair.shapes(config)

    return Task(f"{prefix}ForPreTraining", shapes, lm.language_model, pair.outputs)


def tokens(prefix: str, *, rate: Number = zero) -> Task:
    """`token_head` with dropout rate(config)."""

    def shapes(config):
        return {"tokens": dense(config.hidden_size, config.num_labels)}

    def head(p, hidden, *, config, key):
        return token_head(p, hidden, rate=rate(config), key=key)

    return Task(f"{prefix}ForTokenClassification", shapes, None, head)


def answers(prefix: str, *, rate: Number = zero, suffix: str = "") -> Task:
    """`answer_head` of dropout(hidden), with rate(config)."""

    def shapes(config):
        return {"span": dense(config.hidden_size, 2)}

    def head(p, hidden, *, config, key):
        dropped, drop_back = dropout(hidden, rate=rate(config), key=key)
        outputs, back = answer_head(p, dropped)

        def backward(doutputs):
            dp, ddropped = back(doutputs)
            return dp, drop_back(ddropped)

        return outputs, backward

    return Task(f"{prefix}ForQuestionAnswering{suffix}", shapes, None, head)


def only_pooler(prefix: str) -> Task:
    """`bare_pooler`, which the hub counts to the body."""

    def shapes(config):
        return pooled_shapes(config.hidden_size)

    return Task(f"{prefix}Model", shapes, None, lambda p, h, *, config, key: bare_pooler(p, h))


def no_head(prefix: str) -> Task:
    return Task(f"{prefix}Model", lambda config: {})


def heads(prefix: str, *, rate: Number) -> dict[str, Task]:
    """BERT's tasks other than those of pretraining, with one dropout rate for all classifiers."""
    return {
        "sequence_classification": classes(prefix, rate=rate),
        "multiple_choice": choices(prefix, rate=rate),
        "token_classification": tokens(prefix, rate=rate),
        "question_answering": answers(prefix),
        "pooled": only_pooler(prefix),
        "body": no_head(prefix),
    }
