"""T5 and T5 1.1 (Raffel et al. 2020; Shazeer 2020), the textbook of encoder-decoders: forward and
backward in full.  FLAN-T5 is T5 1.1, trained on.

    e_0     = dropout(tokens[ids]),     d_0 = dropout(tokens[decoder ids])
    e_{i+1} = h + dropout(mlp(norm2(h))),   h = e_i + dropout(attention(norm1(e_i), bias_e))
    E       = dropout(norm(e_L))
    d_{i+1} = c + dropout(mlp(norm3(c))),   c = h + dropout(cross(norm2(h), E)),
                                            h = d_i + dropout(attention(norm1(d_i), bias_d))
    hidden  = dropout(norm(d_L)),   logits = D^-0.5 hidden tokens^T       (1.1: hidden W)

norm is RMSNorm.  Attention does not scale q k^T, and adds bias[h, t, s] = table[bucket(s - t), h],
one table for all layers of the encoder and one for those of the decoder, where s <= t; none in
cross-attention.  mlp: ReLU; 1.1: tanh GELU, gated.  There are no biases and no other positions, so
a sequence may have any length.

`body` computes what the walk of models/seq2seq.py does with `pieces`, which are in
models/t5_parts.py; decoding with a cache is the walk's.
Parameters: {"body": {"tokens" (V, D), "encoder": {"bias" (buckets, H), "layers", "norm"},
"decoder": likewise}, "head": {"W" (D, V)} if untied}.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from ..backend import array_module
from ..core import Component, StackOptions, Tree, add, stack
from ..kernels.attention import cross_attention, self_attention
from ..layers.dropout import dropout
from ..layers.mask import Visible, decoder_mask, encoder_mask
from ..layers.relative_bias import relative_bias
from ..models import causal_lm, seq2seq, walks
from ..models import t5_parts as parts
from ..models.t5_parts import norm
from ..random import fold


@dataclasses.dataclass(frozen=True)
class Config(parts.Fields):
    """T5's config.json: models.t5_parts.Fields."""

    MODEL_TYPE: ClassVar[str] = "t5"
    ARCHITECTURE: ClassVar[str] = "T5ForConditionalGeneration"


def _sizes(name: str, rows: parts.Rows, **fields: Any) -> dict[str, Config]:
    return {f"{name}-{n}": Config(**parts.sized(*row), **fields) for n, row in rows.items()}


# Raffel et al. 2020, sec. 3.7; the configurations of the released weights of 1.1.
GATED: dict[str, Any] = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
SIZES = {
    **_sizes("t5", parts.V1),
    **_sizes("t5-v1_1", parts.V1_1, **GATED),
    **_sizes("flan-t5", parts.V1_1, **GATED),
}


def body(
    p: Tree,
    inputs_embeds: Any = None,
    decoder_inputs_embeds: Any = None,
    *,
    config: Config,
    input_ids: Any = None,
    attention_mask: Any = None,
    decoder_input_ids: Any = None,
    decoder_attention_mask: Any = None,
    key: Any = None,
    stacking: StackOptions = StackOptions(),
) -> tuple[dict[str, Any], Callable]:
    """{"encoder_hidden", "hidden"}; arguments and results as for seq2seq.body."""
    below, above = seq2seq.halves(stacking, config.num_layers)
    e, e_back = walks.look_up(p, input_ids, inputs_embeds)
    d, d_back = walks.look_up(p, decoder_input_ids, decoder_inputs_embeds)
    xp, S, T = array_module(e), e.shape[1], d.shape[1]
    mask = encoder_mask(S, attention_mask, xp=xp)
    encoder = partial(encoder_layer, config=config, mask=mask)
    E, E_back = side(
        encoder, p["encoder"], e, config=config, decoder=False, key=fold(key, 0), stacking=below
    )
    causal = decoder_mask(T, T, decoder_attention_mask, xp=xp)
    source = Visible(T, S, padding=mask.padding, xp=xp)
    decoder = partial(decoder_layer, config=config, mask=causal, source=source)
    hidden, hidden_back = side(
        decoder, p["decoder"], d, E, config=config, decoder=True, key=fold(key, 1), stacking=above
    )

    def backward(doutputs):
        dhidden, dE = doutputs.get("hidden"), doutputs.get("encoder_hidden")
        ddecoder, dd, dE_cross = hidden_back(seq2seq.or_zeros(dhidden, hidden))
        dencoder, de = E_back(seq2seq.or_zeros(add(dE, dE_cross), E))
        dtokens, dembeds = e_back(de)
        dtokens_too, ddecoder_embeds = d_back(dd)
        dp = {**add(dtokens, dtokens_too), "encoder": dencoder, "decoder": ddecoder}
        return dp, dembeds, ddecoder_embeds

    return {"encoder_hidden": E, "hidden": hidden}, backward


def side(
    layer: Component,
    p: Tree,
    x: Any,
    *context: Any,
    config: Config,
    decoder: bool,
    key: Any,
    stacking: StackOptions,
) -> tuple:
    """y = dropout(norm(x_L)),   x_{i+1} = layer(x_i, *context, bias),   x_0 = dropout(x).

    dbias and dcontext are the sums of the layers'.   backward gives (dp, dx, *dcontext).
    """
    L, T = len(p["layers"]), x.shape[1]
    drop, eps = partial(dropout, rate=config.dropout_rate), config.layer_norm_epsilon
    x0, x0_back = drop(x, key=fold(key, L))
    bias, bias_back = relative_bias(p["bias"], rows=config.rows(T, T, decoder=decoder), keys=T)
    each = seq2seq.numbered(key)
    xL, xL_back = stack(layer, p["layers"], x0, *context, bias, each=each, options=stacking)
    n, n_back = norm(p["norm"], xL, eps=eps)
    y, y_back = drop(n, key=fold(key, L + 1))

    def backward(dy):
        dnorm, dxL = n_back(y_back(dy))
        dlayers, dx0, *dcontext, dbias = xL_back(dxL)
        dtable = bias_back(seq2seq.or_zeros(dbias, bias))
        return {"bias": dtable, "layers": dlayers, "norm": dnorm}, x0_back(dx0), *dcontext

    return y, backward


def encoder_layer(
    p: Tree, x: Any, bias: Any, *, config: Config, mask: Any, index: int, key: Any
) -> tuple:
    """h = x + dropout(attention(n1, bias)),   y = h + dropout(mlp(n2)),   n1 = norm1(x) ...

    dh = dy + norm2'(mlp'(dy)),   dx = dh + norm1'(attention'(dh)).   backward: (dp, dx, dbias).
    """
    drop, eps = partial(dropout, rate=config.dropout_rate), config.layer_norm_epsilon
    n1, n1_back = norm(p["norm1"], x, eps=eps)
    a, a_back = self_attention(
        p["attention"], n1, bias, **parts.attention(config), mask=mask, key=fold(key, 0)
    )
    s, s_back = drop(a, key=fold(key, 1))
    h = x + s
    n2, n2_back = norm(p["norm2"], h, eps=eps)
    f, f_back = parts.feed_forward(config)(p["mlp"], n2, key=fold(key, 5))
    t, t_back = drop(f, key=fold(key, 2))

    def backward(dy):
        dmlp, dn2 = f_back(t_back(dy))
        dnorm2, dh = n2_back(dn2)
        dh = dh + dy
        dattention, dn1, dbias = a_back(s_back(dh))
        dnorm1, dx = n1_back(dn1)
        dp = {"norm1": dnorm1, "attention": dattention, "norm2": dnorm2, "mlp": dmlp}
        return dp, dx + dh, dbias

    return h + t, backward


def decoder_layer(
    p: Tree,
    x: Any,
    context: Any,
    bias: Any,
    *,
    config: Config,
    mask: Any,
    source: Any,
    index: int,
    key: Any,
) -> tuple:
    """h = x + dropout(attention(n1, bias)),   c = h + dropout(cross(n2, context)),
    y = c + dropout(mlp(n3)),   n1 = norm1(x) ...   backward gives (dp, dx, dcontext, dbias).
    """
    drop, eps = partial(dropout, rate=config.dropout_rate), config.layer_norm_epsilon
    n1, n1_back = norm(p["norm1"], x, eps=eps)
    a, a_back = self_attention(
        p["attention"], n1, bias, **parts.attention(config), mask=mask, key=fold(key, 0)
    )
    s, s_back = drop(a, key=fold(key, 1))
    h = x + s
    n2, n2_back = norm(p["norm2"], h, eps=eps)
    b, b_back = cross_attention(
        p["cross"], n2, context, **parts.attention(config), mask=source, key=fold(key, 4)
    )
    u, u_back = drop(b, key=fold(key, 2))
    c = h + u
    n3, n3_back = norm(p["norm3"], c, eps=eps)
    f, f_back = parts.feed_forward(config)(p["mlp"], n3, key=fold(key, 5))
    t, t_back = drop(f, key=fold(key, 3))

    def backward(dy):
        dmlp, dn3 = f_back(t_back(dy))
        dnorm3, dc = n3_back(dn3)
        dc = dc + dy
        dcross, dn2, dcontext = b_back(u_back(dc))
        dnorm2, dh = n2_back(dn2)
        dh = dh + dc
        dattention, dn1, dbias = a_back(s_back(dh))
        dnorm1, dx = n1_back(dn1)
        dp = {"norm1": dnorm1, "attention": dattention, "norm2": dnorm2, "cross": dcross}
        return {**dp, "norm3": dnorm3, "mlp": dmlp}, dx + dh, dcontext, dbias

    return c + t, backward


shapes, init, pieces = parts.shapes, parts.init, parts.pieces
walk = partial(seq2seq.body, pieces)
output_matrix = causal_lm.output_matrix
NAMES, PREFIX, SKIPPED = parts.NAMES, parts.PREFIX, parts.SKIPPED
COPIES, TIED, settled = parts.COPIES, parts.TIED, parts.settled
