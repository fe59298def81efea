"""ALBERT (Lan et al. 2020): as BERT, except that the embeddings are narrower and layers share their parameters.

    e       = norm(tokens[ids] + segments[types] + positions[t])        of width E    (+ dropout)
    x_0     = e W + b                                                   of width D
    x_{i+1} = group_g(x_i), g the group of layer i: one or more blocks x = norm1(x + attention(x)); x = norm2(x + mlp(x))
    hidden  = x_L

Sec. 3.1: the embeddings are factorised, V E + E D numbers in place of V D; "layers" has one entry a group, the list of its blocks
(one in all released sizes), and a group's gradient is the sum over its layers.  Heads: the masked LM's transform goes back to
width E; sentence order (0: in order, 1: swapped).  Dropout is behind attention alone, as in transformers.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..backend import array_module
from ..core import StackOptions, on_tree, stack
from ..kernels.activation import ACTIVATIONS
from ..kernels.attention import self_attention
from ..kernels.mlp import mlp
from ..layers.block import block, post_norm
from ..layers.dropout import dropout
from ..layers.embedding import embedding
from ..layers.linear import linear as dense_layer
from ..layers.mask import encoder_mask
from ..layers.norm import layernorm
from ..layers.position import learned_positions
from ..models import encoder, tasks
from ..models.config import LABELS, check_encoder, check_heads, check_known, label_count
from ..models.names import Rename, linear, linears, weight_and_bias
from ..models.tasks import Task, dense
from ..random import fold


@dataclasses.dataclass(frozen=True)
class Config:
    """The fields of ALBERT's config.json that say what is computed; `source` keeps the others.  By default that of xxlarge."""

    MODEL_TYPE: ClassVar[str] = "albert"
    ALIASES: ClassVar[dict[str, str]] = {}
    OLD: ClassVar[tuple[str, ...]] = (*LABELS, "position_embedding_type")

    vocab_size: int = 30000
    embedding_size: int = 128
    hidden_size: int = 4096
    num_hidden_layers: int = 12
    num_hidden_groups: int = 1
    num_attention_heads: int = 64
    intermediate_size: int = 16384
    inner_group_num: int = 1
    hidden_act: str = "gelu_new"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    classifier_dropout_prob: float = 0.1
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    position_embedding_type: str | None = None
    id2label: dict | None = None
    label2id: dict | None = None
    problem_type: str | None = None
    source: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_encoder(self, rates=("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob"),
                      sizes=("vocab_size", "embedding_size", "hidden_size", "num_hidden_layers", "num_hidden_groups",
                             "num_attention_heads", "intermediate_size", "inner_group_num", "max_position_embeddings",
                             "type_vocab_size"),
                      tie_word_embeddings=(True,), position_embedding_type=(None, "absolute"))  # fmt: skip
        check_known(self, "hidden_act", ACTIVATIONS)
        check_heads(self, "hidden_size", "num_attention_heads")
        if self.num_hidden_groups > self.num_hidden_layers:
            raise ValueError(f"config: num_hidden_groups {self.num_hidden_groups} is more than {self.num_hidden_layers} layers")

    @property
    def context(self) -> int:
        return self.max_position_embeddings

    @property
    def num_labels(self) -> int:
        return label_count(self)


INPUTS = ("token_type_ids",)

# Lan et al. 2020, table 1; activation and dropout as in the released weights (version 2: trained longer, without dropout).
_SHAPES = {
    "base": {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    "xlarge": {"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 8192},
    "xxlarge": {},
}
_DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
SIZES = {f"albert-{name}-v2": Config(**shape) for name, shape in _SHAPES.items()} | {
    f"albert-{name}-v1": Config(**shape, hidden_act="gelu", **({} if name == "xxlarge" else _DROPOUT))
    for name, shape in _SHAPES.items()
}


def _classes(p, h, *, config, key, head=tasks.pooled_head, **names):
    return head(p, h, rate=config.classifier_dropout_prob, key=key, **names)


def _lm_shapes(c):
    return tasks.lm_shapes(c.hidden_size, c.vocab_size, c.embedding_size)


TASKS = {
    "masked_lm": Task("AlbertForMaskedLM", _lm_shapes, tasks.lm_head),
    "pretraining": Task("AlbertForPreTraining",
                        lambda c: _lm_shapes(c) | tasks.pooled_shapes(c.hidden_size, pair=c.num_labels),
                        tasks.lm_head, partial(_classes, part="pair", name="pair_logits")),
    "sequence_classification": Task("AlbertForSequenceClassification",
                                    lambda c: tasks.pooled_shapes(c.hidden_size, classifier=c.num_labels), None, _classes),
    "multiple_choice": Task("AlbertForMultipleChoice", lambda c: tasks.pooled_shapes(c.hidden_size, classifier=1), None,
                            _classes),
    "token_classification": Task("AlbertForTokenClassification", lambda c: {"tokens": dense(c.hidden_size, c.num_labels)}, None,
                                 partial(_classes, head=tasks.token_head)),
    "question_answering": Task("AlbertForQuestionAnswering", lambda c: {"span": dense(c.hidden_size, 2)}, None,
                               lambda p, h, *, config, key: tasks.answer_head(p, h)),
    "pooled": Task("AlbertModel", lambda c: tasks.pooled_shapes(c.hidden_size), None,
                   lambda p, h, *, config, key: tasks.bare_pooler(p, h)),
    "body": Task("AlbertModel", lambda c: {}),
}  # fmt: skip


def shapes(config: Config, task: str = "masked_lm") -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    E, D = config.embedding_size, config.hidden_size
    group = [tasks.block_shapes(D, config.intermediate_size)] * config.inner_group_num
    body = {"tokens": (config.vocab_size, E), "segments": (config.type_vocab_size, E),
            "positions": (config.max_position_embeddings, E), "norm": tasks.norm_shapes(E), "projection": dense(E, D),
            "layers": [group] * config.num_hidden_groups}  # fmt: skip
    return {"body": body, "head": TASKS[task].shapes(config)}


init = encoder.init


def body(p, inputs_embeds=None, *, config, input_ids=None, attention_mask=None, token_type_ids=None, position_ids=None, key=None,
         stacking=StackOptions()):  # fmt: skip
    """Hidden states of the last layer.

    p = params["body"]; input_ids (B, T), or inputs_embeds (B, T, E) in place of the look-up; attention_mask (B, T) of 0/1;
    token_type_ids (B, T), 0 if not given; position_ids (B, T) or (T,), 0 .. T-1 if not given; key (B,), one per sample, for
    dropout, None for none; stacking: see core.StackOptions, where ps are the groups.
    -> hidden (B, T, D); backward gives (dp, dinputs_embeds), the latter None for input_ids.
    """
    e, tokens_back = embedding(p["tokens"], ids=input_ids) if inputs_embeds is None else (inputs_embeds, None)
    xp = array_module(e)
    T = e.shape[1]
    positions = xp.arange(T) if position_ids is None else position_ids
    types = xp.zeros(e.shape[:2], dtype="int64") if token_type_ids is None else token_type_ids
    # The group of each layer, in runs.  In floats, as in transformers: where they are uneven, the rounding decides.
    groups = [int(i / (config.num_hidden_layers / config.num_hidden_groups)) for i in range(config.num_hidden_layers)]
    mask = encoder_mask(T, attention_mask, xp=xp)
    norm = partial(on_tree(layernorm, "gamma", "beta"), eps=config.layer_norm_eps)

    def layer(p, x, *, key):
        def attention(p, x):
            y, back = self_attention(p, x, heads=config.num_attention_heads, mask=mask,
                                           rate=config.attention_probs_dropout_prob, key=fold(key, 0))  # fmt: skip
            y, drop_back = dropout(y, rate=config.hidden_dropout_prob, key=fold(key, 1))
            return y, lambda dy: back(drop_back(dy))[:2]

        return block(p, x, residual=post_norm, norm=norm, attention=attention,
                     mlp=partial(mlp, activation=ACTIVATIONS[config.hidden_act]))  # fmt: skip

    def group(ps, x, *, key):
        return stack(layer, ps, x, each=lambda j: {"key": fold(key, j)})

    segments, segments_back = embedding(p["segments"], ids=types, name="token type id")
    e, positions_back = learned_positions(e + segments, p["positions"], positions=positions)
    e, norm_back = norm(p["norm"], e)
    e, drop_back = dropout(e, rate=config.hidden_dropout_prob, key=fold(key, config.num_hidden_layers))
    x, projection_back = on_tree(dense_layer, "W", "b")(p["projection"], e)
    hidden, stack_back = stack(group, p["layers"], x, uses=groups, each=lambda i: {"key": fold(key, i)}, options=stacking)

    def backward(dhidden):
        dlayers, dx = stack_back(dhidden)
        dprojection, de = projection_back(dx)
        dnorm, de = norm_back(drop_back(de))
        de, dpositions = positions_back(de)
        dp = {"segments": segments_back(de), "positions": dpositions, "norm": dnorm, "projection": dprojection,
              "layers": dlayers}  # fmt: skip
        return (dp, de) if tokens_back is None else ({"tokens": tokens_back(de), **dp}, None)

    return hidden, backward


_LAYER, _HUB = "body.layers.{i}.{j}", "albert.encoder.albert_layer_groups.{i}.albert_layers.{j}"
NAMES = [
    Rename("albert.embeddings.word_embeddings.weight", "body.tokens"),
    Rename("albert.embeddings.position_embeddings.weight", "body.positions"),
    Rename("albert.embeddings.token_type_embeddings.weight", "body.segments"),
    *weight_and_bias("albert.embeddings.LayerNorm", "body.norm.gamma", "body.norm.beta"),
    *linear("albert.encoder.embedding_hidden_mapping_in", "body.projection"),
    *linears(f"{_HUB}.attention", f"{_LAYER}.attention", query="q", key="k", value="v", dense="o"),
    *weight_and_bias(f"{_HUB}.attention.LayerNorm", f"{_LAYER}.norm1.gamma", f"{_LAYER}.norm1.beta"),
    *linears(_HUB, f"{_LAYER}.mlp", ffn="1", ffn_output="2"),
    *weight_and_bias(f"{_HUB}.full_layer_layer_norm", f"{_LAYER}.norm2.gamma", f"{_LAYER}.norm2.beta"),
    *linear("albert.pooler", "head.pooler"),
    *linears("predictions", "head.transform", dense=""),
    *weight_and_bias("predictions.LayerNorm", "head.transform.gamma", "head.transform.beta"),
    Rename("predictions.bias", "head.bias"),
    *linear("sop_classifier.classifier", "head.pair"),
    *linear("classifier", "head.classifier"),
    *linear("classifier", "head.tokens"),
    *linear("qa_outputs", "head.span"),
]
PREFIX = "albert."  # a file of the bare body lacks it
IGNORED = (r"embeddings\.position_ids$",)  # a buffer of older files
TIED = {"predictions.decoder.weight": "albert.embeddings.word_embeddings.weight",
        "predictions.decoder.bias": "predictions.bias"}  # fmt: skip
