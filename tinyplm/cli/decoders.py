"""A small config of any family of decoders, from a few numbers; a small LLaMA."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any, cast

from ..families import FAMILIES, architectures, family, llama
from ..hub import create
from ..models.causal_model import CausalModel
from ..tokenizers import Tokenizer

TITLES = {
    "baichuan": "Baichuan",
    "bloom": "BLOOM",
    "chatglm": "ChatGLM2",
    "chatglm_6b": "ChatGLM",
    "deepseek_v2": "DeepSeek-V2",
    "deepseek_v3": "DeepSeek-V3",
    "gemma": "Gemma",
    "gemma2": "Gemma 2",
    "gemma3_text": "Gemma 3",
    "glm": "GLM-4",
    "glm4": "GLM-4-0414",
    "glm_130b": "GLM-130B",
    "glm_2021": "GLM",
    "gpt2": "GPT-2",
    "gpt3": "GPT-3",
    "gpt_oss": "gpt-oss",
    "internlm": "InternLM",
    "internlm2": "InternLM 2",
    "llama": "LLaMA",
    "mistral": "Mistral",
    "mixtral": "Mixtral",
    "olmo2": "OLMo 2",
    "openai-gpt": "GPT-1",
    "palm": "PaLM",
    "phi3": "Phi-3",
    "qwen": "Qwen",
    "qwen2": "Qwen2",
    "qwen2_moe": "Qwen2-MoE",
    "qwen3": "Qwen3",
    "qwen3_moe": "Qwen3-MoE",
}


def decoders() -> dict[str, ModuleType]:
    """{model type: module} of all families of decoders."""
    modules = {name: family(name) for name in FAMILIES}
    return {
        name: module for name, module in modules.items() if "causal_lm" in architectures(module)
    }


def sized(
    module: ModuleType,
    *,
    vocab_size: int,
    layers: int,
    width: int,
    heads: int,
    context: int,
    dropout: float = 0.0,
    **changes: Any,
) -> Any:
    """A small config of a family of decoders, with a tied head.

    Feed-forward layers are 4 times as wide as the model, gated ones 8/3 times, which has as many
    parameters.  A token sees two of four experts, half as wide; latent attention keeps half the
    width.  Windows are half of the context, in half of the layers where a family has both
    kinds.  0.56 / sqrt(width) is GPT-2's initial 0.02 at width 768; with 0.02 narrow models start
    learning late.
    changes: more fields of config.json.
    """
    both_halves = module.Config.MODEL_TYPE == "qwen"  # gate and up together
    F, E = -(-8 * width // 3 // 16) * 16, width // heads
    half = -(-F // 16) * 8
    names = {field.name for field in dataclasses.fields(module.Config)}
    wanted: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 1 if module.Config.MODEL_TYPE == "palm" else heads,
        "head_dim": E,
        "kv_channels": E,
        "query_pre_attn_scalar": E,
        "intermediate_size": half if "num_local_experts" in names else 2 * F if both_halves else F,
        "ffn_hidden_size": F,
        "inner_hidden_size": F if module.Config.MODEL_TYPE == "glm_130b" else 4 * width,
        "moe_intermediate_size": half,
        "shared_expert_intermediate_size": half,
        "num_local_experts": 4,
        "num_experts": 4,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": min(1, layers - 1),
        "kv_lora_rank": width // 2,
        "q_lora_rank": None,
        "qk_nope_head_dim": E,
        "qk_rope_head_dim": -(-E // 4) * 2,
        "v_head_dim": E,
        "max_position_embeddings": context,
        "seq_length": context,
        "original_max_position_embeddings": context,
        "sliding_window": max(1, context // 2),
        "sliding_window_pattern": 2,
        "band": max(1, context // 2),
        "initializer_range": round(0.56 / width**0.5, 4),
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    aliases = module.Config.ALIASES
    found = {aliases.get(name, name): value for name, value in wanted.items()}
    rates = {n: dropout for n in names if n.endswith(("_pdrop", "_dropout", "_dropout_prob"))}
    fields = {n: value for n, value in {**found, **rates}.items() if n in names}
    return module.Config(**{**fields, **changes})


def small_llama(
    tokenizer: Tokenizer, *, layers: int, width: int, context: int, key: int, **changes: Any
) -> CausalModel:
    """A LLaMA with random parameters for this tokenizer."""
    config = llama.Config(
        vocab_size=tokenizer.vocab_size,
        hidden_size=width,
        intermediate_size=-(-8 * width // 3 // 16) * 16,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        **{"initializer_range": round(0.56 / width**0.5, 4), **changes},
        bos_token_id=0,
        eos_token_id=0,
    )
    model = cast(CausalModel, create("llama", config, key=key))
    model.tokenizer = tokenizer
    return model
