# ruff: noqa: E402 - imports follow importorskip
"""config.json as the released models spell it, from before transformers 5: read as transformers reads it, to the same logits.

Sizes are made tiny, and settings with an effect on few tokens are made to have one.
"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tinyplm
from tests.interop.pair import assert_same, exact_logits
from tests.interop.test_causal_files import read, settings_in
from tests.laws import relative_error
from tinyplm.cli.output import UNKNOWN_TO_TRANSFORMERS
from tinyplm.core import tree_map
from tinyplm.families import FAMILIES
from tinyplm.families import family as find_family

SIZES = {
    "vocab_size": 41, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 12, "attention_dropout": 0.0, "initializer_range": 0.02,
    "use_cache": True, "torch_dtype": "float64", "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": None,
}  # fmt: skip

# Groups, shared experts and YaRN; num_nextn_predict_layers of V3: its module, whose tensors are not in these files.
DEEPSEEK = {
    "attention_bias": False, "aux_loss_alpha": 0.001, "ep_size": 1, "first_k_dense_replace": 1, "hidden_act": "silu",
    "kv_lora_rank": 10, "moe_intermediate_size": 13, "moe_layer_freq": 1, "n_routed_experts": 8, "n_shared_experts": 2,
    "norm_topk_prob": False, "num_experts_per_tok": 3, "num_key_value_heads": 4, "pretraining_tp": 1, "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4, "rms_norm_eps": 1e-06, "rope_theta": 10000, "seq_aux": True, "tie_word_embeddings": False,
    "v_head_dim": 5, "transformers_version": "4.33.1",
}  # fmt: skip


def deepseek(version: int, mscale: float, **own):
    """Published settings, with code of their own in auto_map."""
    names = {"AutoConfig": "Config", "AutoModel": "Model", "AutoModelForCausalLM": "ForCausalLM"}
    modules = {name: "configuration_deepseek" if name == "AutoConfig" else "modeling_deepseek" for name in names}
    auto_map = {name: f"{modules[name]}.DeepseekV{version}{end}" for name, end in names.items()}
    rope = {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": mscale, "mscale_all_dim": mscale,
            "original_max_position_embeddings": 4, "type": "yarn"}  # fmt: skip
    context = {"rope_scaling": rope, "max_position_embeddings": 160}
    return f"deepseek_v{version}", {**DEEPSEEK, **context, "auto_map": auto_map, **own}


RELEASED = {
    "deepseek-v2-lite": deepseek(2, 0.707, n_group=1, q_lora_rank=None, routed_scaling_factor=1.0, scoring_func="softmax",
                                 topk_group=1, topk_method="greedy"),
    "deepseek-v2": deepseek(2, 0.707, n_group=4, q_lora_rank=9, routed_scaling_factor=16.0, scoring_func="softmax",
                            topk_group=2, topk_method="group_limited_greedy"),
    "deepseek-v2.5": deepseek(2, 1.0, n_group=4, q_lora_rank=9, routed_scaling_factor=16.0, scoring_func="softmax",
                              topk_group=2, topk_method="group_limited_greedy"),
    "deepseek-v3": deepseek(3, 1.0, n_group=4, q_lora_rank=9, routed_scaling_factor=2.5, scoring_func="sigmoid", topk_group=2,
                            topk_method="noaux_tc", norm_topk_prob=True, n_shared_experts=1, num_nextn_predict_layers=1),
    "gemma-2b": ("gemma", {"hidden_act": "gelu", "head_dim": 10, "rms_norm_eps": 1e-06, "rope_scaling": None,
                           "rope_theta": 10000.0, "transformers_version": "4.38.0.dev0"}),
    "gemma-1.1-2b": ("gemma", {"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh", "head_dim": 10,
                               "rms_norm_eps": 1e-06, "rope_theta": 10000.0}),
    "gemma-2-2b": ("gemma2", {"attn_logit_softcapping": 0.5, "cache_implementation": "hybrid", "final_logit_softcapping": 1.0,
                              "head_dim": 10, "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
                              "query_pre_attn_scalar": 7, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 3}),
    "gemma-3-1b": ("gemma3_text", {"attn_logit_softcapping": None, "cache_implementation": "hybrid", "head_dim": 10,
                                   "final_logit_softcapping": None, "hidden_activation": "gelu_pytorch_tanh",
                                   "query_pre_attn_scalar": 7, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10,
                                   "rope_scaling": {"factor": 4.0, "rope_type": "linear"}, "rope_theta": 1000,
                                   "sliding_window": 3, "sliding_window_pattern": 2}),
    "gemma-3-1b, defaults": ("gemma3_text", {"head_dim": 10, "num_hidden_layers": 7, "query_pre_attn_scalar": 7,
                                             "sliding_window": 3}),
    "gemma-3-270m": ("gemma3_text", {"_sliding_window_pattern": 6, "head_dim": 10, "query_pre_attn_scalar": 7,
                                     "layer_types": ["sliding_attention", "full_attention"], "rope_local_base_freq": 10.0,
                                     "rope_scaling": None, "rope_theta": 1000.0, "sliding_window": 3,
                                     "use_bidirectional_attention": False}),
    "qwen3-0.6b": ("qwen3", {"attention_bias": False, "head_dim": 10, "hidden_act": "silu", "max_window_layers": 2,
                             "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None,
                             "use_sliding_window": False, "tie_word_embeddings": True}),
    "mixtral-8x7b": ("mixtral", {"hidden_act": "silu", "num_experts_per_tok": 2, "num_local_experts": 4, "rms_norm_eps": 1e-05,
                                 "output_router_logits": False, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.02,
                                 "sliding_window": None, "tie_word_embeddings": False}),
    "qwen1.5-moe-a2.7b": ("qwen2_moe", {"decoder_sparse_step": 1, "hidden_act": "silu", "max_window_layers": 1,
                                        "moe_intermediate_size": 6, "norm_topk_prob": False, "num_experts": 5,
                                        "num_experts_per_tok": 4, "output_router_logits": False, "rms_norm_eps": 1e-06,
                                        "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001, "sliding_window": 3,
                                        "shared_expert_intermediate_size": 7, "tie_word_embeddings": False,
                                        "use_sliding_window": False}),
    "qwen3-30b-a3b": ("qwen3_moe", {"attention_bias": False, "decoder_sparse_step": 1, "head_dim": 10, "hidden_act": "silu",
                                    "max_window_layers": 2, "mlp_only_layers": [], "moe_intermediate_size": 6,
                                    "norm_topk_prob": True, "num_experts": 9, "num_experts_per_tok": 8,
                                    "output_router_logits": False, "rms_norm_eps": 1e-06, "rope_scaling": None,
                                    "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001, "sliding_window": None,
                                    "tie_word_embeddings": False, "use_sliding_window": False}),
    "olmo-2": ("olmo2", {"attention_bias": False, "hidden_act": "silu", "rms_norm_eps": 1e-06, "rope_scaling": None,
                         "rope_theta": 500000, "tie_word_embeddings": False}),
    "phi-3-mini-4k": ("phi3", {"attention_bias": False, "embd_pdrop": 0.0, "hidden_act": "silu", "resid_pdrop": 0.0,
                               "original_max_position_embeddings": 12, "rms_norm_eps": 1e-05, "rope_scaling": None,
                               "rope_theta": 10000.0, "sliding_window": 3, "tie_word_embeddings": False,
                               "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}}),
    "phi-3, partial": ("phi3", {"partial_rotary_factor": 0.75, "num_attention_heads": 4, "head_dim": 8, "rope_theta": 10000.0,
                                "rope_scaling": None, "sliding_window": None, "tie_word_embeddings": True}),
    "glm-4-9b": ("glm", {"attention_bias": True, "head_dim": 8, "hidden_act": "silu", "partial_rotary_factor": 0.5,
                         "rms_norm_eps": 1.5625e-07, "rope_theta": 10000.0, "tie_word_embeddings": False,
                         "eos_token_id": [1, 2]}),
    "glm-4-0414": ("glm4", {"attention_bias": False, "head_dim": 8, "hidden_act": "silu", "partial_rotary_factor": 0.5,
                            "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "tie_word_embeddings": False}),
}  # fmt: skip


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("name", RELEASED)
def test_a_released_config(tmp_path, name):
    family, own = RELEASED[name]
    settings = {"model_type": family, "architectures": [find_family(family).Config.ARCHITECTURE], **SIZES, **own}
    model = tinyplm.create(family, settings, key=3, dtype="float64")
    rng = np.random.default_rng(0)
    model.params = tree_map(lambda a: a + rng.normal(0, 0.3, a.shape), model.params)
    tinyplm.save(model, tmp_path)
    assert settings_in(tmp_path) == settings
    ours, ids = tinyplm.load(tmp_path), np.random.default_rng(0).integers(0, 41, (2, 12))
    logits = ours(ids)[0]["logits"]
    assert_same("logits", logits, exact_logits(read(family, tmp_path), ids))
    assert relative_error(logits, model(ids)[0]["logits"]) == 0


def test_the_examples_know_what_transformers_cannot_load():
    known = transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
    assert sorted(UNKNOWN_TO_TRANSFORMERS) == sorted(FAMILIES.keys() - known.keys())
