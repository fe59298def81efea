"""Cases of what some decoders add: soft caps, ALiBi, QK norms, Gemma's RMSNorm, other blocks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ...core import Backward
from ...kernels import block_attention
from ...kernels.attention import self_attention
from ...layers import activation, alibi, attention, block, norm
from ..case import Case, Entry, Sizes
from .attention import (
    attention_case,
    attention_parameters,
    block_attention_case,
    decoder_attention_case,
    described_attention,
)
from .layers import block_case
from .rope import rope_settings, turned


def _soft_cap(s: Sizes) -> Case:
    x = s.rng().normal(0, 2.0, (s.B, s.T, s.D))
    return Case([x], {"cap": 1.5 if s.flags[0] else 30.0})


def _unit_rmsnorm(s: Sizes) -> Case:
    rng = s.rng()
    args = [rng.normal(size=(s.B, s.T, s.D)), rng.normal(size=s.D)]
    return Case(args, {"eps": 1e-6 if s.flags[1] else 0.1})


# --------------------------------------------------------------------------------------- attention


def _capped(s: Sizes, make: Callable[[Sizes], Case]) -> Case:
    """Caps below and above most scores."""
    case = make(s)
    case.kwargs |= {"cap": 0.8 if s.seed % 3 else 3.0}
    return case


def key_positions(s: Sizes, keys: int) -> np.ndarray:
    """The same for all samples, or other ones for each, as with padding on the left."""
    rows = s.B if s.flags[0] else 1
    first = np.random.default_rng(s.seed).integers(0, 9, (rows, 1))
    return np.maximum(np.arange(keys) - first, 0) if s.flags[1] else np.arange(keys) + first


def _alibi(s: Sizes, make: Callable[[Sizes], Case]) -> Case:
    """One row of offsets for all queries, on the device of its other arrays."""
    case = make(s)
    _, k, *_ = case.args
    positions = key_positions(s, k.shape[2])
    slopes = alibi.alibi_slopes(s.H)
    case.kwargs |= {"offsets": alibi.alibi(positions, slopes=slopes, dtype="float64")}
    return case


def without_shift(x: Any, gamma: Any, *, eps: float) -> tuple[Any, Backward]:
    """LayerNorm without its beta."""
    y, back = norm.layernorm(x, gamma, eps=eps)
    return y, lambda dy: back(dy)[:2]


NORMS = [norm.rmsnorm, norm.unit_rmsnorm, without_shift]


def _normed(s: Sizes, name: str) -> Case:
    """Causal self-attention with norms of queries and keys, each head's or all heads' together,
    before the rotary positions if there are any."""
    rng = s.rng()
    widths = {"q_norm": s.E, "k_norm": s.E}
    rotary = None
    if s.flags[0]:
        rotary = partial(turned, **rope_settings(s, rng, 2 * s.E))
        widths = dict.fromkeys(widths, 2 * s.E)
    E = widths["q_norm"]
    heads = {"q_norm": 1, "k_norm": 1} if name == "head_norm" else {"q_norm": s.H, "k_norm": s.K}
    p = attention_parameters(s, rng, s.D, s.flags[1], E)
    p |= {n: rng.normal(size=count * E) for n, count in heads.items()}
    kwargs = {
        "heads": s.H,
        "kv_heads": s.K,
        "mask": np.tri(s.T, dtype=bool),
        "rotary": rotary,
        name: partial(NORMS[s.seed % 3], eps=0.1),  # moderate curvature when E is 1
    }
    return Case([p, rng.normal(size=(s.B, s.T, s.D))], kwargs)


COMPONENTS = {
    "soft_cap": Entry(activation.soft_cap, _soft_cap, "soft cap, cap tanh(x / cap)"),
    "unit_rmsnorm": Entry(norm.unit_rmsnorm, _unit_rmsnorm, "RMSNorm with the gain 1 + w"),
    "after_norm_block": Entry(
        block.block,
        partial(block_case, residual=block.after_norm),
        "block with norms after its parts, before the sums",
    ),
    "deep_norm_block": Entry(
        block.block,
        partial(block_case, residual=partial(block.deep_norm, alpha=2.5)),
        "block with norms after the sums, which favour the input",
    ),
    "scaled_norm_block": Entry(
        block.block,
        partial(block_case, residual=partial(block.scaled_norm, alpha=2.5)),
        "block whose parts add to the normed input, which they favour",
    ),
    "both_norms_block": Entry(
        block.block,
        partial(block_case, residual=block.both_norms),
        "block with norms before and after its parts",
    ),
    "parallel_block": Entry(
        block.parallel_block,
        partial(block_case, residual=None),
        "block whose parts read the same normed input",
    ),
    "head_norm_attention": Entry(
        self_attention,
        partial(_normed, name="head_norm"),
        "self-attention with each head's queries and keys normed",
    ),
    "projection_norm_attention": Entry(
        self_attention,
        partial(_normed, name="projection_norm"),
        "self-attention with queries and keys normed over all heads together",
    ),
    "capped_attention": Entry(
        attention.attention,
        partial(_capped, make=attention_case),
        "attention with a soft cap of its scores",
    ),
    "capped_block_attention": Entry(
        block_attention.block_attention,
        partial(_capped, make=block_attention_case),
        "attention by blocks of queries, with a soft cap of its scores",
        plain="capped_attention",
    ),
    "alibi_attention": Entry(
        attention.attention,
        partial(_alibi, make=attention_case),
        "attention with ALiBi, as one row of offsets",
    ),
    "alibi_block_attention": Entry(
        block_attention.block_attention,
        partial(_alibi, make=block_attention_case),
        "attention by blocks of queries with ALiBi, as one row of offsets",
        plain="alibi_attention",
    ),
    "capped_alibi_decoder_attention": Entry(
        described_attention,
        partial(_alibi, make=partial(_capped, make=decoder_attention_case)),
        "causal attention by blocks with a window, padding, a soft cap of its scores and ALiBi",
    ),
}
