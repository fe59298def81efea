"""The walk that all encoder-decoders share: from two sequences of ids to hidden states and back.

    e_0     = embed(tokens[ids])                    d_0     = embed(tokens[decoder ids])
    e_{i+1} = block(e_i)                            d_{i+1} = cross_block(d_i, E)
    E       = finish(e_L)                           hidden  = finish(d_M)

Each layer of the encoder is two sublayers, attention to all of its tokens and a feed-forward layer.
Those of the decoder are three: attention to earlier tokens, attention to E, feed-forward.
Vaswani et al. 2017, sec. 3.1.  What differs between families is in their `Pieces`.

Backward, from dhidden and the gradient that a head may have of E itself:

    dd_M = finish'(dhidden),   (dd_i, dE_i) = cross_block'(dd_{i+1}),   dE = dE_head + sum of dE_i,
    de_L = finish'(dE),   de_i = block'(de_{i+1}),
    dtokens[v] = sum of embed'(de_0) and embed'(dd_0) over all places whose id is v.

Layers are numbered through, the encoder's first, where core.StackOptions counts them.
Keys of dropout: the encoder has fold(key, 0), the decoder fold(key, 1).  Layer i of a side folds
that with i, `embed` with L, `finish` with L + 1.  A layer folds its own again with 0 for the
weights of attention, 1, 2 and 3 after the sublayers, 4 for the weights of cross-attention, 5 within
the feed-forward layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ..backend import array_module
from ..core import Component, StackOptions, Tree, add, named, stack
from ..layers.block import block, cross_block
from ..layers.cache import layer_cache
from ..layers.dropout import dropout
from ..layers.mask import Visible, decoder_mask, encoder_mask
from ..layers.source_cache import SourceCache
from ..random import fold
from .walks import look_up


class Side(NamedTuple):
    """What the pieces of one side are told: where its tokens are."""

    decoder: bool
    start: int  # the position of the first token: those before it are in a cache
    length: int  # T
    xp: Any

    @property
    def positions(self) -> Any:
        """(T,): start, start + 1 ..."""
        return self.xp.arange(self.start, self.start + self.length)


class Pieces(NamedTuple):
    """Where one family of encoder-decoders differs from another.

    norm       component (p, x), of the blocks
    attention  component (p, x, *shared, *, side, mask, key, cache): self-attention of both sides
    cross      component (p, x, context, *, memory, mask, key): kernels.attention.cross_attention
    mlp        component (p, x, *, key)
    residual   keywords of layers.block: residual (pre_norm or post_norm) and its dropout's rate
    embed      component (p, x, *, side, key), between look-up and first block, p: of that side
    shared     shared(p, side) -> (what the side's layers get, backward to a part of dp)
    finish     component (p, x, *, norm, key), after the last block
    """

    norm: Component
    attention: Component
    cross: Component
    mlp: Component
    residual: dict[str, Any]
    embed: Component
    shared: Callable[[Tree, Side], tuple[tuple, Callable]]
    finish: Component


def body(
    pieces: Callable[[Any], Pieces],
    p: Tree,
    inputs_embeds: Any = None,
    decoder_inputs_embeds: Any = None,
    *,
    config: Any,
    input_ids: Any = None,
    attention_mask: Any = None,
    decoder_input_ids: Any = None,
    decoder_attention_mask: Any = None,
    key: Any = None,
    stacking: StackOptions = StackOptions(),
) -> tuple[dict[str, Any], Callable]:
    """{"encoder_hidden" (B, S, D), "hidden" (B, T, D)}; a family's `body` is partial(body, pieces).

    p = params["body"]; input_ids (B, S) and decoder_input_ids (B, T), or embeddings of the same
    shape with D more in place of either; attention_mask (B, S) and decoder_attention_mask (B, T)
    of 0/1; key: (B,), one per sample, for dropout, None for none.
    backward({"encoder_hidden", "hidden"}, either missing or None for zero) gives
    (dp, dinputs_embeds, ddecoder_inputs_embeds), None for what was given as ids.
    """
    part = pieces(config)
    below, above = halves(stacking, len(p["encoder"]["layers"]))
    e, e_back = look_up(p, input_ids, inputs_embeds, name="encoder.tokens")
    E, encoder_back = named("encoder", encode)(
        p["encoder"], e, pieces=part, attention_mask=attention_mask, key=key, stacking=below
    )
    d, d_back = look_up(p, decoder_input_ids, decoder_inputs_embeds, name="decoder.tokens")
    masks = {"attention_mask": attention_mask, "decoder_attention_mask": decoder_attention_mask}
    hidden, decoder_back = named("decoder", decode)(
        p["decoder"], d, E, pieces=part, **masks, key=key, stacking=above
    )

    def backward(doutputs: dict[str, Any]) -> tuple[Tree, Any, Any]:
        ddecoder, dd, dE = decoder_back(or_zeros(doutputs.get("hidden"), hidden))
        dE = add(doutputs.get("encoder_hidden"), dE)
        dencoder, de = encoder_back(or_zeros(dE, E))
        dtokens, dinputs_embeds = e_back(de)
        dtokens_too, ddecoder_inputs_embeds = d_back(dd)
        dp = {**add(dtokens, dtokens_too), "encoder": dencoder, "decoder": ddecoder}
        return dp, dinputs_embeds, ddecoder_inputs_embeds

    return {"encoder_hidden": E, "hidden": hidden}, backward


def encode(
    p: Tree,
    x: Any,
    *,
    pieces: Pieces,
    attention_mask: Any = None,
    key: Any = None,
    stacking: StackOptions = StackOptions(),
) -> tuple[Any, Callable]:
    """E (B, S, D) of the embeddings x (B, S, D).

    p = params["body"]["encoder"]; others as in `body`.
    backward(dE) gives (dp, dx).
    """
    xp, S = array_module(x), x.shape[1]
    mask, side = encoder_mask(S, attention_mask, xp=xp), Side(False, 0, S, xp)

    def layer(p, x, *shared, index, key):
        attention = partial(pieces.attention, side=side, mask=mask, key=fold(key, 0), cache=None)
        return block(
            p,
            x,
            *shared,
            **pieces.residual,
            norm=pieces.norm,
            attention=attention,
            mlp=partial(pieces.mlp, key=fold(key, 5)),
            key=key,
        )

    return through(layer, p, x, pieces=pieces, side=side, key=fold(key, 0), stacking=stacking)


def decode(
    p: Tree,
    x: Any,
    context: Any = None,
    *,
    pieces: Pieces,
    attention_mask: Any = None,
    decoder_attention_mask: Any = None,
    key: Any = None,
    cache: SourceCache | None = None,
    stacking: StackOptions = StackOptions(),
) -> tuple[Any, Callable]:
    """hidden (B, T, D) of the embeddings x (B, T, D) and the encoder's E = context (B, S, D).

    p = params["body"]["decoder"]; cache: the earlier tokens, and what the layers keep of E, in
    place of context; others as in `body`.
    backward(dhidden) gives (dp, dx, dcontext).
    """
    xp, T = array_module(x), x.shape[1]
    start, earlier, memories = 0, None, None
    if cache is not None:
        start, earlier, memories = cache.length, cache.earlier, cache.memories
        attention_mask = cache.attention_mask
    mask = decoder_mask(T, start + T, decoder_attention_mask, xp=xp)
    padding = None if attention_mask is None else attention_mask != 0
    if cache is None:
        source = Visible(T, context.shape[1], padding=padding, xp=xp)
    else:  # the queries of all samples of one source: see layers.cross_attention.attend_to
        queries = x.shape[0] // cache.sources * T
        source = Visible(queries, cache.source_length, padding=padding, xp=xp)

    side = Side(True, start, T, xp)

    def layer(p, x, context, *shared, index, key):
        own = layer_cache(earlier, index)
        memory = None if memories is None else memories[index]
        attention = partial(pieces.attention, side=side, mask=mask, key=fold(key, 0), cache=own)
        return cross_block(
            p,
            x,
            context,
            *shared,
            **pieces.residual,
            norm=pieces.norm,
            attention=attention,
            cross=partial(pieces.cross, memory=memory, mask=source, key=fold(key, 4)),
            mlp=partial(pieces.mlp, key=fold(key, 5)),
            key=key,
        )

    key = fold(key, 1)
    return through(layer, p, x, context, pieces=pieces, side=side, key=key, stacking=stacking)


def through(
    layer: Component,
    p: Tree,
    x: Any,
    *context: Any,
    pieces: Pieces,
    side: Side,
    key: Any,
    stacking: StackOptions,
) -> tuple[Any, Callable]:
    """finish(the stack of layers(embed(x))): one side.   backward gives (dp, dx, *dcontext)."""
    L = len(p["layers"])
    x0, embed_back = named("embeddings", pieces.embed)(p, x, side=side, key=fold(key, L))
    shared, shared_back = pieces.shared(p, side)
    inputs = (*context, *shared)
    xL, layers_back = stack(layer, p["layers"], x0, *inputs, each=numbered(key), options=stacking)
    y, finish_back = pieces.finish(p, xL, norm=pieces.norm, key=fold(key, L + 1))

    def backward(dy):
        dfinish, dxL = finish_back(dy)
        dlayers, dx0, *dothers = layers_back(dxL)
        dcontext, dshared = dothers[: len(context)], dothers[len(context) :]
        dembed, dx = embed_back(dx0)
        return {**dembed, **shared_back(*dshared), "layers": dlayers, **dfinish}, dx, *dcontext

    return y, backward


def numbered(key: Any) -> Callable[[int], dict[str, Any]]:
    """What a side's layer is given beside parameters and inputs: its number and its key."""
    return lambda i: {"index": i, "key": fold(key, i)}


def halves(options: StackOptions, encoder: int) -> tuple[StackOptions, StackOptions]:
    """The options of the encoder's stack, of so many layers, and of the decoder's."""
    report = options.on_gradient
    above = None if report is None else lambda n, dp: report(encoder + n, dp)
    frozen, rest = min(options.frozen, encoder), max(options.frozen - encoder, 0)
    below = dataclasses.replace(options, frozen=frozen)
    return below, dataclasses.replace(options, frozen=rest, on_gradient=above)


def or_zeros(d: Any, like: Any) -> Any:
    """d, or zeros for None."""
    return array_module(like).zeros_like(like) if d is None else d


# ---------------------------------------------------------------------- pieces of many families


def nothing_shared(p: Tree, side: Side) -> tuple[tuple, Callable]:
    """The piece `shared` of layers that share no inputs but E."""
    return (), lambda: {}


def no_finish(p: Tree, x: Any, *, norm: Component, key: Any) -> tuple[Any, Callable]:
    """y = x: post-norm blocks have normed their last sum."""
    return x, lambda dy: ({}, dy)


def final_norm(
    p: Tree, x: Any, *, norm: Component, key: Any, rate: float = 0.0
) -> tuple[Any, Callable]:
    """y = dropout(norm(x)) with p's "norm": pre-norm blocks leave their last sum unnormalised."""
    n, norm_back = named("norm", norm)(p["norm"], x)
    y, drop_back = dropout(n, rate=rate, key=key)

    def backward(dy):
        dnorm, dx = norm_back(drop_back(dy))
        return {"norm": dnorm}, dx

    return y, backward


def feed_forward(mlp: Component, activation: Component, *, rate: float) -> Component:
    """The piece `mlp`: with dropout after the activation.

    For a gated one that is dropout of the product, since both only multiply.
    """

    def piece(p, x, *, key):
        def dropped(h):
            a, a_back = activation(h)
            y, drop_back = dropout(a, rate=rate, key=key)
            return y, lambda dy: a_back(drop_back(dy))

        return mlp(p, x, activation=activation if key is None else dropped)

    return piece
