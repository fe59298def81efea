"""Cross-attention: the queries of one sequence, the keys and values of another."""

from __future__ import annotations

from typing import Any

from ..arguments import mismatch
from ..core import Array, Backward, Component, Tree, named
from ..shapes import expects
from .attention import attention, merge_heads, split_heads
from .linear import linear


@expects("p {Wk Wv bk? bv? ...}, context (B, S, Dc); whole heads >= 1", hot=True)
def keys_and_values(p: Tree, context: Array, *, heads: int) -> tuple[tuple[Array, Array], Backward]:
    """k = split(c Wk + bk),   v = split(c Wv + bv),   c = context.

    context (B, S, Dc) -> k and v (B, K, S, E), K = heads.   The decoder of a Transformer computes
    them once for all tokens that it generates.
    dc = dk Wk^T + dv Wv^T, with dk and dv merged, and the weights' gradients as in `linear`.
    backward(dk, dv) returns (dp, dc); dp has no other names of p.
    """
    k, k_back = named("k", linear)(context, p["Wk"], p.get("bk"))
    v, v_back = named("v", linear)(context, p["Wv"], p.get("bv"))

    def backward(dk: Array, dv: Array) -> tuple[Tree, Array]:
        dc_k, dWk, dbk = k_back(merge_heads(dk))
        dc_v, dWv, dbv = v_back(merge_heads(dv))
        dp = {"Wk": dWk, "Wv": dWv, "bk": dbk, "bv": dbv}
        return {name: dp[name] for name in p if name in dp}, dc_k + dc_v

    return (split_heads(k, heads), split_heads(v, heads)), backward


@expects(
    "p {Wq Wo bq? bo? ...}, x (N, T, D), k (B, K, S, E), v (B, K, S, E2); "
    "whole heads >= 1, scale or None, 0 <= rate < 1, function attend",
    hot=True,
)
def attend_to(
    p: Tree,
    x: Array,
    k: Array,
    v: Array,
    *,
    heads: int,
    mask: Array | None = None,
    scale: float | None = None,
    rate: float = 0.0,
    key: Array | None = None,
    attend: Component = attention,
) -> tuple[Array, Backward]:
    """y = merge(attention(split(x Wq + bq), k, v)) Wo + bo.

    x (N, T, D) -> y (N, T, D);   k (B, K, S, E), v (B, K, S, E2), N a multiple of B: N / B
    consecutive samples, such as the beams of one source, read the same keys.  As no query is
    hidden from another, they are N / B times as many queries of one sample.
    mask, broadcastable to (B, 1, 1, S): which keys exist; scale, rate, key and attend as in
    multi_head_attention.
    do = split(dy Wo^T),   dWo = merge(o)^T dy, then the gradients of attention;   dx = dq Wq^T.
    backward returns (dp, dx, dk, dv); dp has no other names of p.
    """
    (N, T, _), B = x.shape, k.shape[0]
    if N % B:
        raise mismatch("attend_to: x", f"a multiple of the {B} samples of k", N)
    q, q_back = named("q", linear)(x, p["Wq"], p.get("bq"))
    rows = (B, N // B * T, q.shape[-1])
    q = split_heads(q.reshape(rows), heads)
    o, attend_back = attend(q, k, v, None, mask=mask, scale=scale, rate=rate, key=key)
    merged = merge_heads(o)
    y, out_back = linear(merged.reshape(N, T, merged.shape[-1]), p["Wo"], p.get("bo"))

    def backward(dy: Array) -> tuple[Tree, Array, Array, Array]:
        do, dWo, dbo = out_back(dy)
        do = split_heads(do.reshape(merged.shape), heads)
        dq, dk, dv, _ = attend_back(do)
        dx, dWq, dbq = q_back(merge_heads(dq).reshape(N, T, rows[-1]))
        dp = {"Wq": dWq, "bq": dbq, "Wo": dWo, "bo": dbo}
        return {name: dp[name] for name in p if name in dp}, dx, dk, dv

    return y, backward


def cross_attention(
    p: Tree,
    x: Array,
    context: Array,
    *,
    heads: int,
    kv_heads: int | None = None,
    mask: Array | None = None,
    scale: float | None = None,
    rate: float = 0.0,
    key: Array | None = None,
    attend: Component = attention,
) -> tuple[Array, Backward]:
    """multi_head_attention(p, x, context) in two steps: y = attend_to(p, x, k, v),

        k, v = keys_and_values(p, context).

    x (B, T, D), context (B, S, Dc) -> y (B, T, D); p and options as there.
    dp is the union of the two steps' dp;   backward returns (dp, dx, dcontext).
    """
    (k, v), kv_back = keys_and_values(p, context, heads=heads if kv_heads is None else kv_heads)
    options: dict[str, Any] = {"mask": mask, "scale": scale, "rate": rate, "key": key}
    y, attend_back = attend_to(p, x, k, v, heads=heads, attend=attend, **options)

    def backward(dy: Array) -> tuple[Tree, Array, Array]:
        dp, dx, dk, dv = attend_back(dy)
        dp_kv, dcontext = kv_back(dk, dv)
        dp = {**dp, **dp_kv}
        return {name: dp[name] for name in p}, dx, dcontext

    return y, backward
