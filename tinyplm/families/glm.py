"""GLM-4-9B as transformers has it (GLM team 2024; model_type "glm"): as LLaMA, except that queries,
keys and values have biases, that RoPE turns the first half of each head, pairs (2i, 2i + 1), and
that files hold gate and up in one matrix.

The files of the authors' own code have model_type "chatglm" and other names.
Parameters as in LLaMA, with bq, bk and bv.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..models import causal_lm, decoder, walks
from ..models.decoder import Pieces
from ..models.rope import rotary
from ..models.rotary_config import RotaryConfig
from . import llama, phi3


@dataclasses.dataclass(frozen=True)
class Config(RotaryConfig):
    """GLM's config.json: the fields of RotaryConfig, and whether q, k and v have biases."""

    MODEL_TYPE: ClassVar[str] = "glm"
    ARCHITECTURE: ClassVar[str] = "GlmForCausalLM"
    SCORED: ClassVar[str] = "GlmForSequenceClassification"
    PARTIAL: ClassVar[float | None] = 0.5

    vocab_size: int = 151552
    intermediate_size: int = 13696
    num_hidden_layers: int = 40
    num_key_value_heads: int | None = 2
    head_dim: int | None = 128
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1.5625e-07
    attention_bias: bool = True
    pad_token_id: int | None = None  # written, since transformers' default need not be a token
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None


_CHAT: dict[str, Any] = {"eos_token_id": [151329, 151336, 151338]}

# GLM team 2024, sec. 2; and the configurations of the released models.
SIZES = {
    "glm-4-9b": Config.of(4096, 13696, 40, 32, 2, context=8192, eos_token_id=[151329]),
    "glm-4-9b-chat": Config.of(4096, 13696, 40, 32, 2, context=131072, base=5e6, **_CHAT),
}


def shapes(config: Any) -> dict:
    """LLaMA's, with biases of queries, keys and values."""
    return llama.model_shapes(config, llama.layer_shapes(config, "qkv" * config.attention_bias))


def pieces(config: Any) -> Pieces:
    """LLaMA's, with RoPE of interleaved pairs in the first part of each head."""
    positions = rotary(config.rope, config.rotary_width, interleaved=True)
    return llama.pieces(config)._replace(positions=positions)


init = walks.init
body = partial(decoder.body, pieces)
output_matrix = causal_lm.output_matrix
NAMES = [*llama.ENDS, *llama.NORMS, *llama.ATTENTION, *phi3.GATE_UP]
PREFIX, SKIPPED, TIED = llama.PREFIX, llama.SKIPPED, llama.TIED
