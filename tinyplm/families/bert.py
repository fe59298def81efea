"""BERT (Devlin et al. 2019): a post-norm encoder with learned positions, segments and erf GELU.

    x_0     = dropout(norm(tokens[ids] + segments[types] + positions[t]))
    h       = norm1(x_i + dropout(attention(x_i)))
    x_{i+1} = norm2(h + dropout(mlp(h)))
    hidden  = x_L

Parameters: {"body": {"tokens" (V, D), "segments" (types, D), "positions" (C, D), "norm",
"layers": [...]}, "head": by task}.  Heads: masked LM, logits = lm_transform(hidden) tokens^T +
bias; next sentence, classes and choices from tanh(hidden_0 W + b), the pooler; others from hidden.
This is the textbook of encoders, forward and backward in full.  `pieces` says the same for the
walk of models/encoder.py, for other families to change; a test holds both equal.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from operator import attrgetter
from typing import Any, ClassVar

from ..backend import array_module
from ..core import StackOptions, Tree, on_tree, stack
from ..kernels.activation import ACTIVATIONS
from ..kernels.attention import self_attention
from ..kernels.mlp import mlp
from ..layers.dropout import dropout
from ..layers.embedding import embedding
from ..layers.mask import encoder_mask
from ..layers.norm import layernorm
from ..layers.position import learned_positions
from ..models import encoder, tasks, walks
from ..models import encoder_names as names
from ..random import fold


@dataclasses.dataclass(frozen=True)
class Config(encoder.EncoderConfig):
    """The fields of BERT's config.json that affect the computation; `source` keeps the others."""

    MODEL_TYPE: ClassVar[str] = "bert"

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

    def __post_init__(self) -> None:
        only: dict = {"is_decoder": (False,), "add_cross_attention": (False,)}
        only["position_embedding_type"] = (None, "absolute")
        encoder.check(self, sizes=("type_vocab_size",), rates=("classifier_dropout",), **only)

    @property
    def head_dropout(self) -> float:
        own = self.classifier_dropout
        return self.hidden_dropout_prob if own is None else own


def _size(D: int, L: int, **fields: Any) -> Config:
    fields |= {"hidden_size": D, "num_attention_heads": D // 64, "intermediate_size": 4 * D}
    return Config(num_hidden_layers=L, **fields)


# Devlin et al. 2019, sec. 3; Turc et al. 2019, table 1; vocabularies of the released weights.
SIZES = {
    "bert-tiny": _size(128, 2),
    "bert-mini": _size(256, 4),
    "bert-small": _size(512, 4),
    "bert-medium": _size(512, 8),
    "bert-base-uncased": _size(768, 12),
    "bert-large-uncased": _size(1024, 24),
    "bert-base-cased": _size(768, 12, vocab_size=28996),
    "bert-large-cased": _size(1024, 24, vocab_size=28996),
    "bert-base-chinese": _size(768, 12, vocab_size=21128),
    "bert-base-multilingual-cased": _size(768, 12, vocab_size=119547),
}
INPUTS, init = ("token_type_ids",), walks.init
TASKS = {
    "masked_lm": tasks.masked_lm("Bert"),
    "pretraining": tasks.pretraining("Bert", tasks.masked_lm("Bert"), outputs=lambda config: 2),
    "next_sentence": tasks.next_sentence("Bert"),
    **tasks.heads("Bert", rate=attrgetter("head_dropout")),
}


def embedding_shapes(config: Any, width: int) -> dict:
    """The shapes of what precedes the layers, with embeddings of that width."""
    return {
        "tokens": (config.vocab_size, width),
        "segments": (config.type_vocab_size, width),
        "positions": (config.max_position_embeddings, width),
        "norm": tasks.norm_shapes(width),
    }


def body_shapes(config: Any) -> dict:
    """The shapes of params["body"]."""
    D, F, L = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    return embedding_shapes(config, D) | {"layers": [tasks.block_shapes(D, F)] * L}


def shapes(config: Config, task: str = "masked_lm") -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    return {"body": body_shapes(config), "head": TASKS[task].shapes(config)}


def body(
    p: Tree,
    inputs_embeds: Any = None,
    *,
    config: Config,
    input_ids: Any = None,
    attention_mask: Any = None,
    token_type_ids: Any = None,
    position_ids: Any = None,
    key: Any = None,
    stacking: StackOptions = StackOptions(),
) -> tuple[Any, Any]:
    """Hidden states of the last layer.

    p = params["body"]; input_ids (B, T), or inputs_embeds (B, T, D) in place of the look-up;
    attention_mask (B, T) of 0/1; token_type_ids (B, T), by default 0; position_ids (B, T) or (T,),
    by default 0 .. T-1; key (B,), one per sample, for dropout, None for none.
    -> hidden (B, T, D); backward gives (dp, dinputs_embeds), the latter None for input_ids.
    """
    x, tokens_back = inputs_embeds, None
    if x is None:
        x, tokens_back = embedding(p["tokens"], ids=input_ids)
    xp, (B, T) = array_module(x), x.shape[:2]
    positions = xp.arange(T) if position_ids is None else position_ids
    types = xp.zeros((B, T), dtype="int64") if token_type_ids is None else token_type_ids
    mask = encoder_mask(T, attention_mask, xp=xp)  # everything but padding

    segments, segments_back = embedding(p["segments"], ids=types, name="token type id")
    e, positions_back = learned_positions(x + segments, p["positions"], positions=positions)
    n, norm_back = layernorm(e, p["norm"]["gamma"], p["norm"]["beta"], eps=config.layer_norm_eps)
    rate, drop_key = config.hidden_dropout_prob, fold(key, config.num_hidden_layers)
    x_0, drop_back = dropout(n, rate=rate, key=drop_key)
    layer = partial(block, config=config, mask=mask)
    each = lambda i: {"key": fold(key, i)}  # noqa: E731
    hidden, stack_back = stack(layer, p["layers"], x_0, each=each, options=stacking)

    def backward(dhidden):
        dlayers, dx_0 = stack_back(dhidden)
        de, dgamma, dbeta = norm_back(drop_back(dx_0))
        dx, dpositions = positions_back(de)
        dp = {"segments": segments_back(dx), "positions": dpositions}
        dp |= {"norm": {"gamma": dgamma, "beta": dbeta}, "layers": dlayers}
        return (dp, dx) if tokens_back is None else ({"tokens": tokens_back(dx), **dp}, None)

    return hidden, backward


def block(p: Tree, x: Any, *, config: Config, mask: Any, key: Any) -> tuple[Any, Any]:
    """h = norm1(x + dropout(attention(x))),   y = norm2(h + dropout(mlp(h))).

    p {"norm1", "attention", "norm2", "mlp"}; x (B, T, D) -> y (B, T, D); key (B,) of this layer.
    With y = norm2(r), h = norm1(r1):   dh = dr + what comes through mlp,   dx = dr1 + attention's.
    """
    norm = partial(on_tree(layernorm, "gamma", "beta"), eps=config.layer_norm_eps)
    drop = partial(dropout, rate=config.hidden_dropout_prob)
    options: dict = {
        "heads": config.num_attention_heads,
        "rate": config.attention_probs_dropout_prob,
    }
    a, attention_back = self_attention(p["attention"], x, mask=mask, key=fold(key, 0), **options)
    a, a_drop_back = drop(a, key=fold(key, 1))
    h, norm1_back = norm(p["norm1"], x + a)
    m, mlp_back = mlp(p["mlp"], h, activation=ACTIVATIONS[config.hidden_act])
    m, m_drop_back = drop(m, key=fold(key, 2))
    y, norm2_back = norm(p["norm2"], h + m)

    def backward(dy):
        dnorm2, dr = norm2_back(dy)  # r = h + m
        dmlp, dh = mlp_back(m_drop_back(dr))
        dnorm1, dr1 = norm1_back(dh + dr)  # r1 = x + a
        dattention, dx = attention_back(a_drop_back(dr1))
        dp = {"attention": dattention, "norm1": dnorm1, "mlp": dmlp, "norm2": dnorm2}
        return dp, dx + dr1

    return y, backward


def pieces(config: Any) -> encoder.Pieces:
    """BERT for the walk of encoders."""
    norm = partial(on_tree(layernorm, "gamma", "beta"), eps=config.layer_norm_eps)
    rate, heads = config.hidden_dropout_prob, config.num_attention_heads
    attention = encoder.attend(heads=heads, rate=config.attention_probs_dropout_prob)
    feed_forward = encoder.feed_forward(ACTIVATIONS[config.hidden_act])
    drop = encoder.drop_embeddings(rate=rate, number=config.num_hidden_layers)
    return encoder.Pieces(
        embed=(encoder.segments, encoder.positions, encoder.part("norm", norm), drop),
        norm=norm,
        attention=encoder.dropped(attention, rate=rate, number=1),
        mlp=encoder.dropped(feed_forward, rate=rate, number=2),
    )


walk, _LM = encoder.body_of(pieces), "cls.predictions"
NAMES = [
    *names.body_names("bert"),
    *names.lm_names(f"{_LM}.transform.dense", f"{_LM}.transform.LayerNorm", f"{_LM}.bias"),
    *names.linear("cls.seq_relationship", "head.pair"),
    *names.HEADS,
]
PREFIX, SKIPPED, TIED = "bert.", names.BUFFERS, names.tied(f"{_LM}.bias", "bert")
