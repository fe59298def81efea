"""Prefix tuning: attention with trained keys and values before the sequence's own (Li & Liang 2021,
eq. 3)."""

import numpy as np

from reference.layers.attention import _join, _split, attention
from reference.layers.linear import linear
from reference.scalar import zeros


def prefix_attention(
    p: dict, x: np.ndarray, *, heads: int, kv_heads: int, mask: np.ndarray | None = None
) -> np.ndarray:
    """Self-attention; queries see all P pairs p["Pk"], p["Pv"] (K, P, E), and x by the mask."""
    q = _split(linear(x, p["Wq"], p.get("bq")), heads)
    k = _split(linear(x, p["Wk"], p.get("bk")), kv_heads)
    v = _split(linear(x, p["Wv"], p.get("bv")), kv_heads)
    B, T, P = x.shape[0], x.shape[1], p["Pk"].shape[1]
    keys = zeros((B, kv_heads, P + T, k.shape[3]), like=(p["Pk"], k))
    values = zeros((B, kv_heads, P + T, v.shape[3]), like=(p["Pv"], v))
    seen = np.ones((B, heads, T, P + T), dtype=bool)
    mask = np.ones((T, T), dtype=bool) if mask is None else mask
    allowed = np.broadcast_to(mask, (B, heads, T, T))
    for b in range(B):
        for g in range(kv_heads):
            for s in range(P + T):
                keys[b, g, s] = p["Pk"][g, s] if s < P else k[b, g, s - P]
                values[b, g, s] = p["Pv"][g, s] if s < P else v[b, g, s - P]
        for h in range(heads):
            for t in range(T):
                for s in range(T):
                    seen[b, h, t, P + s] = allowed[b, h, t, s]
    return linear(_join(attention(q, keys, values, mask=seen)), p["Wo"], p.get("bo"))
