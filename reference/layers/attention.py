"""Scaled dot-product attention and multi-head attention, with shared key/value heads."""

import numpy as np

from reference.layers.activation import soft_cap
from reference.layers.linear import linear
from reference.layers.softmax import softmax
from reference.scalar import numbers, zeros


def attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    mask: np.ndarray | None = None,
    scale: float | None = None,
    cap: float | None = None,
    offsets: np.ndarray | None = None,
    rate: float = 0.0,
    key: None = None,
) -> np.ndarray:
    """y[b, h, t] = sum_s P[b, h, t, s] v[b, g, s],

    P[b, h, t, :] = softmax_s(scale q[b, h, t] . k[b, g, s] + bias[b, h, t, s]) over the s where
    mask[b, h, t, s] is True, g = h // (H // K) being the key/value head of head h.
    q (B, H, T, E), k (B, K, S, E), v (B, K, S, E2), bias and boolean mask broadcastable to
    (B, H, T, S) -> y (B, H, T, E2).  scale is E^-0.5 if None.  A fully masked query gives zeros.
    With a cap, cap tanh(scale q . k / cap) takes the place of scale q . k; offsets[b, h, t, s] are
    added as bias is: constants such as those of alibi.py.
    Vaswani et al. 2017, eq. 1; grouped heads: Ainslie et al. 2023, sec. 2.2 (K = 1: Shazeer 2019,
    sec. 3); cap: Gemma team 2024b, sec. 2.
    """
    _refuse_dropout(rate, key)
    q = numbers(q)
    k = numbers(k)
    v = numbers(v)
    B, H, T, E = q.shape
    K, S, E2 = v.shape[1:]
    if H % K != 0:
        raise ValueError(f"{H} heads cannot share {K} key/value heads evenly")
    if scale is None:
        scale = E**-0.5
    bias = np.broadcast_to(numbers(0.0 if bias is None else bias), (B, H, T, S))
    offsets = np.broadcast_to(numbers(0.0 if offsets is None else offsets), (B, H, T, S))

    products = zeros((B, H, T, S), like=(q, k))
    for b, h, t, s in np.ndindex(B, H, T, S):
        group = h // (H // K)
        dot = 0.0
        for e in range(E):
            dot += q[b, h, t, e] * k[b, group, s, e]
        products[b, h, t, s] = scale * dot
    if cap is not None:
        products = soft_cap(products, cap=cap)

    scores = zeros((B, H, T, S), like=(products, bias))
    for i in np.ndindex(B, H, T, S):
        scores[i] = products[i] + bias[i] + offsets[i]

    probabilities = softmax(scores, mask=mask)

    y = zeros((B, H, T, E2), like=(probabilities, v))
    for b, h, t, e in np.ndindex(B, H, T, E2):
        group = h // (H // K)
        total = 0.0
        for s in range(S):
            total += probabilities[b, h, t, s] * v[b, group, s, e]
        y[b, h, t, e] = total
    return y


def multi_head_attention(
    p: dict,
    x: np.ndarray,
    context: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    *,
    heads: int,
    kv_heads: int | None = None,
    mask: np.ndarray | None = None,
    scale: float | None = None,
    rate: float = 0.0,
    key: None = None,
) -> np.ndarray:
    """y = Concat(head_1 .. head_H) Wo + bo,  head_h = attention(q_h, k_g, v_g),  g = h // (H // K).

    q_h is columns h E to h E + E - 1 of x Wq + bq; k_g and v_g are columns g E to g E + E - 1 of
    c Wk + bk and of c Wv + bv; c is context, or x if context is None.
    p: Wq (D, H*E), Wk (Dc, K*E), Wv (Dc, K*E), Wo (H*E, D), and optionally bq, bk, bv, bo.
    x (B, T, D), context (B, S, Dc) -> y (B, T, D).              Vaswani et al. 2017, sec. 3.2.2
    """
    _refuse_dropout(rate, key)
    kv_heads = heads if kv_heads is None else kv_heads
    context = x if context is None else context
    q = _split(linear(x, p["Wq"], p.get("bq")), heads)
    k = _split(linear(context, p["Wk"], p.get("bk")), kv_heads)
    v = _split(linear(context, p["Wv"], p.get("bv")), kv_heads)
    y = attention(q, k, v, bias, mask=mask, scale=scale)
    return linear(_join(y), p["Wo"], p.get("bo"))


def keys_and_values(p: dict, context: np.ndarray, *, heads: int) -> tuple[np.ndarray, np.ndarray]:
    """k_g and v_g are columns g E to g E + E - 1 of c Wk + bk and of c Wv + bv, c = context.

    context (B, S, Dc) -> k and v (B, heads, S, E).          Vaswani et al. 2017, sec. 3.2.2
    """
    k = _split(linear(context, p["Wk"], p.get("bk")), heads)
    return k, _split(linear(context, p["Wv"], p.get("bv")), heads)


def attend_to(
    p: dict, x: np.ndarray, k: np.ndarray, v: np.ndarray, *, heads: int, mask=None, scale=None
) -> np.ndarray:
    """y_n = Concat(head_1 .. head_H) Wo + bo,  head_h = attention(q_h, k_g, v_g) of sample n.

    As in multi_head_attention, but the keys and values are given: sample n of N has those of sample
    n // (N // B).  x (N, T, D), k (B, K, S, E), v (B, K, S, E2) -> y (N, T, D), mask (B, 1, 1, S).
    Vaswani et al. 2017, sec. 3.2.3
    """
    source = [n // (len(x) // len(k)) for n in range(len(x))]
    q = _split(linear(x, p["Wq"], p.get("bq")), heads)
    seen = None if mask is None else mask[source]
    y = attention(q, k[source], v[source], mask=seen, scale=scale)
    return linear(_join(y), p["Wo"], p.get("bo"))


def normed_heads_attention(
    p: dict, x: np.ndarray, *, heads: int, kv_heads: int, norm, rotary=None, **settings
) -> np.ndarray:
    """As multi_head_attention, but head_h = attention(norm(q_h), norm(k_g), v_g).

    norm(a, gain) acts on each head's vector of E numbers; p's q_norm and k_norm (E,) are the gains.
    rotary(a), if given, turns the normed queries and keys.  settings: of attention.
    Dehghani et al. 2023, sec. 3.1, with LayerNorm; Qwen team 2025, sec. 2, with RMSNorm
    """
    q = norm(_split(linear(x, p["Wq"], p.get("bq")), heads), p["q_norm"])
    k = norm(_split(linear(x, p["Wk"], p.get("bk")), kv_heads), p["k_norm"])
    v = _split(linear(x, p["Wv"], p.get("bv")), kv_heads)
    if rotary is not None:
        q, k = rotary(q), rotary(k)
    return linear(_join(attention(q, k, v, **settings)), p["Wo"], p.get("bo"))


def normed_projections_attention(
    p: dict, x: np.ndarray, *, heads: int, kv_heads: int, norm, rotary=None, **settings
) -> np.ndarray:
    """As multi_head_attention, but its queries are norm(x Wq + bq), its keys norm(x Wk + bk).

    norm(a, gain) acts on all heads' numbers of a token at once, before they are split into heads;
    p's q_norm (H*E,) and k_norm (K*E,) are the gains.  rotary and settings: as above.
    OLMo team 2025, sec. 3.2
    """
    q = _split(norm(linear(x, p["Wq"], p.get("bq")), p["q_norm"]), heads)
    k = _split(norm(linear(x, p["Wk"], p.get("bk")), p["k_norm"]), kv_heads)
    v = _split(linear(x, p["Wv"], p.get("bv")), kv_heads)
    if rotary is not None:
        q, k = rotary(q), rotary(k)
    return linear(_join(attention(q, k, v, **settings)), p["Wo"], p.get("bo"))


def _split(x: np.ndarray, heads: int) -> np.ndarray:
    """y[b, h, t, e] = x[b, t, h E + e].    x (B, T, heads * E) -> y (B, heads, T, E)."""
    batch, length, width = x.shape
    if width % heads != 0:
        raise ValueError(f"width {width} is not a multiple of {heads} heads")
    E = width // heads
    y = zeros((batch, heads, length, E), like=x)
    for b, h, t, e in np.ndindex(y.shape):
        y[b, h, t, e] = x[b, t, h * E + e]
    return y


def _join(x: np.ndarray) -> np.ndarray:
    """y[b, t, h E + e] = x[b, h, t, e].    x (B, heads, T, E) -> y (B, T, heads * E)."""
    batch, heads, length, E = x.shape
    y = zeros((batch, length, heads * E), like=x)
    for b, h, t, e in np.ndindex(x.shape):
        y[b, t, h * E + e] = x[b, h, t, e]
    return y


def _refuse_dropout(rate, key) -> None:
    if rate != 0.0 or key is not None:
        raise ValueError(
            f"the reference has no dropout: rate must be 0.0 and key None, not {rate} and {key}"
        )
