"""The table of components: the implementation, the reference formula, and a maker of cases for each.

A new component needs one entry here: then all laws are checked for it on every device, and examples/gradient_check.py shows it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

import reference.layers.activation as ref_activation
import reference.layers.attention as ref_attention
import reference.layers.block as ref_block
import reference.layers.dropout as ref_dropout
import reference.layers.embedding as ref_embedding
import reference.layers.linear as ref_linear
import reference.layers.mask as ref_mask
import reference.layers.mlp as ref_mlp
import reference.layers.norm as ref_norm
import reference.layers.position as ref_position
import reference.layers.rope as ref_rope
import reference.layers.softmax as ref_softmax
import reference.losses.cross_entropy as ref_loss
from reference.scalar import zeros
from tests.components_alignment import COMPONENTS as ALIGNMENT
from tests.components_encoder import COMPONENTS as DISENTANGLED
from tests.components_heads import COMPONENTS as HEADS
from tests.components_kernels import kernels
from tests.components_losses import COMPONENTS as LOSSES
from tests.components_xlnet import COMPONENTS as XLNET
from tests.laws import Case, Sizes
from tests.support.rope import rope_at
from tinyplm.backend import array_module
from tinyplm.core import on_tree
from tinyplm.kernels import block_attention
from tinyplm.layers import (
    activation,
    attention,
    attention_parts,
    block,
    dropout,
    embedding,
    linear,
    mask,
    mlp,
    norm,
    position,
    softmax,
)
from tinyplm.layers import rope_scaling as scaling
from tinyplm.losses import cross_entropy


class Component(NamedTuple):
    f: Callable
    reference: Callable
    make: Callable[[Sizes], Case]


def _normal(s: Sizes, rng, *shape: int, spread: float = 1.0) -> np.ndarray:
    return rng.normal(0, spread, shape)


def _keys(rng, count: int) -> np.ndarray:
    return rng.integers(0, 2**64, count, dtype=np.uint64)


def _linear(s: Sizes) -> Case:
    rng = s.rng()
    x = _normal(s, rng, s.B, s.T, s.D) if s.flags[0] else _normal(s, rng, s.B, s.D)
    return Case([x, _normal(s, rng, s.D, s.F), _normal(s, rng, s.F) if s.flags[1] else None])


def _embedding(s: Sizes) -> Case:
    rng = s.rng()
    return Case([_normal(s, rng, s.V, s.D)], {"ids": rng.integers(0, s.V, (s.B, s.T))})


def _layernorm(s: Sizes) -> Case:
    rng = s.rng()
    beta = _normal(s, rng, s.D) if s.flags[0] else None
    return Case([_normal(s, rng, s.B, s.T, s.D), _normal(s, rng, s.D), beta], {"eps": 1e-5 if s.flags[1] else 0.1})


def _rmsnorm(s: Sizes) -> Case:
    rng = s.rng()
    return Case([_normal(s, rng, s.B, s.T, s.D), _normal(s, rng, s.D)], {"eps": 1e-6 if s.flags[1] else 0.1})


def _elementwise(s: Sizes) -> Case:
    x = _normal(s, s.rng(), s.B, s.T, s.D, spread=2.0)
    return Case([x])


def _relu(s: Sizes) -> Case:
    case = _elementwise(s)
    x = case.args[0]
    return Case([np.where(np.abs(x) < 0.01, 0.5, x)])  # no derivative at 0


def _dropout(s: Sizes) -> Case:
    rng = s.rng()
    return Case([_normal(s, rng, s.B, s.T, s.D)], {"rate": 0.4, "key": _keys(rng, s.B) if s.flags[0] else None})


def _softmax(s: Sizes) -> Case:
    rng = s.rng()
    mask = None
    if s.flags[0]:
        mask = rng.random((s.B, 1, s.S) if s.flags[1] else (s.B, s.T, s.S)) < 0.6  # some rows see nothing
    return Case([_normal(s, rng, s.B, s.T, s.S, spread=3.0)], {"mask": mask})


def _log_softmax(s: Sizes) -> Case:
    return Case([_normal(s, s.rng(), s.B, s.T, s.V, spread=3.0)])


def _learned_positions(s: Sizes) -> Case:
    rng = s.rng()
    shape = (s.B, s.T) if s.flags[0] else (s.T,)
    args = [_normal(s, rng, s.B, s.T, s.D), _normal(s, rng, s.V, s.D)]
    return Case(args, {"positions": rng.integers(0, s.V, shape)})


def _frequencies(s: Sizes, rng, width: int) -> np.ndarray:
    """Of plain RoPE or one of its scalings, by the seed; short contexts make a few frequencies scale differently."""
    stretch = {"base": rng.uniform(2.0, 50.0), "factor": rng.uniform(1.0, 8.0)}
    made = [
        lambda: scaling.rope_frequencies(width, base=stretch["base"]),
        lambda: scaling.linear_frequencies(width, **stretch),
        lambda: scaling.yarn_frequencies(width, **stretch, original=64, beta_fast=8.0, beta_slow=0.5, truncate=s.flags[0]),
        lambda: scaling.llama3_frequencies(width, **stretch, low_freq_factor=1.0, high_freq_factor=4.0, original=64),
        lambda: scaling.dynamic_frequencies(width, **stretch, original=8, length=24),  # needs more than one frequency
    ]
    return made[s.seed % (5 if width > 2 else 4)]()


def _rope_settings(s: Sizes, rng, width: int) -> dict:
    """For `width` rotated components: positions per sample or shared, and YaRN's magnitude."""
    positions = rng.integers(0, 3000, (s.B, s.T) if s.flags[1] else (s.T,))
    magnitude = rng.uniform(0.5, 1.5) if s.flags[2] else 1.0
    return {"positions": positions, "frequencies": _frequencies(s, rng, width), "magnitude": magnitude}


def _rope(s: Sizes, interleaved: bool) -> Case:
    """Sizes.E counts pairs, since the rotated width is even; up to two components are not rotated."""
    rng = s.rng()
    x = _normal(s, rng, s.B, s.H, s.T, 2 * s.E + (s.F % 3 if s.flags[0] else 0))
    return Case([x], {**_rope_settings(s, rng, 2 * s.E), "interleaved": interleaved})


def _attention_mask(s: Sizes, rng, keys: int) -> np.ndarray | None:
    """None, one entry per query and key (some rows have nothing to attend to), or padding."""
    if not s.flags[0]:
        return None
    return rng.random((s.B, 1, s.T, keys) if s.flags[1] else (s.B, 1, 1, keys)) < 0.6


def _attention(s: Sizes) -> Case:
    rng = s.rng()
    q = _normal(s, rng, s.B, s.H, s.T, s.E)
    k, v = _normal(s, rng, s.B, s.K, s.S, s.E), _normal(s, rng, s.B, s.K, s.S, s.F)
    shapes = [(s.B, s.H, s.T, s.S), (1, s.H, s.T, s.S), (s.H, 1, s.S), (s.T, s.S)]
    bias = _normal(s, rng, *shapes[s.seed % 4]) if s.flags[2] else None
    return Case([q, k, v, bias], {"mask": _attention_mask(s, rng, s.S), "scale": None if s.flags[1] else 0.7})


def _attention_dropout(s: Sizes) -> Case:
    """With dropout on the probabilities; the reference draws the same mask and spells out the rest."""
    case = _attention(s)
    case.kwargs |= {"rate": 0.4, "key": _keys(s.rng(), s.B)}
    return case


def _reference_attention_dropout(q, k, v, bias=None, *, rate, key, **kwargs):
    """With the identity as v the reference returns the probabilities; dropout is applied to them, then they multiply v."""
    identity = np.broadcast_to(np.eye(k.shape[2]), (*k.shape[:3], k.shape[2]))
    P = ref_dropout.dropout(ref_attention.attention(q, k, identity, bias, **kwargs), rate=rate, key=key)
    o = zeros((*q.shape[:3], v.shape[3]), like=(P, v))
    for b, h, t, e in np.ndindex(o.shape):
        o[b, h, t, e] = sum(P[b, h, t, s] * v[b, h // (q.shape[1] // k.shape[1]), s, e] for s in range(k.shape[2]))
    return o


def _block_attention(s: Sizes, case: Callable[[Sizes], Case] = _attention) -> Case:
    """Blocks of 1 to 5 queries, which rarely divide T."""
    case = case(s)
    case.kwargs |= {"block": 1 + s.seed % 5}
    return case


def _without_block(reference: Callable) -> Callable:
    return lambda *args, block, **kwargs: reference(*args, **kwargs)


def _decoder_attention(s: Sizes) -> Case:
    """The last T of T or more positions, with or without a window, padding, and another mask; some rows are empty."""
    rng = s.rng()
    s = dataclasses.replace(s, S=s.T + s.S - 1)
    case = _block_attention(s)
    case.kwargs |= {"window": 1 + s.seed % s.S if s.flags[1] else None, "allowed": case.kwargs.pop("mask"),
                    "padding": rng.random((s.B, s.S)) < 0.7 if s.flags[2] else None}  # fmt: skip
    return case


def _described_attention(q, k, v, bias=None, *, window, padding, allowed, **kwargs):
    visible = mask.Visible(q.shape[2], k.shape[2], causal=True, window=window, padding=padding, allowed=allowed,
                           xp=array_module(q))  # fmt: skip
    return block_attention.block_attention(q, k, v, bias, mask=visible, **kwargs)


def _reference_described_attention(q, k, v, bias=None, *, window, padding, allowed, block, **kwargs):
    T, S = q.shape[2], k.shape[2]
    seen = ref_mask.causal_mask(T, S) if window is None else ref_mask.sliding_mask(T, S, window=window)
    seen = ref_mask.combine_masks(seen, None if padding is None else ref_mask.padding_mask(padding), allowed)
    return ref_attention.attention(q, k, v, bias, mask=seen, **kwargs)


def _attention_parameters(s: Sizes, rng, source: int, bias: bool) -> dict:
    p = {"Wq": (s.D, s.H * s.E), "Wk": (source, s.K * s.E), "Wv": (source, s.K * s.E), "Wo": (s.H * s.E, s.D)}
    if bias:
        p |= {"bq": (s.H * s.E,), "bk": (s.K * s.E,), "bv": (s.K * s.E,), "bo": (s.D,)}
    return {name: _normal(s, rng, *shape, spread=0.7) for name, shape in p.items()}


def _multi_head(s: Sizes, cross: bool) -> Case:
    rng = s.rng()
    x = _normal(s, rng, s.B, s.T, s.D)
    context = _normal(s, rng, s.B, s.S, s.F) if cross else None
    keys, source = (s.S, s.F) if cross else (s.T, s.D)
    bias = _normal(s, rng, 1, s.H, s.T, keys) if s.flags[2] else None
    p = _attention_parameters(s, rng, source, s.flags[1])
    return Case([p, x, context, bias], {"heads": s.H, "kv_heads": s.K, "mask": _attention_mask(s, rng, keys)})


def _joined_attention(s: Sizes) -> Case:
    """Queries, keys and values from one matrix."""
    case = _multi_head(s, cross=False)
    p = case.args[0]
    joined = {f"{kind}qkv": np.concatenate([p[f"{kind}{n}"] for n in "qkv"], axis=-1) for kind in "Wb" if f"{kind}q" in p}
    case.args[0] = joined | {name: p[name] for name in ("Wo", "bo") if name in p}
    return case


def _with_joined_projections(p, x, context=None, bias=None, *, heads, kv_heads, **kwargs):
    return attention.multi_head_attention(p, x, context, bias, heads=heads, kv_heads=kv_heads, **kwargs,
                                          project=attention_parts.joined(heads, kv_heads))  # fmt: skip


def _reference_joined_attention(p, x, context=None, bias=None, *, heads, kv_heads, **kwargs):
    E = p["Wqkv"].shape[1] // (heads + 2 * kv_heads)
    edges = [heads * E, (heads + kv_heads) * E]
    apart = {f"{kind}{n}": a for kind in "Wb" if f"{kind}qkv" in p
             for n, a in zip("qkv", np.split(p[f"{kind}qkv"], edges, axis=-1))}  # fmt: skip
    apart |= {name: p[name] for name in ("Wo", "bo") if name in p}
    return ref_attention.multi_head_attention(apart, x, context, bias, heads=heads, kv_heads=kv_heads, **kwargs)


def _rotary_attention(s: Sizes) -> Case:
    """Grouped queries in a causal decoder that rotates queries and keys by their positions."""
    rng = s.rng()
    turned = 2 * s.E
    s = dataclasses.replace(s, E=turned + (s.F % 3 if s.flags[0] else 0))
    settings = _rope_settings(s, rng, turned)
    p, x = _attention_parameters(s, rng, s.D, s.flags[1]), _normal(s, rng, s.B, s.T, s.D)
    bias = _normal(s, rng, 1, s.H, s.T, s.T) if s.flags[2] else None

    def ours(x):
        on_device = {name: _like(a, x) if isinstance(a, np.ndarray) else a for name, a in settings.items()}
        return rope_at(x, **on_device)

    kwargs = {"heads": s.H, "kv_heads": s.K, "mask": np.tril(np.ones((s.T, s.T), dtype=bool)), "rotary": ours}
    return Case([p, x, None, bias], kwargs, {"rotary": partial(ref_rope.rope, **settings)})


def _with_rotary(p, x, context=None, bias=None, *, rotary, **kwargs):
    return attention.multi_head_attention(p, x, context, bias, **kwargs, between=attention_parts.turned(rotary))


def _reference_rotary_attention(p, x, context=None, bias=None, *, heads, kv_heads, rotary, **kwargs):
    """The reference's linear layers, its rotation of queries and keys (not of values), and its attention."""
    q, k, v = (ref_linear.linear(x, p[f"W{name}"], p.get(f"b{name}")) for name in "qkv")
    q, k, v = (a.reshape(*a.shape[:2], n, -1).swapaxes(1, 2) for a, n in ((q, heads), (k, kv_heads), (v, kv_heads)))
    o = ref_attention.attention(rotary(q), rotary(k), v, bias, **kwargs).swapaxes(1, 2)
    return ref_linear.linear(o.reshape(*o.shape[:2], -1), p["Wo"], p.get("bo"))


_ACTIVATIONS = [(activation.gelu_tanh, ref_activation.gelu_tanh), (activation.silu, ref_activation.silu),
                (activation.gelu, ref_activation.gelu)]  # fmt: skip


def _mlp_parameters(s: Sizes, rng, bias: bool) -> dict:
    p = {"W1": (s.D, s.F), "W2": (s.F, s.D)} | ({"b1": (s.F,), "b2": (s.D,)} if bias else {})
    return {name: _normal(s, rng, *shape) for name, shape in p.items()}


def _mlp(s: Sizes) -> Case:
    rng = s.rng()
    ours, theirs = _ACTIVATIONS[s.seed % 3]
    p = _mlp_parameters(s, rng, s.flags[0])
    return Case([p, _normal(s, rng, s.B, s.T, s.D)], {"activation": ours}, {"activation": theirs})


def _gated_mlp(s: Sizes) -> Case:
    rng = s.rng()
    ours, theirs = _ACTIVATIONS[s.seed % 3]
    shapes = {"Wgate": (s.D, s.F), "Wup": (s.D, s.F), "Wdown": (s.F, s.D)}
    if s.flags[0]:
        shapes |= {"bgate": (s.F,), "bup": (s.F,), "bdown": (s.D,)}
    p = {name: _normal(s, rng, *shape) for name, shape in shapes.items()}
    return Case([p, _normal(s, rng, s.B, s.T, s.D)], {"activation": ours}, {"activation": theirs})


def _block(s: Sizes, kind: str) -> Case:
    """A block whose attention takes a shared input, the additive bias, as in T5."""
    rng = s.rng()

    def norm_parameters() -> dict:
        return {"gamma": _normal(s, rng, s.D), "beta": _normal(s, rng, s.D)}

    p = {"norm1": norm_parameters(), "attention": _attention_parameters(s, rng, s.D, True), "norm2": norm_parameters(),
         "mlp": _mlp_parameters(s, rng, True)}  # fmt: skip
    mask = np.tril(np.ones((s.T, s.T), dtype=bool))

    def attend(p, x, bias):
        y, back = attention.multi_head_attention(p, x, None, bias, heads=s.H, kv_heads=s.K, mask=_like(mask, x))

        def backward(dy):
            dp, dx, _, dbias = back(dy)
            return dp, dx, dbias

        return y, backward

    eps = 0.1  # keeps the curvature of the norm moderate when D is 2
    ours = {"residual": getattr(block, kind), "norm": partial(on_tree(norm.layernorm, "gamma", "beta"), eps=eps),
            "attention": attend, "mlp": partial(mlp.mlp, activation=activation.gelu_tanh)}  # fmt: skip
    theirs = {
        "residual": getattr(ref_block, kind),
        "norm": lambda p, x: ref_norm.layernorm(x, p["gamma"], p["beta"], eps=eps),
        "attention": lambda p, x, bias: ref_attention.multi_head_attention(p, x, None, bias, heads=s.H, kv_heads=s.K, mask=mask),
        "mlp": lambda p, x: ref_mlp.mlp(p, x, activation=ref_activation.gelu_tanh),
    }
    bias = _normal(s, rng, 1, s.H, s.T, s.T)
    return Case([p, _normal(s, rng, s.B, s.T, s.D), bias], ours, theirs)


def _like(host: np.ndarray, x):
    """Moves a host array that a closure captured to x's device."""
    return array_module(x).asarray(host)


def _loss_kwargs(s: Sizes, rng) -> dict:
    targets = rng.integers(0, s.V, (s.B, s.T))
    targets[rng.random(targets.shape) < 0.3] = -100  # sometimes all of them
    return {"targets": targets, "weights": rng.random((s.B, s.T)) + 0.1 if s.flags[0] else None,
            "total": 7.5 if s.flags[1] else None, "smoothing": 0.1 if s.flags[2] else 0.0}  # fmt: skip


def _cross_entropy(s: Sizes) -> Case:
    rng = s.rng()
    return Case([_normal(s, rng, s.B, s.T, s.V, spread=2.0)], _loss_kwargs(s, rng))


def _vocabulary_cross_entropy(s: Sizes) -> Case:
    rng = s.rng()
    args = [_normal(s, rng, s.B, s.T, s.D), _normal(s, rng, s.D, s.V), _normal(s, rng, s.V) if s.seed % 2 else None]
    return Case(args, _loss_kwargs(s, rng))


COMPONENTS: dict[str, Component] = {
    "linear": Component(linear.linear, ref_linear.linear, _linear),
    "embedding": Component(embedding.embedding, ref_embedding.embedding, _embedding),
    "layernorm": Component(norm.layernorm, ref_norm.layernorm, _layernorm),
    "rmsnorm": Component(norm.rmsnorm, ref_norm.rmsnorm, _rmsnorm),
    "relu": Component(activation.relu, ref_activation.relu, _relu),
    "gelu": Component(activation.gelu, ref_activation.gelu, _elementwise),
    "gelu_tanh": Component(activation.gelu_tanh, ref_activation.gelu_tanh, _elementwise),
    "silu": Component(activation.silu, ref_activation.silu, _elementwise),
    "dropout": Component(dropout.dropout, ref_dropout.dropout, _dropout),
    "softmax": Component(softmax.softmax, ref_softmax.softmax, _softmax),
    "log_softmax": Component(softmax.log_softmax, ref_softmax.log_softmax, _log_softmax),
    "learned_positions": Component(position.learned_positions, ref_position.learned_positions, _learned_positions),
    "rope": Component(rope_at, ref_rope.rope, partial(_rope, interleaved=False)),
    "rope_interleaved": Component(rope_at, ref_rope.rope, partial(_rope, interleaved=True)),
    "attention": Component(attention.attention, ref_attention.attention, _attention),
    "attention_dropout": Component(attention.attention, _reference_attention_dropout, _attention_dropout),
    "block_attention": Component(block_attention.block_attention, _without_block(ref_attention.attention), _block_attention),
    "block_attention_dropout": Component(
        block_attention.block_attention,
        _without_block(_reference_attention_dropout),
        partial(_block_attention, case=_attention_dropout),
    ),
    "decoder_attention": Component(_described_attention, _reference_described_attention, _decoder_attention),
    "multi_head_attention": Component(
        attention.multi_head_attention, ref_attention.multi_head_attention, partial(_multi_head, cross=False)
    ),
    "cross_attention": Component(
        attention.multi_head_attention, ref_attention.multi_head_attention, partial(_multi_head, cross=True)
    ),
    "joined_attention": Component(_with_joined_projections, _reference_joined_attention, _joined_attention),
    "rotary_attention": Component(_with_rotary, _reference_rotary_attention, _rotary_attention),
    "mlp": Component(mlp.mlp, ref_mlp.mlp, _mlp),
    "gated_mlp": Component(mlp.gated_mlp, ref_mlp.gated_mlp, _gated_mlp),
    "pre_norm_block": Component(block.block, ref_block.block, partial(_block, kind="pre_norm")),
    "post_norm_block": Component(block.block, ref_block.block, partial(_block, kind="post_norm")),
    "cross_entropy": Component(cross_entropy.cross_entropy, ref_loss.cross_entropy, _cross_entropy),
    "vocabulary_cross_entropy": Component(
        cross_entropy.vocabulary_cross_entropy, ref_loss.vocabulary_cross_entropy, _vocabulary_cross_entropy
    ),
    "log_sigmoid": Component(activation.log_sigmoid, ref_activation.log_sigmoid, _elementwise),
} | {name: Component(*parts) for name, parts in (LOSSES | ALIGNMENT | HEADS | DISENTANGLED | XLNET).items()}
COMPONENTS |= kernels(COMPONENTS)
