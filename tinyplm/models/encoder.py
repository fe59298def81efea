"""The walk that all encoders share: from ids to hidden states and back.

    e       = tokens[ids], or the embeddings given
    x_0     = embed(e): segments, positions, norm, dropout, in the family's order
    x_{i+1} = block_i(x_i, shared),   i = 0 .. L-1:
              h = residual(attention, x_i),   x_{i+1} = residual(mlp, h)
    hidden  = x_L

Backward, from dx_L = dhidden:

    dx_i, dp_i, dshared_i = the backward of block i at dx_{i+1},   i = L-1 .. 0
    dshared    = sum_i dshared_i
    de         = the backward of embed at dx_0, its parts from the last to the first
    dtokens[v] = sum of de over all places whose id is v

What differs between families is in their `Pieces`.  Keys of dropout: layer i has fold(key, i), and
folds that again with 0 for the weights of attention, 1 after attention, 2 after the feed-forward
layer.  models/disentangled.py has a second walk, which starts in the same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

from ..backend import array_module
from ..core import Component, StackOptions, Tree, named, stack
from ..kernels.activation import ACTIVATIONS
from ..kernels.attention import self_attention
from ..kernels.mlp import mlp
from ..layers.block import block, post_norm
from ..layers.dropout import dropout
from ..layers.embedding import embedding
from ..layers.mask import Visible, encoder_mask
from ..layers.position import learned_positions
from ..random import fold
from .config import LABELS, check_encoder, check_heads, check_known, label_count
from .walks import look_up


class Inputs(NamedTuple):
    """What a body is given, with its defaults filled in."""

    ids: Any  # (B, T); None where only embeddings are given
    real: Any  # (B, T) booleans, False = padding; None: all are real
    visible: Visible  # everything but padding
    types: Any  # (B, T)
    positions: Any  # (B, T) or (T,)
    key: Any  # (B,) or None
    shape: tuple[int, int]  # (B, T)
    xp: Any


def from_zero(inputs: Inputs) -> Any:
    """The positions 0 .. T-1."""
    return inputs.xp.arange(inputs.shape[1])


def nothing(p: Tree, inputs: Inputs) -> tuple[tuple, Callable]:
    """The piece `shared` of layers that share no inputs."""
    return (), lambda: {}


def one_each(block: Component, inputs: Inputs) -> tuple[Component, None]:
    """The piece `layers` where every tree of parameters is one layer, a block."""
    return block, None


class Pieces(NamedTuple):
    """Where one family of encoders differs from another.

    embed      components (p, x, *, inputs) in their order, p being the body's tree: see `part`
    norm       component (p, x), of the blocks
    attention  component (p, x, *shared, *, inputs, key)
    mlp        component (p, x, *, key)
    residual   layers.block.post_norm or pre_norm
    positions  positions(inputs), for a caller who gives none
    shared     shared(p, inputs) -> (what all layers get, backward to a part of dp)
    layers     layers(block, inputs) -> (component (p, x, *shared, *, key), uses): what a layer
               makes of the block, and which tree each layer has (see core.stack)
    """

    embed: tuple[Component, ...]
    norm: Component
    attention: Component
    mlp: Component
    residual: Component = post_norm
    positions: Callable = from_zero
    shared: Callable = nothing
    layers: Callable = one_each


class Start(NamedTuple):
    """What precedes the stack: x_0, what the layers share, and the block that they are made of.

    backward(dx_0, *dshared) gives (dp, dinputs_embeds).
    """

    x: Any
    shared: tuple
    block: Component
    inputs: Inputs
    backward: Callable


def start(
    p: Tree,
    inputs_embeds: Any = None,
    *,
    pieces: Pieces,
    input_ids: Any = None,
    attention_mask: Any = None,
    token_type_ids: Any = None,
    position_ids: Any = None,
    key: Any = None,
) -> Start:
    """x_0, the shared inputs and the block; arguments as in `body`."""
    given = input_ids if inputs_embeds is None else inputs_embeds
    B, T = given.shape[:2]
    xp = array_module(given)
    types = xp.zeros((B, T), dtype="int64") if token_type_ids is None else token_type_ids
    visible = encoder_mask(T, attention_mask, xp=xp)
    inputs = Inputs(input_ids, visible.padding, visible, types, position_ids, key, (B, T), xp)
    if position_ids is None:
        inputs = inputs._replace(positions=pieces.positions(inputs))
    e, tokens_back = look_up(p, input_ids, inputs_embeds)
    embed = named("embeddings", one_after_another(pieces.embed), scope=False)
    x, embed_back = embed(p, e, inputs=inputs)
    shared, shared_back = pieces.shared(p, inputs)
    attention = partial(pieces.attention, inputs=inputs)

    def one_block(p, x, *shared, key):
        return block(
            p,
            x,
            *shared,
            residual=pieces.residual,
            norm=pieces.norm,
            attention=partial(attention, key=key),
            mlp=partial(pieces.mlp, key=key),
        )

    def backward(dx, *dshared):
        dembed, de = embed_back(dx)
        dtokens, dinputs_embeds = tokens_back(de)
        return {**dtokens, **shared_back(*dshared), **dembed}, dinputs_embeds

    return Start(x, shared, one_block, inputs, backward)


def one_after_another(components: tuple[Component, ...]) -> Component:
    """The parts of `embed` as one component (p, x, *, inputs), with the union of their dps."""

    def embed(p, x, *, inputs):
        backs = []
        for component in components:
            x, back = component(p, x, inputs=inputs)
            backs.append(back)

        def backward(dx):
            dp: Tree = {}
            for back in reversed(backs):
                dpart, dx = back(dx)
                dp |= dpart
            return dp, dx

        return x, backward

    return embed


def body_of(pieces: Callable[[Any], Pieces]) -> Component:
    """The `body` of the family that has these pieces."""

    def body(p, inputs_embeds=None, *, config, stacking=StackOptions(), key=None, **given):
        """Hidden states of the last layer.

        p = params["body"]; input_ids (B, T), or inputs_embeds (B, T, E) in place of the look-up,
        E the width of the table; attention_mask (B, T) of 0/1; token_type_ids (B, T), by default
        0; position_ids (B, T) or (T,), by default as the family counts; key (B,), one per sample,
        for dropout, None for none; stacking: see core.StackOptions.
        -> hidden (B, T, D); backward gives (dp, dinputs_embeds), the latter None for input_ids.
        """
        made = pieces(config)
        x, shared, block, inputs, start_back = start(
            p, inputs_embeds, pieces=made, key=key, **given
        )
        layer, uses = made.layers(block, inputs)
        each = {"uses": uses, "each": lambda i: {"key": fold(key, i)}}
        hidden, stack_back = stack(layer, p["layers"], x, *shared, options=stacking, **each)

        def backward(dhidden):
            dlayers, dx, *dshared = stack_back(dhidden)
            dp, dinputs_embeds = start_back(dx, *dshared)
            return {**dp, "layers": dlayers}, dinputs_embeds

        return hidden, backward

    return body


# ---------------------------------------------------------------------------- makers of pieces


def part(name: str, f: Component) -> Component:
    """f(p[name], x) where the body's tree has this part, else x: a piece of `embed`."""

    def component(p, x, *, inputs):
        if name not in p:
            return x, lambda dx: ({}, dx)
        y, back = named(name, f)(p[name], x)

        def backward(dy):
            dpart, dx = back(dy)
            return {name: dpart}, dx

        return y, backward

    return component


def segments(p: Tree, x: Any, *, inputs: Inputs) -> tuple[Any, Callable]:
    """y = x + segments[types].   dx = dy,   dsegments[s] = sum of dy over all places of type s."""

    def add_rows(table, x):
        rows, rows_back = embedding(table, ids=inputs.types, name="token type id")
        return x + rows, lambda dy: (rows_back(dy), dy)

    return part("segments", add_rows)(p, x, inputs=inputs)


def positions(p: Tree, x: Any, *, inputs: Inputs) -> tuple[Any, Callable]:
    """y = x + positions[t].   Gradients as in `learned_positions`."""

    def add_rows(table, x):
        y, back = learned_positions(x, table, positions=inputs.positions)
        return y, lambda dy: back(dy)[::-1]

    return part("positions", add_rows)(p, x, inputs=inputs)


def attend(*, heads: int, rate: float) -> Component:
    """Self-attention to everything but padding; rate: of the dropout of P, its weights."""

    def component(p, x, *, inputs, key):
        return self_attention(p, x, heads=heads, mask=inputs.visible, rate=rate, key=fold(key, 0))

    return component


def feed_forward(activation: Component) -> Component:
    """The piece `mlp`: layers.mlp with this activation."""
    return lambda p, x, *, key: mlp(p, x, activation=activation)


def drop_embeddings(*, rate: float, number: int) -> Component:
    """Dropout of the embeddings, with the body's key folded with `number`."""

    def component(p, x, *, inputs):
        y, back = dropout(x, rate=rate, key=fold(inputs.key, number))
        return y, lambda dy: ({}, back(dy))

    return component


def dropped(f: Component, *, rate: float, number: int) -> Component:
    """dropout(f(p, x, ...)), with the layer's key folded with `number`; f: `attention` or `mlp`."""

    def component(p, x, *shared, key, **inputs):
        y, f_back = f(p, x, *shared, key=key, **inputs)
        y, drop_back = dropout(y, rate=rate, key=fold(key, number))
        return y, lambda dy: f_back(drop_back(dy))

    return component


# ---------------------------------------------------------------------------------------- configs


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """What the configs of all encoders have: labels of a head, and the contents of the file."""

    MODEL_TYPE: ClassVar[str]
    ALIASES: ClassVar[dict[str, str]] = {}
    OLD: ClassVar[tuple[str, ...]] = (*LABELS, "position_embedding_type")

    id2label: dict | None = None
    label2id: dict | None = None
    problem_type: str | None = None
    source: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    @property
    def num_labels(self) -> int:
        return label_count(self)

    @property
    def context(self) -> int | None:
        """The longest sequence."""
        return self.max_position_embeddings  # type: ignore[attr-defined]


SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
)
RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob")


def check(config: Any, *, sizes: tuple = (), rates: tuple = (), **only: tuple) -> None:
    """The checks of a config that has BERT's names for its fields.

    sizes and rates: fields to check beyond BERT's; only: see config.check_only.
    """
    more = {"tie_word_embeddings": (True,), **only}
    check_encoder(config, sizes=(*SIZES, *sizes), rates=(*RATES, *rates), **more)
    check_known(config, "hidden_act", ACTIVATIONS)
    check_heads(config, "hidden_size", "num_attention_heads")
