"""GPT-1 (Radford et al. 2018): as GPT-2, except that norms follow the additions (post-norm) and
that there is no final norm.

    x_0 = dropout(tokens[ids] + positions[t])
    h   = norm1(x + dropout(attention(x))),   x_{i+1} = norm2(h + dropout(mlp(h))),   hidden = x_L

Its config says "gelu" for the tanh GELU.  models.score_model has its heads for tasks, and
tuning.finetuning.delimiters its input formats.
Parameters: {"body": {"tokens" (V, D), "positions" (C, D), "layers"}, "head" if untied}.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..core import on_tree
from ..kernels.activation import gelu_tanh, relu, silu
from ..kernels.attention import self_attention
from ..kernels.mlp import mlp
from ..layers.block import block, post_norm
from ..layers.norm import layernorm
from ..models import causal_lm, decoder, tasks, walks
from ..models import config as base
from ..models.decoder import Pieces, every
from ..models.names import Rename
from . import gpt2

ACTIVATIONS = {"gelu": gelu_tanh, "relu": relu, "silu": silu, "swish": silu}


@dataclasses.dataclass(frozen=True)
class Config(base.ScoreLabels):
    """The fields of GPT-1's config.json that say what is computed; `source` keeps the others."""

    MODEL_TYPE: ClassVar[str] = "openai-gpt"
    ARCHITECTURE: ClassVar[str] = "OpenAIGPTLMHeadModel"
    SCORED: ClassVar[str] = "OpenAIGPTForSequenceClassification"
    CHOOSING: ClassVar[str] = "OpenAIGPTDoubleHeadsModel"
    OLD: ClassVar[tuple[str, ...]] = base.LABELS
    ALIASES: ClassVar[dict[str, str]] = dict(
        hidden_size="n_embd",
        num_hidden_layers="n_layer",
        num_attention_heads="n_head",
        max_position_embeddings="n_positions",
    )

    vocab_size: int = 40478
    n_positions: int = 512
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    afn: str = "gelu"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    summary_first_dropout: float = 0.1  # before the head of a task (sec. 4.1)
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    source: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        base.check_types(self)
        base.check_rates(self, "resid_pdrop", "embd_pdrop", "attn_pdrop", "summary_first_dropout")
        base.check_positive(self, "vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
        base.check_heads(self, "n_embd", "n_head")
        base.check_known(self, "afn", ACTIVATIONS)
        base.check_not_negative(self, "layer_norm_epsilon", "initializer_range")

    heads = property(lambda self: self.n_head)
    score_rate = property(lambda self: self.summary_first_dropout)
    context = cache_context = property(lambda self: self.n_positions)

    @property
    def cache_sizes(self) -> dict[str, int]:
        width = self.n_embd // self.n_head
        return {"layers": self.n_layer, "kv_heads": self.n_head, "width": width}


SIZES = {"openai-gpt": Config()}  # Radford et al. 2018, sec. 4.1


def shapes(config: Config) -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    V, C, D = config.vocab_size, config.n_positions, config.n_embd
    layers = [tasks.block_shapes(D, 4 * D)] * config.n_layer
    tree = {"body": {"tokens": (V, D), "positions": (C, D), "layers": layers}}
    return tree if config.tie_word_embeddings else {**tree, "head": {"W": (D, V)}}


def pieces(config: Config) -> Pieces:
    """GPT-1 for the walk of decoders."""
    norm = partial(on_tree(layernorm, "gamma", "beta"), eps=config.layer_norm_epsilon)
    attention = partial(self_attention, heads=config.n_head, rate=config.attn_pdrop)
    return Pieces(
        norm=norm,
        attention=every(attention),
        mlp=every(partial(mlp, activation=ACTIVATIONS[config.afn])),
        residual=partial(block, residual=post_norm, rate=config.resid_pdrop),
        embed=partial(decoder.learned_embed, rate=config.embd_pdrop),
        window=every(None),
        positions=decoder.no_positions,
        finish=decoder.no_finish,
    )


init = walks.init
body = partial(decoder.body, pieces)
output_matrix = causal_lm.output_matrix

NAMES = [
    Rename("transformer.tokens_embed.weight", "body.tokens"),
    Rename("transformer.positions_embed.weight", "body.positions"),
    *(rename for rename in gpt2.NAMES if "{i}" in rename.hub),
    *decoder.HEADS,
    Rename("multiple_choice_head.summary.weight", "head.choice.W", operation="transpose"),
    Rename("multiple_choice_head.summary.bias", "head.choice.b"),
]
PREFIX = "transformer."
SKIPPED = (r"\.attn\.bias$", r"position_ids$")  # buffers that old files carry
TIED = {"lm_head.weight": "transformer.tokens_embed.weight"}
