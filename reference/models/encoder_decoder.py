"""Whole encoder-decoders from their papers: from ids to logits, by the loops of reference/layers.

input_ids (B, S) and decoder_input_ids (B, T), the targets shifted right by one -> logits (B, T, V).
Every function also takes the settings of `_logits`:

    mask (B, S), decoder_mask (B, T)    of 0/1, 1 = a token; None: all are
    heads, decoder_heads                of a layer on either side; None: as many as the encoder's

Parameters are nested dicts of arrays, weights (in, out):

    tokens (V, D)       the table of both sides, and transposed the output matrix, unless there is
    head {W (D, V)}
    logits_bias (V,)    optional, added to the logits
    encoder {layers [{norm1, attention, norm2, mlp}, ..]}
    decoder {layers [{norm1, attention, norm2, cross, norm3, mlp}, ..]}
    norm1, norm2, ...   {gamma (D,), beta (D,) if LayerNorm}
    attention, cross    {Wq, Wk, Wv (D, H*E), Wo (H*E, D)}, optionally bq, bk, bv, bo
    mlp                 {W1 (D, F), W2 (F, D)}, optionally b1, b2; or {Wgate, Wup (D, F), Wdown}

Each function says what else its encoder and decoder have.
"""

import math
from functools import partial

import numpy as np

from reference.layers.activation import gelu, gelu_tanh, relu
from reference.layers.attention import multi_head_attention
from reference.layers.block import post_norm, pre_norm
from reference.layers.embedding import embedding
from reference.layers.linear import linear
from reference.layers.mask import causal_mask, padding_mask
from reference.layers.mlp import gated_mlp, mlp
from reference.layers.norm import layernorm, rmsnorm
from reference.layers.position import learned_positions, sinusoidal
from reference.layers.relative_bias import bucket_table, relative_bias, t5_bucket


def transformer(
    params: dict,
    input_ids: np.ndarray,
    decoder_input_ids: np.ndarray,
    *,
    activation=relu,
    eps: float = 1e-5,
    scaled: bool = True,
    halves: bool = False,
    **settings,
) -> np.ndarray:
    """x_0 = sqrt(D) tokens[ids] + PE, on both sides;  logits = decoder(y_0, encoder(x_0)) tokens^T.

    A sublayer is norm(x + sublayer(x)).                       Vaswani et al. 2017, sec. 3.1 to 3.5
    Marian (Junczys-Dowmunt et al. 2018) also has logits_bias, sometimes swish as activation, and
    halves: PE's columns in another order, all sines, then all cosines.   scaled: False for x_0
    without the factor sqrt(D).
    """

    def embed(_, ids):
        x = _tokens(params, ids, scaled)
        table = sinusoidal(np.arange(x.shape[1]), x.shape[2])
        if halves:
            table = np.concatenate([table[:, 0::2], table[:, 1::2]], axis=1)
        return x + table

    norm, transform = partial(_layernorm, eps=eps), partial(mlp, activation=activation)
    parts = {"embed": embed, "norm": norm, "transform": transform, "residual": post_norm}
    return _logits(params, input_ids, decoder_input_ids, **parts, **settings)


def bart(
    params: dict,
    input_ids: np.ndarray,
    decoder_input_ids: np.ndarray,
    *,
    activation=gelu,
    eps: float = 1e-5,
    scaled: bool = False,
    residual=post_norm,
    **settings,
) -> np.ndarray:
    """x_0 = norm(tokens[ids] + positions[t + 2]), on both sides.

    Otherwise the Transformer of 2017 with GELU and logits_bias.   Encoder and decoder also have
    embedding_norm and positions (C + 2, D), whose first two rows stand for no token.
    scaled: sqrt(D) tokens[ids].       Lewis et al. 2020, sec. 2.1, and its released code
    mBART has residual = pre_norm and, on each side, a norm after the last layer.
    Liu et al. 2020, sec. 2.2, and its released code
    """

    def embed(p, ids):
        x = _tokens(params, ids, scaled)
        placed = learned_positions(x, p["positions"], positions=np.arange(x.shape[1]) + 2)
        return norm(p["embedding_norm"], placed)

    norm, transform = partial(_layernorm, eps=eps), partial(mlp, activation=activation)
    parts = {"embed": embed, "norm": norm, "transform": transform, "residual": residual}
    return _logits(params, input_ids, decoder_input_ids, **parts, **settings)


def t5(
    params: dict,
    input_ids: np.ndarray,
    decoder_input_ids: np.ndarray,
    *,
    buckets: int = 32,
    longest: int = 128,
    gated: bool = False,
    eps: float = 1e-6,
    scaled: bool | None = None,
    **settings,
) -> np.ndarray:
    """x_0 = tokens[ids];   a sublayer is x + sublayer(norm(x)), and a norm follows the last one.

    norm is RMSNorm, scores are q . k, not divided by sqrt(E), plus a bias by the bucket of s - t:
    one table for all layers of a side; a decoder's has no buckets for later keys.  None in cross.
    mlp: ReLU; gated (T5 1.1): gelu_tanh(x Wgate) * (x Wup).  No bias anywhere.
    logits = D^-0.5 h tokens^T; with a head of its own, h W.  scaled: with that factor or without.
    Encoder and decoder also have relative_bias (buckets, H) and norm, the last one.
    Raffel et al. 2020, sec. 2.1; Shazeer 2020 (GEGLU); the factor: their released code
    """

    def bias(side, length, bidirectional):
        bucket = partial(t5_bucket, buckets=buckets, longest=longest, bidirectional=bidirectional)
        table = bucket_table(length, length, bucket)
        return relative_bias(params[side]["relative_bias"], buckets=table)

    if scaled is None:
        scaled = "head" not in params
    return _logits(
        params,
        input_ids,
        decoder_input_ids,
        embed=lambda _, ids: _tokens(params, ids, False),
        norm=lambda p, x: rmsnorm(x, p["gamma"], eps=eps),
        transform=partial(gated_mlp, activation=gelu_tanh)
        if gated
        else partial(mlp, activation=relu),
        residual=pre_norm,
        bias=bias("encoder", input_ids.shape[1], True),
        decoder_bias=bias("decoder", decoder_input_ids.shape[1], False),
        scale=1.0,
        factor=params["tokens"].shape[1] ** -0.5 if scaled else 1.0,
        **settings,
    )


def _logits(
    params,
    input_ids,
    decoder_input_ids,
    *,
    heads,
    decoder_heads=None,
    mask=None,
    decoder_mask=None,
    embed,
    norm,
    transform,
    residual,
    bias=None,
    decoder_bias=None,
    scale=None,
    factor=1.0,
):
    """logits = factor h W + logits_bias, h being the decoder's hidden states, W the tokens^T or
    the head's.  The decoder's layers also attend to the encoder's output c, through cross."""
    source = None if mask is None else padding_mask(mask)
    before = causal_mask(decoder_input_ids.shape[1])
    if decoder_mask is not None:
        before = before & padding_mask(decoder_mask)

    def hidden(p, ids, sublayers):
        """x_0 = embed(ids), the sublayers of each layer, and the norm after the last, if any."""
        x = embed(p, ids)
        for layer in p["layers"]:
            for number, (name, f) in enumerate(sublayers.items(), start=1):
                x = residual(partial(norm, layer[f"norm{number}"]), partial(f, layer[name]), x)
        return norm(p["norm"], x) if "norm" in p else x

    attend = partial(multi_head_attention, heads=heads, scale=scale)
    itself = partial(attend, bias=bias, mask=source)
    c = hidden(params["encoder"], input_ids, {"attention": itself, "mlp": transform})

    attend = partial(multi_head_attention, heads=decoder_heads or heads, scale=scale)
    itself = partial(attend, bias=decoder_bias, mask=before)
    cross = partial(attend, context=c, mask=source)
    sublayers = {"attention": itself, "cross": cross, "mlp": transform}
    h = hidden(params["decoder"], decoder_input_ids, sublayers)

    W = params["head"]["W"] if "head" in params else params["tokens"].T
    return linear(factor * h, W, params.get("logits_bias"))


def _tokens(params, ids, scaled):
    x = embedding(params["tokens"], ids=ids)
    return math.sqrt(x.shape[-1]) * x if scaled else x


def _layernorm(p, x, *, eps):
    return layernorm(x, p["gamma"], p["beta"], eps=eps)
