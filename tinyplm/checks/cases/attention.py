"""Cases of attention: softmax(q k^T) v, its multi-head forms, and its form by blocks of queries."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ...backend import array_module
from ...core import Backward
from ...kernels import block_attention
from ...layers import attention, attention_parts, mask
from ..case import Case, Entry, Sizes
from .rope import rope_settings, turned


def attention_mask(s: Sizes, rng: np.random.Generator, keys: int) -> np.ndarray | None:
    """None, one entry per query and key (some rows have nothing to attend to), or padding."""
    if not s.flags[0]:
        return None
    return rng.random((s.B, 1, s.T, keys) if s.flags[1] else (s.B, 1, 1, keys)) < 0.6


def attention_case(s: Sizes) -> Case:
    rng = s.rng()
    q = rng.normal(size=(s.B, s.H, s.T, s.E))
    k, v = rng.normal(size=(s.B, s.K, s.S, s.E)), rng.normal(size=(s.B, s.K, s.S, s.F))
    shapes = [(s.B, s.H, s.T, s.S), (1, s.H, s.T, s.S), (s.H, 1, s.S), (s.T, s.S)]
    bias = rng.normal(size=shapes[s.seed % 4]) if s.flags[2] else None
    scale = None if s.flags[1] else 0.7
    return Case([q, k, v, bias], {"mask": attention_mask(s, rng, s.S), "scale": scale})


def _attention_dropout(s: Sizes) -> Case:
    """With dropout on the probabilities."""
    case = attention_case(s)
    case.kwargs |= {"rate": 0.4, "key": s.rng().integers(0, 2**64, s.B, dtype=np.uint64)}
    return case


def block_attention_case(s: Sizes, case: Callable[[Sizes], Case] = attention_case) -> Case:
    """Blocks of 1 to 5 queries, which rarely divide T."""
    made = case(s)
    made.kwargs |= {"block": 1 + s.seed % 5}
    return made


def decoder_attention_case(s: Sizes) -> Case:
    """The last T of T or more positions, with or without a window, padding, and another mask; some
    rows are empty."""
    rng = s.rng()
    s = dataclasses.replace(s, S=s.T + s.S - 1)
    case = block_attention_case(s)
    case.kwargs |= {
        "window": 1 + s.seed % s.S if s.flags[1] else None,
        "allowed": case.kwargs.pop("mask"),
        "padding": rng.random((s.B, s.S)) < 0.7 if s.flags[2] else None,
    }
    return case


def _prefix_attention(s: Sizes) -> Case:
    """A decoder's attention that sees a prefix of each sample in both directions."""
    case = decoder_attention_case(s)
    S = case.args[1].shape[2]
    prefix = np.random.default_rng(s.seed + 1).integers(0, S + 1, s.B)
    case.kwargs |= {"window": None, "prefix": prefix}
    return case


def _cross_block_attention(s: Sizes) -> Case:
    """A decoder's queries and an encoder's keys, some of them padding, in blocks shorter than T."""
    case = attention_case(s)
    case.kwargs |= {
        "block": 1 + s.seed % max(1, s.T - 1),
        "causal": False,
        "allowed": case.kwargs.pop("mask"),
        "padding": s.rng().random((s.B, s.S)) < 0.7,
    }
    return case


def described_attention(
    q: Any,
    k: Any,
    v: Any,
    bias: Any = None,
    *,
    causal: bool = True,
    window: int | None = None,
    padding: Any,
    allowed: Any,
    prefix: Any = None,
    **kwargs: Any,
) -> tuple[Any, Backward]:
    """Attention whose mask is described by its parts instead of spelled out."""
    visible = mask.Visible(
        q.shape[2],
        k.shape[2],
        causal=causal,
        window=window,
        padding=padding,
        allowed=allowed,
        prefix=prefix,
        xp=array_module(q),
    )
    return block_attention.block_attention(q, k, v, bias, mask=visible, **kwargs)


def attention_parameters(
    s: Sizes, rng: np.random.Generator, source: int, bias: bool, width: int | None = None
) -> dict[str, np.ndarray]:
    """With or without biases; source: the width of the keys' source, width: that of a head."""
    E = s.E if width is None else width
    p: dict[str, tuple[int, ...]] = {
        "Wq": (s.D, s.H * E),
        "Wk": (source, s.K * E),
        "Wv": (source, s.K * E),
        "Wo": (s.H * E, s.D),
    }
    if bias:
        p |= {"bq": (s.H * E,), "bk": (s.K * E,), "bv": (s.K * E,), "bo": (s.D,)}
    return {name: rng.normal(0, 0.7, shape) for name, shape in p.items()}


def _multi_head(s: Sizes, cross: bool) -> Case:
    rng = s.rng()
    x = rng.normal(size=(s.B, s.T, s.D))
    context = rng.normal(size=(s.B, s.S, s.F)) if cross else None
    keys, source = (s.S, s.F) if cross else (s.T, s.D)
    bias = rng.normal(size=(1, s.H, s.T, keys)) if s.flags[2] else None
    p = attention_parameters(s, rng, source, s.flags[1])
    kwargs = {"heads": s.H, "kv_heads": s.K, "mask": attention_mask(s, rng, keys)}
    return Case([p, x, context, bias], kwargs)


def _joined_attention(s: Sizes) -> Case:
    """Queries, keys and values from one matrix."""
    case = _multi_head(s, cross=False)
    p = case.args[0]
    joined = {
        f"{kind}qkv": np.concatenate([p[f"{kind}{n}"] for n in "qkv"], axis=-1)
        for kind in "Wb"
        if f"{kind}q" in p
    }
    case.args[0] = joined | {name: p[name] for name in ("Wo", "bo") if name in p}
    return case


def with_joined_projections(
    p: Any,
    x: Any,
    context: Any = None,
    bias: Any = None,
    *,
    heads: int,
    kv_heads: int,
    **kwargs: Any,
) -> tuple[Any, Backward]:
    """Multi-head attention with one matrix for queries, keys and values."""
    return attention.multi_head_attention(
        p,
        x,
        context,
        bias,
        heads=heads,
        kv_heads=kv_heads,
        **kwargs,
        project=attention_parts.joined(heads, kv_heads),
    )


def _rotary_attention(s: Sizes) -> Case:
    """Grouped queries in a causal decoder that rotates queries and keys by their positions."""
    rng = s.rng()
    width = 2 * s.E
    s = dataclasses.replace(s, E=width + (s.F % 3 if s.flags[0] else 0))
    rotary = partial(turned, **rope_settings(s, rng, width))
    p, x = attention_parameters(s, rng, s.D, s.flags[1]), rng.normal(size=(s.B, s.T, s.D))
    bias = rng.normal(size=(1, s.H, s.T, s.T)) if s.flags[2] else None
    causal = np.tril(np.ones((s.T, s.T), dtype=bool))
    kwargs = {"heads": s.H, "kv_heads": s.K, "mask": causal, "rotary": rotary}
    return Case([p, x, None, bias], kwargs)


def with_rotary(
    p: Any, x: Any, context: Any = None, bias: Any = None, *, rotary: Callable, **kwargs: Any
) -> tuple[Any, Backward]:
    """Multi-head attention with queries and keys turned by `rotary`."""
    between = attention_parts.turned(rotary)
    return attention.multi_head_attention(p, x, context, bias, **kwargs, between=between)


COMPONENTS = {
    "attention": Entry(
        attention.attention,
        attention_case,
        "attention of grouped queries, with a mask, an additive bias and a scale",
    ),
    "attention_dropout": Entry(
        attention.attention, _attention_dropout, "attention with dropout on the probabilities"
    ),
    "block_attention": Entry(
        block_attention.block_attention,
        block_attention_case,
        "attention by blocks of queries",
        plain="attention",
    ),
    "block_attention_dropout": Entry(
        block_attention.block_attention,
        partial(block_attention_case, case=_attention_dropout),
        "attention by blocks of queries, with dropout on the probabilities",
        plain="attention_dropout",
    ),
    "decoder_attention": Entry(
        described_attention,
        decoder_attention_case,
        "causal attention by blocks, with a sliding window and padding",
    ),
    "prefix_decoder_attention": Entry(
        described_attention,
        _prefix_attention,
        "causal attention by blocks, with a prefix that all queries see, and padding",
    ),
    "cross_block_attention": Entry(
        described_attention,
        _cross_block_attention,
        "attention by blocks to another sequence, with its padding",
    ),
    "multi_head_attention": Entry(
        attention.multi_head_attention,
        partial(_multi_head, cross=False),
        "self-attention with its projections, multi-head or grouped-query",
    ),
    "cross_attention": Entry(
        attention.multi_head_attention,
        partial(_multi_head, cross=True),
        "attention to another sequence, with its projections",
    ),
    "joined_attention": Entry(
        with_joined_projections,
        _joined_attention,
        "self-attention with queries, keys and values from one matrix",
    ),
    "rotary_attention": Entry(
        with_rotary, _rotary_attention, "causal self-attention with rotary positions"
    ),
}
