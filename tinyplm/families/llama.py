"""LLaMA 1, 2, 3, 3.1 and 3.2 (Touvron et al. 2023a, 2023b; Llama team 2024): a pre-norm decoder with RMSNorm, rotary positions
and SwiGLU, without biases; grouped-query attention in the largest LLaMA 2 and in all of LLaMA 3.

    x_0     = tokens[ids]
    x_{i+1} = block(x_i):   x = x + attention(rmsnorm1(x));   x = x + (silu(h Wgate) * (h Wup)) Wdown,   h = rmsnorm2(x)
    hidden  = rmsnorm(x_L),   logits = hidden W            (tied: hidden tokens^T)

Queries and keys are turned by RoPE (half-split pairs), with the config's scaling of the frequencies.
Parameters: {"body": {"tokens" (V, D), "layers": [...], "norm"}, "head": {"W" (D, V)} unless tied}.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property, partial
from typing import Any, ClassVar

from ..backend import array_module
from ..core import StackOptions, on_tree, stack
from ..kernels.activation import ACTIVATIONS
from ..kernels.attention import self_attention
from ..kernels.mlp import gated_mlp
from ..layers.block import block, pre_norm
from ..layers.cache import layer_cache
from ..layers.embedding import embedding
from ..layers.mask import decoder_mask
from ..layers.norm import rmsnorm
from ..models import causal_lm
from ..models.config import LABELS, ScoreLabels, check_known, check_not_negative, check_positive, check_rates, check_types
from ..models.names import Rename, linears
from ..models.rope import Rope, read_rope, rotary
from ..random import fold, generator


@dataclasses.dataclass(frozen=True)
class Config(ScoreLabels):
    """The fields of LLaMA's config.json that say what is computed; `source` keeps the others."""

    MODEL_TYPE: ClassVar[str] = "llama"
    ARCHITECTURE: ClassVar[str] = "LlamaForCausalLM"
    SCORED: ClassVar[str] = "LlamaForSequenceClassification"
    ALIASES: ClassVar[dict[str, str]] = {}
    OLD: ClassVar[tuple[str, ...]] = ("rope_theta", "rope_scaling", *LABELS)  # only written where they were read

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    attention_bias: bool = False
    mlp_bias: bool = False
    attention_dropout: float = 0.0
    tie_word_embeddings: bool = False
    rope_parameters: dict | None = None  # of transformers 5; before it rope_theta and rope_scaling; `rope` reads both
    rope_theta: float | None = None
    rope_scaling: dict | None = None
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    source: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                       "num_key_value_heads", "head_dim", "max_position_embeddings")  # fmt: skip
        check_not_negative(self, "rms_norm_eps", "initializer_range")
        check_rates(self, "attention_dropout")
        if self.head_dim is None and self.hidden_size % self.heads:
            raise ValueError(f"config: hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"config: num_attention_heads {self.heads} is not a multiple of num_key_value_heads {self.kv_heads}")
        check_known(self, "hidden_act", ACTIVATIONS)
        self.rope.frequencies(self.head_width, 1)  # refuses what RoPE cannot turn

    @property
    def heads(self) -> int:
        return self.num_attention_heads

    @property
    def kv_heads(self) -> int:
        return self.heads if self.num_key_value_heads is None else self.num_key_value_heads

    @property
    def head_width(self) -> int:
        return self.hidden_size // self.heads if self.head_dim is None else self.head_dim

    @cached_property
    def rope(self) -> Rope:
        original = self.source.get("original_max_position_embeddings")
        return read_rope(self.rope_parameters, self.rope_scaling, self.rope_theta, self.max_position_embeddings, original)

    @property
    def context(self) -> int:
        return self.rope.context

    @property
    def cache_context(self) -> int:
        return self.rope.cache_context

    @property
    def cache_sizes(self) -> dict[str, int]:
        return {"layers": self.num_hidden_layers, "kv_heads": self.kv_heads, "width": self.head_width}


def _size(D: int, F: int, L: int, H: int, K: int | None = None, *, base: float = 10000.0, eps: float = 1e-5, context: int = 2048,
          rope: dict | None = None, **others: Any) -> Config:  # fmt: skip
    return Config(hidden_size=D, intermediate_size=F, num_hidden_layers=L, num_attention_heads=H, num_key_value_heads=K,
                  rms_norm_eps=eps, max_position_embeddings=context,
                  rope_parameters={"rope_type": "default", "rope_theta": base, **(rope or {})}, **others)  # fmt: skip


_STRETCH = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
_V3 = {"base": 500000.0, "context": 8192, "vocab_size": 128256, "bos_token_id": 128000, "eos_token_id": 128001}
_V31 = {**_V3, "context": 131072, "rope": {**_STRETCH, "factor": 8.0}}
_V32 = {**_V3, "context": 131072, "rope": {**_STRETCH, "factor": 32.0}, "tie_word_embeddings": True}

# Touvron et al. 2023a, table 2; 2023b, table 1; Llama team 2024, table 3; and the configurations of the released weights.
SIZES = {
    "llama-7b": _size(4096, 11008, 32, 32, eps=1e-6),
    "llama-13b": _size(5120, 13824, 40, 40, eps=1e-6),
    "llama-30b": _size(6656, 17920, 60, 52, eps=1e-6),
    "llama-65b": _size(8192, 22016, 80, 64),
    "llama-2-7b": _size(4096, 11008, 32, 32, context=4096),
    "llama-2-13b": _size(5120, 13824, 40, 40, context=4096),
    "llama-2-70b": _size(8192, 28672, 80, 64, 8, context=4096),
    "llama-3-8b": _size(4096, 14336, 32, 32, 8, **_V3),
    "llama-3-70b": _size(8192, 28672, 80, 64, 8, **_V3),
    "llama-3.1-8b": _size(4096, 14336, 32, 32, 8, **_V31),
    "llama-3.1-70b": _size(8192, 28672, 80, 64, 8, **_V31),
    "llama-3.1-405b": _size(16384, 53248, 126, 128, 8, **_V31),
    "llama-3.2-1b": _size(2048, 8192, 16, 32, 8, **_V32),
    "llama-3.2-3b": _size(3072, 8192, 28, 24, 8, **_V32),
}


def shapes(config: Config) -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    D, F, V = config.hidden_size, config.intermediate_size, config.vocab_size
    q, kv = (heads * config.head_width for heads in (config.heads, config.kv_heads))
    attention = {"Wq": (D, q), "Wk": (D, kv), "Wv": (D, kv), "Wo": (q, D)}
    mlp = {"Wgate": (D, F), "Wup": (D, F), "Wdown": (F, D)}
    if config.attention_bias:
        attention |= {"bq": (q,), "bk": (kv,), "bv": (kv,), "bo": (D,)}
    if config.mlp_bias:
        mlp |= {"bgate": (F,), "bup": (F,), "bdown": (D,)}
    layer = {"norm1": {"gamma": (D,)}, "attention": attention, "norm2": {"gamma": (D,)}, "mlp": mlp}
    body = {"tokens": (V, D), "layers": [layer] * config.num_hidden_layers, "norm": {"gamma": (D,)}}
    return {"body": body} if config.tie_word_embeddings else {"body": body, "head": {"W": (D, V)}}


def init(path: str, shape: tuple[int, ...], *, config: Config, key: int) -> Any:
    """One parameter's initial value, float64 on the host, or one number for all: norms 1, biases 0, weights N(0, 0.02), as in
    transformers; the papers do not say."""
    name = path.rsplit(".", 1)[-1]
    constant = name == "gamma" or name.startswith("b")
    return float(name == "gamma") if constant else generator(key).normal(0, config.initializer_range, shape)


def body(p, inputs_embeds=None, *, config, input_ids=None, attention_mask=None, position_ids=None, key=None, cache=None,
         stacking=StackOptions()):  # fmt: skip
    """Hidden states after the final norm.

    p = params["body"]; input_ids (B, T) or inputs_embeds (B, T, D); attention_mask (B, S) of 0/1, or 4-dimensional booleans that
    join the causal mask; position_ids (B, T) or (T,), by default the T last of 0 .. S-1; key (B,) one per sample for dropout,
    None for none; cache: S - T earlier places (layers.cache), written into, else S = T; stacking: see core.StackOptions.
    -> hidden (B, T, D); backward gives (dp, dinputs_embeds), the latter None for input_ids.
    """
    x, tokens_back = (inputs_embeds, None) if input_ids is None else embedding(p["tokens"], ids=input_ids)
    xp = array_module(x)
    T = x.shape[1]
    S = T if cache is None else cache.length + T
    if position_ids is None:
        position_ids = xp.arange(S - T, S)
    mask = decoder_mask(T, S, attention_mask, xp=xp)
    turns = rotary(config.rope, config.head_width, positions=position_ids, dtype=x.dtype)
    norm = partial(on_tree(rmsnorm, "gamma"), eps=config.rms_norm_eps)

    def layer(p, x, *, key, cache):
        def attention(p, x):
            return self_attention(p, x, heads=config.heads, kv_heads=config.kv_heads, mask=mask, rotary=turns,
                                           rate=config.attention_dropout, key=fold(key, 0), cache=cache)  # fmt: skip

        return block(p, x, residual=pre_norm, norm=norm, attention=attention, key=key,
                     mlp=partial(gated_mlp, activation=ACTIVATIONS[config.hidden_act]))  # fmt: skip

    x, stack_back = stack(layer, p["layers"], x, options=stacking,
                          each=lambda i: {"key": fold(key, i), "cache": layer_cache(cache, i)})  # fmt: skip
    hidden, norm_back = norm(p["norm"], x)

    def backward(dhidden):
        dnorm, dx = norm_back(dhidden)
        dlayers, dx = stack_back(dx)
        dp = {"layers": dlayers, "norm": dnorm}
        return (dp, dx) if tokens_back is None else ({"tokens": tokens_back(dx), **dp}, None)

    return hidden, backward


output_matrix = causal_lm.output_matrix

_LAYER, _HUB = "body.layers.{i}", "model.layers.{i}"
NAMES = [
    Rename("model.embed_tokens.weight", "body.tokens"),
    Rename("model.norm.weight", "body.norm.gamma"),
    Rename(f"{_HUB}.input_layernorm.weight", f"{_LAYER}.norm1.gamma"),
    *linears(f"{_HUB}.self_attn", f"{_LAYER}.attention", q_proj="q", k_proj="k", v_proj="v", o_proj="o"),
    Rename(f"{_HUB}.post_attention_layernorm.weight", f"{_LAYER}.norm2.gamma"),
    *linears(f"{_HUB}.mlp", f"{_LAYER}.mlp", gate_proj="gate", up_proj="up", down_proj="down"),
    Rename("lm_head.weight", "head.W", operation="transpose"),
    Rename("score.weight", "head.score", operation="transpose"),
]
PREFIX = "model."  # a file of the bare body lacks it
IGNORED = (r"rotary_emb\.inv_freq$",)  # frequencies that old files carry
TIED = {"lm_head.weight": "model.embed_tokens.weight"}  # may stand in a file although the head is tied
