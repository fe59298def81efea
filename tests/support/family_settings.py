"""Settings that several of the tiny decoders of families.py share."""

from __future__ import annotations

from typing import Any

VOCABULARY, CONTEXT, WIDTH = 11, 6, 6

# Four heads of width 4 on two key/value heads.  With base 10 both frequencies, 1 and 0.3, rotate far within 6 positions.
LLAMA_SHAPED: dict[str, Any] = {
    "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "hidden_size": WIDTH, "intermediate_size": 7,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10.0}, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip

SPARSE: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 5}  # Qwen's experts

LATENT: dict[str, Any] = {
    "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "hidden_size": WIDTH, "intermediate_size": 7,
    "moe_intermediate_size": 5, "num_hidden_layers": 2, "num_attention_heads": 2, "q_lora_rank": 5, "kv_lora_rank": 3,
    "qk_nope_head_dim": 2, "qk_rope_head_dim": 4, "v_head_dim": 3, "n_routed_experts": 4, "n_shared_experts": 2,
    "num_experts_per_tok": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 10.0}, "bos_token_id": None,
    "eos_token_id": None,
}  # fmt: skip


def two_ropes(base: float, **settings: Any) -> dict[str, Any]:
    """Gemma 3's: these settings where all keys are seen, half the base where a window is."""
    return {"full_attention": {"rope_type": "default", "rope_theta": base, **settings},
            "sliding_attention": {"rope_type": "default", "rope_theta": base / 2}}  # fmt: skip


NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}

# Three heads of width 2, all of it RoPE's one pair, for families whose files state no head_dim.
NARROW: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 3, "bos_token_id": None,
    "eos_token_id": None,
}  # fmt: skip
