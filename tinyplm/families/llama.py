"""LLaMA 1, 2, 3, 3.1 and 3.2 (Touvron et al. 2023a, 2023b; Llama team 2024): a pre-norm decoder
with RMSNorm, rotary positions and SwiGLU, without biases; grouped-query attention in the largest
LLaMA 2 and in all of LLaMA 3.  Yi (Young et al. 2024) is LLaMA with other sizes; its files have
LLaMA's model_type.

    x_0     = tokens[ids]
    x_{i+1} = block(x_i):   h = x + attention(rmsnorm1(x))
                            x_{i+1} = h + (silu(n Wgate) * (n Wup)) Wdown,   n = rmsnorm2(h)
    hidden  = rmsnorm(x_L),   logits = hidden W            (tied: hidden tokens^T)

RoPE turns queries and keys (half-split pairs), with the config's scaling of the frequencies.
The walk is models/decoder.py.
Parameters: {"body": {"tokens" (V, D), "layers": [...], "norm"}, "head": {"W" (D, V)} unless tied}.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar

from ..core import Component, on_tree
from ..kernels.activation import ACTIVATIONS
from ..kernels.attention import self_attention
from ..kernels.mlp import gated_mlp
from ..layers.norm import rmsnorm
from ..models import causal_lm, decoder, walks
from ..models.decoder import Pieces, every, final_norm, no_embed, pre_norm_block
from ..models.names import Rename, linears
from ..models.rope import rotary
from ..models.rotary_config import RotaryConfig

norm = on_tree(rmsnorm, "gamma")


@dataclasses.dataclass(frozen=True)
class Config(RotaryConfig):
    """LLaMA's config.json: the fields of RotaryConfig, and which linear layers have biases."""

    MODEL_TYPE: ClassVar[str] = "llama"
    ARCHITECTURE: ClassVar[str] = "LlamaForCausalLM"
    SCORED: ClassVar[str] = "LlamaForSequenceClassification"

    attention_bias: bool = False
    mlp_bias: bool = False


_STRETCH = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_V1: dict[str, Any] = {"context": 2048}
_V2: dict[str, Any] = {"context": 4096, "rms_norm_eps": 1e-5}
_V3: dict[str, Any] = {
    **{"base": 500000.0, "context": 8192, "rms_norm_eps": 1e-5},
    **{"vocab_size": 128256, "bos_token_id": 128000, "eos_token_id": 128001},
}
_V31 = {**_V3, "context": 131072, "rope": {**_STRETCH, "factor": 8.0}}
_V32 = {**_V3, "context": 131072, "rope": {**_STRETCH, "factor": 32.0}, "tie_word_embeddings": True}
_YI: dict[str, Any] = {"vocab_size": 64000, "context": 4096, "base": 5e6}

# Touvron et al. 2023a, table 2; 2023b, table 1; Llama team 2024, table 3; Young et al. 2024,
# table 1; and the configurations of the released weights.
SIZES = {
    "llama-7b": Config.of(4096, 11008, 32, 32, **_V1),
    "llama-13b": Config.of(5120, 13824, 40, 40, **_V1),
    "llama-30b": Config.of(6656, 17920, 60, 52, **_V1),
    "llama-65b": Config.of(8192, 22016, 80, 64, rms_norm_eps=1e-5, **_V1),
    "llama-2-7b": Config.of(4096, 11008, 32, 32, **_V2),
    "llama-2-13b": Config.of(5120, 13824, 40, 40, **_V2),
    "llama-2-70b": Config.of(8192, 28672, 80, 64, 8, **_V2),
    "llama-3-8b": Config.of(4096, 14336, 32, 32, 8, **_V3),
    "llama-3-70b": Config.of(8192, 28672, 80, 64, 8, **_V3),
    "llama-3.1-8b": Config.of(4096, 14336, 32, 32, 8, **_V31),
    "llama-3.1-70b": Config.of(8192, 28672, 80, 64, 8, **_V31),
    "llama-3.1-405b": Config.of(16384, 53248, 126, 128, 8, **_V31),
    "llama-3.2-1b": Config.of(2048, 8192, 16, 32, 8, **_V32),
    "llama-3.2-3b": Config.of(3072, 8192, 28, 24, 8, **_V32),
    "yi-6b": Config.of(4096, 11008, 32, 32, 4, **_YI, rms_norm_eps=1e-5),
    "yi-9b": Config.of(4096, 11008, 48, 32, 4, **{**_YI, "base": 10000.0}),
    "yi-34b": Config.of(7168, 20480, 60, 56, 8, **_YI, rms_norm_eps=1e-5),
    "yi-1.5-6b": Config.of(4096, 11008, 32, 32, 4, **_YI),
    "yi-1.5-9b": Config.of(4096, 11008, 48, 32, 4, **_YI),
    "yi-1.5-34b": Config.of(7168, 20480, 60, 56, 8, **_YI),
}


def layer_shapes(
    config: RotaryConfig, attention: Iterable[str] = (), mlp: Iterable[str] = ()
) -> dict:
    """The shapes of one layer; attention, mlp: which of their linear layers have biases."""
    D, F = config.hidden_size, config.mlp_width
    q, kv = (heads * config.head_width for heads in (config.heads, config.kv_heads))

    def linear_layers(biases: Iterable[str], **weights: tuple[int, int]) -> dict:
        return {f"W{n}": shape for n, shape in weights.items()} | {
            f"b{n}": weights[n][1:] for n in biases
        }

    return {
        "norm1": {"gamma": (D,)},
        "attention": linear_layers(attention, q=(D, q), k=(D, kv), v=(D, kv), o=(q, D)),
        "norm2": {"gamma": (D,)},
        "mlp": linear_layers(mlp, gate=(D, F), up=(D, F), down=(F, D)),
    }


def model_shapes(config: RotaryConfig, layer: dict) -> dict:
    """The tree of parameter shapes of a model with such layers; nothing is allocated."""
    D, V = config.hidden_size, config.vocab_size
    body = {"tokens": (V, D), "layers": [layer] * config.num_hidden_layers, "norm": {"gamma": (D,)}}
    return {"body": body} if config.tie_word_embeddings else {"body": body, "head": {"W": (D, V)}}


def shapes(config: Config) -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    mlp = ("gate", "up", "down") * config.mlp_bias
    return model_shapes(config, layer_shapes(config, "qkvo" * config.attention_bias, mlp))


def attention(config: RotaryConfig, **options: Any) -> Component:
    """Self-attention with the config's heads and dropout; options: of kernels' self_attention."""
    heads, kv_heads, rate = config.heads, config.kv_heads, config.attention_dropout
    return partial(self_attention, heads=heads, kv_heads=kv_heads, rate=rate, **options)


def pieces(config: RotaryConfig) -> Pieces:
    """What the walk of decoders computes for LLaMA."""
    return Pieces(
        norm=partial(norm, eps=config.rms_norm_eps),
        attention=every(attention(config)),
        mlp=every(partial(gated_mlp, activation=ACTIVATIONS[config.hidden_act])),
        residual=pre_norm_block(),
        embed=no_embed,
        window=every(None),
        positions=rotary(config.rope, config.rotary_width),
        finish=final_norm,
    )


init = walks.init
body = partial(decoder.body, pieces)
output_matrix = causal_lm.output_matrix

_LAYER, _HUB = "body.layers.{i}", "model.layers.{i}"
ENDS = [
    Rename("model.embed_tokens.weight", "body.tokens"),
    Rename("model.norm.weight", "body.norm.gamma"),
    *decoder.HEADS,
]
NORMS = [
    Rename(f"{_HUB}.input_layernorm.weight", f"{_LAYER}.norm1.gamma"),
    Rename(f"{_HUB}.post_attention_layernorm.weight", f"{_LAYER}.norm2.gamma"),
]
ATTENTION = linears(
    f"{_HUB}.self_attn", f"{_LAYER}.attention", q_proj="q", k_proj="k", v_proj="v", o_proj="o"
)
MLP = linears(f"{_HUB}.mlp", f"{_LAYER}.mlp", gate_proj="gate", up_proj="up", down_proj="down")
QK_NORMS = [
    Rename(f"{_HUB}.self_attn.{n}_norm.weight", f"{_LAYER}.attention.{n}_norm") for n in "qk"
]
NAMES = [*ENDS, *NORMS, *ATTENTION, *MLP]
PREFIX = "model."  # a file of the bare body lacks it
SKIPPED = (r"rotary_emb\.inv_freq$",)  # frequencies that old files carry
TIED = {
    "lm_head.weight": "model.embed_tokens.weight"
}  # may stand in a file although the head is tied
