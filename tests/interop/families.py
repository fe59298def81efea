# ruff: noqa: E402 - imports follow importorskip
"""The causal families as the tests against transformers know them: one row a family, and configs for every kind of RoPE."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any

import pytest

transformers = pytest.importorskip("transformers")

from tinyplm.families import (
    bloom,
    deepseek_v2,
    deepseek_v3,
    gemma,
    gemma2,
    gemma3_text,
    glm,
    glm4,
    gpt2,
    gpt_oss,
    llama,
    mistral,
    mixtral,
    olmo2,
    openai_gpt,
    phi3,
    qwen2,
    qwen2_moe,
    qwen3,
    qwen3_moe,
)


@dataclasses.dataclass(frozen=True)
class Family:
    """What the tests need to know about a causal family: our module, transformers' classes, and a tiny config by hub names."""

    module: ModuleType
    config: type  # transformers' classes
    lm: type
    body: type
    tiny: dict[str, Any]
    context: str  # the config's name for the longest sequence
    odd: dict[str, Any]  # changes that make width 30 with 3 heads
    tables: tuple[str, ...]  # hub names of the embedding tables, the token table first
    spots: tuple[str, ...]  # hub names of parameters that get difficult values: a vector, a matrix that we transpose ...
    paths: tuple[str, ...]  # and their paths, or paths of parts of them, in our tree


_LLAMA_SHAPED = {
    "vocab_size": 41, "max_position_embeddings": 12, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "attention_dropout": 0.1, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
_SPARSE = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 12}  # Qwen's experts

# otherwise the norms of a float16 file would become float32
transformers.GptOssPreTrainedModel._keep_in_fp32_modules = None

# Dropout rates stay at 0.1: eval() on one side and key=None on the other must switch it off.
_LATENT = {
    "vocab_size": 41, "max_position_embeddings": 12, "hidden_size": 32, "intermediate_size": 44, "moe_intermediate_size": 13,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": None, "q_lora_rank": 9, "kv_lora_rank": 10,
    "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 5, "n_routed_experts": 6, "n_shared_experts": 2,
    "num_experts_per_tok": 2, "n_group": 3, "topk_group": 2, "routed_scaling_factor": 1.7, "first_k_dense_replace": 1,
    "attention_dropout": 0.1, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
FAMILIES = {
    "gpt2": Family(
        gpt2, transformers.GPT2Config, transformers.GPT2LMHeadModel, transformers.GPT2Model,
        {"vocab_size": 41, "n_positions": 12, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": None,
         "eos_token_id": None},
        context="n_positions",
        odd={"n_embd": 30, "n_head": 3},
        tables=("transformer.wte.weight", "transformer.wpe.weight"),
        spots=("transformer.h.1.mlp.c_fc.bias", "transformer.h.0.attn.c_attn.bias"),
        paths=("body.layers.1.mlp.b1", "body.layers.0.attention.bv"),
    ),
    "llama": Family(
        llama, transformers.LlamaConfig, transformers.LlamaForCausalLM, transformers.LlamaModel,
        _LLAMA_SHAPED,
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1},
        tables=("model.embed_tokens.weight",),
        spots=("model.norm.weight", "model.layers.1.mlp.down_proj.weight"),
        paths=("body.norm.gamma", "body.layers.1.mlp.Wdown"),
    ),
    # The windows are shorter than the length-7 sequences of `compare`.
    "mistral": Family(
        mistral, transformers.MistralConfig, transformers.MistralForCausalLM, transformers.MistralModel,
        {**_LLAMA_SHAPED, "sliding_window": 3},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 6},
        tables=("model.embed_tokens.weight",),
        spots=("model.norm.weight", "model.layers.1.self_attn.o_proj.weight"),
        paths=("body.norm.gamma", "body.layers.1.attention.Wo"),
    ),
    "mixtral": Family(
        mixtral, transformers.MixtralConfig, transformers.MixtralForCausalLM, transformers.MixtralModel,
        {**_LLAMA_SHAPED, "sliding_window": 3, "num_local_experts": 5},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 6, "num_experts_per_tok": 3},
        tables=("model.embed_tokens.weight",),
        spots=("model.norm.weight", "model.layers.1.self_attn.o_proj.weight"),
        paths=("body.norm.gamma", "body.layers.1.attention.Wo"),
    ),
    "deepseek_v2": Family(
        deepseek_v2, transformers.DeepseekV2Config, transformers.DeepseekV2ForCausalLM, transformers.DeepseekV2Model,
        {**_LATENT, "topk_method": "group_limited_greedy", "norm_topk_prob": False},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "v_head_dim": 7, "q_lora_rank": None},
        tables=("model.embed_tokens.weight",),
        spots=("model.layers.0.self_attn.kv_a_layernorm.weight", "model.layers.1.self_attn.kv_b_proj.weight"),
        paths=("body.layers.0.attention.kv_norm", "body.layers.1.attention.Wuv"),
    ),
    "deepseek_v3": Family(
        deepseek_v3, transformers.DeepseekV3Config, transformers.DeepseekV3ForCausalLM, transformers.DeepseekV3Model,
        {**_LATENT, "norm_topk_prob": True},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "v_head_dim": 7, "norm_topk_prob": False},
        tables=("model.embed_tokens.weight",),
        spots=("model.layers.0.self_attn.q_a_layernorm.weight", "model.layers.1.self_attn.q_b_proj.weight"),
        paths=("body.layers.0.attention.q_norm", "body.layers.1.attention.Wuq"),
    ),
    "gpt_oss": Family(
        gpt_oss, transformers.GptOssConfig, transformers.GptOssForCausalLM, transformers.GptOssModel,
        {**_LLAMA_SHAPED, "intermediate_size": 20, "head_dim": 8, "sliding_window": 3, "num_local_experts": 3,
         "num_experts_per_tok": 2, "swiglu_limit": 0.5,
         "rope_parameters": {"rope_type": "yarn", "rope_theta": 50.0, "factor": 2.0, "beta_fast": 1.5, "beta_slow": 0.4,
                             "truncate": False, "original_max_position_embeddings": 6}},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 6, "num_experts_per_tok": 3},
        tables=("model.embed_tokens.weight",),
        spots=("model.norm.weight", "model.layers.1.self_attn.k_proj.bias", "model.layers.1.self_attn.o_proj.weight",
               "model.layers.1.mlp.experts.gate_up_proj"),
        paths=("body.norm.gamma", "body.layers.1.attention.bk", "body.layers.1.attention.Wo",
               "body.layers.1.mlp.experts.Wup"),
    ),
    "qwen2": Family(
        qwen2, transformers.Qwen2Config, transformers.Qwen2ForCausalLM, transformers.Qwen2Model,
        {**_LLAMA_SHAPED, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1},
        tables=("model.embed_tokens.weight",),
        spots=("model.layers.0.self_attn.q_proj.bias", "model.layers.1.mlp.down_proj.weight"),
        paths=("body.layers.0.attention.bq", "body.layers.1.mlp.Wdown"),
    ),
    "qwen3": Family(
        qwen3, transformers.Qwen3Config, transformers.Qwen3ForCausalLM, transformers.Qwen3Model,
        {**_LLAMA_SHAPED, "head_dim": 10, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1},
        tables=("model.embed_tokens.weight",),
        spots=("model.layers.0.self_attn.q_norm.weight", "model.layers.1.mlp.down_proj.weight"),
        paths=("body.layers.0.attention.q_norm", "body.layers.1.mlp.Wdown"),
    ),
    "qwen2_moe": Family(
        qwen2_moe, transformers.Qwen2MoeConfig, transformers.Qwen2MoeForCausalLM, transformers.Qwen2MoeModel,
        {**_LLAMA_SHAPED, **_SPARSE, "shared_expert_intermediate_size": 20, "use_sliding_window": True, "sliding_window": 4},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1, "num_experts_per_tok": 3},
        tables=("model.embed_tokens.weight",),
        spots=("model.layers.0.self_attn.q_proj.bias", "model.layers.1.mlp.shared_expert.down_proj.weight"),
        paths=("body.layers.0.attention.bq", "body.layers.1.mlp.shared.mlp.Wdown"),
    ),
    "qwen3_moe": Family(
        qwen3_moe, transformers.Qwen3MoeConfig, transformers.Qwen3MoeForCausalLM, transformers.Qwen3MoeModel,
        {**_LLAMA_SHAPED, **_SPARSE, "head_dim": 10, "norm_topk_prob": True},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1, "num_experts_per_tok": 3},
        tables=("model.embed_tokens.weight",),
        spots=("model.layers.0.self_attn.q_norm.weight", "model.layers.1.self_attn.o_proj.weight"),
        paths=("body.layers.0.attention.q_norm", "body.layers.1.attention.Wo"),
    ),
    "gemma": Family(
        gemma, transformers.GemmaConfig, transformers.GemmaForCausalLM, transformers.GemmaModel,
        {**_LLAMA_SHAPED, "head_dim": 10, "pad_token_id": None},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1},
        tables=("model.embed_tokens.weight",),
        spots=("model.norm.weight", "model.layers.1.mlp.down_proj.weight"),
        paths=("body.norm.gamma", "body.layers.1.mlp.Wdown"),
    ),
    "gemma2": Family(
        gemma2, transformers.Gemma2Config, transformers.Gemma2ForCausalLM, transformers.Gemma2Model,
        {**_LLAMA_SHAPED, "head_dim": 10, "pad_token_id": None, "sliding_window": 3, "query_pre_attn_scalar": 7,
         "attn_logit_softcapping": 1.5, "final_logit_softcapping": 1.0},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1},
        tables=("model.embed_tokens.weight",),
        spots=("model.layers.0.pre_feedforward_layernorm.weight", "model.layers.1.mlp.down_proj.weight"),
        paths=("body.layers.0.norm2.before.gamma", "body.layers.1.mlp.Wdown"),
    ),
    "gemma3_text": Family(
        gemma3_text, transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM, transformers.Gemma3TextModel,
        {**_LLAMA_SHAPED, "head_dim": 10, "pad_token_id": None, "sliding_window": 3, "query_pre_attn_scalar": 7,
         "layer_types": ["sliding_attention", "full_attention"],
         "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0},
                             "sliding_attention": {"rope_type": "default", "rope_theta": 10.0}}},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1},
        tables=("model.embed_tokens.weight",),
        spots=("model.layers.0.self_attn.k_norm.weight", "model.layers.1.mlp.down_proj.weight"),
        paths=("body.layers.0.attention.k_norm", "body.layers.1.mlp.Wdown"),
    ),
    "olmo2": Family(
        olmo2, transformers.Olmo2Config, transformers.Olmo2ForCausalLM, transformers.Olmo2Model,
        {**_LLAMA_SHAPED, "pad_token_id": None},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1},
        tables=("model.embed_tokens.weight",),
        spots=("model.layers.0.self_attn.k_norm.weight", "model.layers.1.mlp.down_proj.weight"),
        paths=("body.layers.0.attention.k_norm", "body.layers.1.mlp.Wdown"),
    ),
    "phi3": Family(
        phi3, transformers.Phi3Config, transformers.Phi3ForCausalLM, transformers.Phi3Model,
        {**_LLAMA_SHAPED, "pad_token_id": None, "sliding_window": 3, "resid_pdrop": 0.1, "embd_pdrop": 0.1},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1},
        tables=("model.embed_tokens.weight",),
        spots=("model.norm.weight", "model.layers.1.self_attn.qkv_proj.weight"),
        paths=("body.norm.gamma", "body.layers.1.attention.Wv"),
    ),
    "glm": Family(
        glm, transformers.GlmConfig, transformers.GlmForCausalLM, transformers.GlmModel,
        {**_LLAMA_SHAPED, "pad_token_id": None, "head_dim": 8},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1},
        tables=("model.embed_tokens.weight",),
        spots=("model.layers.0.self_attn.q_proj.bias", "model.layers.1.mlp.gate_up_proj.weight"),
        paths=("body.layers.0.attention.bq", "body.layers.1.mlp.Wup"),
    ),
    "glm4": Family(
        glm4, transformers.Glm4Config, transformers.Glm4ForCausalLM, transformers.Glm4Model,
        {**_LLAMA_SHAPED, "pad_token_id": None, "head_dim": 8},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1},
        tables=("model.embed_tokens.weight",),
        spots=("model.layers.0.post_self_attn_layernorm.weight", "model.layers.1.mlp.gate_up_proj.weight"),
        paths=("body.layers.0.norm1.after.gamma", "body.layers.1.mlp.Wup"),
    ),
    # Three heads: ALiBi's slopes for a number that is no power of two.
    "bloom": Family(
        bloom, transformers.BloomConfig, transformers.BloomForCausalLM, transformers.BloomModel,
        {"vocab_size": 41, "hidden_size": 30, "n_layer": 2, "n_head": 3, "hidden_dropout": 0.1, "attention_dropout": 0.1,
         "bos_token_id": None, "eos_token_id": None},
        context="seq_length",
        odd={"hidden_size": 20, "n_head": 5},
        tables=("transformer.word_embeddings.weight",),
        spots=("transformer.h.1.mlp.dense_h_to_4h.bias", "transformer.h.0.self_attention.query_key_value.weight"),
        paths=("body.layers.1.mlp.b1", "body.layers.0.attention.Wk"),
    ),
    "openai-gpt": Family(
        openai_gpt, transformers.OpenAIGPTConfig, transformers.OpenAIGPTLMHeadModel, transformers.OpenAIGPTModel,
        {"vocab_size": 41, "n_positions": 12, "n_embd": 32, "n_layer": 2, "n_head": 4},
        context="n_positions",
        odd={"n_embd": 30, "n_head": 3},
        tables=("transformer.tokens_embed.weight", "transformer.positions_embed.weight"),
        spots=("transformer.h.1.mlp.c_fc.bias", "transformer.h.0.attn.c_attn.bias"),
        paths=("body.layers.1.mlp.b1", "body.layers.0.attention.bv"),
    ),
}  # fmt: skip


def _rope(kind, positions=12, width=16, **settings):
    """A LLaMA config with heads wide enough (8 frequencies) that scaling treats some frequencies differently from others."""
    return {"head_dim": width, "max_position_embeddings": positions,
            "rope_parameters": {"rope_type": kind, "rope_theta": 100.0, **settings}}  # fmt: skip


_STRETCH = {"factor": 4.0, "original_max_position_embeddings": 64}
_LISTS = {"original_max_position_embeddings": 12, "short_factor": [1, 1, 1, 1.1, 1.3, 1.5, 1.5, 2], "long_factor": [*range(1, 9)]}
# Each has room for 48 tokens.  With base 100, the frequencies make between 10 and 0.2 turns in 64 positions.  beta_fast ..
# beta_slow and low_freq_factor .. high_freq_factor lie in that range, so several frequencies fall on the ramp between them.
ROPES = {
    "default": _rope("default", 48),
    "another base": _rope("default", 48, rope_theta=50.0),
    "linear": _rope("linear", factor=4.0),
    "dynamic": _rope("dynamic", factor=4.0),
    "dynamic, 1.5": _rope("dynamic", 36, factor=1.5),
    "yarn": _rope("yarn", 256, **_STRETCH, beta_fast=8.0, beta_slow=0.5),
    "yarn, the default betas": _rope("yarn", 256, **_STRETCH),
    "yarn, attention_factor": _rope("yarn", 256, **_STRETCH, attention_factor=0.7),
    "yarn, mscale": _rope("yarn", 256, **_STRETCH, mscale=0.707, mscale_all_dim=1.3),
    "yarn, mscale alone": _rope("yarn", 256, **_STRETCH, mscale=0.707),
    "yarn, not truncated": _rope("yarn", 256, **_STRETCH, truncate=False, beta_fast=6.0, beta_slow=0.7),
    "yarn, one place": _rope("yarn", 256, **_STRETCH, beta_fast=20.0, beta_slow=12.0),  # low == high == 0
    "yarn, all fast": _rope("yarn", 256, **_STRETCH, beta_fast=40.0, beta_slow=20.0),  # high < 0
    "yarn, none fast": _rope("yarn", 256, **_STRETCH, beta_fast=0.05, beta_slow=0.04),  # low > 7
    "yarn within its context": _rope("yarn", factor=4.0),  # original_max_position_embeddings = max_position_embeddings
    "longrope": _rope("longrope", 48, **_LISTS),  # other factors beyond 12 positions
    "longrope, factor": _rope("longrope", 48, **_LISTS, factor=3.0),
    "longrope, attention_factor": _rope("longrope", 48, **_LISTS, attention_factor=0.7),
    "llama3": _rope("llama3", 256, **_STRETCH, low_freq_factor=1.0, high_freq_factor=4.0),
    "llama3, other factors": _rope("llama3", 256, **_STRETCH, low_freq_factor=0.3, high_freq_factor=9.0),
}
