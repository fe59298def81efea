"""Attention sinks: a learned logit of each head joins the softmax and has no value (gpt-oss)."""

from __future__ import annotations

from typing import Any

from ..backend import array_module, sum_float32
from ..core import Array, Backward, Component, in_float32
from ..shapes import broadcastable, expects
from .attention import check_heads, transposed
from .attention_parts import beyond_prefix
from .dropout import dropout
from .mask import Visible, check_boolean


@expects("x (B, H, T, S), sinks (H,)", hot=True)
@in_float32
def sink_softmax(x: Array, sinks: Array, *, mask: Array | None = None) -> tuple[Array, Backward]:
    """p_i = exp(x_i) / (exp(s) + sum_j exp(x_j)), over the entries where mask is True; else p = 0.

    OpenAI 2025, sec. 2.2.   x (B, H, T, S), s = sinks[h] (H,), mask boolean and broadcastable to x
    -> p (B, H, T, S), whose rows sum to 1 - p_s,   p_s = exp(s) / (exp(s) + sum_j exp(x_j)).
    Keeps p and p_s.   A row with no True entry gives zeros.
    dx = p * (dp - m),   m = sum_j dp_j p_j,   ds = -sum p_s m over samples and queries.
    TypeError when the mask is not boolean.
    """
    xp = array_module(x)
    s = sinks.reshape(x.shape[1], 1, 1)
    if mask is not None:
        check_boolean(mask)
        x = xp.where(broadcastable("mask", mask, x.shape), x, float("-inf"))
    top = xp.maximum(x.max(axis=-1, keepdims=True), s)  # cancels: no exponential overflows
    e, e_s = xp.exp(x - top), xp.exp(s - top)
    total = e_s + e.sum(axis=-1, keepdims=True)
    p, p_s = e / total, e_s / total

    def backward(dp: Array) -> tuple[Array, Array]:
        m = (dp * p).sum(axis=-1, keepdims=True)
        return p * (dp - m), -sum_float32(p_s * m, axis=(0, 2, 3))

    return p, backward


@expects(
    "q (B, H, T, E), k (B, K, S, E), v (B, K, S, E2), sinks (H,), key (B,) keys or None; "
    "scale or None, 0 <= rate < 1",
    hot=True,
)
@in_float32
def sink_attention(
    q: Array,
    k: Array,
    v: Array,
    sinks: Array,
    *,
    mask: Array | None = None,
    scale: float | None = None,
    rate: float = 0.0,
    key: Array | None = None,
) -> tuple[Array, Backward]:
    """o = Pd v,   Pd = dropout(P),   P = sink_softmax(A, s_h) over the keys that mask allows,

        A = scale q k^T,   P_ts = exp(A_ts) / (exp(s_h) + sum_u exp(A_tu)).

    OpenAI 2025, sec. 2.2.   As `attention`, except that head h can attend to nothing: with a key of
    score s_h and value 0, a sink.   sinks s (H,); the others as in `attention` -> o (B, H, T, E2).
    A query without keys gives zeros.   Keeps Q = scale q, k, v, Pd, P and the sinks' share of it.

    dPd = do v^T, which dropout's backward takes to dP;   dA and dsinks of sink_softmax;
    dq = scale dA k,   dk = dA^T Q,   dv = Pd^T do, dk and dv summed over the H / K heads that share
    them.   backward returns (dq, dk, dv, dsinks).
    """
    H, K = check_heads("sink_attention", q, k, v)
    scale = q.shape[-1] ** -0.5 if scale is None else scale

    def grouped(a: Array) -> Array:
        """(B, H, T, n) -> (B, K, H/K * T, n): the queries of a group are the rows of one matrix."""
        return a.reshape(a.shape[0], K, H // K * a.shape[2], a.shape[3])

    def by_head(a: Array) -> Array:
        """(B, K, H/K * T, n) -> (B, H, T, n), the inverse."""
        return a.reshape(a.shape[0], H, a.shape[2] * K // H, a.shape[3])

    Q = scale * grouped(q)
    A = by_head(Q @ transposed(k))
    P, P_back = sink_softmax(A, sinks, mask=mask)
    Pd, Pd_back = dropout(P, rate=rate, key=key)
    o = by_head(grouped(Pd) @ v)

    def backward(do: Array) -> tuple[Array, Array, Array, Array]:
        dPd = by_head(grouped(do) @ transposed(v))
        dv = transposed(grouped(Pd)) @ grouped(do)
        dA, dsinks = P_back(Pd_back(dPd))
        dq = scale * by_head(grouped(dA) @ k)
        dk = transposed(grouped(dA)) @ Q
        return dq, dk, dv, dsinks

    return o, backward


def sinks_beyond(attend: Component, P: int) -> Component:
    """`attend` where the first P keys are a prefix that all queries see: attend_beyond, with sinks.

    attend: a component (q, k, v, sinks) with a mask, such as sink_attention; mask: of the others.
    """

    def beyond(
        q: Array, k: Array, v: Array, sinks: Array, *, mask: Any, **options: Any
    ) -> tuple[Array, Backward]:
        return attend(q, k, v, sinks, mask=beyond_prefix(mask, P), **options)

    return beyond


def sink_scores_and_probabilities(
    q: Array,
    k: Array,
    v: Array,
    sinks: Array,
    *,
    mask: Visible | Array | None = None,
    scale: float | None = None,
    rate: float = 0.0,
    key: Array | None = None,
) -> tuple[tuple[Array, Array], Backward]:
    """(A, P) of `sink_attention`: as scores_and_probabilities, with P = sink_softmax(A)."""
    mask = mask.array if isinstance(mask, Visible) else mask
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat(group, axis=1), v.repeat(group, axis=1)
    A = (q.shape[-1] ** -0.5 if scale is None else scale) * (q @ transposed(k))
    P, P_back = sink_softmax(A, sinks, mask=mask)
    _, drop_back = dropout(P, rate=rate, key=key)

    def backward(do: Array) -> tuple[Array, Array]:
        dP = drop_back(do @ transposed(v))
        return P_back(dP)[0], dP

    return (A, P), backward
