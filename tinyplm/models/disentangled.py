"""What DeBERTa v1, v2 and v3 compute (He et al. 2021; 2023): a post-norm encoder with disentangled attention.

    x_0     = norm(projection(tokens[ids] + positions[t] + segments[types])), the parts that the config has      (+ dropout)
    x_{i+1} = block(x_i):   x = norm1(x + attention(x, relative));   x = norm2(x + mlp(x));   after the first a convolution layer
    hidden  = x_L

Padding is 0 in x_0, and neither attends nor is attended to.  `relative`, the embeddings of relative positions, is shared by all
layers.  Its dropout in the released code, one mask for a whole batch, is left out: what is random here belongs to a sample.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ..backend import array_module
from ..core import StackOptions, add, on_tree, stack
from ..kernels.activation import ACTIVATIONS
from ..kernels.mlp import mlp
from ..layers.block import block, post_norm
from ..layers.convolution import convolution_layer
from ..layers.disentangled import disentangled_multi_head_attention
from ..layers.dropout import dropout
from ..layers.embedding import embedding
from ..layers.linear import linear
from ..layers.norm import layernorm
from ..layers.position import learned_positions
from ..random import fold

_EMBEDDING, _DECODER = 1 << 30, 1 << 31  # keys of what is no layer


def body(p, inputs_embeds=None, *, config, rows, input_ids=None, attention_mask=None, token_type_ids=None, position_ids=None,
         key=None, stacking=StackOptions()):  # fmt: skip
    """Hidden states of the last layer.

    p = params["body"]; rows(T, S): the table of layers/relative_buckets.py; input_ids (B, T), or inputs_embeds (B, T, E) in place
    of the look-up; attention_mask (B, T) of 0/1; token_type_ids (B, T), 0 if not given, and without meaning where there is no
    table for them; position_ids (B, T) or (T,), 0 .. T-1 if not given, for the absolute positions alone; key (B,), one per
    sample, for dropout, None for none; stacking: see core.StackOptions.
    -> hidden (B, T, D); backward gives (dp, dinputs_embeds), the latter None for input_ids.
    """
    start = _start(p, inputs_embeds, config, rows, input_ids, attention_mask, token_type_ids, position_ids, key)
    hidden, stack_back = stack(start.layer, p["layers"], start.x, start.relative,
                               each=lambda i: {"key": fold(key, i)}, options=stacking)  # fmt: skip

    def backward(dhidden):
        dlayers, dx, drelative = stack_back(dhidden)
        dp, dinputs_embeds = start.backward(dx, drelative)
        return {"layers": dlayers, **dp}, dinputs_embeds

    return hidden, backward


def decoder_body(p, inputs_embeds=None, *, config, rows, steps=2, input_ids=None, attention_mask=None, token_type_ids=None,
                 position_ids=None, key=None, stacking=StackOptions()):  # fmt: skip
    """`body` with the enhanced mask decoder in place of the last layer, for masked language modelling.   He et al. 2021, sec. 3.2

        h = x_{L-1},   q_0 = h + decoder_positions[t],   q_{n+1} = layer_L(queries and residual q_n, keys, values h);   q_steps

    so that absolute positions come in only where words are decided.  All steps share the last layer's weights.  p has
    decoder_positions (C, D) beside the body's.  The paper's q_0 is the positions alone, that of the released code the sum.
    """
    start = _start(p, inputs_embeds, config, rows, input_ids, attention_mask, token_type_ids, position_ids, key)
    *below, last = p["layers"]
    if not below:
        raise ValueError("the enhanced mask decoder takes the place of the last of at least 2 layers, got 1 layer")
    h, stack_back = stack(start.layer, below, start.x, start.relative, each=lambda i: {"key": fold(key, i)},
                          options=stacking)  # fmt: skip
    q, positions_back = learned_positions(h, p["decoder_positions"], positions=start.positions)
    above = dataclasses.replace(stacking, frozen=0, on_gradient=None)
    hidden, steps_back = stack(start.block, [last] * steps, q, h, start.relative,
                               each=lambda i: {"key": fold(key, _DECODER, i)}, options=above)  # fmt: skip

    def backward(dhidden):
        dsteps, dq, dh, drelative = steps_back(dhidden)
        dlast = functools.reduce(add, dsteps)
        if stacking.on_gradient is not None:
            stacking.on_gradient(len(below), dlast)
            dlast = None
        dq, dpositions = positions_back(dq)
        dlayers, dx, drelative_below = stack_back(add(dq, dh))
        dp, dinputs_embeds = start.backward(dx, add(drelative, drelative_below))
        return {"layers": [*dlayers, dlast], "decoder_positions": dpositions, **dp}, dinputs_embeds

    return hidden, backward


class _Start(NamedTuple):
    """What both bodies begin with.  block(p, q, context, relative) is a layer with queries of its own, layer(p, x, relative) one
    of the encoder; backward(dx, drelative) gives (dp, dinputs_embeds)."""

    x: Any
    positions: Any
    relative: Any
    block: Callable
    layer: Callable
    backward: Callable


def _start(p, inputs_embeds, config, rows, input_ids, attention_mask, token_type_ids, position_ids, key) -> _Start:
    norm = partial(on_tree(layernorm, "gamma", "beta"), eps=config.layer_norm_eps)
    real = None if attention_mask is None else attention_mask != 0
    first = input_ids if inputs_embeds is None else inputs_embeds
    T = first.shape[1]
    positions = array_module(first).arange(T) if position_ids is None else position_ids
    x, embed_back = _embed(p, inputs_embeds, config, norm, input_ids, real, token_type_ids, positions, key)
    relative, picked, relative_back = _relative(p, rows(T, T), norm)

    def backward(dx, drelative):
        dp, dinputs_embeds = embed_back(dx)
        return dp | relative_back(drelative), dinputs_embeds

    return _Start(x, positions, relative, *_layer(config, norm, real, picked), backward)


def _embed(p, inputs_embeds, config, norm, input_ids, real, token_type_ids, positions, key):
    """x_0; backward gives (dp, dinputs_embeds)."""
    x, tokens_back = embedding(p["tokens"], ids=input_ids) if inputs_embeds is None else (inputs_embeds, None)
    types = array_module(x).zeros(x.shape[:2], dtype="int64") if token_type_ids is None else token_type_ids

    def padded(a):
        return a if real is None else a * real[..., None]

    x, positions_back = _part(learned_positions, p, "positions", x, positions=positions)
    x, segments_back = _part(_with_segments, p, "segments", x, types=types)
    x, projection_back = _part(linear, p, "projection", x)
    x, norm_back = norm(p["norm"], x)
    x, drop_back = dropout(padded(x), rate=config.hidden_dropout_prob, key=fold(key, _EMBEDDING))

    def backward(dx):
        dnorm, dx = norm_back(padded(drop_back(dx)))
        dx, dprojection = projection_back(dx)
        dx, dsegments = segments_back(dx)
        dx, dpositions = positions_back(dx)
        dp = {**dpositions, **dsegments, **dprojection, "norm": dnorm}
        return (dp, dx) if tokens_back is None else ({"tokens": tokens_back(dx), **dp}, None)

    return x, backward


def _layer(config, norm, real, rows):
    """(block, layer), see _Start."""
    mask = None if real is None else real[:, None, :, None] & real[:, None, None, :]
    rate = config.hidden_dropout_prob
    attention = partial(disentangled_multi_head_attention, heads=config.num_attention_heads, terms=config.terms, rows=rows,
                        mask=mask, rate=config.attention_probs_dropout_prob)  # fmt: skip

    def decoder_block(p, q, context, relative, *, key):
        return block(p, q, context, relative, residual=post_norm, norm=norm, attention=partial(attention, key=fold(key, 0)),
                     mlp=partial(mlp, activation=ACTIVATIONS[config.hidden_act]), rate=rate, key=key)  # fmt: skip

    def convolved(p, x, y, *, key):
        if "convolution" not in p:
            return y, lambda dy: ({}, None, dy)
        z, back = convolution_layer(p["convolution"], x, y, activation=ACTIVATIONS[config.conv_act], groups=config.conv_groups,
                                    eps=config.layer_norm_eps, real=real, rate=rate, key=key)  # fmt: skip

        def backward(dz):
            dconvolution, dx, dy = back(dz)
            return {"convolution": dconvolution}, dx, dy

        return z, backward

    def layer(p, x, relative, *, key):
        y, block_back = decoder_block(p, x, None, relative, key=key)
        z, convolved_back = convolved(p, x, y, key=fold(key, 3))

        def backward(dz):
            dp_convolution, dx_convolution, dy = convolved_back(dz)
            dp, dx, _, drelative = block_back(dy)
            return dp | dp_convolution, add(dx, dx_convolution), drelative

        return z, backward

    return decoder_block, layer


def _with_segments(x, table, *, types):
    """x + table[types]; backward gives (dx, dtable)."""
    rows, rows_back = embedding(table, ids=types, name="token type id")
    return x + rows, lambda dy: (dy, rows_back(dy))


def _part(f, p, name, x, **kwargs):
    """f(x, p[name]), or x where there is no such part; backward gives (dx, {name: gradient} or {})."""
    if name not in p:
        return x, lambda dy: (dy, {})
    y, back = f(x, p[name], **kwargs)

    def backward(dy):
        dx, dpart = back(dy)[:2]
        return dx, {name: dpart}

    return y, backward


def _relative(p, rows, norm):
    """(the embeddings of the relative positions that occur, so that no others are projected; rows counted among them, on the
    device; backward to a part of dp).  Nothing where the config has none."""
    if "relative" not in p:
        return None, None, lambda drelative: {}
    xp, lo, hi = array_module(p["relative"]), int(rows.min()), int(rows.max()) + 1
    table = p["relative"][lo:hi]
    relative, norm_back = norm(p["relative_norm"], table) if "relative_norm" in p else (table, None)

    def backward(drelative):
        if drelative is None:  # no term of the scores uses them
            return {}
        dnorm, dtable = (None, drelative) if norm_back is None else norm_back(drelative)
        drows = xp.zeros_like(p["relative"])
        drows[lo:hi] = dtable
        return {"relative": drows} if norm_back is None else {"relative": drows, "relative_norm": dnorm}

    return relative, xp.asarray(rows - lo), backward
