"""GPT-2 (Radford et al. 2019), the textbook of a decoder: forward and backward in full.

    x_0 = dropout(tokens[ids] + positions[t]),   x_{i+1} = block(x_i),   hidden = norm(x_L)

`body` computes what the walk of models/decoder.py, which states the backward, does with `pieces`.
Parameters: {"body": {"tokens" (V, D), "positions" (C, D), "layers", "norm"}, "head" if untied}.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..core import Component, StackOptions, Tree, on_tree, stack
from ..kernels.activation import ACTIVATIONS
from ..kernels.attention import self_attention
from ..kernels.mlp import mlp
from ..layers.dropout import dropout
from ..layers.linear import linear, linear_gradients
from ..layers.mask import decoder_mask
from ..layers.norm import layernorm
from ..layers.position import learned_positions
from ..models import causal_lm, decoder, walks
from ..models import config as base
from ..models.names import Rename, concatenate, weight_and_bias
from ..random import fold

norm = on_tree(layernorm, "gamma", "beta")


@dataclasses.dataclass(frozen=True)
class Config(base.ScoreLabels):
    """The fields of GPT-2's config.json that say what is computed; `source` keeps the others."""

    MODEL_TYPE: ClassVar[str] = "gpt2"
    ARCHITECTURE: ClassVar[str] = "GPT2LMHeadModel"
    SCORED: ClassVar[str] = "GPT2ForSequenceClassification"
    OLD: ClassVar[tuple[str, ...]] = base.LABELS
    ALIASES: ClassVar[dict[str, str]] = {
        **{"hidden_size": "n_embd", "num_hidden_layers": "n_layer"},
        **{"num_attention_heads": "n_head", "max_position_embeddings": "n_positions"},
    }

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
        base.check_types(self)
        sizes = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner")
        base.check_positive(self, *sizes)
        base.check_not_negative(self, "layer_norm_epsilon", "initializer_range")
        base.check_rates(self, "resid_pdrop", "embd_pdrop", "attn_pdrop")
        base.check_heads(self, "n_embd", "n_head")
        base.check_known(self, "activation_function", ACTIVATIONS)
        base.check_only(self, add_cross_attention=(False,))

    heads = property(lambda self: self.n_head)
    context = cache_context = property(lambda self: self.n_positions)

    @property
    def cache_sizes(self) -> dict[str, int]:
        return dict(layers=self.n_layer, kv_heads=self.n_head, width=self.n_embd // self.n_head)


# Radford et al. 2019, table 2; the released weights' counts of parameters are in the tests.
SIZES = {
    "gpt2": Config(),
    "gpt2-medium": Config(n_embd=1024, n_layer=24, n_head=16),
    "gpt2-large": Config(n_embd=1280, n_layer=36, n_head=20),
    "gpt2-xl": Config(n_embd=1600, n_layer=48, n_head=25),
}


def shapes(config: Config) -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    V, C, D = config.vocab_size, config.n_positions, config.n_embd
    F, n = config.n_inner or 4 * D, {"gamma": (D,), "beta": (D,)}
    a = {f"{kind}{name}": (D, D) if kind == "W" else (D,) for name in "qkvo" for kind in "Wb"}
    m = {"W1": (D, F), "b1": (F,), "W2": (F, D), "b2": (D,)}
    layers = [{"norm1": n, "attention": a, "norm2": n, "mlp": m}] * config.n_layer
    tree = {"body": {"tokens": (V, D), "positions": (C, D), "layers": layers, "norm": n}}
    return tree if config.tie_word_embeddings else {**tree, "head": {"W": (D, V)}}


def init(path: str, shape: tuple[int, ...], *, config: Config, key: int) -> Any:
    """As walks.init, but Wo and W2, which write into the residual stream, / sqrt(2 n_layer)."""
    scale = (2 * config.n_layer) ** -0.5 if path.endswith((".Wo", ".W2")) else 1.0
    return walks.normal_init(path, shape, std=config.initializer_range * scale, key=key)


def body(
    p: Tree,
    inputs_embeds: Any = None,
    *,
    config: Config,
    input_ids: Any = None,
    attention_mask: Any = None,
    position_ids: Any = None,
    prefix_lengths: Any = None,
    key: Any = None,
    cache: Any = None,
    stacking: StackOptions = StackOptions(),
) -> tuple:
    """Hidden states after the final norm; arguments and results as for decoder.body."""
    e, look_up_back = walks.look_up(p, input_ids, inputs_embeds)
    xp, T, S, position_ids = decoder.places(e, cache, position_ids)
    mask = decoder_mask(T, S, attention_mask, prefix=prefix_lengths, xp=xp)
    layer = partial(block, config=config, mask=mask)
    s, positions_back = learned_positions(e, p["positions"], positions=position_ids)
    x0, drop_back = dropout(s, rate=config.embd_pdrop, key=fold(key, config.n_layer))
    xL, xL_back = stack(layer, p["layers"], x0, each=decoder.by_layer(key, cache), options=stacking)
    hidden, norm_back = norm(p["norm"], xL, eps=config.layer_norm_epsilon)

    def backward(dhidden):
        dnorm, dxL = norm_back(dhidden)
        dlayers, dx0 = xL_back(dxL)
        de, dpositions = positions_back(drop_back(dx0))
        dtokens, dembeds = look_up_back(de)
        return {**dtokens, "positions": dpositions, "layers": dlayers, "norm": dnorm}, dembeds

    return hidden, backward


def block(p: Tree, x: Any, *, config: Config, index: int, mask: Any, key: Any, cache: Any) -> tuple:
    """h = x + dropout(attention(n1 = norm1(x))),   y = h + dropout(feed_forward(n2 = norm2(h))).

    x, y (B, T, D).   dh = dy + norm2'(dn2),   dx = dh + norm1'(dn1), from both terms of each sum.
    """
    rate, eps, attend = config.resid_pdrop, config.layer_norm_epsilon, attention(config, index)
    n1, n1_back = norm(p["norm1"], x, eps=eps)
    a, a_back = attend(p["attention"], n1, mask=mask, key=fold(key, 0), cache=cache)
    s, s_back = dropout(a, rate=rate, key=fold(key, 1))
    h = x + s
    n2, n2_back = norm(p["norm2"], h, eps=eps)
    f, f_back = feed_forward(p["mlp"], n2, gelu=ACTIVATIONS[config.activation_function])
    t, t_back = dropout(f, rate=rate, key=fold(key, 2))

    def backward(dy):
        dmlp, dn2 = f_back(t_back(dy))
        dnorm2, dh = n2_back(dn2)
        dh = dh + dy
        dattention, dn1 = a_back(s_back(dh))
        dnorm1, dx = n1_back(dn1)
        return {"norm1": dnorm1, "attention": dattention, "norm2": dnorm2, "mlp": dmlp}, dx + dh

    return h + t, backward


def feed_forward(p: Tree, x: Any, *, gelu: Any) -> tuple:
    """f = g W2 + b2,   g = gelu(u),   u = x W1 + b1.   Keeps x and u, and computes g again."""
    u, u_back = linear(x, p["W1"], p["b1"])
    f, _ = linear(gelu(u)[0], p["W2"], p["b2"])

    def backward(df):
        g, g_back = gelu(u)
        dg, dW2, db2 = linear_gradients(g, p["W2"], p["b2"], df)
        dx, dW1, db1 = u_back(g_back(dg))
        return {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2}, dx

    return f, backward


def attention(config: Config, layer: int) -> Component:
    """Causal multi-head attention; the config chooses what scales q k^T in this layer."""
    scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
    scale /= layer + 1 if config.scale_attn_by_inverse_layer_idx else 1
    return partial(self_attention, heads=config.n_head, scale=scale, rate=config.attn_pdrop)


def pieces(config: Config) -> decoder.Pieces:
    """GPT-2 for the walk of decoders."""
    return decoder.Pieces(
        norm=partial(norm, eps=config.layer_norm_epsilon),
        attention=partial(attention, config),
        mlp=decoder.every(partial(mlp, activation=ACTIVATIONS[config.activation_function])),
        residual=decoder.pre_norm_block(config.resid_pdrop),
        embed=partial(decoder.learned_embed, rate=config.embd_pdrop),
        window=decoder.every(None),
        positions=decoder.no_positions,
        finish=decoder.final_norm,
    )


walk, output_matrix = partial(decoder.body, pieces), causal_lm.output_matrix

_LAYER, _HUB = "body.layers.{i}", "transformer.h.{i}"
_QKV = {kind: [f"{_LAYER}.attention.{kind}{n}" for n in "qkv"] for kind in "Wb"}
NAMES = [
    Rename("transformer.wte.weight", "body.tokens"),
    Rename("transformer.wpe.weight", "body.positions"),
    *weight_and_bias("transformer.ln_f", "body.norm.gamma", "body.norm.beta"),
    *weight_and_bias(f"{_HUB}.ln_1", f"{_LAYER}.norm1.gamma", f"{_LAYER}.norm1.beta"),
    Rename(f"{_HUB}.attn.c_attn.weight", *_QKV["W"], operation=concatenate(1)),
    Rename(f"{_HUB}.attn.c_attn.bias", *_QKV["b"], operation=concatenate(0)),
    *weight_and_bias(f"{_HUB}.attn.c_proj", f"{_LAYER}.attention.Wo", f"{_LAYER}.attention.bo"),
    *weight_and_bias(f"{_HUB}.ln_2", f"{_LAYER}.norm2.gamma", f"{_LAYER}.norm2.beta"),
    *weight_and_bias(f"{_HUB}.mlp.c_fc", f"{_LAYER}.mlp.W1", f"{_LAYER}.mlp.b1"),
    *weight_and_bias(f"{_HUB}.mlp.c_proj", f"{_LAYER}.mlp.W2", f"{_LAYER}.mlp.b2"),
    *decoder.HEADS,
]
PREFIX, SKIPPED = "transformer.", (r"\.attn\.(masked_)?bias$",)  # causal masks in old files
TIED = {"lm_head.weight": "transformer.wte.weight"}  # may stand in a file although the head is tied
