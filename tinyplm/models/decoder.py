"""The walk that all decoders share: from ids to hidden states and back.

    x_0     = embed(tokens[ids])            embed: learned positions, a scale, dropout, or nothing
    x_{i+1} = residual_i(x_i)               pre-norm:   h = x + attention_i(norm1(x)),
                                                        residual_i(x) = h + mlp_i(norm2(h))
    hidden  = finish(x_L)                   finish: the final norm

Query t sees key s if t - window_i < s <= t and s is no padding; with a prefix of P places also
every s < P.  What differs between families is in their `Pieces`.

The backward applies the backward of each part, in reverse order:
    dx_L = finish'(dhidden),   dx_i = residual_i'(dx_{i+1}),   de = embed'(dx_0),
    dtokens[v] = sum of de over all places whose id is v.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ..arguments import wrong
from ..backend import array_module
from ..core import Component, StackOptions, Tree, named, stack
from ..layers.alibi import alibi, alibi_slopes
from ..layers.block import block, pre_norm
from ..layers.cache import Cache, layer_cache
from ..layers.dropout import dropout
from ..layers.mask import Visible, decoder_mask
from ..layers.position import learned_positions
from ..random import fold
from .names import Rename
from .walks import look_up

# The hub's names of the two heads of transformers' decoders: of a language model, of a classifier.
HEADS = [
    Rename("lm_head.weight", "head.W", operation="transpose"),
    Rename("score.weight", "head.score", operation="transpose"),
]

Placed = Callable[[int, int], dict[str, Any]]  # what the piece `positions` returns


class Pieces(NamedTuple):
    """Where one family of decoders differs from another.  Components have the contract's backward.

    norm       component (p, x), for every norm of the model
    attention  layer number -> component (p, x, *, mask, key, cache, and what `positions` adds)
    mlp        layer number -> component (p, x)
    residual   component (p, x, *, norm, attention, mlp, key) of one layer's parameters: how its
               sublayers join the residual stream
    embed      component (p, x, *, position_ids, key) of the body's parameters, between look-up and
               first block; its dp holds the parameters that it uses
    window     layer number -> how many keys a query sees, its own included; None for all
    positions  function (position_ids, *, keys, attention_mask, dtype), called once a pass, ->
               function (layer number, seen) -> keywords for attention: RoPE's rotation, or ALiBi's
               offsets (B or 1, H, 1, seen).  seen: how many of the keys, the last ones, this layer
               has, fewer than `keys` with a rolling cache
    finish     component (p, x, *, norm) of the body's parameters, after the last block; dp as above
    """

    norm: Component
    attention: Callable[[int], Component]
    mlp: Callable[[int], Component]
    residual: Component
    embed: Component
    window: Callable[[int], int | None]
    positions: Callable[..., Placed]
    finish: Component


def body(
    pieces: Callable[[Any], Pieces],
    p: Tree,
    inputs_embeds: Any = None,
    *,
    config: Any,
    input_ids: Any = None,
    attention_mask: Any = None,
    position_ids: Any = None,
    prefix_lengths: Any = None,
    key: Any = None,
    cache: Cache | None = None,
    stacking: StackOptions = StackOptions(),
) -> tuple[Any, Callable]:
    """The hidden states of a decoder.  A family's `body` is partial(body, pieces).

    p = params["body"]; input_ids (B, T) or inputs_embeds (B, T, D).
    attention_mask: (B, S) of 0/1, or booleans (B or 1, H or 1, T, S) that join the causal mask.
    position_ids: (B, T) or (T,), by default the last T of 0 .. S-1; (B, 2, T) where the pieces take
    two positions for each token.
    prefix_lengths: (B,), the first places that all queries see, also those before them; without
    windows.
    key: (B,), one per sample, for dropout; None for none.
    cache: the S - T earlier places (layers.cache), which is written into; without one S = T.
    -> hidden (B, T, D); backward gives (dp, dinputs_embeds), the latter None for input_ids.
    """
    part = pieces(config)
    e, look_up_back = look_up(p, input_ids, inputs_embeds)
    xp, T, S, position_ids = places(e, cache, position_ids)
    if cache is not None and stacking.checkpointing and any(cache.windows):
        raise wrong("checkpointing", "0 with a cache of windows", stacking.checkpointing)
    placed = part.positions(position_ids, keys=S, attention_mask=attention_mask, dtype=e.dtype)

    masks: dict[tuple[int | None, int], Visible] = {}  # shared by the layers that see the same

    def keys(index: int) -> int:
        return T if cache is None else cache.seen(index) + T

    def layer(p, x, *, index, key, cache):
        window, seen = part.window(index), keys(index)
        if (window, seen) not in masks:
            shown = last_keys(attention_mask, seen)
            bounds: dict[str, Any] = {"window": window, "prefix": prefix_lengths}
            masks[window, seen] = decoder_mask(T, seen, shown, **bounds, xp=xp)
        attention = partial(
            part.attention(index),
            mask=masks[window, seen],
            key=fold(key, 0),
            cache=cache,
            **placed(index, seen),
        )
        return part.residual(
            p, x, norm=part.norm, attention=attention, mlp=part.mlp(index), key=key
        )

    embed_key = fold(key, len(p["layers"]))
    embed = named("embeddings", part.embed, scope=False)
    x0, embed_back = embed(p, e, position_ids=position_ids, key=embed_key)
    xL, layers_back = stack(layer, p["layers"], x0, each=by_layer(key, cache), options=stacking)
    hidden, finish_back = part.finish(p, xL, norm=part.norm)

    def backward(dhidden):
        dfinish, dxL = finish_back(dhidden)
        dlayers, dx0 = layers_back(dxL)
        dembed, de = embed_back(dx0)
        dtokens, dinputs_embeds = look_up_back(de)
        return {**dtokens, **dembed, "layers": dlayers, **dfinish}, dinputs_embeds

    return hidden, backward


def places(x: Any, cache: Cache | None, position_ids: Any) -> tuple[Any, int, int, Any]:
    """(xp, T, S, position_ids): x (B, T, D) holds the last T of S places, and their positions."""
    xp, T = array_module(x), x.shape[1]
    S = T if cache is None else cache.length + T
    return xp, T, S, xp.arange(S - T, S) if position_ids is None else position_ids


def last_keys(a: Any, count: int) -> Any:
    """What a (..., S) says of the last keys: a rolling cache has dropped the others."""
    return a if a is None or a.shape[-1] == count else a[..., -count:]


def by_layer(key: Any, cache: Cache | None) -> Callable[[int], dict[str, Any]]:
    """What a layer is given beside parameters and input: its number, its key, its cache."""
    return lambda i: {"index": i, "key": fold(key, i), "cache": layer_cache(cache, i)}


# ---------------------------------------------------------------------- pieces of many families


def every(piece: Any) -> Callable[[int], Any]:
    """The same for every layer."""
    return lambda layer: piece


def pre_norm_block(rate: float = 0.0) -> Component:
    """The piece `residual` of a pre-norm decoder, with this dropout before each addition."""
    return partial(block, residual=pre_norm, rate=rate)


def no_embed(p: Tree, x: Any, *, position_ids: Any, key: Any) -> tuple[Any, Callable]:
    """y = x: the first block gets the rows of the table."""
    return x, lambda dy: ({}, dy)


def scaled_embed(scale: float) -> Component:
    """The piece `embed` with y = scale x.   dx = scale dy."""

    def embed(p: Tree, x: Any, *, position_ids: Any, key: Any) -> tuple[Any, Callable]:
        return scale * x, lambda dy: ({}, scale * dy)

    return embed


def learned_embed(
    p: Tree, x: Any, *, position_ids: Any, key: Any, rate: float = 0.0
) -> tuple[Any, Callable]:
    """y = dropout(x + positions[position_ids]), with p's table "positions" (C, D).

    With ds = dy taken back through the dropout:   dx = ds,   dpositions[c] = sum of ds over all
    places with position c.
    """
    s, positions_back = learned_positions(x, p["positions"], positions=position_ids)
    y, drop_back = dropout(s, rate=rate, key=key)

    def backward(dy):
        dx, dpositions = positions_back(drop_back(dy))
        return {"positions": dpositions}, dx

    return y, backward


def paired_embed(
    p: Tree, x: Any, *, position_ids: Any, key: Any, rate: float = 0.0
) -> tuple[Any, Callable]:
    """y = dropout(x + positions[i] + blocks[j]), with p's tables "positions" and "blocks" (C, D).

    Du et al. 2022, sec. 2.3.   position_ids (B, 2, T): i (B, T) and j (B, T); or i alone, (B, T) or
    (T,), with j = 0.   With ds = dy taken back through the dropout:   dx = ds,
    dpositions[c] = sum of ds over all places with i = c, dblocks[c] over those with j = c.
    """
    paired = position_ids.ndim == 3
    i, j = (position_ids[:, n] for n in (0, 1)) if paired else (position_ids, 0 * position_ids)
    s, positions_back = learned_positions(x, p["positions"], positions=i)
    s, blocks_back = learned_positions(s, p["blocks"], positions=j)
    y, drop_back = dropout(s, rate=rate, key=key)

    def backward(dy):
        ds, dblocks = blocks_back(drop_back(dy))
        dx, dpositions = positions_back(ds)
        return {"positions": dpositions, "blocks": dblocks}, dx

    return y, backward


def normed_embed(
    p: Tree, x: Any, *, position_ids: Any, key: Any, norm: Component
) -> tuple[Any, Callable]:
    """y = norm(x) with p's "embed_norm"."""
    y, norm_back = named("embed_norm", norm)(p["embed_norm"], x)

    def backward(dy):
        dnorm, dx = norm_back(dy)
        return {"embed_norm": dnorm}, dx

    return y, backward


def no_positions(position_ids: Any, **_: Any) -> Placed:
    """Attention knows no positions: `embed` added them, or the causal mask is all there is."""
    return lambda layer, seen: {}


def alibi_positions(heads: int) -> Callable[..., Placed]:
    """The piece `positions` of a decoder with ALiBi: offsets of the keys, in all layers.

    A key's position is the number of tokens before it, by attention_mask (B, S) if there is one;
    position_ids count only without such a mask, and without a cache.  All are counted from the last
    key on, which the softmax does not see: so float32 is most exact for the latest queries.
    """
    slopes = alibi_slopes(heads)

    def positions(position_ids: Any, *, keys: int, attention_mask: Any, dtype: Any) -> Placed:
        xp = array_module(position_ids)
        if attention_mask is not None and attention_mask.ndim == 2:
            counted = xp.cumsum((attention_mask != 0).astype("int64"), axis=1)
            placed = xp.maximum(counted - 1, 0)
        else:
            placed = position_ids if position_ids.shape[-1] == keys else xp.arange(keys)
        placed = placed - placed[..., -1:]
        offsets = alibi(placed, slopes=xp.asarray(slopes), dtype=dtype)
        return lambda layer, seen: {"offsets": last_keys(offsets, seen)}

    return positions


def no_finish(p: Tree, x: Any, *, norm: Component) -> tuple[Any, Callable]:
    """y = x: post-norm blocks have normed their last sum."""
    return x, lambda dy: ({}, dy)


def final_norm(p: Tree, x: Any, *, norm: Component) -> tuple[Any, Callable]:
    """y = norm(x) with p's "norm": pre-norm blocks leave their last sum unnormalised."""
    y, norm_back = named("norm", norm)(p["norm"], x)

    def backward(dy):
        dnorm, dx = norm_back(dy)
        return {"norm": dnorm}, dx

    return y, backward
