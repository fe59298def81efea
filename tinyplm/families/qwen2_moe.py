"""Qwen1.5-MoE and Qwen2-57B-A14B (Yang et al. 2024, sec. 2.2.2): as Qwen2, except that layers have
experts, as in Mixtral, and beside them a shared expert, which every token passes through:

    y = sum_j w_j SwiGLU_{c_j}(x) + sigmoid(x w) SwiGLU(x),   c = the k largest of z

with w = softmax(z)_c, which `norm_topk_prob` divides by its sum.  Experts are narrow: each has the
width moe_intermediate_size, the shared one shared_expert_intermediate_size.  Some layers can be
dense: all but every `decoder_sparse_step`-th, and those of `mlp_only_layers`.
Windows: without layer_types, transformers 5 gives one to even layers below `max_window_layers`;
released models have none.
Trained with `router_aux_loss_coef` times the balance loss (models/router_losses.py), if asked for.
Parameters as in Qwen2; in a layer with experts mlp = {"router", "experts"} as in Mixtral, "shared":
{"w" (D, 1), "mlp": {"Wgate" (D, F), "Wup", "Wdown"}}.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from ..core import Component
from ..layers.moe import sigmoid_gated, unrouted
from ..models import causal_lm, routed, router_losses, walks
from ..models.config import check_positive
from ..models.decoder import Pieces
from ..models.names import Rename, linears
from ..models.rotary_config import WindowedConfig
from ..models.routed_config import SparseConfig
from . import llama, mixtral


@dataclasses.dataclass(frozen=True)
class Config(SparseConfig, WindowedConfig):
    """Qwen2-MoE's config.json: the fields of both, the shared expert's, and whether queries, keys
    and values have biases."""

    MODEL_TYPE: ClassVar[str] = "qwen2_moe"
    ARCHITECTURE: ClassVar[str] = "Qwen2MoeForCausalLM"
    SCORED: ClassVar[str] = "Qwen2MoeForSequenceClassification"
    OLD: ClassVar[tuple[str, ...]] = (*WindowedConfig.OLD, "mlp_only_layers")
    UNUSED: ClassVar[int | None] = 0

    vocab_size: int = 151936
    hidden_size: int = 2048
    intermediate_size: int = 5632
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    num_key_value_heads: int | None = 16
    max_position_embeddings: int = 32768
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    qkv_bias: bool = True
    shared_expert_intermediate_size: int = 5632

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "shared_expert_intermediate_size")

    def window_of(self, layer: int) -> int | None:
        """How many keys a query of this layer sees; None for all before it."""
        if self.layer_types is not None:
            return super().window_of(layer)
        return self.window if layer % 2 == 0 and layer < self.max_window_layers else None


_IDS: dict[str, Any] = {"bos_token_id": 151643, "eos_token_id": 151643}

# Yang et al. 2024, table 1; and the configurations of the released base models.
SIZES = {
    "qwen1.5-moe-a2.7b": Config.of(
        *(2048, 5632, 24, 16, 16), context=8192, base=1e6, **_IDS, sliding_window=32768,
        max_window_layers=21,
    ),
    "qwen2-57b-a14b": Config.of(
        *(3584, 18944, 28, 28, 4), context=131072, base=1e6, **_IDS, sliding_window=131072,
        num_experts=64, num_experts_per_tok=8, moe_intermediate_size=2560,
        shared_expert_intermediate_size=20480,
    ),
}  # fmt: skip


def with_experts(shapes: dict, config: SparseConfig, mlp: dict) -> dict:
    """The tree of shapes of a dense model, with this `mlp` in layers with experts."""
    body = shapes["body"]
    layers = [
        {**layer, "mlp": mlp} if config.has_experts(i) else layer
        for i, layer in enumerate(body["layers"])
    ]
    return {**shapes, "body": {**body, "layers": layers}}


def by_layer(config: SparseConfig, experts: Component, dense: Component) -> Callable:
    """The piece `mlp` where some layers have experts."""
    plain = unrouted(dense)
    return lambda layer: experts if config.has_experts(layer) else plain


def shapes(config: Config) -> dict:
    """Qwen2's, with router, experts and the shared one in layers that have them."""
    D, F = config.hidden_size, config.shared_expert_intermediate_size
    gated = {"Wgate": (D, F), "Wup": (D, F), "Wdown": (F, D)}
    mlp: dict[str, Any] = mixtral.expert_shapes(D, config.moe_intermediate_size, config.experts)
    mlp["shared"] = {"w": (D, 1), "mlp": gated}
    dense = llama.model_shapes(config, llama.layer_shapes(config, "qkv" * config.qkv_bias))
    return with_experts(dense, config, mlp)


def pieces(config: Config) -> Pieces:
    """Qwen2's, with experts and a shared one."""
    own = llama.pieces(config)._replace(window=config.window_of)
    experts = mixtral.experts(config, config.top_k, renormalised=config.norm_topk_prob)
    experts = partial(experts, shared=partial(sigmoid_gated, f=own.mlp(0)))
    return routed.routed(own._replace(mlp=by_layer(config, experts, own.mlp(0))))


init = walks.init
body = partial(routed.body, pieces)
output_matrix = causal_lm.output_matrix
BALANCE = router_losses.SWITCH

_HUB, _PATH = "model.layers.{i}.mlp", "body.layers.{i}.mlp"
_MODULES = {"gate_proj": "gate", "up_proj": "up", "down_proj": "down"}
EXPERTS = [
    Rename(f"{_HUB}.gate.weight", f"{_PATH}.router.W", operation="transpose"),
    *linears(f"{_HUB}.experts.{{j}}", f"{_PATH}.experts.{{j}}", **_MODULES),
]
NAMES = [
    *(*llama.NAMES, *EXPERTS),
    *linears(f"{_HUB}.shared_expert", f"{_PATH}.shared.mlp", **_MODULES),
    Rename(f"{_HUB}.shared_expert_gate.weight", f"{_PATH}.shared.w", operation="transpose"),
]
PREFIX, SKIPPED, TIED = llama.PREFIX, llama.SKIPPED, llama.TIED
