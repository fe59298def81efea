"""Cases of an encoder-decoder: attention to another sequence in two steps, the decoder's block."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ...backend import array_module
from ...core import Backward
from ...kernels.attention import self_attention
from ...layers import block
from ...layers.cross_attention import attend_to, cross_attention, keys_and_values
from ..case import Case, Entry, Sizes
from .attention import attention_mask, attention_parameters
from .layers import block_case


def _some(p: dict[str, Any], letters: str) -> dict[str, Any]:
    """The weights and biases with these letters."""
    return {name: a for name, a in p.items() if name[1] in letters}


def _keys_and_values(s: Sizes) -> Case:
    rng = s.rng()
    p = _some(attention_parameters(s, rng, s.D, s.flags[0]), "kv")
    return Case([p, rng.normal(size=(s.B, s.S, s.D))], {"heads": s.K})


def joined_keys_and_values(p: Any, context: Any, *, heads: int) -> tuple[Any, Backward]:
    """Keys and values as one array (2, B, K, S, E)."""
    (k, v), back = keys_and_values(p, context, heads=heads)
    return array_module(k).stack([k, v]), lambda dy: back(dy[0], dy[1])


def _attend_to(s: Sizes) -> Case:
    """N = B, 2 B or 3 B samples, with values of another width than the keys."""
    rng = s.rng()
    N = s.B * (1 + s.seed % 3)
    p = _some(attention_parameters(s, rng, s.D, s.flags[1]), "qo")
    p["Wo"] = rng.normal(0, 0.7, (s.H * s.F, s.D))
    k, v = rng.normal(size=(s.B, s.K, s.S, s.E)), rng.normal(size=(s.B, s.K, s.S, s.F))
    kwargs = {"heads": s.H, "mask": _padding(s, rng), "scale": 0.7 if s.flags[2] else None}
    return Case([p, rng.normal(size=(N, s.T, s.D)), k, v], kwargs)


def _padding(s: Sizes, rng: np.random.Generator) -> np.ndarray | None:
    """Which keys exist, or None; some samples have none."""
    return rng.random((s.B, 1, 1, s.S)) < 0.6 if s.flags[0] else None


def _cross_attention(s: Sizes) -> Case:
    """A context of another width, with a mask or without."""
    rng = s.rng()
    p = attention_parameters(s, rng, s.F, s.flags[1])
    args = [p, rng.normal(size=(s.B, s.T, s.D)), rng.normal(size=(s.B, s.S, s.F))]
    return Case(args, {"heads": s.H, "kv_heads": s.K, "mask": _padding(s, rng)})


def _biased(s: Sizes) -> Case:
    """A bias for each head, as T5's, or of another shape that broadcasts; causal or with a mask."""
    rng = s.rng()
    shapes = [(1, s.H, s.T, s.T), (s.B, s.H, s.T, s.T), (s.H, 1, s.T)]
    p = attention_parameters(s, rng, s.D, s.flags[1])
    args = [p, rng.normal(size=(s.B, s.T, s.D)), rng.normal(size=shapes[s.seed % 3])]
    mask = attention_mask(s, rng, s.T) if s.flags[2] else np.tri(s.T, dtype=bool)
    return Case(args, {"heads": s.H, "kv_heads": s.K, "mask": mask, "scale": 1.0})


def cross_attend(
    p: Any, x: Any, context: Any, *, heads: int, kv_heads: int, mask: np.ndarray | None
) -> tuple[Any, Backward]:
    """Cross-attention as a part of a block: the mask is moved to the device of x."""
    mask = None if mask is None else array_module(x).asarray(mask)
    return cross_attention(p, x, context, heads=heads, kv_heads=kv_heads, mask=mask)


def _cross_block(s: Sizes, residual: Any) -> Case:
    """`block_case` with a third sublayer, which reads another sequence."""
    made, rng = block_case(s, residual), np.random.default_rng(s.seed + 1)
    p, x, bias = made.args
    norm = {"gamma": rng.normal(size=s.D), "beta": rng.normal(size=s.D)}
    q = {"cross": attention_parameters(s, rng, s.F, True), "norm3": norm}
    p = {**{name: p[name] for name in ("norm1", "attention", "norm2")}, **q, "mlp": p["mlp"]}
    mask = _padding(s, rng)
    made.kwargs["cross"] = partial(cross_attend, heads=s.H, kv_heads=s.K, mask=mask)
    return Case([p, x, rng.normal(size=(s.B, s.S, s.F)), bias], made.kwargs)


COMPONENTS = {
    "keys_and_values": Entry(
        joined_keys_and_values,
        _keys_and_values,
        "the keys and values of another sequence, by heads",
    ),
    "attend_to": Entry(
        attend_to, _attend_to, "attention to given keys and values, which several samples may share"
    ),
    "two_step_cross_attention": Entry(
        cross_attention,
        _cross_attention,
        "attention to another sequence, its keys and values first",
    ),
    "biased_self_attention": Entry(
        self_attention, _biased, "self-attention with an additive bias of its scores"
    ),
    "pre_norm_cross_block": Entry(
        block.cross_block,
        partial(_cross_block, residual=block.pre_norm),
        "a decoder's block that reads another sequence, norms before its parts",
    ),
    "post_norm_cross_block": Entry(
        block.cross_block,
        partial(_cross_block, residual=block.post_norm),
        "a decoder's block that reads another sequence, norms after the sums",
    ),
}
