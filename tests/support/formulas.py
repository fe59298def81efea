"""Formulas of reference/ in the signatures of the table of components, where these differ.

The reference knows no blocks, chunks or descriptions of masks, and takes distances where we take rows of a table; here they are
translated.  Dropout on attention's probabilities is put together from the reference's attention and dropout.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import reference.layers.alibi as ref_alibi
import reference.layers.attention as ref_attention
import reference.layers.block as ref_block
import reference.layers.disentangled as ref_disentangled
import reference.layers.dropout as ref_dropout
import reference.layers.heads as ref_heads
import reference.layers.latent as ref_latent
import reference.layers.linear as ref_linear
import reference.layers.mask as ref_mask
import reference.layers.relative_bias as ref_relative_bias
import reference.layers.sinks as ref_sinks
import reference.layers.two_stream as ref_two_stream
import reference.tuning.lora as ref_lora
from reference.scalar import zeros

# --------------------------------------------------------------------------------------------------------------- attention


def attention_dropout(q, k, v, bias=None, *, rate, key, attention=ref_attention.attention, **kwargs):
    """With the identity as v the reference returns the probabilities; dropout is applied to them, then they multiply v."""
    identity = np.broadcast_to(np.eye(k.shape[2]), (*k.shape[:3], k.shape[2]))
    P = ref_dropout.dropout(attention(q, k, identity, bias, **kwargs), rate=rate, key=key)
    o = zeros((*q.shape[:3], v.shape[3]), like=(P, v))
    for b, h, t, e in np.ndindex(o.shape):
        o[b, h, t, e] = sum(P[b, h, t, s] * v[b, h // (q.shape[1] // k.shape[1]), s, e] for s in range(k.shape[2]))
    return o


def without_block(reference: Callable) -> Callable:
    return lambda *args, block, **kwargs: reference(*args, **kwargs)


def sink_dropout(*args, **kwargs):
    """As `attention_dropout`, with sinks in the place of the bias.   OpenAI 2025, sec. 2.2"""
    return attention_dropout(*args, attention=ref_sinks.sink_attention, **kwargs)


def described_sinks(*args, **kwargs):
    """OpenAI 2025, sec. 2.2"""
    return described_attention(*args, attention=ref_sinks.sink_attention, **kwargs)


def described_attention(
    q, k, v, bias=None, *, causal=True, window=None, prefix=None, padding, allowed, block, attention=ref_attention.attention,
    **kwargs,
):  # fmt: skip
    T, S = q.shape[2], k.shape[2]
    seen = None
    if causal:
        seen = ref_mask.causal_mask(T, S) if window is None else ref_mask.sliding_mask(T, S, window=window)
    if prefix is not None:
        seen = ref_mask.prefix_mask(prefix, S)[:, :, S - T :]
    seen = ref_mask.combine_masks(seen, None if padding is None else ref_mask.padding_mask(padding), allowed)
    return attention(q, k, v, bias, mask=seen, **kwargs)


def capped_attention(*args, cap, **kwargs):
    """Gemma team 2024b, sec. 2."""
    return ref_attention.attention(*args, cap=cap, **kwargs)


def alibi_attention(*args, offsets, queries, keys, slopes, **kwargs):
    """With -m (t - s) written out, for all queries and keys, in place of our one row.   Press et al. 2022, sec. 3"""
    return ref_attention.attention(*args, offsets=ref_alibi.alibi(queries, keys, slopes=slopes), **kwargs)


def described_alibi_attention(*args, offsets, queries, keys, slopes, **kwargs):
    """As `alibi_attention`.   Press et al. 2022, sec. 3; cap: Gemma team 2024b, sec. 2"""
    return described_attention(*args, offsets=ref_alibi.alibi(queries, keys, slopes=slopes), **kwargs)


def head_norm_attention(*args, head_norm, **kwargs):
    """Dehghani et al. 2023, sec. 3.1; Qwen team 2025, sec. 2."""
    return ref_attention.normed_heads_attention(*args, norm=head_norm, **kwargs)


def projection_norm_attention(*args, projection_norm, **kwargs):
    """OLMo team 2025, sec. 3.2."""
    return ref_attention.normed_projections_attention(*args, norm=projection_norm, **kwargs)


def both_norms_block(*args, residual, **kwargs):
    """Gemma team 2024b, sec. 2."""
    return ref_block.both_norms_block(*args, **kwargs)


def joined_attention(p, x, context=None, bias=None, *, heads, kv_heads, **kwargs):
    E = p["Wqkv"].shape[1] // (heads + 2 * kv_heads)
    edges = [heads * E, (heads + kv_heads) * E]
    apart = {f"{kind}{n}": a for kind in "Wb" if f"{kind}qkv" in p
             for n, a in zip("qkv", np.split(p[f"{kind}qkv"], edges, axis=-1))}  # fmt: skip
    apart |= {name: p[name] for name in ("Wo", "bo") if name in p}
    return ref_attention.multi_head_attention(apart, x, context, bias, heads=heads, kv_heads=kv_heads, **kwargs)


def joined_keys_and_values(*args, **kwargs):
    """Vaswani et al. 2017, sec. 3.2.2"""
    return np.stack(ref_attention.keys_and_values(*args, **kwargs))


def biased_attention(p, x, bias, **kwargs):
    """Raffel et al. 2020, sec. 2.1"""
    return ref_attention.multi_head_attention(p, x, None, bias, **kwargs)


def sink_self_attention(p, x, **kwargs):
    """`rotary_attention` with sinks in the place of the bias.   OpenAI 2025, sec. 2.2"""
    return rotary_attention(p, x, None, p["sinks"], attention=ref_sinks.sink_attention, **kwargs)


def rotary_attention(p, x, context=None, bias=None, *, heads, kv_heads, rotary, attention=ref_attention.attention, **kwargs):
    """The reference's linear layers, its rotation of queries and keys (not of values), and its attention."""
    q, k, v = (ref_linear.linear(x, p[f"W{name}"], p.get(f"b{name}")) for name in "qkv")
    q, k, v = (a.reshape(*a.shape[:2], n, -1).swapaxes(1, 2) for a, n in ((q, heads), (k, kv_heads), (v, kv_heads)))
    o = attention(rotary(q), rotary(k), v, bias, **kwargs).swapaxes(1, 2)
    return ref_linear.linear(o.reshape(*o.shape[:2], -1), p["Wo"], p.get("bo"))


def latent_attention(*args, norm, **kwargs):
    """DeepSeek team 2024a, sec. 2.1; DeepSeek team 2024b, sec. 2.1."""
    return ref_latent.latent_attention(*args, **kwargs)


def multi_token_input(*args, norm, **kwargs):
    """DeepSeek team 2024b, eq. 21."""
    return ref_latent.multi_token_input(*args, **kwargs)


# ------------------------------------------------------------------------------------------------- DeBERTa, T5 and XLNet


def relative_scores(*args, rows, delta):
    return ref_disentangled.relative_scores(*args, delta=delta)


def disentangled_attention(*args, rows, scores, **kwargs):
    return ref_disentangled.disentangled_attention(*args, **kwargs)


def disentangled_dropout(q, k, v, Kr, Qr, *, rate, key, **kwargs):
    """As `attention_dropout`."""
    S = k.shape[2]
    identity = np.broadcast_to(np.eye(S), (*k.shape[:3], S))
    P = ref_dropout.dropout(disentangled_attention(q, k, identity, Kr, Qr, **kwargs), rate=rate, key=key)
    o = zeros(q.shape, like=(P, v))
    for b, h, t, e in np.ndindex(o.shape):
        o[b, h, t, e] = sum(P[b, h, t, s] * v[b, h, s, e] for s in range(S))
    return o


def disentangled_multi_head(*args, rows, **kwargs):
    return ref_disentangled.disentangled_multi_head_attention(*args, **kwargs)


def relative_bias(table, *, rows, keys, buckets):
    return ref_relative_bias.relative_bias(table, buckets=buckets)


def relative_dropout(q, k, v, *args, rate, key, **kwargs):
    """As `attention_dropout`."""
    identity = np.broadcast_to(np.eye(k.shape[2]), (*k.shape[:3], k.shape[2]))
    P = ref_dropout.dropout(ref_two_stream.relative_attention(q, k, identity, *args, **kwargs), rate=rate, key=key)
    return np.array([[P[b, h] @ v[b, h] for h in range(v.shape[1])] for b in range(v.shape[0])])


# ------------------------------------------------------------------------------------------------------ outputs and trees


def joined_span_head(p, x):
    outputs = ref_heads.span_head(p, x)
    return np.stack([outputs["start_logits"], outputs["end_logits"]])


def summed(f: Callable) -> Callable:
    def component(*args, a, c, **kwargs):
        outputs = f(*args, **kwargs)
        return (outputs["log_probs"] * a).sum() + (outputs["entropy"] * c).sum()

    return component


def lora_of_one_matrix(theta, *, W, alpha):
    return ref_lora.lora({"w": theta}, base={"w": W}, alpha=alpha)["w"]
