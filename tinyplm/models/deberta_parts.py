"""What the configs, shapes and heads of DeBERTa v1 (deberta.py) and of v2 and v3 (deberta_v2.py) share."""

from __future__ import annotations

from typing import Any

from ..arguments import shown
from ..backend import array_module
from ..kernels.activation import ACTIVATIONS
from ..layers.dropout import dropout
from ..random import fold
from .config import check_encoder, check_heads, check_known, check_not_negative
from .names import Rename, linear, linears, weight_and_bias
from .tasks import Task, answer_head, block_shapes, dense, lm_head, lm_shapes, norm_shapes, pooled_head, pooled_shapes, token_head


def terms(config: Any) -> tuple[str, ...]:
    """The terms of the scores beside content-to-content, of config.pos_att_type: a list, "p2c|c2p", or None."""
    given = config.pos_att_type or []
    return tuple(name.strip() for name in given.lower().split("|")) if isinstance(given, str) else tuple(given)


def check(config: Any, **only: tuple) -> None:
    """The checks of both configs."""
    check_encoder(config, rates=("hidden_dropout_prob", "attention_probs_dropout_prob", "pooler_dropout", "cls_dropout"),
                  sizes=("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                         "max_position_embeddings", "embedding_size"),
                  tie_word_embeddings=(True,), pooler_hidden_size=(None, config.hidden_size), **only)  # fmt: skip
    check_not_negative(config, "type_vocab_size")
    check_known(config, "hidden_act", ACTIVATIONS)
    check_known(config, "pooler_hidden_act", ACTIVATIONS)
    check_heads(config, "hidden_size", "num_attention_heads")
    D, E = config.hidden_size, config.embedding_size
    if len(set(config.terms)) != len(config.terms) or not set(config.terms) <= {"c2p", "p2c"}:
        raise ValueError(f"config: pos_att_type must name c2p, p2c, both or none, got {shown(config.pos_att_type)}")
    if not config.legacy and E not in (None, D):
        raise ValueError(f"config: with legacy = false embedding_size must be hidden_size {D}, got {E}")


def window(config: Any) -> int:
    """max_relative_positions, which for -1 is max_position_embeddings."""
    return config.max_relative_positions if config.max_relative_positions > 0 else config.max_position_embeddings


def body_shapes(config: Any, attention: dict) -> dict:
    """The shapes of params["body"]; `attention`: those of an attention's projections of contents and relative positions."""
    D = config.hidden_size
    E = config.embedding_size or D
    parts = {"positions": config.position_biased_input and (config.max_position_embeddings, E),
             "segments": config.type_vocab_size and (config.type_vocab_size, E),
             "projection": E != D and (E, D),
             "relative": config.relative_attention and (2 * config.span, D)}  # fmt: skip
    layer = {**block_shapes(D, config.intermediate_size), "attention": {**attention, "Wo": (D, D), "bo": (D,)}}
    return {"tokens": (config.vocab_size, E), **{name: shape for name, shape in parts.items() if shape},
            "norm": norm_shapes(D), "layers": [layer] * config.num_hidden_layers}  # fmt: skip


# ------------------------------------------------------------------------------------------------- heads


def _lm_shapes(config: Any) -> dict:
    """Of the two masked-LM heads of transformers, which have different names and compute the same."""
    shapes = lm_shapes(config.hidden_size, config.vocab_size, config.embedding_size)
    return shapes if config.legacy else {"lm_head": shapes["transform"], "bias": shapes["bias"]}


def _lm(p, hidden, *, config):
    name = "transform" if config.legacy else "lm_head"
    h, back = lm_head({"transform": p[name]}, hidden, config=config)

    def backward(dh):
        dp, dhidden = back(dh)
        return {name: dp["transform"]}, dhidden

    return h, backward


def _classes(p, hidden, *, config, key):
    """{"logits": classifier(dropout(pooler(dropout(hidden_0))))} (B, N)."""
    first, drop_back = dropout(hidden[:, :1], rate=config.pooler_dropout, key=fold(key, 1))
    rate = config.hidden_dropout_prob if config.cls_dropout is None else config.cls_dropout
    outputs, back = pooled_head(p, first, rate=rate, key=fold(key, 2), activation=ACTIVATIONS[config.pooler_hidden_act])

    def backward(doutputs):
        dp, dfirst = back(doutputs)
        dhidden = array_module(hidden).zeros_like(hidden)
        dhidden[:, :1] = drop_back(dfirst)
        return dp, dhidden

    return outputs, backward


def tasks(prefix: str) -> dict[str, Task]:
    """The tasks of both, with the beginning of their classes' names."""
    return {
        "masked_lm": Task(f"{prefix}ForMaskedLM", _lm_shapes, _lm),
        "sequence_classification": Task(f"{prefix}ForSequenceClassification",
                                        lambda c: pooled_shapes(c.hidden_size, classifier=c.num_labels), None, _classes),
        "token_classification": Task(f"{prefix}ForTokenClassification",
                                     lambda c: {"tokens": dense(c.hidden_size, c.num_labels)}, None,
                                     lambda p, h, *, config, key: token_head(p, h, rate=config.hidden_dropout_prob, key=key)),
        "question_answering": Task(f"{prefix}ForQuestionAnswering", lambda c: {"span": dense(c.hidden_size, 2)}, None,
                                   lambda p, h, *, config, key: answer_head(p, h)),
        "body": Task(f"{prefix}Model", lambda c: {}),
    }  # fmt: skip


def multiple_choice(prefix: str) -> Task:
    return Task(f"{prefix}ForMultipleChoice", lambda c: pooled_shapes(c.hidden_size, classifier=1), None, _classes)


# ------------------------------------------------------------------------------------------------- names

LAYER, HUB = "body.layers.{i}", "deberta.encoder.layer.{i}"
NAMES = [
    Rename("deberta.embeddings.word_embeddings.weight", "body.tokens"),
    Rename("deberta.embeddings.position_embeddings.weight", "body.positions"),
    Rename("deberta.embeddings.token_type_embeddings.weight", "body.segments"),
    Rename("deberta.embeddings.embed_proj.weight", "body.projection", operation="transpose"),
    *weight_and_bias("deberta.embeddings.LayerNorm", "body.norm.gamma", "body.norm.beta"),
    Rename("deberta.encoder.rel_embeddings.weight", "body.relative"),
    *linears(f"{HUB}.attention.output", f"{LAYER}.attention", dense="o"),
    *weight_and_bias(f"{HUB}.attention.output.LayerNorm", f"{LAYER}.norm1.gamma", f"{LAYER}.norm1.beta"),
    *linears(f"{HUB}.intermediate", f"{LAYER}.mlp", dense="1"),
    *linears(f"{HUB}.output", f"{LAYER}.mlp", dense="2"),
    *weight_and_bias(f"{HUB}.output.LayerNorm", f"{LAYER}.norm2.gamma", f"{LAYER}.norm2.beta"),
    *linear("cls.predictions.transform.dense", "head.transform"),
    *weight_and_bias("cls.predictions.transform.LayerNorm", "head.transform.gamma", "head.transform.beta"),
    Rename("cls.predictions.bias", "head.bias", beside="head.transform.W"),
    *linear("lm_predictions.lm_head.dense", "head.lm_head"),
    *weight_and_bias("lm_predictions.lm_head.LayerNorm", "head.lm_head.gamma", "head.lm_head.beta"),
    Rename("lm_predictions.lm_head.bias", "head.bias", beside="head.lm_head.W"),
    *linear("pooler.dense", "head.pooler"),
    *linear("classifier", "head.classifier"),
    *linear("classifier", "head.tokens"),
    *linear("qa_outputs", "head.span"),
]
PREFIX = "deberta."  # a file of the bare body lacks it
IGNORED = (r"embeddings\.position_ids$", r"^mask_predictions\.")  # a buffer, and v3's discriminator, which transformers has not
TIED = {"cls.predictions.decoder.weight": "deberta.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias"}  # fmt: skip
