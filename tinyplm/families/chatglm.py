"""ChatGLM2-6B, ChatGLM3-6B, CodeGeeX2-6B and GLM-4-9B in the files of the authors' own code (GLM
team 2024): as glm.py, except that dropout precedes each addition, and that files have names of
their own and hold queries, keys and values in one matrix.

    query_key_value = [Wq, Wk, Wv],   dense_h_to_4h = [Wgate, Wup]

RoPE turns the first half of each head by angles with a setting r = rope_ratio.  It has two meanings
in the authors' code, and the model's name (`_name_or_path`) or its vocabulary says which:

    ChatGLM2:          position m, pair i:  (m / r) 10000^(-2i/E'),     E' = kv_channels / 2
    ChatGLM3, GLM-4:                        m (10000 r)^(-2i/E')

apply_query_key_layer_scaling and attention_softmax_in_fp32 do not change results.
Parameters as in LLaMA, with bq, bk and bv.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..models import causal_lm, decoder, walks
from ..models.chatglm_config import GLM4_VOCABULARY, ChatGLMConfig
from ..models.decoder import Pieces
from ..models.names import Rename, concatenate, fused, grouped, linears
from . import glm, llama


@dataclasses.dataclass(frozen=True)
class Config(ChatGLMConfig):
    """The authors' config.json: the fields of ChatGLMConfig."""

    MODEL_TYPE: ClassVar[str] = "chatglm"
    ARCHITECTURE: ClassVar[str] = "ChatGLMModel"
    SCORED: ClassVar[str] = "ChatGLMForSequenceClassification"


_6B: dict[str, Any] = {"add_qkv_bias": True, "multi_query_attention": True}
_6B |= {"multi_query_group_num": 2, "eos_token_id": 2}
_9B: dict[str, Any] = {**_6B, "padded_vocab_size": GLM4_VOCABULARY, "num_layers": 40}
_9B |= {"layernorm_epsilon": 1.5625e-07, "_name_or_path": "THUDM/glm-4-9b"}
_9B |= {"eos_token_id": [151329, 151336, 151338]}


def _long(name: str, context: int, ratio: int) -> Config:
    return Config(**_6B, seq_length=context, rope_ratio=ratio, _name_or_path=f"THUDM/{name}")


# The config.json of the released models (of chatglm2-6b-32k in hzg0601/cn-llm-codes, 830e7ec; of
# chatglm3-6b-128k in shiroko98/megatron_data_process, 5147646).
SIZES = {
    "chatglm2-6b": Config(**_6B, seq_length=32768),
    "chatglm2-6b-32k": _long("chatglm2-6b-32k", 32768, 16),
    "chatglm3-6b": Config(**_6B, seq_length=8192),
    "chatglm3-6b-128k": _long("chatglm3-6b-128k", 131072, 500),
    "codegeex2-6b": Config(**_6B, seq_length=8192),
    "glm-4-9b": Config(**_9B, seq_length=8192),
    "glm-4-9b-chat": Config(**_9B, seq_length=131072, rope_ratio=500),
    "glm-4-9b-chat-1m": Config(
        **{**_9B, "multi_query_group_num": 4}, seq_length=1 << 20, rope_ratio=10000
    ),
}


def shapes(config: Any) -> dict:
    """LLaMA's, with biases of queries, keys and values, or everywhere (add_bias_linear)."""
    everywhere = config.add_bias_linear
    attention = "qkv" * (config.add_qkv_bias or everywhere) + "o" * everywhere
    layer = llama.layer_shapes(config, attention, ("gate", "up", "down") * everywhere)
    return llama.model_shapes(config, layer)


def pieces(config: Any) -> Pieces:
    """glm.py's, with dropout before each addition."""
    return glm.pieces(config)._replace(residual=decoder.pre_norm_block(config.hidden_dropout))


init = walks.init
body = partial(decoder.body, pieces)
output_matrix = causal_lm.output_matrix

_LAYER, _HUB = "body.layers.{i}", "transformer.encoder.layers.{i}"


def renames(config: Config) -> list[Rename]:
    """The authors' tensors; without groups, query_key_value holds each head's rows together."""
    attention, mlp = f"{_LAYER}.attention", f"{_LAYER}.mlp"
    weights, biases = ([f"{attention}.{kind}{n}" for n in "qkv"] for kind in "Wb")
    up, up_biases = ([f"{mlp}.{kind}{n}" for n in ("gate", "up")] for kind in "Wb")
    by_head = None if config.multi_query_attention else grouped(config.heads)
    return [
        Rename("transformer.embedding.word_embeddings.weight", "body.tokens"),
        Rename(f"{_HUB}.input_layernorm.weight", f"{_LAYER}.norm1.gamma"),
        Rename(
            f"{_HUB}.self_attention.query_key_value.weight",
            *weights,
            operation=by_head or fused(),
        ),
        Rename(
            f"{_HUB}.self_attention.query_key_value.bias",
            *biases,
            operation=by_head or concatenate(0),
        ),
        *linears(f"{_HUB}.self_attention", attention, dense="o"),
        Rename(f"{_HUB}.post_attention_layernorm.weight", f"{_LAYER}.norm2.gamma"),
        Rename(f"{_HUB}.mlp.dense_h_to_4h.weight", *up, operation=fused()),
        Rename(f"{_HUB}.mlp.dense_h_to_4h.bias", *up_biases, operation=concatenate(0)),
        *linears(f"{_HUB}.mlp", mlp, dense_4h_to_h="down"),
        Rename("transformer.encoder.final_layernorm.weight", "body.norm.gamma"),
        Rename("transformer.output_layer.weight", "head.W", operation="transpose"),
        Rename("classifier_head.weight", "head.score", operation="transpose"),
    ]


NAMES = renames(Config())
PREFIX, SKIPPED = "transformer.", (r"rotary_pos_emb\.inv_freq$",)
TIED = {"transformer.output_layer.weight": "transformer.embedding.word_embeddings.weight"}
