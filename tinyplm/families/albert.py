"""ALBERT (Lan et al. 2020, sec. 3.1): as BERT, except for narrower embeddings and shared layers:

    x_0     = e W + b, with e BERT's embeddings, of width E: V E + E D numbers in place of V D
    x_{i+1} = group_g(x_i), g the group of layer i: one or more of BERT's blocks

"layers" has one entry a group, the list of its blocks (one in all released sizes); the gradient of
a group is the sum over its layers.  Heads: the masked LM's transform goes back to width E; sentence
order (0: in order, 1: swapped).  Dropout follows attention alone, as in transformers.
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from typing import ClassVar

from ..core import on_tree, stack
from ..kernels.activation import ACTIVATIONS
from ..layers.linear import linear
from ..models import encoder, tasks, walks
from ..models import encoder_names as names
from ..random import fold
from . import bert


@dataclasses.dataclass(frozen=True)
class Config(encoder.EncoderConfig):
    """The fields of ALBERT's config.json that affect the computation; `source` keeps the others."""

    MODEL_TYPE: ClassVar[str] = "albert"

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

    def __post_init__(self) -> None:
        sizes = ("embedding_size", "num_hidden_groups", "inner_group_num", "type_vocab_size")
        rates, known = ("classifier_dropout_prob",), (None, "absolute")
        encoder.check(self, sizes=sizes, rates=rates, position_embedding_type=known)
        L, G = self.num_hidden_layers, self.num_hidden_groups
        if G > L:
            raise ValueError(f"config: num_hidden_groups: expected 1 to {L}, got {G}")


# Table 1; activation and dropout of the released weights (v2: trained longer, without dropout).
_V1: dict = {"hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
SIZES = {}
for _name, _L, _D, _H in (("base", 12, 768, 12), ("large", 24, 1024, 16), ("xlarge", 24, 2048, 16)):
    _sizes: dict = {"num_hidden_layers": _L, "hidden_size": _D, "num_attention_heads": _H}
    SIZES[f"albert-{_name}-v2"] = Config(intermediate_size=4 * _D, **_sizes)
    SIZES[f"albert-{_name}-v1"] = Config(intermediate_size=4 * _D, **_sizes, **_V1)
SIZES |= {"albert-xxlarge-v2": Config(), "albert-xxlarge-v1": Config(hidden_act="gelu")}
_lm = tasks.masked_lm("Albert", width="embedding_size")
_rate = attrgetter("classifier_dropout_prob")
TASKS = {
    "masked_lm": _lm,
    "pretraining": tasks.pretraining("Albert", _lm, outputs=tasks.num_labels, rate=_rate),
    **tasks.heads("Albert", rate=_rate),
}


def shapes(config: Config, task: str = "masked_lm") -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    E, D = config.embedding_size, config.hidden_size
    group = [tasks.block_shapes(D, config.intermediate_size)] * config.inner_group_num
    body = bert.embedding_shapes(config, E) | {"projection": tasks.dense(E, D)}
    body["layers"] = [group] * config.num_hidden_groups
    return {"body": body, "head": TASKS[task].shapes(config)}


def pieces(config: Config) -> encoder.Pieces:
    """BERT's, with a projection after the embeddings, and groups of blocks as layers."""
    L, G = config.num_hidden_layers, config.num_hidden_groups
    # Groups follow in runs.  In floats, as in transformers: where uneven, the rounding decides.
    uses = [int(i / (L / G)) for i in range(L)]

    def layers(block, inputs):
        def group(ps, x, *, key):
            return stack(block, ps, x, each=lambda j: {"key": fold(key, j)})

        return group, uses

    base, projection = bert.pieces(config), encoder.part("projection", on_tree(linear, "W", "b"))
    feed_forward = encoder.feed_forward(ACTIVATIONS[config.hidden_act])
    return base._replace(embed=(*base.embed, projection), mlp=feed_forward, layers=layers)


INPUTS, init, body = bert.INPUTS, walks.init, encoder.body_of(pieces)

_LAYER, _HUB = "body.layers.{i}.{j}", "albert.encoder.albert_layer_groups.{i}.albert_layers.{j}"
_PROJECTIONS = {"query": "q", "key": "k", "value": "v", "dense": "o"}
NAMES = [
    *names.embedding_names("albert"),
    *names.linear("albert.encoder.embedding_hidden_mapping_in", "body.projection"),
    *names.linears(f"{_HUB}.attention", f"{_LAYER}.attention", **_PROJECTIONS),
    *names.norm(f"{_HUB}.attention.LayerNorm", f"{_LAYER}.norm1"),
    *names.linears(_HUB, f"{_LAYER}.mlp", ffn="1", ffn_output="2"),
    *names.norm(f"{_HUB}.full_layer_layer_norm", f"{_LAYER}.norm2"),
    *names.linear("albert.pooler", "head.pooler"),
    *names.lm_names("predictions.dense", "predictions.LayerNorm", "predictions.bias"),
    *names.linear("sop_classifier.classifier", "head.pair"),
    *names.HEADS,
]
PREFIX, SKIPPED, TIED = "albert.", names.BUFFERS, names.tied("predictions.bias", "albert")
