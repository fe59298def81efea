"""gpt-oss 20b and 120b (OpenAI 2025): as Mixtral, except that attention has sinks and biases, that
every second layer has a window, and that experts are clamped and have biases (sec. 2.2).

    P_ts = exp(A_ts) / (exp(sinks_h) + sum_u exp(A_tu))               layers/sinks.py
    y    = sum_j w_j f_{c_j}(x),   w = softmax(z_c),   z = x Wrouter + b
    f(x) = (u + 1) * g sigmoid(1.702 g) Wdown + bdown,   g = min(x Wgate + bgate, 7),
           u = x Wup + bup between -7 and 7

RoPE is stretched by YaRN, whose bounds are not rounded.  Layers 0, 2, 4 ... see the last 128 keys.
Files have the experts in MXFP4 (hub/mxfp4.py), or as the fused tensors that transformers writes.
Parameters as in Mixtral, with biases, and sinks (H,) in each attention.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property, partial
from typing import Any, ClassVar

from ..arguments import wrong
from ..kernels.experts import moe_and_logits
from ..kernels.mlp import clamped_gated_mlp
from ..layers.routing import softmax_weights, top_experts
from ..models import causal_lm, routed, router_losses, walks
from ..models.config import check_not_negative, check_only, check_positive
from ..models.decoder import Pieces, every
from ..models.names import Rename, interleaved, linear
from ..models.rope import Rope, read_rope
from ..models.rotary_config import RotaryConfig, check_layer_types
from ..models.routed_config import Routed
from . import llama, mixtral

BASE = 150000.0
YARN: dict[str, Any] = {
    **{"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0},
    **{"truncate": False, "original_max_position_embeddings": 4096},
}


@dataclasses.dataclass(frozen=True)
class Config(Routed, RotaryConfig):
    """gpt-oss's config.json: the fields of RotaryConfig, the windows and the experts."""

    EXPERTS: ClassVar[str] = "num_local_experts"
    MODEL_TYPE: ClassVar[str] = "gpt_oss"
    ARCHITECTURE: ClassVar[str] = "GptOssForCausalLM"
    SCORED: ClassVar[str] = "GptOssForSequenceClassification"
    ALIASES: ClassVar[dict[str, str]] = {"num_experts": "num_local_experts"}
    OLD: ClassVar[tuple[str, ...]] = (*RotaryConfig.OLD, "layer_types")
    QUANTIZED: ClassVar[tuple[str, ...]] = ("mxfp4",)

    vocab_size: int = 201088
    hidden_size: int = 2880
    intermediate_size: int = 2880
    num_hidden_layers: int = 36
    num_attention_heads: int = 64
    num_key_value_heads: int | None = 8
    head_dim: int | None = 64
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-5
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    attention_bias: bool = True
    sliding_window: int | None = 128
    layer_types: list[str] | None = None
    num_local_experts: int = 128
    num_experts_per_tok: int = 4
    router_aux_loss_coef: float = 0.001
    swiglu_alpha: float = 1.702
    swiglu_limit: float = 7.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "sliding_window")
        check_layer_types(self.layer_types, self.num_hidden_layers, self.sliding_window)
        if self.sliding_window is None and self.layer_types is None:
            raise wrong("config: sliding_window", "a positive integer without layer_types", None)
        mixtral.check_experts(self, "num_local_experts")
        check_not_negative(self, "router_aux_loss_coef")
        for name in ("swiglu_alpha", "swiglu_limit"):
            if getattr(self, name) <= 0:
                raise wrong(f"config: {name}", "a number > 0", getattr(self, name))
        check_only(self, hidden_act=("silu",))  # no other is read

    @cached_property
    def rope(self) -> Rope:
        """YaRN by 32, unless the file says otherwise."""
        base = BASE if self.rope_theta is None else self.rope_theta
        parameters = self.rope_parameters or (None if self.rope_scaling else YARN)
        given = None if parameters is None else {"rope_theta": base, **parameters}
        theta = base if given is None else self.rope_theta
        return read_rope(given, self.rope_scaling, theta, self.max_position_embeddings)

    def window_of(self, layer: int) -> int | None:
        """How many keys a query of this layer sees; None for all before it."""
        sliding = layer % 2 == 0
        if self.layer_types is not None:
            sliding = self.layer_types[layer] == "sliding_attention"
        return self.sliding_window if sliding else None


def _size(L: int, X: int) -> Config:
    more: dict[str, Any] = {"num_local_experts": X, "eos_token_id": 200002, "head_dim": 64}
    more |= {"vocab_size": 201088, "router_aux_loss_coef": 0.9, "rope": YARN}
    return Config.of(2880, 2880, L, 64, 8, context=131072, base=BASE, **more)


# OpenAI 2025, table 1; and the configurations of the released weights.
SIZES = {"gpt-oss-20b": _size(24, 32), "gpt-oss-120b": _size(36, 128)}


def shapes(config: Config) -> dict:
    """Mixtral's, with biases and sinks."""
    D, F, X = config.hidden_size, config.mlp_width, config.experts
    layer = llama.layer_shapes(config, "qkvo" * config.attention_bias)
    layer["attention"] |= {"sinks": (config.heads,)}
    layer["mlp"] = mixtral.expert_shapes(D, F, X, ("gate", "up", "down"))
    layer["mlp"]["router"] |= {"b": (X,)}
    return llama.model_shapes(config, layer)


def pieces(config: Config) -> Pieces:
    """Mixtral's, with each layer's own window and clamped experts."""
    mlp = partial(
        moe_and_logits,
        choose=partial(top_experts, top_k=config.top_k),
        weigh=partial(softmax_weights, renormalised=True),
        expert=partial(clamped_gated_mlp, alpha=config.swiglu_alpha, limit=config.swiglu_limit),
    )
    return routed.routed(llama.pieces(config)._replace(window=config.window_of, mlp=every(mlp)))


def init(path: str, shape: tuple[int, ...], *, config: Config, key: int) -> Any:
    """walks.init, with the routers' biases drawn as their matrices are, as in transformers."""
    drawn = path.removesuffix("b") + "W" if path.endswith("router.b") else path
    return walks.init(drawn, shape, config=config, key=key)


body = partial(routed.body, pieces)
output_matrix = causal_lm.output_matrix
BALANCE = router_losses.SWITCH

_LAYER, _HUB = "body.layers.{i}", "model.layers.{i}"
_EXPERTS, _HUB_EXPERTS = f"{_LAYER}.mlp.experts", f"{_HUB}.mlp.experts"
NAMES = [
    *(*llama.ENDS, *llama.NORMS, *llama.ATTENTION),
    Rename(f"{_HUB}.self_attn.sinks", f"{_LAYER}.attention.sinks"),
    *linear(f"{_HUB}.mlp.router", f"{_LAYER}.mlp.router"),
    *(
        Rename(f"{_HUB_EXPERTS}.{hub}", *(f"{_EXPERTS}.{n}" for n in own), operation=interleaved())
        for hub, own in (
            ("gate_up_proj", ("Wgate", "Wup")),
            ("gate_up_proj_bias", ("bgate", "bup")),
            ("down_proj", ("Wdown",)),
            ("down_proj_bias", ("bdown",)),
        )
    ),
]
PREFIX, SKIPPED, TIED = llama.PREFIX, llama.SKIPPED, llama.TIED
