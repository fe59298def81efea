"""Cases of attention with sinks (gpt-oss): plain, by blocks, and self-attention with RoPE."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ...backend import array_module
from ...core import Backward
from ...kernels.attention import self_attention
from ...kernels.block_attention import sink_block_attention
from ...layers import mask, sinks
from ..case import Case, Entry, Sizes
from .attention import (
    attention_case,
    attention_mask,
    attention_parameters,
    block_attention_case,
    decoder_attention_case,
)
from .rope import rope_settings, turned


def _sink_softmax(s: Sizes) -> Case:
    """Sinks below, near and far above the largest of the others."""
    rng = s.rng()
    x, sink = rng.normal(size=(s.B, s.H, s.T, s.S)), rng.normal(0, 3.0, s.H)
    return Case([x, sink], {"mask": attention_mask(s, rng, s.S)})


def sink_attention_case(s: Sizes) -> Case:
    """As attention_case, with sinks in the place of the bias."""
    case = attention_case(s)
    case.args[3] = np.random.default_rng(s.seed + 1).normal(0, 2.0, s.H)
    return case


def _with_dropout(s: Sizes) -> Case:
    case = sink_attention_case(s)
    case.kwargs |= {"rate": 0.4, "key": s.rng().integers(0, 2**64, s.B, dtype=np.uint64)}
    return case


def _decoder(s: Sizes) -> Case:
    """The last T of T or more positions, with or without a window, padding, and another mask."""
    case = decoder_attention_case(s)
    case.args[3] = np.random.default_rng(s.seed + 1).normal(0, 2.0, s.H)
    return case


def described_sinks(
    q: Any,
    k: Any,
    v: Any,
    sink: Any,
    *,
    window: int | None,
    padding: Any,
    allowed: Any,
    **kwargs: Any,
) -> tuple[Any, Backward]:
    """Causal attention with sinks by blocks, whose mask is described by its parts."""
    parts: dict[str, Any] = {"window": window, "padding": padding, "allowed": allowed}
    seen = mask.Visible(q.shape[2], k.shape[2], causal=True, **parts, xp=array_module(q))
    return sink_block_attention(q, k, v, sink, mask=seen, **kwargs)


def _self_attention(s: Sizes) -> Case:
    """Causal, with rotary positions, grouped queries, and with or without biases."""
    rng = s.rng()
    width = 2 * s.E
    s = dataclasses.replace(s, E=width)
    rotary: Callable = partial(turned, **rope_settings(s, rng, width))
    p = attention_parameters(s, rng, s.D, s.flags[1]) | {"sinks": rng.normal(0, 2.0, s.H)}
    kwargs = {"heads": s.H, "kv_heads": s.K, "mask": np.tri(s.T, dtype=bool), "rotary": rotary}
    return Case([p, rng.normal(size=(s.B, s.T, s.D))], kwargs)


COMPONENTS = {
    "sink_softmax": Entry(
        sinks.sink_softmax, _sink_softmax, "softmax whose denominator has a sink of each head"
    ),
    "sink_attention": Entry(
        sinks.sink_attention,
        sink_attention_case,
        "attention of grouped queries with sinks, with a mask and a scale",
    ),
    "sink_attention_dropout": Entry(
        sinks.sink_attention,
        _with_dropout,
        "attention with sinks and dropout on the probabilities",
    ),
    "sink_block_attention": Entry(
        sink_block_attention,
        partial(block_attention_case, case=sink_attention_case),
        "attention with sinks by blocks of queries",
        plain="sink_attention",
    ),
    "sink_block_attention_dropout": Entry(
        sink_block_attention,
        partial(block_attention_case, case=_with_dropout),
        "attention with sinks by blocks of queries, with dropout on the probabilities",
        plain="sink_attention_dropout",
    ),
    "sink_decoder_attention": Entry(
        described_sinks,
        _decoder,
        "causal attention with sinks by blocks, with a sliding window and padding",
    ),
    "sink_self_attention": Entry(
        self_attention,
        _self_attention,
        "causal self-attention with sinks and rotary positions",
    ),
}
