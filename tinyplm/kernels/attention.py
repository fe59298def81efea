"""Attention, by blocks of queries where sequences are long, and self-attention with the parts that a call asks for."""

from __future__ import annotations

from ..layers import attention as plain
from ..layers.attention import multi_head_attention, projections
from ..layers.attention_parts import attend_beyond, cached, in_order, joined, prefixed, turned
from ..layers.mask import Visible
from ..shapes import expects
from .block_attention import BLOCK, block_attention


def attention(q, k, v, bias=None, *, mask=None, scale=None, rate=0.0, key=None):
    """layers.attention.attention, by blocks where the mask is a `Visible` and there is more than one block of queries.

    A single block is the plain form, which keeps P and so need not compute it twice.
    """
    if isinstance(mask, Visible):
        if q.shape[2] > BLOCK:
            return block_attention(q, k, v, bias, mask=mask, scale=scale, rate=rate, key=key)
        mask = mask.array
    return plain.attention(q, k, v, bias, mask=mask, scale=scale, rate=rate, key=key)


@expects("p {Wo Wq? Wk? Wv? Wqkv? bq? bk? bv? bqkv? bo? Pk? Pv?}, x (B, T, D); whole heads >= 1, whole kv_heads >= 1 or None, "
         "function rotary or None", hot=True)  # fmt: skip
def self_attention(p, x, *, heads, kv_heads=None, rotary=None, cache=None, mask=None, scale=None, rate=0.0, key=None):
    """multi_head_attention of x by itself, with mask, scale, rate and key as there.  backward gives (dp, dx).

    rotary and cache are parts as in layers/attention_parts.py.  What the tree has decides the others: Wqkv is a joined projection
    (for decoding), Pk and Pv are a trained prefix in front of the keys (Li & Liang 2021, eq. 3), which no rotary turns.
    """
    prefix = "Pk" in p
    between = in_order(turned(rotary) if rotary else None, cached(cache) if cache else None, prefixed if prefix else None)
    y, back = multi_head_attention(
        p, x, heads=heads, kv_heads=kv_heads, mask=mask, scale=scale, rate=rate, key=key, between=between,
        project=joined(heads, kv_heads) if "Wqkv" in p else projections,
        attend=attend_beyond(plain.attention, p["Pk"].shape[1]) if prefix else attention)  # fmt: skip
    return y, lambda dy: back(dy)[:2]
