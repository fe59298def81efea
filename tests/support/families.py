"""The causal families as the tests see them; a family added here as one row gets the tests of test_causal_lm.py and
test_cache.py, and one in KINDS all of them.

Every TINY config has a vocabulary of 11, a context of 6, width 6 and two layers, and dropout rates of 0.
"""

from __future__ import annotations

import copy
import dataclasses
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

import tinyplm
from tinyplm.core import tree_map
from tinyplm.families import (
    baichuan,
    bloom,
    chatglm,
    chatglm_6b,
    deepseek_v2,
    deepseek_v3,
    gemma,
    gemma2,
    gemma3_text,
    glm,
    glm4,
    glm_130b,
    glm_2021,
    gpt2,
    gpt3,
    gpt_oss,
    internlm,
    internlm2,
    llama,
    mistral,
    mixtral,
    olmo2,
    openai_gpt,
    palm,
    phi3,
    qwen,
    qwen2,
    qwen2_moe,
    qwen3,
    qwen3_moe,
)

from .family_settings import CONTEXT, LATENT, LLAMA_SHAPED, NARROW, NO_DROPOUT, SPARSE, VOCABULARY, WIDTH
from .family_settings import two_ropes as _two_ropes


class Family(NamedTuple):
    module: ModuleType
    config: Any  # TINY
    context: str | None  # the config's name for the longest sequence; None where a test's sequences never reach it
    variants: dict[str, dict[str, Any]]  # changes to TINY that take other paths through forward and backward
    dropout: dict[str, float]  # every dropout rate, none of them 0


FAMILIES = {
    "gpt2": Family(
        gpt2,
        gpt2.Config(vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=WIDTH, n_layer=2, n_head=2, bos_token_id=None,
                    eos_token_id=None, **NO_DROPOUT),
        context="n_positions",
        variants={"tied": {"tie_word_embeddings": True}, "untied": {"tie_word_embeddings": False},
                  "scaled by layer": {"scale_attn_by_inverse_layer_idx": True, "n_inner": 5}},
        dropout={"resid_pdrop": 0.2, "embd_pdrop": 0.2, "attn_pdrop": 0.2},
    ),
    "llama": Family(
        llama,
        llama.Config(**LLAMA_SHAPED),
        context="max_position_embeddings",
        variants={"untied": {"tie_word_embeddings": False}, "tied": {"tie_word_embeddings": True},
                  "biases": {"attention_bias": True, "mlp_bias": True},
                  "biases, tied, one kv head": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True,
                                                "num_key_value_heads": 1},
                  "as many kv heads": {"num_key_value_heads": 4, "hidden_act": "gelu"},
                  "yarn": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 10.0, "factor": 4.0}}},
        dropout={"attention_dropout": 0.2},
    ),
    # A window of 3 in every layer, shorter than the sequences of 5 in `batch`.
    "mistral": Family(
        mistral,
        mistral.Config(**LLAMA_SHAPED, sliding_window=3),
        context="max_position_embeddings",
        variants={"window of 1": {"sliding_window": 1, "tie_word_embeddings": True},
                  "no window": {"sliding_window": None, "num_key_value_heads": 4},
                  "as long as the context": {"sliding_window": CONTEXT}},
        dropout={"attention_dropout": 0.2},
    ),
    # Four experts, of which a token sees two; a window in the second variant.
    "mixtral": Family(
        mixtral,
        mixtral.Config(**LLAMA_SHAPED, num_local_experts=4),
        context="max_position_embeddings",
        variants={"tied, one of three": {"tie_word_embeddings": True, "num_local_experts": 3, "num_experts_per_tok": 1},
                  "window, all experts": {"sliding_window": 3, "num_experts_per_tok": 4}},
        dropout={"attention_dropout": 0.2},
    ),
    # Four experts, a window of 2 in the lower of the two layers; the clamp of 0.5 is within reach.
    "gpt_oss": Family(
        gpt_oss,
        gpt_oss.Config(**LLAMA_SHAPED, num_local_experts=4, num_experts_per_tok=2, sliding_window=2, swiglu_limit=0.5),
        context="max_position_embeddings",
        variants={"tied, no biases, one of three": {"tie_word_embeddings": True, "attention_bias": False,
                                                    "num_local_experts": 3, "num_experts_per_tok": 1},
                  "window in the upper layer": {"layer_types": ["full_attention", "sliding_attention"]},
                  "no window, all experts": {"layer_types": ["full_attention"] * 2, "num_experts_per_tok": 4}},
        dropout={"attention_dropout": 0.2},
    ),
    # A dense layer, and four experts in two groups above it; heads of which 4 components of 6 turn.
    "deepseek_v2": Family(
        deepseek_v2, deepseek_v2.Config(**LATENT, first_k_dense_replace=1),
        context="max_position_embeddings",
        variants={"one group, tied": {"q_lora_rank": None, "tie_word_embeddings": True, "first_k_dense_replace": 0},
                  "groups, biases": {"topk_method": "group_limited_greedy", "n_group": 2, "topk_group": 1, "attention_bias": True,
                                     "routed_scaling_factor": 2.5},
                  "yarn": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 10.0, "factor": 4.0, "mscale": 0.7,
                                               "mscale_all_dim": 0.7}}},
        dropout={"attention_dropout": 0.2},
    ),
    "deepseek_v3": Family(
        deepseek_v3, deepseek_v3.Config(**LATENT, n_group=2, topk_group=1, first_k_dense_replace=1),
        context="max_position_embeddings",
        variants={"raw weights, tied": {"norm_topk_prob": False, "tie_word_embeddings": True, "topk_group": 2},
                  "no dense layer, half-split pairs": {"first_k_dense_replace": 0, "rope_interleave": False}},
        dropout={"attention_dropout": 0.2},
    ),
    # A window of 2 in the upper of the two layers.
    "qwen2": Family(
        qwen2,
        qwen2.Config(**LLAMA_SHAPED, use_sliding_window=True, sliding_window=2, max_window_layers=1),
        context="max_position_embeddings",
        variants={"window": {}, "no window, tied": {"use_sliding_window": False, "tie_word_embeddings": True},
                  "layer types": {"layer_types": ["sliding_attention", "full_attention"]}},
        dropout={"attention_dropout": 0.2},
    ),
    # A window of 2 in the upper layer; heads wider than the model.
    "qwen3": Family(
        qwen3,
        qwen3.Config(**LLAMA_SHAPED, use_sliding_window=True, sliding_window=2, max_window_layers=1),
        context="max_position_embeddings",
        variants={"no window, tied, biases": {"use_sliding_window": False, "tie_word_embeddings": True, "attention_bias": True},
                  "layer types": {"layer_types": ["sliding_attention", "full_attention"]}},
        dropout={"attention_dropout": 0.2},
    ),
    # Four experts, of which a token sees two, and a shared one; a window of 2 in the lower of the two layers.
    "qwen2_moe": Family(
        qwen2_moe,
        qwen2_moe.Config(**LLAMA_SHAPED, **SPARSE, use_sliding_window=True, sliding_window=2, shared_expert_intermediate_size=3),
        context="max_position_embeddings",
        variants={"renormalised, no biases, no window": {"norm_topk_prob": True, "qkv_bias": False, "use_sliding_window": False},
                  "the lower layer dense, tied": {"decoder_sparse_step": 2, "tie_word_embeddings": True},
                  "the upper layer dense": {"mlp_only_layers": [1], "num_experts_per_tok": 1}},
        dropout={"attention_dropout": 0.2},
    ),
    "qwen3_moe": Family(
        qwen3_moe,
        qwen3_moe.Config(**LLAMA_SHAPED, **SPARSE),
        context="max_position_embeddings",
        variants={"renormalised, window, tied": {"norm_topk_prob": True, "use_sliding_window": True, "sliding_window": 2,
                                                 "tie_word_embeddings": True},
                  "the lower layer dense, biases": {"decoder_sparse_step": 2, "attention_bias": True},
                  "all experts": {"num_experts_per_tok": 4}},
        dropout={"attention_dropout": 0.2},
    ),
    "gemma": Family(
        gemma, gemma.Config(**LLAMA_SHAPED),
        context="max_position_embeddings",
        variants={"untied, biases": {"tie_word_embeddings": False, "attention_bias": True},
                  "one kv head, as old files say": {"num_key_value_heads": 1, "hidden_act": "gelu"}},
        dropout={"attention_dropout": 0.2},
    ),
    # A window of 2 in the lower layer, and caps low enough to matter.
    "gemma2": Family(
        gemma2,
        gemma2.Config(**LLAMA_SHAPED, sliding_window=2, query_pre_attn_scalar=3, attn_logit_softcapping=1.5,
                      final_logit_softcapping=1.0),
        context="max_position_embeddings",
        variants={"no caps": {"attn_logit_softcapping": None, "final_logit_softcapping": None},
                  "layer types, untied": {"layer_types": ["full_attention", "sliding_attention"], "tie_word_embeddings": False}},
        dropout={"attention_dropout": 0.2},
    ),
    # A window of 2 in the lower layer, with another base.
    "gemma3_text": Family(
        gemma3_text,
        gemma3_text.Config(**{**LLAMA_SHAPED, "rope_parameters": _two_ropes(10.0)}, sliding_window=2, sliding_window_pattern=2,
                           query_pre_attn_scalar=3),
        context="max_position_embeddings",
        variants={"capped, untied, stretched": {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 1.0,
                                                "tie_word_embeddings": False, "max_position_embeddings": 3,
                                                "rope_parameters": _two_ropes(10.0, rope_type="linear", factor=2.0)},
                  "windows in all layers": {"layer_types": ["sliding_attention"] * 2}},
        dropout={"attention_dropout": 0.2},
    ),
    "olmo2": Family(
        olmo2, olmo2.Config(**LLAMA_SHAPED),
        context="max_position_embeddings",
        variants={"tied, biases": {"tie_word_embeddings": True, "attention_bias": True},
                  "one kv head": {"num_key_value_heads": 1}},
        dropout={"attention_dropout": 0.2},
    ),
    "phi3": Family(
        phi3, phi3.Config(**LLAMA_SHAPED, sliding_window=3),
        context="max_position_embeddings",
        variants={"no window, tied": {"sliding_window": None, "tie_word_embeddings": True},
                  "half turned": {"rope_parameters": {"rope_type": "default", "rope_theta": 10.0, "partial_rotary_factor": 0.5}}},
        dropout={"attention_dropout": 0.2, "resid_pdrop": 0.2},
    ),
    # Heads of width 8, of which half turns: two frequencies.
    "glm": Family(
        glm, glm.Config(**{**LLAMA_SHAPED, "head_dim": 8}),
        context="max_position_embeddings",
        variants={"tied, no biases": {"tie_word_embeddings": True, "attention_bias": False},
                  "one kv head": {"num_key_value_heads": 1}},
        dropout={"attention_dropout": 0.2},
    ),
    "glm4": Family(
        glm4, glm4.Config(**{**LLAMA_SHAPED, "head_dim": 8}),
        context="max_position_embeddings",
        variants={"tied, no biases": {"tie_word_embeddings": True, "attention_bias": False}},
        dropout={"attention_dropout": 0.2},
    ),
    # Without pairs of positions and a prefix, which its own tests have: the second position is 0.
    "glm_2021": Family(
        glm_2021,
        glm_2021.Config(vocab_size=VOCABULARY, max_sequence_length=CONTEXT, hidden_size=WIDTH, num_layers=2,
                        num_attention_heads=2, embedding_dropout_prob=0.0, attention_dropout_prob=0.0, output_dropout_prob=0.0),
        context="max_sequence_length",
        variants={"tied": {}, "untied": {"tie_word_embeddings": False, "attention_scale": 8.0}},
        dropout={"embedding_dropout_prob": 0.2, "attention_dropout_prob": 0.2, "output_dropout_prob": 0.2},
    ),
    # Three heads: slopes for a number that is no power of two.
    "bloom": Family(
        bloom, bloom.Config(vocab_size=VOCABULARY, hidden_size=WIDTH, n_layer=2, n_head=3, bos_token_id=None, eos_token_id=None),
        context=None,
        variants={"tied": {}, "untied": {"tie_word_embeddings": False, "n_head": 2}},
        dropout={"hidden_dropout": 0.2, "attention_dropout": 0.2},
    ),
    # As glm.
    "chatglm": Family(
        chatglm,
        chatglm.Config(padded_vocab_size=VOCABULARY, hidden_size=WIDTH, ffn_hidden_size=7, num_layers=2, num_attention_heads=4,
                       kv_channels=8, multi_query_attention=True, multi_query_group_num=2, seq_length=CONTEXT, add_qkv_bias=True),
        context="seq_length",
        variants={"by head, biases everywhere": {"multi_query_attention": False, "add_bias_linear": True,
                                                 "tie_word_embeddings": True},
                  "stretched, no biases": {"rope_ratio": 4.0, "_name_or_path": "THUDM/chatglm2-6b-32k", "add_qkv_bias": False},
                  "a larger base, one group": {"rope_ratio": 4.0, "_name_or_path": "THUDM/chatglm3-6b-32k",
                                               "multi_query_group_num": 1}},
        dropout={"hidden_dropout": 0.2, "attention_dropout": 0.2},
    ),
    # Halves of each head have a width of two, one pair, so the model's is 8.  Its own tests have pairs of positions and a prefix.
    "chatglm_6b": Family(
        chatglm_6b,
        chatglm_6b.Config(vocab_size=VOCABULARY, hidden_size=8, inner_hidden_size=7, num_layers=2, num_attention_heads=2,
                          max_sequence_length=CONTEXT),
        context="max_sequence_length",
        variants={"untied": {}, "tied": {"tie_word_embeddings": True}},
        dropout={},
    ),
    # One pair a head.  Its own tests have masks, positions read off the ids and a prefix.
    "glm_130b": Family(
        glm_130b,
        glm_130b.Config(vocab_size=VOCABULARY, hidden_size=WIDTH, inner_hidden_size=7, num_layers=2, num_attention_heads=3,
                        max_sequence_length=CONTEXT),
        context="max_sequence_length",
        variants={"tied": {}, "untied": {"tie_word_embeddings": False}},
        dropout={},
    ),
    "openai-gpt": Family(
        openai_gpt,
        openai_gpt.Config(vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=WIDTH, n_layer=2, n_head=2, **NO_DROPOUT),
        context="n_positions",
        variants={"tied": {}, "untied": {"tie_word_embeddings": False, "afn": "silu"}},
        dropout={"resid_pdrop": 0.2, "embd_pdrop": 0.2, "attn_pdrop": 0.2},
    ),
    # A band of 2 in the upper layer.
    "gpt3": Family(
        gpt3,
        gpt3.Config(vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=WIDTH, n_layer=2, n_head=2, band=2, bos_token_id=None,
                    eos_token_id=None, **NO_DROPOUT),
        context="n_positions",
        variants={"untied, a band of 1": {"tie_word_embeddings": False, "band": 1}},
        dropout={"resid_pdrop": 0.2, "embd_pdrop": 0.2, "attn_pdrop": 0.2},
    ),
    "palm": Family(
        palm, palm.Config(**{**LLAMA_SHAPED, "num_key_value_heads": 1}),
        context="max_position_embeddings",
        variants={"tied": {}, "untied": {"tie_word_embeddings": False}},
        dropout={"attention_dropout": 0.2},
    ),
    # Without NTK and log-n the context is max_position_embeddings.
    "qwen": Family(
        qwen,
        qwen.Config(**NARROW, intermediate_size=14, max_position_embeddings=CONTEXT, kv_channels=2, use_dynamic_ntk=False,
                    use_logn_attn=False),
        context="max_position_embeddings",
        variants={"biases everywhere, tied": {"no_bias": False, "tie_word_embeddings": True},
                  "half turned": {"num_attention_heads": 1, "kv_channels": 6, "rotary_pct": 0.7, "rotary_emb_base": 3.0},
                  "as trained": {"use_dynamic_ntk": True, "use_logn_attn": True, "seq_length": CONTEXT}},
        dropout={"emb_dropout_prob": 0.2, "attn_dropout_prob": 0.2},
    ),
    "internlm": Family(
        internlm, internlm.Config(**NARROW, intermediate_size=7, max_position_embeddings=CONTEXT),
        context="max_position_embeddings",
        variants={"no biases, tied": {"bias": False, "tie_word_embeddings": True},
                  "base": {"num_attention_heads": 1, "rotary": {"type": "origin", "base": 3}}},
        dropout={"attention_dropout": 0.2},
    ),
    "internlm2": Family(
        internlm2, internlm2.Config(**NARROW, num_key_value_heads=1, intermediate_size=7, max_position_embeddings=CONTEXT),
        context="max_position_embeddings",
        variants={"biases, tied": {"bias": True, "tie_word_embeddings": True},
                  "as many kv heads": {"num_key_value_heads": None}},
        dropout={"attention_dropout": 0.2},
    ),
    "baichuan": Family(
        baichuan, baichuan.Config(**NARROW, intermediate_size=7, max_position_embeddings=CONTEXT),
        context="max_position_embeddings",
        variants={"7b, tied": {"tie_word_embeddings": True},
                  "13b": {"max_position_embeddings": None, "model_max_length": CONTEXT},
                  "2-7b": {"model_max_length": CONTEXT, "z_loss_weight": 0},
                  "2-13b, tied": {"max_position_embeddings": None, "model_max_length": CONTEXT, "z_loss_weight": 0.0,
                                  "tie_word_embeddings": True}},
        dropout={"attention_dropout": 0.2},
    ),
}  # fmt: skip

# One of each wiring: tests of the walk and of what stands around it run over these.  The others differ from one of them in a
# piece, in fields or in names; tests of the numbers run over all.
KINDS = ["gpt2", "llama", "mistral", "gemma2", "gemma3_text", "bloom", "openai-gpt", "palm", "qwen", "baichuan", "glm_2021"]
VARIANTS = [(name, variant) for name, family in FAMILIES.items() for variant in family.variants]


def tiny(family: str, seed: int = 0, dtype: str = "float64", device: str = "cpu", **changes: Any) -> tinyplm.Model:
    """A tiny model with every parameter random, including biases and norm weights."""
    return randomised(family, FAMILIES[family].config, None, seed, dtype, changes).to(device)


_MADE: dict[str, tinyplm.Model] = {}


def randomised(family: str, config: Any, task: str | None, seed: int, dtype: str, changes: dict[str, Any]) -> tinyplm.Model:
    """A new model of this config, with these changes, whose initial parameters have all moved at random.

    Thousands of tests ask for the same few hundred: each gets its own copy of one that is made once.
    """
    key = repr((family, config, config.source, task, seed, dtype, changes))
    if key not in _MADE:
        model = tinyplm.create(family, dataclasses.replace(config, **changes), task=task, dtype="float64")
        rng = np.random.default_rng(seed)
        for name in ("params", "buffers"):
            moved = tree_map(lambda a: (a + rng.normal(0, 0.3, a.shape)).astype(dtype), getattr(model, name))
            setattr(model, name, moved)
        _MADE[key] = model
    own = {name: copy.copy(value) for name, value in vars(_MADE[key]).items() if isinstance(value, (dict, list))}
    copies = {name: tree_map(np.copy, getattr(_MADE[key], name)) for name in ("params", "buffers")}
    return _MADE[key]._with(**own | copies)


def batch(seed: int = 0, B: int = 3, T: int = 5, V: int = VOCABULARY) -> tuple[np.ndarray, np.ndarray]:
    """(input ids, targets); one target is to be ignored."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, V, (B, T))
    targets[0, 2] = -100
    return rng.integers(0, V, (B, T)), targets


# A mask for `batch`: one sample without padding, one padded on the left, one on the right.
PADDING = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])
