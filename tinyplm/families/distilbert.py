"""DistilBERT (Sanh et al. 2019): as BERT with half of the layers, no segments and no pooler; names of its own for everything.

    x_0     = norm(tokens[ids] + positions[t])        (+ dropout)
    x_{i+1} = block(x_i):   x = norm1(x + attention(x));   x = norm2(x + mlp(x))
    hidden  = x_L

It learns from BERT's logits and hidden states, which is the loss's matter and not the model's.  Classes of a sequence and choices
come from relu(hidden_0 W + b); dropout is behind the feed-forward layer and not behind attention; an answer's head has dropout.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..backend import array_module
from ..core import StackOptions, on_tree, stack
from ..kernels.activation import ACTIVATIONS, relu
from ..kernels.attention import self_attention
from ..kernels.mlp import mlp
from ..layers.block import block, post_norm
from ..layers.dropout import dropout
from ..layers.embedding import embedding
from ..layers.mask import encoder_mask
from ..layers.norm import layernorm
from ..layers.position import learned_positions, sinusoidal_table
from ..models import encoder
from ..models.config import LABELS, check_encoder, check_heads, check_known, label_count
from ..models.names import Rename, linear, linears, weight_and_bias
from ..models.tasks import (
    Task,
    answer_head,
    block_shapes,
    dense,
    lm_head,
    lm_shapes,
    norm_shapes,
    pooled_head,
    pooled_shapes,
    token_head,
)
from ..random import fold


@dataclasses.dataclass(frozen=True)
class Config:
    """The fields of DistilBERT's config.json that say what is computed; `source` keeps the others."""

    MODEL_TYPE: ClassVar[str] = "distilbert"
    ALIASES: ClassVar[dict[str, str]] = {"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"}
    OLD: ClassVar[tuple[str, ...]] = LABELS

    vocab_size: int = 30522
    max_position_embeddings: int = 512
    sinusoidal_pos_embds: bool = False  # how the table of positions begins; it is trained all the same
    n_layers: int = 6
    n_heads: int = 12
    dim: int = 768
    hidden_dim: int = 3072
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation: str = "gelu"
    initializer_range: float = 0.02
    qa_dropout: float = 0.1
    seq_classif_dropout: float = 0.2
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    id2label: dict | None = None
    label2id: dict | None = None
    problem_type: str | None = None
    source: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_encoder(self, rates=("dropout", "attention_dropout", "qa_dropout", "seq_classif_dropout"),
                      sizes=("vocab_size", "max_position_embeddings", "n_layers", "n_heads", "dim", "hidden_dim"),
                      tie_word_embeddings=(True,))  # fmt: skip
        check_known(self, "activation", ACTIVATIONS)
        check_heads(self, "dim", "n_heads")

    @property
    def context(self) -> int:
        return self.max_position_embeddings

    @property
    def num_labels(self) -> int:
        return label_count(self)

    # What its config.json calls otherwise or leaves out, under BERT's names, for the heads that all share.

    @property
    def hidden_act(self) -> str:
        return self.activation

    @property
    def layer_norm_eps(self) -> float:
        return 1e-12


INPUTS = ()

# Sanh et al. 2019, sec. 3; the vocabularies are those of the released weights.
SIZES = {
    "distilbert-base-uncased": Config(),
    "distilbert-base-cased": Config(vocab_size=28996),
    "distilbert-base-multilingual-cased": Config(vocab_size=119547),
}


def _classes(p, hidden, *, config, key):
    return pooled_head(p, hidden, rate=config.seq_classif_dropout, key=key, activation=relu)


def _answer(p, hidden, *, config, key):
    dropped, drop_back = dropout(hidden, rate=config.qa_dropout, key=key)
    outputs, back = answer_head(p, dropped)

    def backward(doutputs):
        dp, dx = back(doutputs)
        return dp, drop_back(dx)

    return outputs, backward


TASKS = {
    "masked_lm": Task("DistilBertForMaskedLM", lambda c: lm_shapes(c.dim, c.vocab_size), lm_head),
    "sequence_classification": Task("DistilBertForSequenceClassification",
                                    lambda c: pooled_shapes(c.dim, classifier=c.num_labels), None, _classes),
    "multiple_choice": Task("DistilBertForMultipleChoice", lambda c: pooled_shapes(c.dim, classifier=1), None, _classes),
    "token_classification": Task("DistilBertForTokenClassification", lambda c: {"tokens": dense(c.dim, c.num_labels)}, None,
                                 lambda p, h, *, config, key: token_head(p, h, rate=config.dropout, key=key)),
    "question_answering": Task("DistilBertForQuestionAnswering", lambda c: {"span": dense(c.dim, 2)}, None, _answer),
    "body": Task("DistilBertModel", lambda c: {}),
}  # fmt: skip


def shapes(config: Config, task: str = "masked_lm") -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    D = config.dim
    body = {"tokens": (config.vocab_size, D), "positions": (config.max_position_embeddings, D), "norm": norm_shapes(D),
            "layers": [block_shapes(D, config.hidden_dim)] * config.n_layers}  # fmt: skip
    return {"body": body, "head": TASKS[task].shapes(config)}


def init(path: str, shape: tuple[int, ...], *, config: Config, key: int) -> Any:
    """As encoder.init; with sinusoidal_pos_embds the positions begin as the sinusoids of Vaswani et al. 2017."""
    if path == "body.positions" and config.sinusoidal_pos_embds:
        return sinusoidal_table(*shape)
    return encoder.init(path, shape, config=config, key=key)


def body(
    p, inputs_embeds=None, *, config, input_ids=None, attention_mask=None, position_ids=None, key=None, stacking=StackOptions()
):
    """Hidden states of the last layer.

    p = params["body"]; input_ids (B, T), or inputs_embeds (B, T, D) in place of the look-up; attention_mask (B, T) of 0/1;
    position_ids (B, T) or (T,), 0 .. T-1 if not given; key (B,), one per sample, for dropout, None for none; stacking: see
    core.stack.
    -> hidden (B, T, D); backward gives (dp, dinputs_embeds), the latter None for input_ids.
    """
    x, tokens_back = embedding(p["tokens"], ids=input_ids) if inputs_embeds is None else (inputs_embeds, None)
    xp = array_module(x)
    T = x.shape[1]
    if position_ids is None:
        position_ids = xp.arange(T)
    mask = encoder_mask(T, attention_mask, xp=xp)
    norm = partial(on_tree(layernorm, "gamma", "beta"), eps=config.layer_norm_eps)

    def layer(p, x, *, key):
        def attention(p, x):
            return self_attention(p, x, heads=config.n_heads, mask=mask, rate=config.attention_dropout, key=fold(key, 0))

        def feed_forward(p, x):
            y, back = mlp(p, x, activation=ACTIVATIONS[config.activation])
            y, drop_back = dropout(y, rate=config.dropout, key=fold(key, 1))
            return y, lambda dy: back(drop_back(dy))

        return block(p, x, residual=post_norm, norm=norm, attention=attention, mlp=feed_forward)

    x, positions_back = learned_positions(x, p["positions"], positions=position_ids)
    x, norm_back = norm(p["norm"], x)
    x, drop_back = dropout(x, rate=config.dropout, key=fold(key, config.n_layers))
    hidden, stack_back = stack(layer, p["layers"], x, each=lambda i: {"key": fold(key, i)}, options=stacking)

    def backward(dhidden):
        dlayers, dx = stack_back(dhidden)
        dnorm, dx = norm_back(drop_back(dx))
        dx, dpositions = positions_back(dx)
        dp = {"positions": dpositions, "norm": dnorm, "layers": dlayers}
        return (dp, dx) if tokens_back is None else ({"tokens": tokens_back(dx), **dp}, None)

    return hidden, backward


_LAYER, _HUB = "body.layers.{i}", "distilbert.transformer.layer.{i}"
NAMES = [
    Rename("distilbert.embeddings.word_embeddings.weight", "body.tokens"),
    Rename("distilbert.embeddings.position_embeddings.weight", "body.positions"),
    *weight_and_bias("distilbert.embeddings.LayerNorm", "body.norm.gamma", "body.norm.beta"),
    *linears(f"{_HUB}.attention", f"{_LAYER}.attention", q_lin="q", k_lin="k", v_lin="v", out_lin="o"),
    *weight_and_bias(f"{_HUB}.sa_layer_norm", f"{_LAYER}.norm1.gamma", f"{_LAYER}.norm1.beta"),
    *linears(f"{_HUB}.ffn", f"{_LAYER}.mlp", lin1="1", lin2="2"),
    *weight_and_bias(f"{_HUB}.output_layer_norm", f"{_LAYER}.norm2.gamma", f"{_LAYER}.norm2.beta"),
    *linear("vocab_transform", "head.transform"),
    *weight_and_bias("vocab_layer_norm", "head.transform.gamma", "head.transform.beta"),
    Rename("vocab_projector.bias", "head.bias"),
    *linear("pre_classifier", "head.pooler"),
    *linear("classifier", "head.classifier"),
    *linear("classifier", "head.tokens"),
    *linear("qa_outputs", "head.span"),
]
PREFIX = "distilbert."  # a file of the bare body lacks it
IGNORED = (r"embeddings\.position_ids$",)  # a buffer of older files
TIED = {"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"}
