"""Mixtral 8x7B and 8x22B (Jiang et al. 2024): as Mistral, except that X experts take the place of
the feed-forward layer, of which each token passes through k (sec. 2.1):

    y = sum_j w_j SwiGLU_{c_j}(x),   c = the k largest of z,   w = softmax(z_c),   z = x Wrouter

Trained with `router_aux_loss_coef` times the balance loss (models/router_losses.py), if asked for.
Parameters as in Mistral, with mlp = {"router": {"W" (D, X)}, "experts": {"Wgate" (X, D, F), "Wup",
"Wdown" (X, F, D)}}.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar

from ..core import Component
from ..kernels.activation import ACTIVATIONS
from ..kernels.experts import moe_and_logits
from ..kernels.mlp import gated_mlp
from ..layers.routing import softmax_weights, top_experts
from ..models import causal_lm, routed, router_losses, walks
from ..models.config import check_not_negative, check_only, check_positive
from ..models.decoder import Pieces, every
from ..models.names import Rename
from ..models.rotary_config import RotaryConfig
from ..models.routed_config import Routed, check_experts
from . import llama


@dataclasses.dataclass(frozen=True)
class Config(Routed, RotaryConfig):
    """Mixtral's config.json: the fields of RotaryConfig, the window and the experts."""

    EXPERTS: ClassVar[str] = "num_local_experts"
    MODEL_TYPE: ClassVar[str] = "mixtral"
    ARCHITECTURE: ClassVar[str] = "MixtralForCausalLM"
    SCORED: ClassVar[str] = "MixtralForSequenceClassification"
    ALIASES: ClassVar[dict[str, str]] = {"num_experts": "num_local_experts"}
    BASE: ClassVar[float] = 1e6

    intermediate_size: int = 14336
    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-5
    sliding_window: int | None = None
    num_local_experts: int = 8
    num_experts_per_tok: int = 2
    router_aux_loss_coef: float = 0.001
    router_jitter_noise: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "sliding_window")
        check_experts(self, "num_local_experts")
        check_not_negative(self, "router_aux_loss_coef")
        check_only(self, router_jitter_noise=(0.0,))


# Jiang et al. 2024, table 1; and the configurations of the released weights.
SIZES = {
    "mixtral-8x7b": Config.of(
        *(4096, 14336, 32, 32, 8), context=32768, base=1e6, router_aux_loss_coef=0.02
    ),
    "mixtral-8x22b": Config.of(6144, 16384, 56, 48, 8, context=65536, base=1e6),
}


def expert_shapes(
    D: int, F: int, X: int, biases: Iterable[str] = ()
) -> dict[str, dict[str, tuple[int, ...]]]:
    """The shapes of router and experts; biases: of which linear layers of an expert."""
    experts: dict[str, tuple[int, ...]] = {"Wgate": (X, D, F), "Wup": (X, D, F), "Wdown": (X, F, D)}
    experts |= {f"b{n}": (X, experts[f"W{n}"][2]) for n in biases}
    return {"router": {"W": (D, X)}, "experts": experts}


def shapes(config: Config) -> dict:
    """Mistral's, with router and experts for the feed-forward layer."""
    layer = llama.layer_shapes(config)
    layer["mlp"] = expert_shapes(config.hidden_size, config.mlp_width, config.experts)
    return llama.model_shapes(config, layer)


def experts(config: RotaryConfig, top_k: int, **options: Any) -> Component:
    """The experts chosen by the largest logits; options: of softmax_weights."""
    return partial(
        moe_and_logits,
        choose=partial(top_experts, top_k=top_k),
        weigh=partial(softmax_weights, **options),
        expert=partial(gated_mlp, activation=ACTIVATIONS[config.hidden_act]),
    )


def pieces(config: Config) -> Pieces:
    """Mistral's, with experts."""
    mlp = experts(config, config.top_k, renormalised=True)
    own = llama.pieces(config)._replace(window=every(config.sliding_window), mlp=every(mlp))
    return routed.routed(own)


init = walks.init
body = partial(routed.body, pieces)
output_matrix = causal_lm.output_matrix
BALANCE = router_losses.SWITCH

_EXPERT, _PATH = "model.layers.{i}.block_sparse_moe", "body.layers.{i}.mlp"
NAMES = [
    *(*llama.ENDS, *llama.NORMS, *llama.ATTENTION),
    Rename(f"{_EXPERT}.gate.weight", f"{_PATH}.router.W", operation="transpose"),
    *(
        Rename(
            f"{_EXPERT}.experts.{{j}}.{w}.weight",
            f"{_PATH}.experts.{{j}}.W{n}",
            operation="transpose",
        )
        for w, n in (("w1", "gate"), ("w3", "up"), ("w2", "down"))
    ),
]
PREFIX, SKIPPED, TIED = llama.PREFIX, llama.SKIPPED, llama.TIED
