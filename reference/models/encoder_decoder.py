"""Whole encoder-decoders from their papers: from ids to logits, by the loops of reference/layers.

input_ids (B, S) and decoder_input_ids (B, T), the targets shifted right by one -> logits (B, T, V).
mask (B, S) and decoder_mask (B, T) of 0/1, 1 = a token; None: all are.

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
    mask: np.ndarray | None = None,
    decoder_mask: np.ndarray | None = None,
    heads: int,
    decoder_heads: int | None = None,
    activation=relu,
    eps: float = 1e-5,
    scaled: bool = True,
    halves: bool = False,
) -> np.ndarray:
    """x_0 = sqrt(D) tokens[ids] + PE, on both sides;  logits = decoder(y_0, encoder(x_0)) tokens^T.

    A sublayer is norm(x + sublayer(x)).                       Vaswani et al. 2017, sec. 3.1 to 3.5
    Marian (Junczys-Dowmunt et al. 2018) also has logits_bias, sometimes swish as activation, and
    halves: PE's columns in another order, all sines, then all cosines.   scaled: False for x_0
    without the factor sqrt(D).
    """

    def embed(_, ids):
        x = embedding(params["tokens"], ids=ids)
        T, D = x.shape[1:]
        table = sinusoidal(np.arange(T), D)
        if halves:
            table = np.concatenate([table[:, 0::2], table[:, 1::2]], axis=1)
        return (math.sqrt(D) if scaled else 1.0) * x + table

    return _with_layernorm(
        params,
        input_ids,
        decoder_input_ids,
        embed,
        activation,
        eps,
        masks=(mask, decoder_mask),
        heads=(heads, decoder_heads),
    )


def bart(
    params: dict,
    input_ids: np.ndarray,
    decoder_input_ids: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    decoder_mask: np.ndarray | None = None,
    heads: int,
    decoder_heads: int | None = None,
    activation=gelu,
    eps: float = 1e-5,
    scaled: bool = False,
    residual=post_norm,
) -> np.ndarray:
    """x_0 = norm(tokens[ids] + positions[t + 2]), on both sides.

    Otherwise the Transformer of 2017 with GELU and logits_bias.   Encoder and decoder also have
    embedding_norm and positions (C + 2, D), whose first two rows stand for no token.
    scaled: sqrt(D) tokens[ids].       Lewis et al. 2020, sec. 2.1, and its released code
    mBART has residual = pre_norm and, on each side, a norm after the last layer.
    Liu et al. 2020, sec. 2.2, and its released code
    """

    def embed(p, ids):
        x = embedding(params["tokens"], ids=ids)
        T, D = x.shape[1:]
        x = (math.sqrt(D) if scaled else 1.0) * x
        placed = learned_positions(x, p["positions"], positions=np.arange(T) + 2)
        return _layernorm(p["embedding_norm"], placed, eps=eps)

    return _with_layernorm(
        params,
        input_ids,
        decoder_input_ids,
        embed,
        activation,
        eps,
        masks=(mask, decoder_mask),
        heads=(heads, decoder_heads),
        residual=residual,
    )


def t5(
    params: dict,
    input_ids: np.ndarray,
    decoder_input_ids: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    decoder_mask: np.ndarray | None = None,
    heads: int,
    buckets: int = 32,
    longest: int = 128,
    gated: bool = False,
    eps: float = 1e-6,
    scaled: bool | None = None,
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

    geglu = partial(gated_mlp, activation=gelu_tanh)
    hidden = _hidden(
        params,
        input_ids,
        decoder_input_ids,
        masks=(mask, decoder_mask),
        heads=(heads, heads),
        embed=lambda _, ids: embedding(params["tokens"], ids=ids),
        residual=pre_norm,
        norm=lambda p, x: rmsnorm(x, p["gamma"], eps=eps),
        transform=geglu if gated else partial(mlp, activation=relu),
        biases=(
            bias("encoder", input_ids.shape[1], True),
            bias("decoder", decoder_input_ids.shape[1], False),
        ),
        scale=1.0,
    )
    if scaled is None:
        scaled = "head" not in params
    return _logits(params, (hidden.shape[-1] ** -0.5 if scaled else 1.0) * hidden)


def _with_layernorm(params, input_ids, decoder_input_ids, embed, activation, eps, **settings):
    """The logits of those with LayerNorm, whose sublayers are norm(x + sublayer(x)) by default."""
    hidden = _hidden(
        params,
        input_ids,
        decoder_input_ids,
        embed=embed,
        norm=partial(_layernorm, eps=eps),
        transform=partial(mlp, activation=activation),
        **{"residual": post_norm, **settings},
    )
    return _logits(params, hidden)


def _hidden(
    params,
    input_ids,
    decoder_input_ids,
    *,
    masks,
    heads,
    embed,
    residual,
    norm,
    transform,
    biases=(None, None),
    scale=None,
):
    """What both sides compute: the encoder's layers, then the decoder's, which also attend to the
    encoder's output c through cross; each side's norm after the last layer, if it has one."""
    tokens, before = _seen(masks[0]), causal_mask(decoder_input_ids.shape[1])
    if masks[1] is not None:
        before = before & _seen(masks[1])
    encoder_heads, decoder_heads = heads[0], heads[1] or heads[0]

    def sublayer(p, name, number, f, x, **settings):
        return residual(partial(norm, p[f"norm{number}"]), partial(f, p[name], **settings), x)

    p = params["encoder"]
    x = embed(p, input_ids)
    itself = {"bias": biases[0], "heads": encoder_heads, "mask": tokens, "scale": scale}
    for layer in p["layers"]:
        x = sublayer(layer, "attention", 1, multi_head_attention, x, **itself)
        x = sublayer(layer, "mlp", 2, transform, x)
    c = norm(p["norm"], x) if "norm" in p else x

    p = params["decoder"]
    y = embed(p, decoder_input_ids)
    itself = {"bias": biases[1], "heads": decoder_heads, "mask": before, "scale": scale}
    other = {"context": c, "heads": decoder_heads, "mask": tokens, "scale": scale}
    for layer in p["layers"]:
        y = sublayer(layer, "attention", 1, multi_head_attention, y, **itself)
        y = sublayer(layer, "cross", 2, multi_head_attention, y, **other)
        y = sublayer(layer, "mlp", 3, transform, y)
    return norm(p["norm"], y) if "norm" in p else y


def _logits(params, hidden):
    W = params["head"]["W"] if "head" in params else params["tokens"].T
    return linear(hidden, W, params.get("logits_bias"))


def _layernorm(p, x, *, eps):
    return layernorm(x, p["gamma"], p["beta"], eps=eps)


def _seen(mask):
    return None if mask is None else padding_mask(mask)
