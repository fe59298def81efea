"""BLOOM (BigScience Workshop 2022): as GPT-2, except that ALiBi takes the place of positions, that
the embeddings are normed, and that files hold queries, keys and values head by head.

    x_0    = layernorm(tokens[ids])
    scores = E^-0.5 q k^T + m_h s,   s the number of tokens before the key, m_h the slope of head h

Weights are (out, in) in the files; the output matrix is the table.
Parameters: {"body": {"tokens" (V, D), "embed_norm", "layers", "norm"}, "head" if untied}.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..core import on_tree
from ..kernels.activation import gelu_tanh
from ..kernels.attention import self_attention
from ..kernels.mlp import mlp
from ..layers.norm import layernorm
from ..models import causal_lm, decoder, tasks, walks
from ..models import config as base
from ..models.decoder import Pieces, alibi_positions, every
from ..models.names import Rename, grouped, linears, weight_and_bias

norm = on_tree(layernorm, "gamma", "beta")


@dataclasses.dataclass(frozen=True)
class Config(base.ScoreLabels):
    """The fields of BLOOM's config.json that say what is computed; `source` keeps the others."""

    MODEL_TYPE: ClassVar[str] = "bloom"
    ARCHITECTURE: ClassVar[str] = "BloomForCausalLM"
    SCORED: ClassVar[str] = "BloomForSequenceClassification"
    OLD: ClassVar[tuple[str, ...]] = base.LABELS
    ALIASES: ClassVar[dict[str, str]] = {
        **{"num_hidden_layers": "n_layer", "num_attention_heads": "n_head"},
        "n_embed": "hidden_size",
    }

    vocab_size: int = 250880
    hidden_size: int = 64
    n_layer: int = 2
    n_head: int = 8
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    apply_residual_connection_post_layernorm: bool = False
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    seq_length: int = 2048
    tie_word_embeddings: bool = True
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    source: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        base.check_types(self)
        base.check_positive(self, "vocab_size", "hidden_size", "n_layer", "n_head", "seq_length")
        base.check_not_negative(self, "layer_norm_epsilon", "initializer_range")
        base.check_rates(self, "hidden_dropout", "attention_dropout")
        base.check_heads(self, "hidden_size", "n_head")
        base.check_only(self, apply_residual_connection_post_layernorm=(False,))

    heads = property(lambda self: self.n_head)
    # ALiBi has no longest sequence; 2^16 tokens are 32 times what the models were trained on
    context = cache_context = property(lambda self: max(self.seq_length, 1 << 16))

    @property
    def cache_sizes(self) -> dict[str, int]:
        width = self.hidden_size // self.n_head
        return {"layers": self.n_layer, "kv_heads": self.n_head, "width": width}


# BigScience Workshop 2022, table 3.
SIZES = {
    "bloom-560m": Config(hidden_size=1024, n_layer=24, n_head=16),
    "bloom-1b1": Config(hidden_size=1536, n_layer=24, n_head=16),
    "bloom-1b7": Config(hidden_size=2048, n_layer=24, n_head=16),
    "bloom-3b": Config(hidden_size=2560, n_layer=30, n_head=32),
    "bloom-7b1": Config(hidden_size=4096, n_layer=30, n_head=32),
    "bloom": Config(hidden_size=14336, n_layer=70, n_head=112),
}


def shapes(config: Config) -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    V, D = config.vocab_size, config.hidden_size
    n, layers = tasks.norm_shapes(D), [tasks.block_shapes(D, 4 * D)] * config.n_layer
    tree = {"body": {"tokens": (V, D), "embed_norm": n, "layers": layers, "norm": n}}
    return tree if config.tie_word_embeddings else {**tree, "head": {"W": (D, V)}}


def pieces(config: Config) -> Pieces:
    """BLOOM for the walk of decoders."""
    own_norm = partial(norm, eps=config.layer_norm_epsilon)
    attention = partial(self_attention, heads=config.n_head, rate=config.attention_dropout)
    return Pieces(
        norm=own_norm,
        attention=every(attention),
        mlp=every(partial(mlp, activation=gelu_tanh)),
        residual=decoder.pre_norm_block(config.hidden_dropout),
        embed=partial(decoder.normed_embed, norm=own_norm),
        window=every(None),
        positions=alibi_positions(config.n_head),
        finish=decoder.final_norm,
    )


init = walks.init
body = partial(decoder.body, pieces)
output_matrix = causal_lm.output_matrix

_LAYER = "body.layers.{i}"


def norms(hub: str, path: str) -> list[Rename]:
    """The gain and shift of one norm."""
    return weight_and_bias(hub, f"{path}.gamma", f"{path}.beta")


def block_renames(hub: str, attention: str, heads: int) -> list[Rename]:
    """A layer's tensors; query_key_value has the queries, keys and values of one head together."""
    qkv = f"{hub}.{attention}.query_key_value"
    by_head = {kind: [f"{_LAYER}.attention.{kind}{n}" for n in "qkv"] for kind in "Wb"}
    return [
        *norms(f"{hub}.input_layernorm", f"{_LAYER}.norm1"),
        Rename(f"{qkv}.weight", *by_head["W"], operation=grouped(heads)),
        Rename(f"{qkv}.bias", *by_head["b"], operation=grouped(heads)),
        *linears(f"{hub}.{attention}", f"{_LAYER}.attention", dense="o"),
        *norms(f"{hub}.post_attention_layernorm", f"{_LAYER}.norm2"),
        *linears(f"{hub}.mlp", f"{_LAYER}.mlp", dense_h_to_4h="1", dense_4h_to_h="2"),
    ]


def renames(config: Config) -> list[Rename]:
    """BLOOM's tensors."""
    return [
        Rename("transformer.word_embeddings.weight", "body.tokens"),
        *norms("transformer.word_embeddings_layernorm", "body.embed_norm"),
        *norms("transformer.ln_f", "body.norm"),
        *block_renames("transformer.h.{i}", "self_attention", config.n_head),
        *decoder.HEADS,
    ]


NAMES = renames(Config())
PREFIX, SKIPPED = "transformer.", ()
TIED = {"lm_head.weight": "transformer.word_embeddings.weight"}
