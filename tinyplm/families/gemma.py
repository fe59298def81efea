"""Gemma 1 (Gemma team 2024): as LLaMA, except that

    x_0  = sqrt(D) tokens[ids]
    norm = (1 + w) x / rms(x): files hold the gain's distance from 1 (`unit_rmsnorm`)
    mlp  = (gelu(n Wgate) * (n Wup)) Wdown with the tanh GELU, also where a config says "gelu"

The head width is the config's own: heads times head width need not be D (sec. 2).  The output
matrix is the table.  Parameters as in LLaMA, without "head".  inputs_embeds are scaled like rows of
the table; transformers expects them scaled.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..core import on_tree
from ..kernels.activation import ACTIVATIONS
from ..kernels.mlp import gated_mlp
from ..kernels.norm import unit_rmsnorm
from ..models import causal_lm, decoder, walks
from ..models.config import check_only
from ..models.decoder import Pieces, every, scaled_embed
from ..models.rotary_config import RotaryConfig
from . import llama

norm = on_tree(unit_rmsnorm, "gamma")


@dataclasses.dataclass(frozen=True)
class Config(RotaryConfig):
    """Gemma's config.json: the fields of RotaryConfig, and whether attention has biases."""

    MODEL_TYPE: ClassVar[str] = "gemma"
    ARCHITECTURE: ClassVar[str] = "GemmaForCausalLM"
    SCORED: ClassVar[str] = "GemmaForSequenceClassification"

    vocab_size: int = 256000
    hidden_size: int = 3072
    intermediate_size: int = 24576
    num_hidden_layers: int = 28
    num_attention_heads: int = 16
    num_key_value_heads: int | None = 16
    head_dim: int | None = 256
    hidden_act: str = "gelu_pytorch_tanh"
    max_position_embeddings: int = 8192
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    use_bidirectional_attention: bool | None = None
    pad_token_id: int | None = None  # written, since transformers' default need not be a token
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_way(self)


def check_one_way(config: Any) -> None:
    """ValueError for the embedding models, whose tokens see those after them."""
    check_only(config, use_bidirectional_attention=(None, False))


# Gemma team 2024, table 1.
SIZES = {
    "gemma-2b": Config.of(2048, 16384, 18, 8, 1, context=8192),
    "gemma-7b": Config.of(3072, 24576, 28, 16, 16, context=8192),
}


def shapes(config: Config) -> dict:
    """LLaMA's."""
    return llama.model_shapes(config, llama.layer_shapes(config, "qkvo" * config.attention_bias))


def init(path: str, shape: tuple[int, ...], *, config: Any, key: int) -> Any:
    """As walks.init, but norms 0: a gain of 1."""
    if path.endswith(("gamma", "_norm")):
        return 0.0
    return walks.init(path, shape, config=config, key=key)


def pieces(config: Any) -> Pieces:
    """LLaMA's, with Gemma's norm, activation and scaled embeddings."""
    activation = "gelu_pytorch_tanh" if config.hidden_act == "gelu" else config.hidden_act
    return llama.pieces(config)._replace(
        norm=partial(norm, eps=config.rms_norm_eps),
        mlp=every(partial(gated_mlp, activation=ACTIVATIONS[activation])),
        embed=scaled_embed(config.hidden_size**0.5),
    )


body = partial(decoder.body, pieces)
output_matrix = causal_lm.output_matrix
NAMES, PREFIX, SKIPPED, TIED = llama.NAMES, llama.PREFIX, llama.SKIPPED, llama.TIED
