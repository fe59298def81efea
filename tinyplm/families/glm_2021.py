"""The original GLM (Du et al. 2022): as GPT-2, except that each token has two positions, that it
reads a prefix in both directions, and that files hold queries, keys and values in one matrix.

    x_0 = dropout(tokens[ids] + positions[i] + blocks[j])       sec. 2.3: i the place in part A, or
                                                                that of the blank's mask, j the
                                                                place within the blank, or 0
    query_key_value = [Wq, Wk, Wv]

The input is part A and then part B (objectives/infilling.py): position_ids (B, 2, T) and
prefix_lengths (B,), the length of part A.  Without them it is a causal model with positions alone.

The released code has norms before the sublayers, where the paper describes them after the sums, and
the tanh GELU; the port of it that hub folders name computes the exact one.  Its model_type "glm" is
also that of transformers' GLM-4: only config.json of this one has num_layers.
Parameters as in GPT-2, with "blocks" (C, D) beside "positions" (C, D), C = max_sequence_length + 1.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..kernels.attention import self_attention
from ..kernels.mlp import mlp
from ..layers.activation import gelu_tanh
from ..models import causal_lm, decoder, walks
from ..models import config as base
from ..models.names import Rename, concatenate, fused, weight_and_bias
from . import gpt2


@dataclasses.dataclass(frozen=True)
class Config(base.ScoreLabels):
    """The fields of GLM's config.json that say what is computed; `source` keeps the others.

    attention_scale divides the scores before the softmax's maximum is subtracted, and multiplies
    them after it: in exact arithmetic it changes nothing.
    """

    MODEL_TYPE: ClassVar[str] = "glm_2021"
    FILE_TYPE: ClassVar[str] = "glm"
    ARCHITECTURE: ClassVar[str] = "GLMModel"
    SCORED: ClassVar[str] = "GLMForSequenceClassification"
    OLD: ClassVar[tuple[str, ...]] = (*base.LABELS, "bos_token_id", "eos_token_id", "spell_length")
    ALIASES: ClassVar[dict[str, str]] = {
        **{"num_hidden_layers": "num_layers", "layernorm_epsilon": "layer_norm_epsilon"},
        **{"max_position_embeddings": "max_sequence_length"},
    }

    vocab_size: int = 30592
    max_sequence_length: int = 512
    hidden_size: int = 1024
    num_layers: int = 24
    num_attention_heads: int = 16
    embedding_dropout_prob: float = 0.1
    attention_dropout_prob: float = 0.1
    output_dropout_prob: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    attention_scale: float = 1.0
    relative_encoding: bool = False
    block_position_encoding: bool = True
    spell_length: int | None = None
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    source: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        base.check_types(self)
        sizes = ("vocab_size", "max_sequence_length", "hidden_size", "num_layers")
        base.check_positive(self, *sizes, "num_attention_heads")
        base.check_not_negative(self, "layer_norm_epsilon", "initializer_range", "attention_scale")
        rates = ("embedding_dropout_prob", "attention_dropout_prob", "output_dropout_prob")
        base.check_rates(self, *rates)
        base.check_heads(self, "hidden_size", "num_attention_heads")
        only: dict[str, tuple] = {"relative_encoding": (False,), "block_position_encoding": (True,)}
        base.check_only(self, **only, spell_length=(None,))

    heads = property(lambda self: self.num_attention_heads)
    context = property(lambda self: self.max_sequence_length)
    position_rows = property(lambda self: self.max_sequence_length + 1)
    cache_context = property(lambda self: 2 * self.position_rows)  # part A, and as much of part B

    @property
    def cache_sizes(self) -> dict[str, int]:
        width = self.hidden_size // self.heads
        return dict(layers=self.num_layers, kv_heads=self.heads, width=width)


def _size(D: int, L: int, H: int, **others: Any) -> Config:
    return Config(hidden_size=D, num_layers=L, num_attention_heads=H, **others)


_LONG: dict[str, Any] = {"vocab_size": 50304, "max_sequence_length": 1024}

# The README and the scripts of the released code (config_tasks/), vocabularies padded as it does.
SIZES = {
    "glm-base": _size(768, 12, 12),
    "glm-large": _size(1024, 24, 16),
    "glm-410m": _size(1024, 30, 16),
    "glm-515m": _size(1152, 30, 18),
    "glm-2b": _size(2048, 36, 32, **_LONG),
    "glm-10b": _size(4096, 48, 64, **_LONG),
}


def shapes(config: Config) -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    V, C, D = config.vocab_size, config.position_rows, config.hidden_size
    n, m = {"gamma": (D,), "beta": (D,)}, {"W1": (D, 4 * D), "b1": (4 * D,)}
    a = {f"{kind}{name}": (D, D) if kind == "W" else (D,) for name in "qkvo" for kind in "Wb"}
    layer = {"norm1": n, "attention": a, "norm2": n, "mlp": {**m, "W2": (4 * D, D), "b2": (D,)}}
    body = {"tokens": (V, D), "positions": (C, D), "blocks": (C, D)}
    tree = {"body": {**body, "layers": [layer] * config.num_layers, "norm": n}}
    return tree if config.tie_word_embeddings else {**tree, "head": {"W": (D, V)}}


def init(path: str, shape: tuple[int, ...], *, config: Config, key: int) -> Any:
    """As walks.init, but Wo and W2, which write into the residual stream, / sqrt(2 num_layers)."""
    scale = (2 * config.num_layers) ** -0.5 if path.endswith((".Wo", ".W2")) else 1.0
    return walks.normal_init(path, shape, std=config.initializer_range * scale, key=key)


def pieces(config: Config) -> decoder.Pieces:
    """GPT-2's, with two positions."""
    attention = partial(self_attention, heads=config.heads, rate=config.attention_dropout_prob)
    return decoder.Pieces(
        norm=partial(gpt2.norm, eps=config.layer_norm_epsilon),
        attention=decoder.every(attention),
        mlp=decoder.every(partial(mlp, activation=gelu_tanh)),
        residual=decoder.pre_norm_block(config.output_dropout_prob),
        embed=partial(decoder.paired_embed, rate=config.embedding_dropout_prob),
        window=decoder.every(None),
        positions=decoder.no_positions,
        finish=decoder.final_norm,
    )


body = partial(decoder.body, pieces)
output_matrix = causal_lm.output_matrix

_LAYER, _HUB = "body.layers.{i}", "transformer.layers.{i}"
_QKV = {kind: [f"{_LAYER}.attention.{kind}{n}" for n in "qkv"] for kind in "Wb"}


def _norm(hub: str, path: str) -> list[Rename]:
    return weight_and_bias(hub, f"{path}.gamma", f"{path}.beta")


def _linear(hub: str, path: str, name: str) -> list[Rename]:
    weight = Rename(f"{hub}.weight", f"{path}.W{name}", operation="transpose")
    return [weight, Rename(f"{hub}.bias", f"{path}.b{name}")]


NAMES = [
    Rename("word_embeddings.weight", "body.tokens"),
    Rename("transformer.position_embeddings.weight", "body.positions"),
    Rename("transformer.block_position_embeddings.weight", "body.blocks"),
    *_norm("transformer.final_layernorm", "body.norm"),
    *_norm(f"{_HUB}.input_layernorm", f"{_LAYER}.norm1"),
    Rename(f"{_HUB}.attention.query_key_value.weight", *_QKV["W"], operation=fused()),
    Rename(f"{_HUB}.attention.query_key_value.bias", *_QKV["b"], operation=concatenate(0)),
    *_linear(f"{_HUB}.attention.dense", f"{_LAYER}.attention", "o"),
    *_norm(f"{_HUB}.post_attention_layernorm", f"{_LAYER}.norm2"),
    *_linear(f"{_HUB}.mlp.dense_h_to_4h", f"{_LAYER}.mlp", "1"),
    *_linear(f"{_HUB}.mlp.dense_4h_to_h", f"{_LAYER}.mlp", "2"),
    *decoder.HEADS,
]
PREFIX, SKIPPED = "", ()
WRAPPER = "glm."  # before all names in files of the port's classes with a head
TIED = {"lm_head.weight": "word_embeddings.weight"}
