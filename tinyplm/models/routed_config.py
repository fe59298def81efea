"""The fields of config.json that decoders with experts share."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from ..arguments import wrong
from .config import check_not_negative, check_positive
from .rotary_config import RotaryConfig


class Routed:
    """What a config says of experts, whatever its file calls their number and the weight of the
    balance loss."""

    EXPERTS: ClassVar[str]
    WEIGHT: ClassVar[str] = "router_aux_loss_coef"
    num_experts_per_tok: int

    @property
    def experts(self) -> int:
        return getattr(self, self.EXPERTS)

    @property
    def top_k(self) -> int:
        return self.num_experts_per_tok

    @property
    def balance(self) -> float:
        """The weight of the balance loss in training."""
        return getattr(self, self.WEIGHT)


def check_experts(config: Any, name: str) -> None:
    """ValueError unless there are as many experts as a token is to see."""
    check_positive(config, name, "num_experts_per_tok")
    if config.num_experts_per_tok > (most := getattr(config, name)):
        expected = f"at most {name} = {most}"
        raise wrong("config: num_experts_per_tok", expected, config.num_experts_per_tok)


@dataclasses.dataclass(frozen=True)
class SparseConfig(Routed, RotaryConfig):
    """RotaryConfig with experts in every `decoder_sparse_step`-th layer but `mlp_only_layers`: the
    fields of Qwen's decoders with experts, with the defaults of Qwen2-MoE.

    Experts have the width moe_intermediate_size; the other layers have intermediate_size.
    """

    EXPERTS: ClassVar[str] = "num_experts"
    OLD: ClassVar[tuple[str, ...]] = (*RotaryConfig.OLD, "mlp_only_layers")

    decoder_sparse_step: int = 1
    mlp_only_layers: list[int] | None = None
    num_experts: int = 60
    num_experts_per_tok: int = 4
    moe_intermediate_size: int = 1408
    norm_topk_prob: bool = False
    router_aux_loss_coef: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "decoder_sparse_step", "moe_intermediate_size")
        check_experts(self, "num_experts")
        check_not_negative(self, "router_aux_loss_coef")
        if any(i < 0 for i in self.mlp_only_layers or []):
            raise wrong(
                "config: mlp_only_layers", "numbers of layers, from 0", self.mlp_only_layers
            )

    def has_experts(self, layer: int) -> bool:
        """Whether this layer has experts."""
        step = self.decoder_sparse_step
        return (layer + 1) % step == 0 and layer not in (self.mlp_only_layers or [])
