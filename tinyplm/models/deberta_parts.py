"""What the configs, shapes, heads and names of DeBERTa v1 and of v2 and v3 share."""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from typing import Any

from ..arguments import shown
from ..backend import array_module
from ..kernels.activation import ACTIVATIONS
from ..layers.dropout import dropout
from ..random import fold
from . import encoder, tasks
from . import encoder_names as names
from .config import check_known, check_not_negative
from .names import Rename, linear


@dataclasses.dataclass(frozen=True)
class Fields(encoder.EncoderConfig):
    """The fields that the config.json of all versions have."""

    OLD = (*encoder.EncoderConfig.OLD, "embedding_size", "cls_dropout", "pooler_hidden_size")

    vocab_size: int = 50265
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 0
    embedding_size: int | None = None
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-7
    relative_attention: bool = False
    max_relative_positions: int = -1
    pad_token_id: int | None = 0
    position_biased_input: bool = True
    pos_att_type: str | list[str] | None = None
    pooler_dropout: float = 0.0
    pooler_hidden_act: str = "gelu"
    pooler_hidden_size: int | None = None
    cls_dropout: float | None = None
    legacy: bool = True
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        D, E = self.hidden_size, self.embedding_size
        rates = ("pooler_dropout", "cls_dropout")
        encoder.check(self, sizes=("embedding_size",), rates=rates, pooler_hidden_size=(None, D))
        check_not_negative(self, "type_vocab_size")
        check_known(self, "pooler_hidden_act", ACTIVATIONS)
        if len(set(self.terms)) != len(self.terms) or not set(self.terms) <= {"c2p", "p2c"}:
            expected = f"c2p, p2c, both or none, got {shown(self.pos_att_type)}"
            raise ValueError(f"config: pos_att_type: expected {expected}")
        if not self.legacy and E not in (None, D):
            expected = f"hidden_size {D} with legacy = false, got {E}"
            raise ValueError(f"config: embedding_size: expected {expected}")

    @property
    def context(self) -> int | None:
        return self.max_position_embeddings if self.position_biased_input else None

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms of the scores beside content-to-content: a list, "p2c|c2p", or None."""
        given = self.pos_att_type or []
        if isinstance(given, str):
            return tuple(name.strip() for name in given.lower().split("|"))
        return tuple(given)

    @property
    def window(self) -> int:
        """max_relative_positions, which for -1 is max_position_embeddings."""
        own = self.max_relative_positions
        return own if own > 0 else self.max_position_embeddings

    @property
    def span(self) -> int:
        """Half the rows of the table of relative positions."""
        return self.window

    @property
    def skipped(self) -> tuple[str, ...]:
        """Patterns of tensor names that this config skips: positions of the mask decoder."""
        if self.position_biased_input:
            return ()
        return (r"embeddings\.position_embeddings\.weight$",)


def body_shapes(config: Any, attention: dict) -> dict:
    """The shapes of params["body"]; `attention`: of an attention's projections of contents and
    relative positions."""
    D, F = config.hidden_size, config.intermediate_size
    E = config.embedding_size or D
    parts = {
        "positions": config.position_biased_input and (config.max_position_embeddings, E),
        "segments": config.type_vocab_size and (config.type_vocab_size, E),
        "projection": E != D and (E, D),
        "relative": config.relative_attention and (2 * config.span, D),
    }
    layer = tasks.block_shapes(D, F) | {"attention": {**attention, "Wo": (D, D), "bo": (D,)}}
    return {
        "tokens": (config.vocab_size, E),
        **{name: shape for name, shape in parts.items() if shape},
        "norm": tasks.norm_shapes(D),
        "layers": [layer] * config.num_hidden_layers,
    }


# ------------------------------------------------------------------------------------------ heads


def _lm_shapes(config: Any) -> dict:
    """Of transformers' two masked-LM heads, which have different names and compute the same."""
    shapes = tasks.lm_shapes(config.hidden_size, config.vocab_size, config.embedding_size)
    if config.legacy:
        return shapes
    return {"lm_head": shapes["transform"], "bias": shapes["bias"]}


def _lm(p, hidden, *, config):
    name = "transform" if config.legacy else "lm_head"
    h, back = tasks.lm_head({"transform": p[name]}, hidden, config=config)

    def backward(dh):
        dp, dhidden = back(dh)
        return {name: dp["transform"]}, dhidden

    return h, backward


def _classes(p, hidden, *, config, key):
    """{"logits": classifier(dropout(pooler(dropout(hidden_0))))} (B, N)."""
    first, drop_back = dropout(hidden[:, :1], rate=config.pooler_dropout, key=fold(key, 1))
    rate = config.hidden_dropout_prob if config.cls_dropout is None else config.cls_dropout
    activation = ACTIVATIONS[config.pooler_hidden_act]
    outputs, back = tasks.pooled_head(p, first, rate=rate, key=fold(key, 2), activation=activation)

    def backward(doutputs):
        dp, dfirst = back(doutputs)
        dhidden = array_module(hidden).zeros_like(hidden)
        dhidden[:, :1] = drop_back(dfirst)
        return dp, dhidden

    return outputs, backward


def table(prefix: str) -> dict[str, tasks.Task]:
    """The tasks of all versions, with the prefix of their classes' names."""
    return {
        "masked_lm": tasks.Task(f"{prefix}ForMaskedLM", _lm_shapes, _lm),
        "sequence_classification": tasks.classes(prefix)._replace(outputs=_classes),
        "token_classification": tasks.tokens(prefix, rate=attrgetter("hidden_dropout_prob")),
        "question_answering": tasks.answers(prefix),
        "body": tasks.no_head(prefix),
    }


def multiple_choice(prefix: str) -> tasks.Task:
    return tasks.choices(prefix)._replace(outputs=_classes)


# ------------------------------------------------------------------------------------------ names

HUB, _PRETRAINED = "deberta.encoder.layer.{i}", "lm_predictions.lm_head"
NAMES = [
    *names.embedding_names("deberta"),
    names.transposed("deberta.embeddings.embed_proj.weight", "body.projection"),
    Rename("deberta.encoder.rel_embeddings.weight", "body.relative"),
    *names.block_names(HUB),
    *linear("cls.predictions.transform.dense", "head.transform"),
    *names.norm("cls.predictions.transform.LayerNorm", "head.transform"),
    Rename("cls.predictions.bias", "head.bias", requires="head.transform.W"),
    *linear(f"{_PRETRAINED}.dense", "head.lm_head"),
    *names.norm(f"{_PRETRAINED}.LayerNorm", "head.lm_head"),
    Rename(f"{_PRETRAINED}.bias", "head.bias", requires="head.lm_head.W"),
    *linear("pooler.dense", "head.pooler"),
    *names.HEADS,
]
PREFIX = "deberta."  # a file of the bare body lacks it
SKIPPED = (*names.BUFFERS, r"^mask_predictions\.")  # v3's discriminator, unknown to transformers
TIED = names.tied("cls.predictions.bias", "deberta")
