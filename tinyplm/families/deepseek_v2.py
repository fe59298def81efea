"""DeepSeek-V2 and V2-Lite (DeepSeek team 2024a): as LLaMA, except for latent attention, and for
experts above the first `first_k_dense_replace` layers.

Attention (sec. 2.1) makes the keys and values of all heads from one vector c a token, which alone
is cached, beside one rotary key k_r (layers/latent.py):

    c = rmsnorm(x Wdkv),   k = [c Wuk, k_r],   v = c Wuv,   k_r = rope(x Wkr)
    q = [q_c, rope(q_r)],  [q_c, q_r] = rmsnorm(x Wdq) Wuq, or x Wq in V2-Lite

RoPE turns interleaved pairs.  With YaRN the scores have its temperature (config.score_scale).
The feed-forward sublayer of the upper layers (sec. 2.2), X experts in groups, and shared ones:

    y = s sum_j p_{c_j} SwiGLU_{c_j}(x) + SwiGLU_shared(x),   p = softmax(x Wrouter),

c being the k largest of the groups with the largest maxima, s = routed_scaling_factor.
Parameters: attention {"Wdq" (D, Q), "q_norm", "Wuq" (Q, H (E + R)) or "Wq", "Wdkv" (D, C),
"kv_norm", "Wkr" (D, R), "Wuk" (C, H E), "Wuv" (C, H E2), "Wo"}; mlp as LLaMA's, or {"router" {"W"
(D, X)}, "experts" {"Wgate" (X, D, F), ...}, "shared" {"Wgate", ...}}.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..core import Component
from ..kernels.activation import ACTIVATIONS
from ..kernels.experts import moe_and_logits
from ..kernels.latent import latent_attention
from ..kernels.mlp import gated_mlp
from ..layers.moe import unrouted
from ..layers.routing import softmax_weights, top_experts
from ..layers.softmax import softmax
from ..models import causal_lm, routed, router_losses, walks
from ..models.config import check_only
from ..models.decoder import Pieces, every
from ..models.latent_config import LatentConfig
from ..models.names import Rename, concatenate, fused, grouped, linears
from ..models.rope import rotary
from . import llama, mixtral


@dataclasses.dataclass(frozen=True)
class Config(LatentConfig):
    """DeepSeek-V2's config.json: the fields of LatentConfig."""

    MODEL_TYPE: ClassVar[str] = "deepseek_v2"
    ARCHITECTURE: ClassVar[str] = "DeepseekV2ForCausalLM"
    SCORED: ClassVar[str] = "DeepseekV2ForSequenceClassification"
    METHODS: ClassVar[tuple[str, ...]] = ("greedy", "group_limited_greedy")
    SCORES: ClassVar[str] = "softmax"

    vocab_size: int = 102400
    hidden_size: int = 4096
    intermediate_size: int = 11008
    moe_intermediate_size: int = 1407
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    max_position_embeddings: int = 2048
    n_routed_experts: int = 64
    n_shared_experts: int = 2
    num_experts_per_tok: int = 6
    n_group: int | None = None
    topk_group: int | None = None
    routed_scaling_factor: float = 1.0
    first_k_dense_replace: int = 0
    norm_topk_prob: bool = False
    topk_method: str = "greedy"
    scoring_func: str = "softmax"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_only(self, norm_topk_prob=(False,))

    @property
    def grouped(self) -> bool:
        return self.topk_method != "greedy"


def yarn(m: float) -> dict[str, Any]:
    """RoPE's settings from 4,096 positions to 163,840."""
    rope = {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096}
    return {**rope, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": m, "mscale_all_dim": m}


_V2: dict[str, Any] = {
    **{"context": 163840, "rope": yarn(0.707), "first_k_dense_replace": 1},
    **{"bos_token_id": 100000, "eos_token_id": 100001},
}
_GROUPS: dict[str, Any] = {"topk_method": "group_limited_greedy", "n_group": 8, "topk_group": 3}
_LARGE: dict[str, Any] = {"n_routed_experts": 160, "routed_scaling_factor": 16.0, **_GROUPS}
_LITE: dict[str, Any] = {"q_lora_rank": None, **_V2}

# DeepSeek team 2024a, sec. 3.1.2 and appendix B; and the configurations of the released weights.
SIZES = {
    "deepseek-v2-lite": Config.of(2048, 10944, 27, 16, moe_intermediate_size=1408, **_LITE),
    "deepseek-v2": Config.of(5120, 12288, 60, 128, moe_intermediate_size=1536, **_LARGE, **_V2),
}


def attention_shapes(config: LatentConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of one layer's latent attention."""
    D, H, C, Q = config.hidden_size, config.heads, config.kv_lora_rank, config.q_lora_rank
    E, R, E2 = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim
    p: dict[str, tuple[int, ...]] = {"Wq": (D, H * (E + R))}
    if Q is not None:
        p = {"Wdq": (D, Q), "q_norm": (Q,), "Wuq": (Q, H * (E + R))}
    p |= {"Wdkv": (D, C), "kv_norm": (C,), "Wkr": (D, R), "Wuk": (C, H * E), "Wuv": (C, H * E2)}
    p["Wo"] = (H * E2, D)
    biased = ("dq", "dkv", "kr", "o") if config.attention_bias else ()
    return p | {f"b{n}": p[f"W{n}"][1:] for n in biased if f"W{n}" in p}


def layer_shapes(config: LatentConfig, *, dense: bool = False) -> dict:
    """The shapes of one layer, with experts unless it is dense."""
    D = config.hidden_size
    mlp: dict = gated_shapes(D, config.mlp_width)
    if not dense:
        mlp = mixtral.expert_shapes(D, config.moe_intermediate_size, config.experts)
        mlp["shared"] = gated_shapes(D, config.shared_width)
    norm = {"gamma": (D,)}
    return {"norm1": norm, "attention": attention_shapes(config), "norm2": norm, "mlp": mlp}


def shapes(config: LatentConfig) -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    lower, upper = layer_shapes(config, dense=True), layer_shapes(config)
    tree = llama.model_shapes(config, upper)
    depths = range(config.num_hidden_layers)
    tree["body"]["layers"] = [lower if i < config.dense_layers else upper for i in depths]
    return tree


def gated_shapes(D: int, F: int) -> dict[str, tuple[int, ...]]:
    return {"Wgate": (D, F), "Wup": (D, F), "Wdown": (F, D)}


def pieces(config: Config) -> Pieces:
    """LLaMA's, with latent attention and experts in groups."""
    gated = partial(gated_mlp, activation=ACTIVATIONS[config.hidden_act])
    groups = {"groups": config.groups, "kept_groups": config.kept_groups}
    mlp = partial(
        moe_and_logits,
        choose=partial(top_experts, top_k=config.top_k, **groups),
        weigh=partial(softmax_weights, scale=config.routed_scaling_factor),
        expert=gated,
        shared=gated,
    )
    return latent_pieces(config, mlp, interleaved=True)


def latent_pieces(config: LatentConfig, mlp: Component, *, interleaved: bool) -> Pieces:
    """LLaMA's on a routed stream, with latent attention, and these experts above the dense layers.

    The eps of the norms within attention is 1e-6 whatever the config says.
    """
    dense = unrouted(partial(gated_mlp, activation=ACTIVATIONS[config.hidden_act]))
    scale, rate = config.score_scale, config.attention_dropout
    own = llama.pieces(config)._replace(
        attention=every(partial(latent_attention, heads=config.heads, scale=scale, rate=rate)),
        mlp=lambda layer: dense if layer < config.dense_layers else mlp,
        positions=rotary(config.rope, config.rotary_width, interleaved=interleaved),
    )
    return routed.routed(own)


init = walks.init
body = partial(routed.body, pieces)
output_matrix = causal_lm.output_matrix
BALANCE = router_losses.Balance(
    partial(router_losses.sequence_balance, affinities=softmax), joint=False
)


def layer_renames(config: LatentConfig, path: str, hub: str) -> list[Rename]:
    """The tensors of one layer with experts, or of a dense one, under `hub`."""
    attention, mlp = f"{path}.attention", f"{path}.mlp"
    of_hub, experts = f"{hub}.self_attn", {f"{n}_proj": n for n in ("gate", "up", "down")}
    return [
        Rename(f"{hub}.input_layernorm.weight", f"{path}.norm1.gamma"),
        Rename(f"{hub}.post_attention_layernorm.weight", f"{path}.norm2.gamma"),
        *linears(of_hub, attention, q_proj="q", q_a_proj="dq", q_b_proj="uq", o_proj="o"),
        Rename(f"{of_hub}.q_a_layernorm.weight", f"{attention}.q_norm"),
        Rename(f"{of_hub}.kv_a_layernorm.weight", f"{attention}.kv_norm"),
        Rename(
            f"{of_hub}.kv_a_proj_with_mqa.weight",
            *(f"{attention}.Wdkv", f"{attention}.Wkr"),
            operation=fused(),
        ),
        Rename(
            f"{of_hub}.kv_a_proj_with_mqa.bias",
            *(f"{attention}.bdkv", f"{attention}.bkr"),
            operation=concatenate(0),
        ),
        Rename(
            f"{of_hub}.kv_b_proj.weight",
            *(f"{attention}.Wuk", f"{attention}.Wuv"),
            operation=grouped(config.heads),
        ),
        *linears(f"{hub}.mlp", mlp, **experts),
        Rename(f"{hub}.mlp.gate.weight", f"{mlp}.router.W", operation="transpose"),
        *linears(f"{hub}.mlp.experts.{{j}}", f"{mlp}.experts.{{j}}", **experts),
        *linears(f"{hub}.mlp.shared_experts", f"{mlp}.shared", **experts),
    ]


def renames(config: LatentConfig) -> list[Rename]:
    """DeepSeek's tensors: kv_b_proj holds each head's key and value after another."""
    return [*llama.ENDS, *layer_renames(config, "body.layers.{i}", "model.layers.{i}")]


NAMES = renames(Config())
PREFIX, SKIPPED, TIED = llama.PREFIX, llama.SKIPPED, llama.TIED
