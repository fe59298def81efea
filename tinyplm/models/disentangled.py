"""The pieces of DeBERTa v1, v2 and v3 (He et al. 2021; 2023), and its enhanced mask decoder.

    x_0     = norm(projection(tokens[ids] + positions[t] + segments[types])), with dropout, of which
              a config has only some parts; padding is 0, neither attends nor is attended to
    x_{i+1} = block(x_i, relative), BERT's with disentangled attention

`relative`, the embeddings of relative positions, is shared by all layers.  Its dropout in the
released code, one mask for a whole batch, is left out: all randomness here belongs to a sample.
`rows`(T, S) is the table of layers/relative_buckets.py.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from functools import partial
from typing import Any

from ..core import Component, StackOptions, add, named, on_tree, stack
from ..kernels.activation import ACTIVATIONS
from ..kernels.disentangled import relative_scores
from ..layers.convolution import convolution_layer
from ..layers.disentangled import disentangled_multi_head_attention
from ..layers.linear import linear
from ..layers.norm import layernorm
from ..layers.position import learned_positions
from ..random import fold
from . import encoder
from .encoder import Inputs, Pieces, dropped

_EMBEDDING, _DECODER = 1 << 30, 1 << 31  # keys of what is not a layer

Rows = Callable[[int, int], Any]


def pieces(config: Any, rows: Rows) -> Pieces:
    """DeBERTa for the walk of models/encoder.py; layers share (the context, relative)."""
    norm = partial(on_tree(layernorm, "gamma", "beta"), eps=config.layer_norm_eps)
    rate = config.hidden_dropout_prob
    feed_forward = encoder.feed_forward(ACTIVATIONS[config.hidden_act])
    parts = [encoder.part("projection", _project), encoder.part("norm", norm), _zero_padding]
    drop = encoder.drop_embeddings(rate=rate, number=_EMBEDDING)
    return Pieces(
        embed=(encoder.positions, encoder.segments, *parts, drop),
        norm=norm,
        attention=dropped(partial(_attention, config=config, rows=rows), rate=rate, number=1),
        mlp=dropped(feed_forward, rate=rate, number=2),
        shared=partial(_relative, rows=rows, norm=norm),
    )


def _project(W, x):
    """Embeddings of another width than the layers'."""
    y, back = linear(x, W)

    def backward(dy):
        dx, dW, _ = back(dy)
        return dW, dx

    return y, backward


def _zero_padding(p, x, *, inputs):
    real = inputs.real
    if real is None:
        return x, lambda dy: ({}, dy)
    return x * real[..., None], lambda dy: ({}, dy * real[..., None])


def _used(rows: Rows, T: int):
    """(rows of the relative positions in T tokens, counted from the first that occurs, which rows
    of the table these are), so that no others are projected."""
    table = rows(T, T)
    lo, hi = int(table.min()), int(table.max()) + 1
    return table - lo, slice(lo, hi)


def _relative(p, inputs, *, rows, norm):
    """(None, the embeddings of the relative positions that occur); the context is the input."""
    if "relative" not in p:
        return (None, None), lambda dcontext, drelative: {}
    _, used = _used(rows, inputs.shape[1])
    relative, norm_back = p["relative"][used], None
    if "relative_norm" in p:
        relative, norm_back = named("relative_norm", norm)(p["relative_norm"], relative)

    def backward(dcontext, drelative):
        if drelative is None:  # no term of the scores uses them
            return {}
        dp = {"relative": inputs.xp.zeros_like(p["relative"])}
        if norm_back is not None:
            dp["relative_norm"], drelative = norm_back(drelative)
        dp["relative"][used] = drelative
        return dp

    return (None, relative), backward


def _attention(p, x, context, relative, *, config, rows, inputs, key):
    options = {"heads": config.num_attention_heads, "terms": config.terms}
    options["scores"] = relative_scores
    if relative is not None:
        options["rows"] = inputs.xp.asarray(_used(rows, inputs.shape[1])[0])
    if inputs.real is not None:
        options["mask"] = inputs.real[:, None, :, None] & inputs.real[:, None, None, :]
    options |= {"rate": config.attention_probs_dropout_prob, "key": fold(key, 0)}
    return disentangled_multi_head_attention(p, x, context, relative, **options)


def convolved(block: Component, inputs: Inputs, *, config: Any) -> tuple[Component, None]:
    """Layers that are blocks, and where the tree has a convolution, with it beside the block:
    z = convolution_layer(x, block(x)).  A piece: see encoder.Pieces.layers."""
    if not config.conv_kernel_size:
        return block, None
    convolution = partial(
        convolution_layer,
        activation=ACTIVATIONS[config.conv_act],
        groups=config.conv_groups,
        eps=config.layer_norm_eps,
        real=inputs.real,
        rate=config.hidden_dropout_prob,
    )

    def layer(p, x, *shared, key):
        y, block_back = block(p, x, *shared, key=key)
        if "convolution" not in p:
            return y, block_back
        convolve = named("convolution", convolution)
        z, convolution_back = convolve(p["convolution"], x, y, key=fold(key, 3))

        def backward(dz):
            dconvolution, dx_beside, dy = convolution_back(dz)
            dp, dx, *dshared = block_back(dy)
            return {**dp, "convolution": dconvolution}, add(dx, dx_beside), *dshared

        return z, backward

    return layer, None


def decoder_body_of(pieces: Callable[[Any], Pieces]) -> Component:
    """The body of masked language modelling in pretraining, of the family that has these pieces."""

    def decoder_body(
        p, inputs_embeds=None, *, config, steps=2, stacking=StackOptions(), key=None, **given
    ):
        """The family's `body` with the enhanced mask decoder in place of the last layer.

            h = x_{L-1},   q_0 = h + decoder_positions[t]
            q_{n+1} = layer_L(queries and residual q_n, keys and values h);   hidden = q_steps

        Absolute positions come in only where words are predicted.        He et al. 2021, sec. 3.2
        All steps share the last layer's weights; their gradients are added.  p has
        decoder_positions (C, D) too; all else as in `body`.  The paper's q_0 is the positions
        alone, that of the released code the sum.
        """
        made = pieces(config)
        x, shared, block, inputs, start_back = encoder.start(
            p, inputs_embeds, pieces=made, key=key, **given
        )
        layer, _ = made.layers(block, inputs)
        *below, last = p["layers"]
        if not below:
            raise ValueError("mask decoder: expected at least 2 layers, got 1")
        each = {"each": lambda i: {"key": fold(key, i)}, "options": stacking}
        h, stack_back = stack(layer, below, x, *shared, **each)
        q, positions_back = learned_positions(h, p["decoder_positions"], positions=inputs.positions)
        above = dataclasses.replace(stacking, frozen=0, on_gradient=None)
        each = {"each": lambda i: {"key": fold(key, _DECODER, i)}, "options": above}
        _, relative = shared
        hidden, steps_back = stack(block, [last] * steps, q, h, relative, **each)

        def backward(dhidden):
            dsteps, dq, dh, drelative = steps_back(dhidden)
            dlast = functools.reduce(add, dsteps)
            if stacking.on_gradient is not None:
                stacking.on_gradient(len(below), dlast)
                dlast = None
            dq, dpositions = positions_back(dq)
            dlayers, dx, _, drelative_below = stack_back(add(dq, dh))
            dp, dinputs_embeds = start_back(dx, None, add(drelative, drelative_below))
            dp |= {"layers": [*dlayers, dlast], "decoder_positions": dpositions}
            return dp, dinputs_embeds

        return hidden, backward

    return decoder_body
