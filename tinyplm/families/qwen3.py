"""Qwen3, dense (Qwen team 2025): as LLaMA, except that each head of the queries and of the keys is
normed before RoPE (sec. 2, QK-Norm), and that layers can have a window, as in Qwen2.

    q = rope(rmsnorm(x Wq)),   k = rope(rmsnorm(x Wk)),   with gains q_norm and k_norm (E,)

No biases.  The head width is the config's own.  Parameters as in LLaMA, with q_norm and k_norm.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..layers.norm import rmsnorm
from ..models import causal_lm, decoder, walks
from ..models.decoder import Pieces, every
from ..models.rotary_config import WindowedConfig
from . import llama


@dataclasses.dataclass(frozen=True)
class Config(WindowedConfig):
    """Qwen3's config.json: the fields of WindowedConfig, and whether attention has biases."""

    MODEL_TYPE: ClassVar[str] = "qwen3"
    ARCHITECTURE: ClassVar[str] = "Qwen3ForCausalLM"
    SCORED: ClassVar[str] = "Qwen3ForSequenceClassification"

    vocab_size: int = 151936
    intermediate_size: int = 22016
    num_key_value_heads: int | None = 32
    head_dim: int | None = 128
    max_position_embeddings: int = 32768
    attention_bias: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None


def _size(D: int, F: int, L: int, H: int, context: int = 32768, **others: Any) -> Config:
    ids: dict[str, Any] = {"bos_token_id": 151643, "eos_token_id": 151643}
    ids |= {"head_dim": 128, "max_window_layers": L, "sliding_window": None}
    return Config.of(D, F, L, H, 8, context=context, base=1e6, **{**ids, **others})


# Qwen team 2025, table 1; and the configurations of the released base models.  The largest was
# released after post-training alone.
SIZES = {
    "qwen3-0.6b": _size(1024, 3072, 28, 16, tie_word_embeddings=True),
    "qwen3-1.7b": _size(2048, 6144, 28, 16, tie_word_embeddings=True),
    "qwen3-4b": _size(2560, 9728, 36, 32, tie_word_embeddings=True),
    "qwen3-8b": _size(4096, 12288, 36, 32),
    "qwen3-14b": _size(5120, 17408, 40, 40),
    "qwen3-32b": _size(5120, 25600, 64, 64, 40960, eos_token_id=151645),
}


def shapes(config: Any) -> dict:
    """LLaMA's, with the gains of the norms of queries and keys; also for Qwen3-MoE's config."""
    layer = llama.layer_shapes(config, "qkvo" * config.attention_bias)
    layer["attention"] |= {f"{n}_norm": (config.head_width,) for n in "qk"}
    return llama.model_shapes(config, layer)


def pieces(config: Any) -> Pieces:
    """LLaMA's, with normed heads and each layer's own window."""
    head_norm = partial(rmsnorm, eps=config.rms_norm_eps)
    attention = every(llama.attention(config, head_norm=head_norm))
    return llama.pieces(config)._replace(attention=attention, window=config.window_of)


init = walks.init
body = partial(decoder.body, pieces)
output_matrix = causal_lm.output_matrix
NAMES = [*llama.NAMES, *llama.QK_NORMS]
PREFIX, SKIPPED, TIED = llama.PREFIX, llama.SKIPPED, llama.TIED
