"""Attention, by blocks of queries where sequences are long, also with sinks; self-attention with
its parts, and cross-attention."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..arguments import wrong
from ..core import Array, Backward, Component, Tree, named
from ..layers import attention as plain
from ..layers import cross_attention as crossed
from ..layers import sinks as plain_sinks
from ..layers.attention import multi_head_attention, projections
from ..layers.attention_parts import (
    attend_beyond,
    cached,
    in_order,
    joined,
    normed_heads,
    normed_projections,
    prefixed,
    scores_and_probabilities,
    turned,
)
from ..layers.mask import Visible
from ..layers.sinks import sink_scores_and_probabilities, sinks_beyond
from ..shapes import expects
from .block_attention import BLOCK, block_attention, sink_block_attention


def attention(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None = None,
    *,
    mask: Visible | Array | None = None,
    scale: float | None = None,
    cap: float | None = None,
    offsets: Array | None = None,
    rate: float = 0.0,
    key: Array | None = None,
) -> tuple[Array, Backward]:
    """layers.attention.attention, by blocks where the mask is a `Visible` and T exceeds one block.

    `block_attention` says what that gains.  Shorter sequences take the plain form, which keeps P
    instead of computing it twice.
    """
    options: dict[str, Any] = {"scale": scale, "cap": cap, "offsets": offsets}
    if isinstance(mask, Visible):
        if getattr(q, "ndim", 0) == 4 and q.shape[2] > BLOCK:
            return block_attention(q, k, v, bias, mask=mask, **options, rate=rate, key=key)
        mask = mask.array
    return plain.attention(q, k, v, bias, mask=mask, **options, rate=rate, key=key)


def sink_attention(
    q: Array,
    k: Array,
    v: Array,
    sinks: Array,
    *,
    mask: Visible | Array | None = None,
    scale: float | None = None,
    rate: float = 0.0,
    key: Array | None = None,
) -> tuple[Array, Backward]:
    """layers.sinks.sink_attention, by blocks where `attention` is.   Gains what that gains."""
    options: dict[str, Any] = {"scale": scale, "rate": rate, "key": key}
    if isinstance(mask, Visible):
        if getattr(q, "ndim", 0) == 4 and q.shape[2] > BLOCK:
            return sink_block_attention(q, k, v, sinks, mask=mask, **options)
        mask = mask.array
    return plain_sinks.sink_attention(q, k, v, sinks, mask=mask, **options)


@expects(
    "p {Wo Wq? Wk? Wv? Wqkv? bq? bk? bv? bqkv? bo? q_norm? k_norm? sinks? Pk? Pv?}, "
    "x (B, T, D), bias (...) or None; whole heads >= 1, whole kv_heads >= 1 or None, "
    "function rotary or None, function head_norm or None, function projection_norm or None",
    hot=True,
)
def self_attention(
    p: Tree,
    x: Array,
    bias: Array | None = None,
    *,
    heads: int,
    kv_heads: int | None = None,
    rotary: Component | None = None,
    head_norm: Component | None = None,
    projection_norm: Component | None = None,
    cache: Any = None,
    mask: Visible | Array | None = None,
    scale: float | None = None,
    cap: float | None = None,
    offsets: Array | None = None,
    rate: float = 0.0,
    key: Array | None = None,
) -> tuple[Array, Backward]:
    """multi_head_attention of x to itself, with the `attention` above; p and options as there.

    x (B, T, D), bias broadcastable to (B, H, T, S) or None -> y (B, T, D).   rotary, head_norm,
    projection_norm and cache: see `turned`, `normed_heads`, `normed_projections` and `cached` in
    layers/attention_parts.py.  p decides the other parts: with Wqkv the projections are joined (for
    decoding); with Pk and Pv a trained prefix, which rotary does not turn, precedes the keys (Li &
    Liang 2021, eq. 3); with sinks (H,) heads are those of `sink_attention`.  ValueError for a bias,
    a cap or offsets with sinks.
    backward returns (dp, dx), with a bias (dp, dx, dbias).
    """
    parts = [
        named(("q_norm", "k_norm", None), normed_heads(head_norm)) if head_norm else None,
        named(("q_rotary", "k_rotary", None), turned(rotary)) if rotary else None,
        named((None, "k_cached", "v_cached"), cached(cache)) if cache is not None else None,
        named((None, "k_prefixed", "v_prefixed"), prefixed) if "Pk" in p else None,
    ]
    project = joined(heads, kv_heads) if "Wqkv" in p else projections
    project = named(("q", "k", "v"), project)
    if projection_norm is not None:
        project = named(("q_norm", "k_norm", None), normed_projections(project, projection_norm))
    sinks, own, added = p.get("sinks"), p, bias
    if sinks is None:
        attend, weights = _attend(p, {"cap": cap, "offsets": offsets})
    else:  # in the place of the bias
        _refuse_with_sinks(bias=bias, cap=cap, offsets=offsets)
        attend, weights = _attend_with_sinks(p)
        own, added = {name: a for name, a in p.items() if name != "sinks"}, sinks
    y, back = multi_head_attention(
        own,
        x,
        None,
        added,
        heads=heads,
        kv_heads=kv_heads,
        mask=mask,
        scale=scale,
        rate=rate,
        key=key,
        project=project,
        between=in_order(*parts),
        attend=named("heads", attend, more=(("scores", "probabilities"), weights)),
    )

    def backward(dy: Array) -> tuple:
        dp, dx, _, dadded = back(dy)
        if sinks is not None:
            dp["sinks"] = dadded
            return {name: dp[name] for name in p}, dx
        return (dp, dx) if bias is None else (dp, dx, dadded)

    return y, backward


def _attend(p: Tree, options: dict[str, Any]) -> tuple[Component, Component]:
    """What computes the heads of such parameters, and what a trace adds."""
    if "Pk" not in p:
        return partial(attention, **options), partial(scores_and_probabilities, **options)
    whole, P = plain.attention, p["Pk"].shape[1]
    beyond = (attend_beyond(f, P) for f in (whole, scores_and_probabilities))
    attend, weights = (partial(f, **options) for f in beyond)
    return attend, weights


def _attend_with_sinks(p: Tree) -> tuple[Component, Component]:
    """The same with sinks, which take the place of the bias."""
    if "Pk" not in p:
        return sink_attention, sink_scores_and_probabilities
    whole, P = plain_sinks.sink_attention, p["Pk"].shape[1]
    return sinks_beyond(whole, P), sinks_beyond(sink_scores_and_probabilities, P)


def _refuse_with_sinks(**options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise wrong(f"self_attention: {name}", "None, since p has sinks", value)


def cross_attention(
    p: Tree,
    x: Array,
    context: Array | None = None,
    *,
    heads: int,
    memory: tuple[Array, Array] | None = None,
    mask: Visible | Array | None = None,
    scale: float | None = None,
    rate: float = 0.0,
    key: Array | None = None,
) -> tuple[Array, Backward]:
    """layers.cross_attention.cross_attention with the `attention` above; or attend_to `memory`.

    memory: (k, v) that keys_and_values made of a context earlier, in place of the context; no
    gradient flows into them or into what projects them.   backward returns (dp, dx, dcontext).
    """
    weights = (("scores", "probabilities"), scores_and_probabilities)
    attend = named("heads", attention, more=weights)
    options: dict[str, Any] = {"heads": heads, "mask": mask, "scale": scale, "rate": rate}
    options |= {"key": key, "attend": attend}
    if memory is None:
        return crossed.cross_attention(p, x, context, **options)
    if not isinstance(memory, (tuple, list)) or len(memory) != 2:
        raise wrong("cross_attention: memory", "(k, v), as keys_and_values gives it", memory)
    y, back = crossed.attend_to(p, x, *memory, **options)
    return y, lambda dy: (*back(dy)[:2], None)
