"""The tiny models: their configurations, and inputs with padding."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from ...families import SCORE, family, is_seq2seq
from ...models.config import labels
from .draws import Draws

V, CONTEXT = 11, 8
LABELS = labels(["red", "green", "blue"])
# One sample without padding, one padded on the left, one on the right.
DECODER_PADDING = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]])
# After the tokens and between them; never the first token, which heads look at.
ENCODER_PADDING = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0]])

TARGET_PADDING = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])  # of an encoder-decoder

# Six heads of width 4 on two key/value heads: groups of three, wider than the model.  With base 10
# both frequencies turn far within 8 positions.
_LLAMA: dict[str, Any] = {
    "vocab_size": V, "max_position_embeddings": CONTEXT, "hidden_size": 6, "intermediate_size": 7,
    "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 4,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10.0}, "bos_token_id": None,
    "eos_token_id": None,
}  # fmt: skip
_SPARSE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 5}
_BERT: dict[str, Any] = {
    "vocab_size": V, "max_position_embeddings": CONTEXT, "hidden_size": 6, "intermediate_size": 7,
    "num_hidden_layers": 2, "num_attention_heads": 2, **LABELS,
}  # fmt: skip
_ROBERTA = {**_BERT, "max_position_embeddings": CONTEXT + 2}  # positions start after the padding id
_DEBERTA = {
    **_BERT, "type_vocab_size": 2, "relative_attention": True, "pos_att_type": ["c2p", "p2c"],
}  # fmt: skip

# Three heads as wide as the model together, for families without a head width of their own.
_NARROW: dict[str, Any] = {
    "vocab_size": V, "hidden_size": 6, "intermediate_size": 7, "num_hidden_layers": 2,
    "num_attention_heads": 3, "max_position_embeddings": CONTEXT,
}  # fmt: skip
_CAPPED = {
    "query_pre_attn_scalar": 3,
    "attn_logit_softcapping": 1.5,
    "final_logit_softcapping": 1.0,
}
# Sides that differ.
_SIDES: dict[str, Any] = {
    "vocab_size": V, "max_position_embeddings": CONTEXT, "d_model": 6, "encoder_layers": 1,
    "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 3,
    "encoder_ffn_dim": 7, "decoder_ffn_dim": 5, "pad_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 2,
}  # fmt: skip
# Buckets of one distance, of several, and of all beyond.
_T5: dict[str, Any] = {
    "vocab_size": V, "d_model": 6, "d_kv": 4, "d_ff": 7, "num_layers": 1, "num_decoder_layers": 2,
    "num_heads": 2, "relative_attention_num_buckets": 4, "relative_attention_max_distance": 3,
}  # fmt: skip
_GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
_GEMMA3 = {
    "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 5.0},
}

_LATENT: dict[str, Any] = {
    "vocab_size": V, "hidden_size": 6, "intermediate_size": 7, "moe_intermediate_size": 5,
    "num_hidden_layers": 2, "num_attention_heads": 2, "q_lora_rank": 5, "kv_lora_rank": 3,
    "qk_nope_head_dim": 2, "qk_rope_head_dim": 4, "v_head_dim": 3, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "first_k_dense_replace": 1, "max_position_embeddings": CONTEXT,
}  # fmt: skip

CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": V, "n_positions": CONTEXT, "n_embd": 6, "n_layer": 2, "n_head": 2,
             "bos_token_id": None, "eos_token_id": None},
    "llama": _LLAMA,
    "mistral": {**_LLAMA, "sliding_window": 3},
    "deepseek_v2": _LATENT,
    "deepseek_v3": {**_LATENT, "n_group": 2, "topk_group": 1},
    "mixtral": {**_LLAMA, "num_local_experts": 4},
    "gpt_oss": {**_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 2,
                "swiglu_limit": 0.5},
    "qwen2": {**_LLAMA, "use_sliding_window": True, "sliding_window": 2, "max_window_layers": 1},
    "qwen3": {**_LLAMA, "use_sliding_window": True, "sliding_window": 2, "max_window_layers": 1},
    "qwen2_moe": {**_LLAMA, **_SPARSE, "shared_expert_intermediate_size": 3},
    "qwen3_moe": {**_LLAMA, **_SPARSE},
    "gemma": _LLAMA,
    "gemma2": {**_LLAMA, **_CAPPED, "sliding_window": 2},
    "gemma3_text": {**_LLAMA, "sliding_window": 2, "sliding_window_pattern": 2,
                    "query_pre_attn_scalar": 3, "rope_parameters": _GEMMA3},
    "olmo2": _LLAMA,
    "phi3": {**_LLAMA, "sliding_window": 3},
    "glm": _LLAMA,
    "glm4": _LLAMA,
    "glm_2021": {"vocab_size": V, "max_sequence_length": CONTEXT, "hidden_size": 6, "num_layers": 2,
                 "num_attention_heads": 2},
    "palm": {**_LLAMA, "num_key_value_heads": 1},
    # Three heads: ALiBi's slopes where their number is no power of two.
    "bloom": {"vocab_size": V, "hidden_size": 6, "n_layer": 2, "n_head": 3, "seq_length": CONTEXT,
              "bos_token_id": None, "eos_token_id": None},
    # As glm.
    "chatglm": {"padded_vocab_size": V, "hidden_size": 6, "ffn_hidden_size": 7, "num_layers": 2,
                "num_attention_heads": 4, "kv_channels": 8, "multi_query_attention": True,
                "multi_query_group_num": 2, "seq_length": CONTEXT, "add_qkv_bias": True},
    "chatglm_6b": {"vocab_size": V, "hidden_size": 8, "inner_hidden_size": 7, "num_layers": 2,
                   "num_attention_heads": 2, "max_sequence_length": CONTEXT},
    "glm_130b": {"vocab_size": V, "hidden_size": 8, "inner_hidden_size": 7, "num_layers": 2,
                 "num_attention_heads": 2, "max_sequence_length": CONTEXT},
    "openai-gpt": {"vocab_size": V, "n_positions": CONTEXT, "n_embd": 6, "n_layer": 2, "n_head": 2},
    "gpt3": {"vocab_size": V, "n_positions": CONTEXT, "n_embd": 6, "n_layer": 2, "n_head": 2,
             "band": 2, "bos_token_id": None, "eos_token_id": None},
    "qwen": {**_NARROW, "intermediate_size": 14, "kv_channels": 2, "use_dynamic_ntk": False,
             "use_logn_attn": False},
    "internlm": _NARROW,
    "internlm2": {**_NARROW, "num_key_value_heads": 1},
    "baichuan": _NARROW,
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "albert": {**_BERT, "embedding_size": 4, "num_hidden_layers": 3, "num_hidden_groups": 2},
    "distilbert": {"vocab_size": V, "max_position_embeddings": CONTEXT, "dim": 6, "hidden_dim": 7,
                   "n_layers": 2, "n_heads": 2, **LABELS},
    "deberta": {**_DEBERTA, "max_relative_positions": 2},
    "deberta-v2": {**_DEBERTA, "position_buckets": 2, "share_att_key": True,
                   "norm_rel_ebd": "layer_norm", "conv_kernel_size": 3, "conv_act": "gelu"},
    "xlnet": {"vocab_size": V, "d_model": 6, "n_layer": 2, "n_head": 2, "d_inner": 7,
              "pad_token_id": 1, **LABELS},
    "transformer": _SIDES,
    "marian": {**_SIDES, "scale_embedding": True, "activation_function": "swish"},
    "bart": _SIDES,
    "mbart": {**_SIDES, "scale_embedding": True},
    "t5": _T5,
    "mt5": {**_T5, **_GATED},
}  # fmt: skip

# Some cases are there once for all families that compute the same: one token, whose softmax has one
# term, in families with LLaMA's attention; classes from the last token in decoders.
_ONE_TOKEN_AS_LLAMA = (
    *("mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma", "olmo2", "phi3"),
    *("glm", "glm4", "chatglm", "internlm", "internlm2"),
)
_SCORED = ("gpt2", "llama")

# (name, what is difficult about it, changes of the configuration)
_YARN = {"rope_type": "yarn", "rope_theta": 10.0, "factor": 4.0}
_ROTARY: list[tuple[str, str, dict[str, Any]]] = [
    ("one-kv-head", "six query heads on one key/value head", {"num_key_value_heads": 1}),
    ("tied", "the output matrix is the embedding table: one gradient from both",
     {"tie_word_embeddings": True}),
]  # fmt: skip
CHANGES: dict[str, list[tuple[str, str, dict[str, Any]]]] = {
    "gpt2": [("untied", "an output matrix of its own", {"tie_word_embeddings": False})],
    "llama": [*_ROTARY,
              ("biases", "biases in attention and feed-forward layers",
               {"attention_bias": True, "mlp_bias": True}),
              ("yarn", "positions scaled by YaRN", {"rope_parameters": _YARN})],
    "mistral": [*_ROTARY, ("window-of-one", "a query sees itself alone", {"sliding_window": 1})],
    "qwen2": _ROTARY,
    "qwen2_moe": [("dense-layer", "experts in the second layer alone, their weights renormalised",
                   {"decoder_sparse_step": 2, "norm_topk_prob": True})],
    "gemma2": [("no-caps", "neither scores nor logits are capped",
                {"attn_logit_softcapping": None, "final_logit_softcapping": None})],
    "chatglm": [("stretched", "positions divided by rope_ratio, as in ChatGLM2-6B-32K",
                 {"rope_ratio": 4.0, "_name_or_path": "THUDM/chatglm2-6b-32k"}),
                ("larger-base", "a base multiplied by rope_ratio, as in GLM-4-9B-Chat",
                 {"rope_ratio": 4.0, "_name_or_path": "THUDM/glm-4-9b-chat"})],
    "baichuan": [("13b", "ALiBi", {"max_position_embeddings": None, "model_max_length": CONTEXT}),
                 ("2-7b", "the rows of the output matrix are normalised", {"z_loss_weight": 0.0})],
    "bert": [("tanh-gelu", "the tanh GELU", {"hidden_act": "gelu_new"})],
    "albert": [("one-group", "all layers share one set of weights", {"num_hidden_groups": 1})],
    "deberta": [("c2p-alone", "content to position alone", {"pos_att_type": ["c2p"]})],
    "deberta-v2": [("own-keys", "projections of their own for positions, no convolution",
                    {"share_att_key": False, "conv_kernel_size": 0, "norm_rel_ebd": "none"})],
    "bart": [("scaled", "embeddings times the root of their width", {"scale_embedding": True})],
    "t5": [("v1-1", "the gated tanh GELU; an output matrix of its own, and no scale", _GATED)],
    "xlnet": [("clamped", "distances beyond 2 count as 2", {"clamp_len": 2})],
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Variant:
    """A case of a family."""

    name: str
    note: str
    config: Any
    task: str | None = None
    T: int = 5
    prefill: int | None = None
    intermediates: bool = False

    def inputs(self, rng: Draws, module: ModuleType, config: Any, task: str) -> dict[str, Any]:
        """Token ids (from 2 on: lower ones may stand for padding), mask, and segments."""
        padding = ENCODER_PADDING if hasattr(module, "TASKS") else DECODER_PADDING
        if is_seq2seq(module):
            padding = ENCODER_PADDING
        if config.MODEL_TYPE == "xlnet":
            padding = padding[:, ::-1]
        mask = padding if self.T > 1 else np.ones((1, 1), int)
        mask = np.stack([mask, mask[::-1]], axis=1) if task == "multiple_choice" else mask
        found = {"input_ids": np.asarray(rng.integers(2, V - 1, mask.shape))}
        found["attention_mask"] = np.ascontiguousarray(mask)
        if "token_type_ids" in getattr(module, "INPUTS", ()):
            found["token_type_ids"] = np.asarray(rng.integers(0, 2, mask.shape))
        if is_seq2seq(module):
            target = TARGET_PADDING if self.T > 1 else mask
            ids = np.asarray(rng.integers(2, V - 1, target.shape))
            ids[:, 0] = config.pad_token_id  # the start of most
            found |= {"decoder_input_ids": ids, "decoder_attention_mask": target}
        return found


def _dropout_free(config: Any) -> Any:
    """Dropout is off without a key; its rates are 0, so that no other library draws masks."""
    names = [f.name for f in dataclasses.fields(config) if "drop" in f.name]
    return dataclasses.replace(config, **dict.fromkeys(names, 0.0))


def variants(name: str) -> Iterator[Variant]:
    """The cases of a family."""
    module = family(name)
    base = _dropout_free(module.Config(**CONFIGS[name]))
    note = "padding before and after the tokens, ignored targets; all intermediates"
    yield Variant("padding", note, base, intermediates=True)
    if name not in _ONE_TOKEN_AS_LLAMA:
        yield Variant("one-token", "one sample of one token", base, T=1)
    for label, note, changes in CHANGES.get(name, []):
        yield Variant(label, note, dataclasses.replace(base, **changes))
    if hasattr(module, "TASKS"):
        renamed = name in ("camembert", "xlm-roberta")  # their heads are RoBERTa's
        for task in list(module.TASKS)[1:] if not renamed else []:
            if task not in ("body", "pooled"):
                yield Variant(task.replace("_", "-"), f"the head for {task}", base, task=task)
    elif is_seq2seq(module):
        note = "the source once, then its target one token at a time: cached_logits equal logits"
        yield Variant("cache", note, base, prefill=1)
    else:
        if name in _SCORED:
            scored = dataclasses.replace(base, **LABELS)
            note = "classes from the last token that is not padding"
            yield Variant("sequence-classification", note, scored, task=SCORE)
        yield Variant("cache", "the first two tokens at once, then one at a time with the cache: "
                      "cached_logits equal logits", base, prefill=2)  # fmt: skip
