"""OLMo 2 (OLMo team 2025): as LLaMA, except that norms follow the sublayers, and that queries and
keys are normed over their whole width (sec. 3.2).

    h = x + rmsnorm1(attention(x)),   x_{i+1} = h + rmsnorm2(mlp(h))
    q = rope(rmsnorm(x Wq)),   k = rope(rmsnorm(x Wk)),   with gains q_norm (H E,), k_norm (K E,)

Parameters as in LLaMA, with q_norm and k_norm.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..layers.block import after_norm, block
from ..layers.norm import rmsnorm
from ..models import causal_lm, decoder, walks
from ..models.decoder import Pieces, every
from ..models.names import Rename
from ..models.rotary_config import RotaryConfig
from . import llama


@dataclasses.dataclass(frozen=True)
class Config(RotaryConfig):
    """OLMo 2's config.json: the fields of RotaryConfig, and whether attention has biases."""

    MODEL_TYPE: ClassVar[str] = "olmo2"
    ARCHITECTURE: ClassVar[str] = "Olmo2ForCausalLM"
    SCORED: ClassVar[str] = "Olmo2ForSequenceClassification"
    OLD: ClassVar[tuple[str, ...]] = (*RotaryConfig.OLD, "head_dim")

    vocab_size: int = 50304
    rms_norm_eps: float = 1e-5
    attention_bias: bool = False
    pad_token_id: int | None = None  # written, since transformers' default need not be a token
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = 50279


_ENDS: dict[str, Any] = {"context": 4096, "base": 500000.0, "rms_norm_eps": 1e-6}
_ENDS |= {"vocab_size": 100352, "eos_token_id": 100257}

# OLMo team 2025, table 3; and the configurations of the released models.
SIZES = {
    "olmo-2-1b": Config.of(2048, 8192, 16, 16, 16, **_ENDS),
    "olmo-2-7b": Config.of(4096, 11008, 32, 32, 32, **_ENDS),
    "olmo-2-13b": Config.of(5120, 13824, 40, 40, 40, **_ENDS),
    "olmo-2-32b": Config.of(5120, 27648, 64, 40, 8, **_ENDS),
}


def shapes(config: Config) -> dict:
    """LLaMA's, with the gains of the norms of queries and keys."""
    layer = llama.layer_shapes(config, "qkvo" * config.attention_bias)
    heads = {"q": config.heads, "k": config.kv_heads}
    layer["attention"] |= {f"{n}_norm": (h * config.head_width,) for n, h in heads.items()}
    return llama.model_shapes(config, layer)


def pieces(config: Config) -> Pieces:
    """LLaMA's, with norms after the sublayers and of whole projections."""
    norm = partial(rmsnorm, eps=config.rms_norm_eps)
    return llama.pieces(config)._replace(
        attention=every(llama.attention(config, projection_norm=norm)),
        residual=partial(block, residual=after_norm),
    )


init = walks.init
body = partial(decoder.body, pieces)
output_matrix = causal_lm.output_matrix

_LAYER, _HUB = "body.layers.{i}", "model.layers.{i}"
_NORMS = [
    Rename(f"{_HUB}.post_attention_layernorm.weight", f"{_LAYER}.norm1.gamma"),
    Rename(f"{_HUB}.post_feedforward_layernorm.weight", f"{_LAYER}.norm2.gamma"),
]
NAMES = [*llama.ENDS, *_NORMS, *llama.ATTENTION, *llama.MLP, *llama.QK_NORMS]
PREFIX, SKIPPED, TIED = llama.PREFIX, llama.SKIPPED, llama.TIED
