"""Scaled dot-product attention: multi-head, grouped-query, multi-query, self and cross."""

from __future__ import annotations

from typing import Any

from ..arguments import wrong
from ..core import Array, Backward, Component, Tree, add, in_float32, unbroadcast
from ..shapes import broadcastable, expects
from .activation import capped
from .dropout import dropout
from .linear import linear
from .softmax import softmax


@expects(
    "q (B, H, T, E), k (B, K, S, E), v (B, K, S, E2), bias (...) or None, "
    "offsets (N, H, M, S) or None, key (B,) keys or None; "
    "scale or None, cap > 0 or None, 0 <= rate < 1",
    hot=True,
)
@in_float32
def attention(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None = None,
    *,
    mask: Array | None = None,
    scale: float | None = None,
    cap: float | None = None,
    offsets: Array | None = None,
    rate: float = 0.0,
    key: Array | None = None,
) -> tuple[Array, Backward]:
    """o = Pd v,   Pd = dropout(P),   P = softmax(A) over the keys that mask allows,

        A = scale q k^T + bias + offsets.

    Vaswani et al. 2017, eq. 1.   q (B, H, T, E), k (B, K, S, E), v (B, K, S, E2), bias
    broadcastable to (B, H, T, S) or None -> o (B, H, T, E2).   scale is E^-0.5 unless given.
    H = K is multi-head, K = 1 multi-query (Shazeer 2019), K between them grouped-query attention
    (Ainslie et al. 2023): head h reads keys and values h // (H / K).
    mask is boolean, True = may attend; a query without keys gives zeros.
    cap: soft_cap(scale q k^T, cap) takes the place of scale q k^T (Gemma team 2024b, sec. 2).
    offsets: constants without a gradient, broadcastable to (B, H, T, S), such as ALiBi's (B or 1,
    H, 1, S): layers/alibi.py.
    Keeps Q = scale q, k, v, P and Pd.

    dPd = do v^T, which dropout's backward takes to dP;   dA = P * (dP - sum_s dP P), as in
    `softmax`;   with ds = dA, taken back through soft_cap if there is one:
    dq = scale ds k,   dk = ds^T Q,   dv = Pd^T do,   dbias = dA.
    dk and dv are summed over the H / K heads that share them, dbias over the axes that broadcast.
    """
    H, K = check_heads("attention", q, k, v)
    scale = q.shape[-1] ** -0.5 if scale is None else scale

    def grouped(a: Array) -> Array:
        """(B, H, T, n) -> (B, K, H/K * T, n): the queries of a group are the rows of one matrix."""
        return a.reshape(a.shape[0], K, H // K * a.shape[2], a.shape[3])

    def by_head(a: Array) -> Array:
        """(B, K, H/K * T, n) -> (B, H, T, n), the inverse."""
        return a.reshape(a.shape[0], H, a.shape[2] * K // H, a.shape[3])

    Q = scale * grouped(q)
    A, cap_back = capped(by_head(Q @ transposed(k)), cap)
    if bias is not None:
        A = A + broadcastable("attention: bias", bias, A.shape)
    if offsets is not None:
        A = A + broadcastable("attention: offsets", offsets, A.shape)
    P, P_back = softmax(A, mask=mask)
    Pd, Pd_back = dropout(P, rate=rate, key=key)
    o = by_head(grouped(Pd) @ v)

    def backward(do: Array) -> tuple[Array, Array, Array, Array | None]:
        dPd = by_head(grouped(do) @ transposed(v))
        dv = transposed(grouped(Pd)) @ grouped(do)
        dA = P_back(Pd_back(dPd))
        ds = cap_back(dA)  # s = scale q k^T
        dq = scale * by_head(grouped(ds) @ k)
        dk = transposed(grouped(ds)) @ Q
        return dq, dk, dv, None if bias is None else unbroadcast(dA, bias.shape)

    return o, backward


def check_heads(name: str, q: Array, k: Array, v: Array) -> tuple[int, int]:
    """(H, K); ValueError unless q, k and v fit and K divides H."""
    B, H, _, E = q.shape
    K, S = k.shape[1:3]
    if q.dtype.kind != "f" or k.shape != (B, K, S, E) or v.shape[:3] != (B, K, S):
        raise ValueError(
            f"{name}: expected q (B, H, T, E), k (B, K, S, E), v (B, K, S, E2), "
            f"got {q.shape}, {k.shape}, {v.shape}"
        )
    if not K or H % K or not S:
        raise ValueError(
            f"{name}: expected at least one key, and H a multiple of K, "
            f"got q {q.shape} and k {k.shape}"
        )
    return H, K


def transposed(a: Array) -> Array:
    """(..., m, n) -> (..., n, m)."""
    return a.swapaxes(-1, -2)


@expects("x (B, T, N) numbers; whole heads >= 1", hot=True)
def split_heads(x: Array, heads: int) -> Array:
    """(B, T, H * E) -> (B, H, T, E), a view.   ValueError unless the heads divide the width."""
    B, T, width = x.shape
    if width % heads:
        raise wrong("split_heads: heads", f"a divisor of the width, {width}", heads)
    return x.reshape(B, T, heads, width // heads).transpose(0, 2, 1, 3)


@expects("x (B, H, T, E) numbers", hot=True)
def merge_heads(x: Array) -> Array:
    """(B, H, T, E) -> (B, T, H * E), the inverse of split_heads."""
    B, H, T, E = x.shape
    return x.transpose(0, 2, 1, 3).reshape(B, T, H * E)


def projections(p: Tree, x: Array, context: Array | None = None) -> tuple[tuple, Backward]:
    """q, k, v = x Wq + bq, c Wk + bk, c Wv + bv,   c = context, or x itself.

    x (B, T, D), context (B, S, Dc) or None -> q (B, T, H*E), k and v (B, S, K*E).
    dx = dq Wq^T,   dc = dk Wk^T + dv Wv^T;   without a context dc is added to dx.
    backward returns (dp, dx, dcontext).
    """
    if not ("Wq" in p and "Wk" in p and "Wv" in p):
        raise wrong("multi_head_attention: p", "Wq, Wk and Wv", list(p))
    source = x if context is None else context
    q, q_back = linear(x, p["Wq"], p.get("bq"))
    k, k_back = linear(source, p["Wk"], p.get("bk"))
    v, v_back = linear(source, p["Wv"], p.get("bv"))

    def backward(dq: Array, dk: Array, dv: Array) -> tuple[Tree, Array, Array | None]:
        dx, dWq, dbq = q_back(dq)
        dsource_k, dWk, dbk = k_back(dk)
        dsource_v, dWv, dbv = v_back(dv)
        dsource = dsource_k + dsource_v
        dp = {"Wq": dWq, "Wk": dWk, "Wv": dWv, "bq": dbq, "bk": dbk, "bv": dbv}
        return (dp, add(dx, dsource), None) if context is None else (dp, dx, dsource)

    return (q, k, v), backward


def unchanged(p: Tree, q: Array, k: Array, v: Array) -> tuple[tuple, Backward]:
    """Nothing between projection and attention."""
    return (q, k, v), lambda dq, dk, dv: ({}, dq, dk, dv)


@expects(
    "p {Wo Wq? Wk? Wv? Wqkv? bq? bk? bv? bqkv? bo? q_norm? k_norm? Pk? Pv?}, x (B, T, D), "
    "context (B, S, Dc) or None, bias (...) or None; "
    "whole heads >= 1, whole kv_heads >= 1 or None, scale or None, "
    "function project, function between or None, function attend",
    hot=True,
)
def multi_head_attention(
    p: Tree,
    x: Array,
    context: Array | None = None,
    bias: Array | None = None,
    *,
    heads: int,
    kv_heads: int | None = None,
    mask: Any = None,
    scale: float | None = None,
    rate: float = 0.0,
    key: Array | None = None,
    project: Component = projections,
    between: Component | None = None,
    attend: Component = attention,
) -> tuple[Array, Backward]:
    """y = merge(attention(split(x Wq + bq), split(c Wk + bk), split(c Wv + bv))) Wo + bo.

    Vaswani et al. 2017, sec. 3.2.2.   c = context, or x itself; x (B, T, D), context (B, S, Dc) or
    None -> y (B, T, D).   bias, mask, scale, rate and key as in `attention`.
    p: Wq (D, H*E), Wk and Wv (Dc, K*E), Wo (H*E, D), and biases bq, bk, bv, bo where the family has
    them; H = heads, K = kv_heads, or H if None.   split is split_heads, merge is merge_heads.
    The caller may replace three parts (attention_parts.py):
    project  component (p, x, context) -> (q, k, v), each (B, T or S, heads * E)
    between  component (p, q, k, v) -> (q, k, v) by heads, (B, H or K, T or S, E): rotary
             positions, a cache, a trained prefix; None changes nothing
    attend   component (q, k, v, bias) -> o, such as `attention`
    backward returns (dp, dx, dcontext, dbias), None for what was not given, by the chain:
    do = split(dy Wo^T),   dWo = merge(o)^T dy,   then the parts from the last to the first.
    ValueError when the head counts do not divide the widths.
    """
    kv_heads = heads if kv_heads is None else kv_heads
    (q, k, v), project_back = project(p, x, context)
    q, k, v = split_heads(q, heads), split_heads(k, kv_heads), split_heads(v, kv_heads)
    (q, k, v), between_back = (between or unchanged)(p, q, k, v)
    o, attend_back = attend(q, k, v, bias, mask=mask, scale=scale, rate=rate, key=key)
    y, out_back = linear(merge_heads(o), p["Wo"], p.get("bo"))

    def backward(dy: Array) -> tuple[Tree, Array, Array | None, Array | None]:
        do, dWo, dbo = out_back(dy)
        dq, dk, dv, dbias = attend_back(split_heads(do, heads))
        dp_between, dq, dk, dv = between_back(dq, dk, dv)
        dq, dk, dv = merge_heads(dq), merge_heads(dk), merge_heads(dv)
        dp_project, dx, dcontext = project_back(dq, dk, dv)
        dp = {**dp_project, **dp_between, "Wo": dWo, "bo": dbo}
        return {name: dp[name] for name in p}, dx, dcontext, dbias

    return y, backward
