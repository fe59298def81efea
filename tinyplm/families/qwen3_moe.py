"""Qwen3-30B-A3B and Qwen3-235B-A22B (Qwen team 2025): as Qwen3, except that layers have experts, as
in Qwen2-MoE, without a shared one, and that a window, if there is one, is in all layers.

Released models have experts in all layers and divide their weights by the sum (norm_topk_prob).
Parameters as in Qwen3; in a layer with experts mlp = {"router", "experts"} as in Mixtral.
transformers 5 writes `num_local_experts` where released files have `num_experts`.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..models import causal_lm, routed, router_losses, walks
from ..models.config import check_positive
from ..models.decoder import Pieces
from ..models.routed_config import SparseConfig
from . import llama, mixtral, qwen2_moe, qwen3


@dataclasses.dataclass(frozen=True)
class Config(SparseConfig):
    """Qwen3-MoE's config.json: the fields of SparseConfig, the window, and whether attention has
    biases."""

    MODEL_TYPE: ClassVar[str] = "qwen3_moe"
    ARCHITECTURE: ClassVar[str] = "Qwen3MoeForCausalLM"
    SCORED: ClassVar[str] = "Qwen3MoeForSequenceClassification"
    ALIASES: ClassVar[dict[str, str]] = {"num_local_experts": "num_experts"}
    OLD: ClassVar[tuple[str, ...]] = (*SparseConfig.OLD, "head_dim")

    vocab_size: int = 151936
    hidden_size: int = 2048
    intermediate_size: int = 6144
    num_hidden_layers: int = 24
    num_key_value_heads: int | None = 4
    max_position_embeddings: int = 32768
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    num_experts: int = 128
    num_experts_per_tok: int = 8
    moe_intermediate_size: int = 768
    attention_bias: bool = False
    use_sliding_window: bool = False
    sliding_window: int | None = 4096

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "sliding_window")

    def window_of(self, layer: int) -> int | None:
        """How many keys a query sees; None for all before it."""
        return self.sliding_window if self.use_sliding_window else None


def _size(D: int, F: int, L: int, H: int, width: int, context: int, end: int) -> Config:
    ids: dict[str, Any] = {"bos_token_id": 151643, "eos_token_id": end}
    experts: dict[str, Any] = {"moe_intermediate_size": width, "norm_topk_prob": True}
    others = {**ids, **experts, "head_dim": 128, "sliding_window": None}
    return Config.of(D, F, L, H, 4, context=context, base=1e6, **others)


# Qwen team 2025, table 2; and the configurations of the released models: of the smaller one the
# base model, while the larger one was released after post-training alone.
SIZES = {
    "qwen3-30b-a3b": _size(2048, 6144, 48, 32, 768, 32768, 151643),
    "qwen3-235b-a22b": _size(4096, 12288, 94, 64, 1536, 40960, 151645),
}


def shapes(config: Config) -> dict:
    """Qwen3's, with router and experts in layers that have them."""
    width = config.moe_intermediate_size
    mlp = mixtral.expert_shapes(config.hidden_size, width, config.experts)
    return qwen2_moe.with_experts(qwen3.shapes(config), config, mlp)


def pieces(config: Config) -> Pieces:
    """Qwen3's, with experts."""
    own = qwen3.pieces(config)
    experts = mixtral.experts(config, config.top_k, renormalised=config.norm_topk_prob)
    return routed.routed(own._replace(mlp=qwen2_moe.by_layer(config, experts, own.mlp(0))))


init = walks.init
body = partial(routed.body, pieces)
output_matrix = causal_lm.output_matrix
BALANCE = router_losses.SWITCH
NAMES = [*llama.NAMES, *llama.QK_NORMS, *qwen2_moe.EXPERTS]
PREFIX, SKIPPED, TIED = llama.PREFIX, llama.SKIPPED, llama.TIED
