"""The config that DeepSeek's models share: latent attention, and experts above dense layers."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from ..arguments import wrong
from ..layers.rope_scaling import yarn_score_scale
from .config import check_not_negative, check_only, check_positive
from .rotary_config import RotaryConfig
from .routed_config import Routed


@dataclasses.dataclass(frozen=True)
class LatentConfig(Routed, RotaryConfig):
    """The fields of config.json that DeepSeek-V2 and V3 share; defaults are V3's.

    num_key_value_heads is stated in files, and means nothing: each head has its own key, made of c.
    head_dim, as transformers writes it, is the width that RoPE turns.
    """

    ALIASES: ClassVar[dict[str, str]] = {"num_experts": "n_routed_experts"}
    OLD: ClassVar[tuple[str, ...]] = (*RotaryConfig.OLD, "head_dim")
    EXPERTS: ClassVar[str] = "n_routed_experts"
    WEIGHT: ClassVar[str] = "aux_loss_alpha"
    METHODS: ClassVar[tuple[str, ...]]  # of topk_method
    SCORES: ClassVar[str]  # scoring_func

    vocab_size: int = 129280
    hidden_size: int = 7168
    intermediate_size: int = 18432
    moe_intermediate_size: int = 2048
    num_hidden_layers: int = 61
    num_attention_heads: int = 128
    max_position_embeddings: int = 4096
    attention_bias: bool = False
    kv_lora_rank: int = 512
    q_lora_rank: int | None = 1536
    qk_nope_head_dim: int = 128
    qk_rope_head_dim: int = 64
    v_head_dim: int = 128
    n_routed_experts: int = 256
    n_shared_experts: int = 1
    num_experts_per_tok: int = 8
    n_group: int | None = 8
    topk_group: int | None = 4
    routed_scaling_factor: float = 2.5
    first_k_dense_replace: int = 3
    moe_layer_freq: int = 1
    norm_topk_prob: bool = True
    topk_method: str = "noaux_tc"
    scoring_func: str = "sigmoid"
    aux_loss_alpha: float = 0.001
    seq_aux: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(
            self,
            *("moe_intermediate_size", "kv_lora_rank", "q_lora_rank", "qk_nope_head_dim"),
            *("qk_rope_head_dim", "v_head_dim", "n_routed_experts", "n_shared_experts"),
            *("num_experts_per_tok", "n_group", "topk_group"),
        )
        check_not_negative(self, "first_k_dense_replace", "routed_scaling_factor", "aux_loss_alpha")
        check_only(self, topk_method=self.METHODS, scoring_func=(self.SCORES,))
        check_only(self, moe_layer_freq=(1,), seq_aux=(True,))
        kv, H = self.num_key_value_heads, self.num_attention_heads
        if kv not in (None, H):
            raise wrong("config: num_key_value_heads", f"{H}, the number of heads", kv)
        if self.routed_scaling_factor == 0:
            raise wrong("config: routed_scaling_factor", "a number > 0", 0)
        self._check_groups()

    def _check_groups(self) -> None:
        """ValueError unless a token can choose its experts from so many groups."""
        X, groups, kept = self.n_routed_experts, self.groups, self.kept_groups
        if X % groups:
            raise wrong("config: n_group", f"a divisor of n_routed_experts = {X}", groups)
        if kept > groups:
            raise wrong("config: topk_group", f"at most n_group = {groups}", kept)
        if self.top_k > (most := X // groups * kept):
            expected = f"at most {most}, the experts of topk_group = {kept} of {groups} groups"
            raise wrong("config: num_experts_per_tok", expected, self.top_k)

    def _check_heads(self) -> None:
        """A head's width is stated, and is no part of hidden_size."""

    @property
    def grouped(self) -> bool:
        """Whether n_group and topk_group mean something."""
        return True

    @property
    def groups(self) -> int:
        return (self.n_group or 1) if self.grouped else 1

    @property
    def kept_groups(self) -> int:
        return (self.topk_group or self.groups) if self.grouped else 1

    @property
    def dense_layers(self) -> int:
        """How many of the model's layers have no experts: the lowest."""
        return min(self.first_k_dense_replace, self.num_hidden_layers)

    @property
    def shared_width(self) -> int:
        """The feed-forward width of the shared experts, which are one."""
        return self.n_shared_experts * self.moe_intermediate_size

    @property
    def rotary_width(self) -> int:
        return self.qk_rope_head_dim

    @property
    def score_scale(self) -> float:
        """(E + R)^-0.5, times YaRN's temperature."""
        scale, settings = (self.qk_nope_head_dim + self.rotary_width) ** -0.5, self.rope.settings
        if self.rope.type != "yarn":
            return scale
        mscale = settings.get("mscale_all_dim")
        return scale * yarn_score_scale(settings["factor"], mscale_all_dim=mscale)

    @property
    def cache_sizes(self) -> dict[str, Any]:
        widths = {"c": self.kv_lora_rank, "k_r": self.qk_rope_head_dim}
        return {"layers": self.num_hidden_layers, "kv_heads": 1, "width": widths}
