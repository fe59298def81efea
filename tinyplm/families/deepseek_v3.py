"""DeepSeek-V3 and R1 (DeepSeek team 2024b, 2025): as V2, except for the router (sec. 2.1.2):

    s = sigmoid(x Wrouter),   c = the k largest of s + b,   w = scale s_c / sum s_c

c is taken from the groups with the largest sums of two.  The bias b (X,) takes part in the choice
only.  It has no gradient: between steps it rises for idle experts and falls for busy ones
(losses.balance.updated_bias).  So it is no parameter, but a buffer:
{"corrections": [None of a dense layer, (X,) of each other layer]}.

R1's distilled models are LLaMA and Qwen2, and their files say so.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..arguments import wrong
from ..backend import array_module
from ..core import Tree
from ..kernels.activation import ACTIVATIONS
from ..kernels.experts import moe_and_logits
from ..kernels.mlp import gated_mlp
from ..layers.routing import sigmoid_choice, sigmoid_weights, top_experts
from ..losses.balance import normalised_sigmoid
from ..models import causal_lm, routed, router_losses, walks
from ..models.config import check_not_negative
from ..models.decoder import Pieces
from ..models.latent_config import LatentConfig
from ..models.names import Operation, Rename
from . import deepseek_v2


@dataclasses.dataclass(frozen=True)
class Config(LatentConfig):
    """DeepSeek-V3's config.json: the fields of LatentConfig, and how many modules predict later
    tokens."""

    MODEL_TYPE: ClassVar[str] = "deepseek_v3"
    ARCHITECTURE: ClassVar[str] = "DeepseekV3ForCausalLM"
    SCORED: ClassVar[str] = "DeepseekV3ForSequenceClassification"
    ALIASES: ClassVar[dict[str, str]] = {
        "num_local_experts": "n_routed_experts",
        "num_mtp_layers": "num_nextn_predict_layers",
    }
    QUANTIZED: ClassVar[tuple[str, ...]] = ("fp8",)
    METHODS: ClassVar[tuple[str, ...]] = ("noaux_tc",)
    SCORES: ClassVar[str] = "sigmoid"

    rope_interleave: bool = True
    num_nextn_predict_layers: int = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(self, "num_nextn_predict_layers")
        if self.kept_groups < self.groups and self.experts < 2 * self.groups:
            expected = f"at most {self.experts // 2}, for two experts or more in each"
            raise wrong("config: n_group", expected, self.groups)

    @property
    def modules(self) -> int:
        """How many modules for later tokens a model of the task "multi_token_lm" has."""
        return self.num_nextn_predict_layers

    @property
    def later_layers(self) -> tuple[str, ...]:
        """Patterns of their tensors, which files have as layers after the last."""
        first = self.num_hidden_layers
        numbers = "|".join(map(str, range(first, first + max(self.modules, 1))))
        return (rf"^(model\.)?layers\.({numbers})\.",)

    @property
    def copies(self) -> dict[str, str]:
        """Their tables and heads, which are the model's own."""
        later = [f"model.layers.{self.num_hidden_layers + k}" for k in range(self.modules)]
        tables = {f"{hub}.embed_tokens.weight": "model.embed_tokens.weight" for hub in later}
        head = TIED["lm_head.weight"] if self.tie_word_embeddings else "lm_head.weight"
        return tables | {f"{hub}.shared_head.head.weight": head for hub in later}


# DeepSeek team 2024b, sec. 4.2; and the configuration of the released weights.
SIZES = {
    "deepseek-v3": Config.of(7168, 18432, 61, 128, context=163840, rope=deepseek_v2.yarn(1.0)),
}


def module_shapes(config: Config) -> dict:
    """Of one module for later tokens (models/multi_token.py), whose block has experts."""
    D = config.hidden_size
    norms = {"hidden_norm": (D,), "embed_norm": (D,), "norm": {"gamma": (D,)}}
    return {**norms, "Wproj": (2 * D, D), "block": deepseek_v2.layer_shapes(config)}


def buffer_shapes(config: Config, modules: int = 0) -> dict:
    """Of the corrections, one for each layer with experts, and for each module."""
    dense, L = config.dense_layers, config.num_hidden_layers + modules
    return {"corrections": [None if i < dense else (config.experts,) for i in range(L)]}


def pieces(config: Config, corrections: Tree = None) -> Pieces:
    """DeepSeek-V2's, with experts chosen by their sigmoids and these corrections, or none."""
    gated = partial(gated_mlp, activation=ACTIVATIONS[config.hidden_act])
    groups = {"groups": config.groups, "kept_groups": config.kept_groups}
    weights: dict[str, Any] = {"renormalised": config.norm_topk_prob}
    mlp = partial(
        moe_and_logits,
        choose=partial(sigmoid_choice, top_k=config.top_k, **groups),
        weigh=partial(sigmoid_weights, scale=config.routed_scaling_factor, **weights),
        expert=gated,
        shared=gated,
    )
    own = deepseek_v2.latent_pieces(config, mlp, interleaved=config.rope_interleave)
    if corrections is None:
        return own
    biased = {i: partial(mlp, bias=b) for i, b in enumerate(corrections) if b is not None}
    return own._replace(mlp=lambda layer: biased.get(layer) or own.mlp(layer))


shapes, init = deepseek_v2.shapes, walks.init
body = partial(routed.body, pieces)
output_matrix = causal_lm.output_matrix
BALANCE = router_losses.Balance(
    partial(router_losses.sequence_balance, affinities=normalised_sigmoid, choose=top_experts),
    joint=False,
)


def renames(config: Config) -> list[Rename]:
    """DeepSeek-V2's, with the corrections, and with the modules as further layers."""
    correction = "model.layers.{i}.mlp.gate.e_score_correction_bias"
    names = [*deepseek_v2.renames(config), Rename(correction, "buffers.corrections.{i}")]
    for k in range(config.modules):
        hub, path = f"model.layers.{config.num_hidden_layers + k}", f"body.multi_token.{k}"
        names += [
            Rename(f"{hub}.hnorm.weight", f"{path}.hidden_norm"),
            Rename(f"{hub}.enorm.weight", f"{path}.embed_norm"),
            Rename(f"{hub}.eh_proj.weight", f"{path}.Wproj", operation=swapped_halves()),
            Rename(f"{hub}.shared_head.norm.weight", f"{path}.norm.gamma"),
            *deepseek_v2.layer_renames(config, f"{path}.block", hub),
        ]
    return names


def swapped_halves() -> Operation:
    """A weight (out, in) whose first inputs are our last: those for the embeddings."""

    def swapped(a: Any) -> Any:
        half = a.shape[0] // 2
        return array_module(a).concatenate([a[half:], a[:half]])

    return Operation(
        lambda arrays: swapped(arrays[0]).T,
        lambda tensor, _: [swapped(tensor.T)],
        lambda shapes: shapes[0][::-1],
    )


NAMES = renames(Config())
PREFIX, SKIPPED, TIED = deepseek_v2.PREFIX, deepseek_v2.SKIPPED, deepseek_v2.TIED
