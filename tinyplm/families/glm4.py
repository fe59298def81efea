"""GLM-4-0414 and GLM-Z1 (Zhipu AI 2025; model_type "glm4"): as glm.py, except that norms stand on
both sides of each sublayer, as in Gemma 2, with LLaMA's RMSNorm.

    h = x + norm(attention(norm(x))),   x_{i+1} = h + norm(mlp(norm(h)))

Parameters as in glm.py, with norm1 and norm2 of each layer {"before", "after"}.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..models import causal_lm, decoder, walks
from ..models.decoder import Pieces
from . import gemma2, glm, llama, phi3


@dataclasses.dataclass(frozen=True)
class Config(glm.Config):
    """GLM-4-0414's config.json: glm.py's fields."""

    MODEL_TYPE: ClassVar[str] = "glm4"
    ARCHITECTURE: ClassVar[str] = "Glm4ForCausalLM"
    SCORED: ClassVar[str] = "Glm4ForSequenceClassification"


_ENDS: dict[str, Any] = {"context": 32768, "rms_norm_eps": 1e-5}
_ENDS |= {"eos_token_id": [151329, 151336, 151338]}

# The configurations of the released models.
SIZES = {
    "glm-4-9b-0414": Config.of(4096, 13696, 40, 32, 2, attention_bias=True, **_ENDS),
    "glm-4-32b-0414": Config.of(6144, 23040, 61, 48, 2, attention_bias=False, **_ENDS),
}


def shapes(config: Config) -> dict:
    """glm.py's, with a norm before and one after each sublayer."""
    layer = llama.layer_shapes(config, "qkv" * config.attention_bias)
    return llama.model_shapes(config, gemma2.with_both_norms(layer))


def pieces(config: Config) -> Pieces:
    """glm.py's, with norms on both sides."""
    return glm.pieces(config)._replace(residual=gemma2.BOTH_NORMS)


init = walks.init
body = partial(decoder.body, pieces)
output_matrix = causal_lm.output_matrix

_NORMS = gemma2.both_norm_names(
    *("input_layernorm", "post_self_attn_layernorm"),
    *("post_attention_layernorm", "post_mlp_layernorm"),
)
NAMES = [*llama.ENDS, *_NORMS, *llama.ATTENTION, *phi3.GATE_UP]
PREFIX, SKIPPED, TIED = llama.PREFIX, llama.SKIPPED, llama.TIED
