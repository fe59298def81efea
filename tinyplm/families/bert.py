"""BERT (Devlin et al. 2019): a post-norm encoder with learned positions, segments, erf GELU, and a norm on the embeddings.

    x_0     = norm(tokens[ids] + segments[types] + positions[t])        (+ dropout)
    x_{i+1} = block(x_i):   x = norm1(x + attention(x));   x = norm2(x + mlp(x))
    hidden  = x_L

Parameters: {"body": {"tokens" (V, D), "segments" (types, D), "positions" (C, D), "norm", "layers": [...]}, "head": by task}.
Heads: masked LM, logits = lm_transform(hidden) tokens^T + bias; next sentence, classes and choices from tanh(hidden_0 W + b), the
pooler; classes of tokens and the ends of an answer straight from hidden.
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
    """The fields of BERT's config.json that say what is computed; `source` keeps the others."""

    MODEL_TYPE: ClassVar[str] = "bert"
    ALIASES: ClassVar[dict[str, str]] = {}
    OLD: ClassVar[tuple[str, ...]] = (*LABELS, "position_embedding_type")

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    classifier_dropout: float | None = None
    tie_word_embeddings: bool = True
    is_decoder: bool = False
    add_cross_attention: bool = False
    position_embedding_type: str | None = None
    id2label: dict | None = None
    label2id: dict | None = None
    problem_type: str | None = None
    source: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_encoder(self, rates=("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"),
                      sizes=("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                             "max_position_embeddings", "type_vocab_size"),
                      is_decoder=(False,), add_cross_attention=(False,), tie_word_embeddings=(True,),
                      position_embedding_type=(None, "absolute"))  # fmt: skip
        check_known(self, "hidden_act", ACTIVATIONS)
        check_heads(self, "hidden_size", "num_attention_heads")

    @property
    def context(self) -> int:
        return self.max_position_embeddings

    @property
    def num_labels(self) -> int:
        return label_count(self)

    @property
    def head_dropout(self) -> float:
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout


INPUTS = ("token_type_ids",)

# Devlin et al. 2019, sec. 3, and Turc et al. 2019, table 1 (the small ones); the vocabularies are those of the released weights.
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
SIZES = {
    "bert-tiny": Config(hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512),
    "bert-mini": Config(hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024),
    "bert-small": Config(hidden_size=512, num_hidden_layers=4, num_attention_heads=8, intermediate_size=2048),
    "bert-medium": Config(hidden_size=512, num_hidden_layers=8, num_attention_heads=8, intermediate_size=2048),
    "bert-base-uncased": Config(),
    "bert-large-uncased": Config(**_LARGE),
    "bert-base-cased": Config(vocab_size=28996),
    "bert-large-cased": Config(vocab_size=28996, **_LARGE),
    "bert-base-chinese": Config(vocab_size=21128),
    "bert-base-multilingual-cased": Config(vocab_size=119547),
}


def _classes(p, hidden, *, config, key):
    return tasks.pooled_head(p, hidden, rate=config.head_dropout, key=key)


def _pair(p, hidden, *, config, key, name="logits"):  # without dropout
    return tasks.pooled_head(p, hidden, part="pair", name=name)


TASKS = {
    "masked_lm": Task("BertForMaskedLM", lambda c: tasks.lm_shapes(c.hidden_size, c.vocab_size), tasks.lm_head),
    "pretraining": Task("BertForPreTraining",
                        lambda c: tasks.lm_shapes(c.hidden_size, c.vocab_size) | tasks.pooled_shapes(c.hidden_size, pair=2),
                        tasks.lm_head, partial(_pair, name="pair_logits")),
    "next_sentence": Task("BertForNextSentencePrediction", lambda c: tasks.pooled_shapes(c.hidden_size, pair=2), None, _pair),
    "sequence_classification": Task("BertForSequenceClassification",
                                    lambda c: tasks.pooled_shapes(c.hidden_size, classifier=c.num_labels), None, _classes),
    "multiple_choice": Task("BertForMultipleChoice", lambda c: tasks.pooled_shapes(c.hidden_size, classifier=1), None, _classes),
    "token_classification": Task("BertForTokenClassification", lambda c: {"tokens": dense(c.hidden_size, c.num_labels)}, None,
                                 lambda p, h, *, config, key: tasks.token_head(p, h, rate=config.head_dropout, key=key)),
    "question_answering": Task("BertForQuestionAnswering", lambda c: {"span": dense(c.hidden_size, 2)}, None,
                               lambda p, h, *, config, key: tasks.answer_head(p, h)),
    "pooled": Task("BertModel", lambda c: tasks.pooled_shapes(c.hidden_size), None,
                   lambda p, h, *, config, key: tasks.bare_pooler(p, h)),
    "body": Task("BertModel", lambda c: {}),
}  # fmt: skip


def shapes(config: Config, task: str = "masked_lm") -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    D = config.hidden_size
    body = {"tokens": (config.vocab_size, D), "segments": (config.type_vocab_size, D),
            "positions": (config.max_position_embeddings, D), "norm": tasks.norm_shapes(D),
            "layers": [tasks.block_shapes(D, config.intermediate_size)] * config.num_hidden_layers}  # fmt: skip
    return {"body": body, "head": TASKS[task].shapes(config)}


init = encoder.init


def body(p, inputs_embeds=None, *, config, input_ids=None, attention_mask=None, token_type_ids=None, position_ids=None, key=None,
         stacking=StackOptions()):  # fmt: skip
    """Hidden states of the last layer.

    p = params["body"]; input_ids (B, T), or inputs_embeds (B, T, D) in place of the look-up; attention_mask (B, T) of 0/1;
    token_type_ids (B, T), 0 if not given; position_ids (B, T) or (T,), 0 .. T-1 if not given; key (B,), one per sample, for
    dropout, None for none; stacking: see core.StackOptions.
    -> hidden (B, T, D); backward gives (dp, dinputs_embeds), the latter None for input_ids.
    """
    x, tokens_back = embedding(p["tokens"], ids=input_ids) if inputs_embeds is None else (inputs_embeds, None)
    xp = array_module(x)
    T = x.shape[1]
    if position_ids is None:
        position_ids = xp.arange(T)
    if token_type_ids is None:
        token_type_ids = xp.zeros(x.shape[:2], dtype="int64")
    mask = encoder_mask(T, attention_mask, xp=xp)
    norm = partial(on_tree(layernorm, "gamma", "beta"), eps=config.layer_norm_eps)

    def layer(p, x, *, key):
        def attention(p, x):
            return self_attention(p, x, heads=config.num_attention_heads, mask=mask,
                                           rate=config.attention_probs_dropout_prob, key=fold(key, 0))  # fmt: skip

        return block(p, x, residual=post_norm, norm=norm, attention=attention, rate=config.hidden_dropout_prob, key=key,
                     mlp=partial(mlp, activation=ACTIVATIONS[config.hidden_act]))  # fmt: skip

    segments, segments_back = embedding(p["segments"], ids=token_type_ids, name="token type id")
    x, positions_back = learned_positions(x + segments, p["positions"], positions=position_ids)
    x, norm_back = norm(p["norm"], x)
    x, drop_back = dropout(x, rate=config.hidden_dropout_prob, key=fold(key, config.num_hidden_layers))
    hidden, stack_back = stack(layer, p["layers"], x, each=lambda i: {"key": fold(key, i)}, options=stacking)

    def backward(dhidden):
        dlayers, dx = stack_back(dhidden)
        dnorm, dx = norm_back(drop_back(dx))
        dx, dpositions = positions_back(dx)
        dp = {"segments": segments_back(dx), "positions": dpositions, "norm": dnorm, "layers": dlayers}
        return (dp, dx) if tokens_back is None else ({"tokens": tokens_back(dx), **dp}, None)

    return hidden, backward


_LAYER, _HUB = "body.layers.{i}", "bert.encoder.layer.{i}"
NAMES = [
    Rename("bert.embeddings.word_embeddings.weight", "body.tokens"),
    Rename("bert.embeddings.position_embeddings.weight", "body.positions"),
    Rename("bert.embeddings.token_type_embeddings.weight", "body.segments"),
    *weight_and_bias("bert.embeddings.LayerNorm", "body.norm.gamma", "body.norm.beta"),
    *linears(f"{_HUB}.attention.self", f"{_LAYER}.attention", query="q", key="k", value="v"),
    *linears(f"{_HUB}.attention.output", f"{_LAYER}.attention", dense="o"),
    *weight_and_bias(f"{_HUB}.attention.output.LayerNorm", f"{_LAYER}.norm1.gamma", f"{_LAYER}.norm1.beta"),
    *linears(f"{_HUB}.intermediate", f"{_LAYER}.mlp", dense="1"),
    *linears(f"{_HUB}.output", f"{_LAYER}.mlp", dense="2"),
    *weight_and_bias(f"{_HUB}.output.LayerNorm", f"{_LAYER}.norm2.gamma", f"{_LAYER}.norm2.beta"),
    *linears("bert.pooler", "head.pooler", dense=""),
    *linears("cls.predictions.transform", "head.transform", dense=""),
    *weight_and_bias("cls.predictions.transform.LayerNorm", "head.transform.gamma", "head.transform.beta"),
    Rename("cls.predictions.bias", "head.bias"),
    *linear("cls.seq_relationship", "head.pair"),
    *linear("classifier", "head.classifier"),
    *linear("classifier", "head.tokens"),
    *linear("qa_outputs", "head.span"),
]
PREFIX = "bert."  # a file of the bare body lacks it
IGNORED = (r"embeddings\.position_ids$",)  # a buffer of older files
TIED = {"cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias"}  # fmt: skip
