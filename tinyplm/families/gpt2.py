"""GPT-2 (Radford et al. 2019): a pre-norm decoder with learned positions, tanh GELU, a final norm and a tied head.

    x_0     = tokens[ids] + positions[t]                        (+ dropout)
    x_{i+1} = block(x_i):   x = x + attention(norm1(x));   x = x + mlp(norm2(x))
    hidden  = norm(x_L),    logits = hidden tokens^T            (untied: hidden W)

Parameters: {"body": {"tokens" (V, D), "positions" (C, D), "layers": [...], "norm"}, "head": {"W" (D, V)} if untied}.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..backend import array_module
from ..core import StackOptions, on_tree, stack
from ..kernels.activation import ACTIVATIONS
from ..kernels.attention import self_attention
from ..kernels.mlp import mlp
from ..layers.block import block, pre_norm
from ..layers.cache import layer_cache
from ..layers.dropout import dropout
from ..layers.embedding import embedding
from ..layers.mask import decoder_mask
from ..layers.norm import layernorm
from ..layers.position import learned_positions
from ..models import causal_lm
from ..models.config import LABELS, ScoreLabels, check_known, check_not_negative, check_positive, check_rates, check_types
from ..models.names import Rename, concatenate, weight_and_bias
from ..random import fold, generator


@dataclasses.dataclass(frozen=True)
class Config(ScoreLabels):
    """The fields of GPT-2's config.json that say what is computed; `source` keeps the others."""

    MODEL_TYPE: ClassVar[str] = "gpt2"
    ARCHITECTURE: ClassVar[str] = "GPT2LMHeadModel"
    SCORED: ClassVar[str] = "GPT2ForSequenceClassification"
    OLD: ClassVar[tuple[str, ...]] = LABELS
    ALIASES: ClassVar[dict[str, str]] = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
                                         "max_position_embeddings": "n_positions"}  # fmt: skip

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    add_cross_attention: bool = False
    tie_word_embeddings: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256
    source: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, "vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner")
        check_not_negative(self, "layer_norm_epsilon", "initializer_range")
        check_rates(self, "resid_pdrop", "embd_pdrop", "attn_pdrop")
        if self.n_embd % self.n_head:
            raise ValueError(f"config: n_embd {self.n_embd} is not a multiple of n_head {self.n_head}")
        check_known(self, "activation_function", ACTIVATIONS)
        if self.add_cross_attention:
            raise ValueError("config: add_cross_attention = true is not supported for gpt2")

    @property
    def context(self) -> int:
        return self.n_positions

    @property
    def heads(self) -> int:
        return self.n_head

    @property
    def cache_context(self) -> int:
        return self.n_positions

    @property
    def cache_sizes(self) -> dict[str, int]:
        return {"layers": self.n_layer, "kv_heads": self.n_head, "width": self.n_embd // self.n_head}


# Radford et al. 2019, table 2; the counts of parameters are those of the released weights (tests/test_gpt2.py).
SIZES = {
    "gpt2": Config(),
    "gpt2-medium": Config(n_embd=1024, n_layer=24, n_head=16),
    "gpt2-large": Config(n_embd=1280, n_layer=36, n_head=20),
    "gpt2-xl": Config(n_embd=1600, n_layer=48, n_head=25),
}


def shapes(config: Config) -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    D = config.n_embd
    F = config.n_inner or 4 * D

    def norm() -> dict:
        return {"gamma": (D,), "beta": (D,)}

    layer = {
        "norm1": norm(),
        "attention": {f"{kind}{name}": (D, D) if kind == "W" else (D,) for name in "qkvo" for kind in "Wb"},
        "norm2": norm(),
        "mlp": {"W1": (D, F), "b1": (F,), "W2": (F, D), "b2": (D,)},
    }
    tree = {"body": {"tokens": (config.vocab_size, D), "positions": (config.n_positions, D),
                     "layers": [layer] * config.n_layer, "norm": norm()}}  # fmt: skip
    return tree if config.tie_word_embeddings else {**tree, "head": {"W": (D, config.vocab_size)}}


def init(path: str, shape: tuple[int, ...], *, config: Config, key: int) -> Any:
    """One parameter's initial value, float64 on the host, or one number for all. Radford et al. 2018, sec. 4.1; 2019, sec. 2.3

    Norms 1 and 0, biases 0, weights N(0, 0.02); the matrices that write into the residual stream (Wo, W2) are scaled by
    1 / sqrt(number of residual additions) = 1 / sqrt(2 n_layer).  Positions have 0.02 too, as in transformers; OpenAI's
    released code has 0.01 for them, and the papers do not say.
    """
    name = path.rsplit(".", 1)[-1]
    if name == "gamma":
        return 1.0
    if name.startswith("b"):  # beta, and the biases
        return 0.0
    residual = (2 * config.n_layer) ** -0.5 if name in ("Wo", "W2") else 1.0
    return generator(key).normal(0, config.initializer_range * residual, shape)


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
    norm = partial(on_tree(layernorm, "gamma", "beta"), eps=config.layer_norm_epsilon)

    def layer(p, x, *, index, key, cache):
        scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            scale /= index + 1

        def attention(p, x):
            return self_attention(p, x, heads=config.n_head, mask=mask, scale=scale,
                                           rate=config.attn_pdrop, key=fold(key, 0), cache=cache)  # fmt: skip

        return block(p, x, residual=pre_norm, norm=norm, attention=attention, rate=config.resid_pdrop, key=key,
                     mlp=partial(mlp, activation=ACTIVATIONS[config.activation_function]))  # fmt: skip

    x, positions_back = learned_positions(x, p["positions"], positions=position_ids)
    x, drop_back = dropout(x, rate=config.embd_pdrop, key=fold(key, config.n_layer))
    x, stack_back = stack(layer, p["layers"], x, options=stacking,
                          each=lambda i: {"index": i, "key": fold(key, i), "cache": layer_cache(cache, i)})  # fmt: skip
    hidden, norm_back = norm(p["norm"], x)

    def backward(dhidden):
        dnorm, dx = norm_back(dhidden)
        dlayers, dx = stack_back(dx)
        dx, dpositions = positions_back(drop_back(dx))
        dp = {"positions": dpositions, "layers": dlayers, "norm": dnorm}
        return (dp, dx) if tokens_back is None else ({"tokens": tokens_back(dx), **dp}, None)

    return hidden, backward


output_matrix = causal_lm.output_matrix

_LAYER, _HUB = "body.layers.{i}", "transformer.h.{i}"
NAMES = [
    Rename("transformer.wte.weight", "body.tokens"),
    Rename("transformer.wpe.weight", "body.positions"),
    *weight_and_bias("transformer.ln_f", "body.norm.gamma", "body.norm.beta"),
    *weight_and_bias(f"{_HUB}.ln_1", f"{_LAYER}.norm1.gamma", f"{_LAYER}.norm1.beta"),
    Rename(f"{_HUB}.attn.c_attn.weight", *(f"{_LAYER}.attention.W{n}" for n in "qkv"), operation=concatenate(1)),
    Rename(f"{_HUB}.attn.c_attn.bias", *(f"{_LAYER}.attention.b{n}" for n in "qkv"), operation=concatenate(0)),
    *weight_and_bias(f"{_HUB}.attn.c_proj", f"{_LAYER}.attention.Wo", f"{_LAYER}.attention.bo"),
    *weight_and_bias(f"{_HUB}.ln_2", f"{_LAYER}.norm2.gamma", f"{_LAYER}.norm2.beta"),
    *weight_and_bias(f"{_HUB}.mlp.c_fc", f"{_LAYER}.mlp.W1", f"{_LAYER}.mlp.b1"),
    *weight_and_bias(f"{_HUB}.mlp.c_proj", f"{_LAYER}.mlp.W2", f"{_LAYER}.mlp.b2"),
    Rename("lm_head.weight", "head.W", operation="transpose"),
    Rename("score.weight", "head.score", operation="transpose"),
]
PREFIX = "transformer."  # a file of the bare body lacks it, as the released one does
IGNORED = (r"\.attn\.(masked_)?bias$",)  # causal masks that old files carry
TIED = {"lm_head.weight": "transformer.wte.weight"}  # may stand in a file although the head is tied
