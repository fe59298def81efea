"""Scaled dot-product attention: multi-head, grouped-query, multi-query, self and cross."""

from __future__ import annotations

from ..arguments import wrong
from ..backend import array_module, at_least_float32
from ..core import add, chain, unbroadcast
from ..kernels.block_attention import BLOCK, block_attention
from ..shapes import broadcastable, expects
from .cache import extend
from .dropout import dropout
from .linear import linear
from .mask import Visible
from .softmax import masked_softmax


@expects("q (B, H, T, E), k (B, K, S, E), v (B, K, S, E2), bias (...) or None, key (B,) keys or None; scale or "
         "None, 0 <= rate < 1", hot=True)  # fmt: skip
def attention(q, k, v, bias=None, *, mask=None, scale=None, rate=0.0, key=None):
    """o = dropout(P) v,   P = softmax(scale q k^T + bias) over the keys that mask allows.       Vaswani et al. 2017, eq. 1

    q (B, H, T, E), k (B, K, S, E), v (B, K, S, E2), bias broadcastable to (B, H, T, S) or None -> o (B, H, T, E2).
    H = K is multi-head, K = 1 multi-query (Shazeer 2019), between them grouped-query attention (Ainslie et al. 2023):
    head h reads keys and values h // (H / K).  mask is boolean, True = may attend; a query without keys gives zeros.
    scale is E^-0.5 unless given.  Keeps scale q, k, v, o, P and dropout(P).

    With dP = do v^T taken back through the dropout:   dS = P * (dP - sum_s dP P),   where sum_s dP P = sum_e do o;
    dq = scale dS k,   dk = dS^T (scale q),   dv = dropout(P)^T do, dk and dv summed over the H / K heads that share them,
    dbias = dS summed over the axes it was repeated on.
    """
    B, H, T, E = q.shape
    K, S = k.shape[1:3]
    if q.dtype.kind != "f" or k.shape != (B, K, S, E) or v.shape[:3] != (B, K, S):
        raise ValueError(f"attention: q {q.shape}, k {k.shape} and v {v.shape} do not fit")
    if not K or H % K or not S:
        raise ValueError(f"attention: expected at least one key, and H a multiple of K, got q {q.shape} and k {k.shape}")
    scale = E**-0.5 if scale is None else scale

    def grouped(a):  # (B, H, T, n) -> (B, K, H/K * T, n): the queries of one group are rows of one matrix
        return a.reshape(B, K, H // K * T, a.shape[-1])

    def by_head(a):
        return a.reshape(B, H, T, a.shape[-1])

    scaled_q = q * scale  # q and not the product, which may overflow in float16
    scores = at_least_float32(by_head(grouped(scaled_q) @ k.swapaxes(-1, -2)))
    if bias is not None:
        scores += broadcastable("attention: bias", bias, scores.shape)
    P = masked_softmax(scores, mask)
    kept, drop_back = dropout(P.astype(q.dtype, copy=False), rate=rate, key=key)
    o = by_head(grouped(kept) @ v)

    def backward(do):
        dv = grouped(kept).swapaxes(-1, -2) @ grouped(do)
        dS = at_least_float32(drop_back(by_head(grouped(do) @ v.swapaxes(-1, -2))))
        dS -= (at_least_float32(do) * o).sum(axis=-1, keepdims=True)
        dS *= P
        dbias = None if bias is None else unbroadcast(dS, bias.shape).astype(bias.dtype, copy=False)
        dS = dS.astype(q.dtype, copy=False)
        dq = by_head(grouped(dS) @ k)
        dq *= scale
        dk = grouped(dS).swapaxes(-1, -2) @ grouped(scaled_q)
        return dq, dk, dv, dbias

    return o, backward


@expects("x (B, T, N) numbers; whole heads >= 1", hot=True)
def split_heads(x, heads):
    """(B, T, H * E) -> (B, H, T, E), a view.   ValueError when the heads do not divide the width."""
    B, T, width = x.shape
    if width % heads:
        raise ValueError(f"split_heads: expected heads that divide {width}, got {heads}")
    return x.reshape(B, T, heads, width // heads).transpose(0, 2, 1, 3)


@expects("x (B, H, T, E) numbers", hot=True)
def merge_heads(x):
    """(B, H, T, E) -> (B, T, H * E), the inverse of split_heads."""
    B, H, T, E = x.shape
    return x.transpose(0, 2, 1, 3).reshape(B, T, H * E)


@expects("p {Wo Wq? Wk? Wv? Wqkv? bq? bk? bv? bqkv? bo? Pk? Pv?}, x (B, T, D), context (B, S, Dc) or None, bias (...) or None; "
         "whole heads >= 1, whole kv_heads >= 1 or None, scale or None, function rotary or None", hot=True)  # fmt: skip
def multi_head_attention(p, x, context=None, bias=None, *, heads, kv_heads=None, mask=None, scale=None, rate=0.0, key=None,
                         rotary=None, cache=None):  # fmt: skip
    """y = merge(attention(split(x Wq + bq), split(c Wk + bk), split(c Wv + bv))) Wo + bo,   c = context, or x itself.

    x (B, T, D), context (B, S, Dc) or None, bias as in `attention` -> y (B, T, D).            Vaswani et al. 2017, sec. 3.2.2
    p: Wq (D, H*E), Wk and Wv (Dc, K*E), Wo (H*E, D), and bq, bk, bv, bo where the family has biases; or, without a context,
    Wqkv and bqkv in place of three, as `join_projections` makes them.
    mask: booleans as in `attention`, or a `Visible`, with which long sequences are computed by blocks of queries.
    rotary: a component of one array (B, heads, T, E) that turns queries and keys by their positions (layers/rope.py).
    Pk, Pv (K, P, E) in p, where given: a prefix of trained keys and values in front of the others (Li & Liang 2021, eq. 3),
    seen by all queries and turned by no rotary; the mask is that of the other keys.  Always the plain form, no bias.
    cache: (buffers, start) of this layer (layers/cache.py), into which the new keys and values are written; the queries see them
    behind the old ones, so S = start + T.
    backward gives (dp, dx, dcontext, dbias), None for what was not given.
    ValueError when the head counts do not divide the widths.
    """
    kv_heads = heads if kv_heads is None else kv_heads
    if "Wqkv" not in p and not ("Wq" in p and "Wk" in p and "Wv" in p):
        raise wrong("multi_head_attention: p", "Wq, Wk and Wv, or Wqkv", list(p))
    (q, k, v), project_back = _project_joined(p, x, context, heads, kv_heads) if "Wqkv" in p else _project(p, x, context)
    if heads % kv_heads or q.shape[-1] % heads or k.shape[-1] % kv_heads:
        raise ValueError(f"multi_head_attention: {heads} heads and {kv_heads} key/value heads do not divide "
                         f"queries of width {q.shape[-1]} and keys of width {k.shape[-1]}")  # fmt: skip
    q, q_split_back = chain(split_heads(q, heads), rotary)
    k, k_split_back = chain(split_heads(k, kv_heads), rotary, _store(cache, "k"))
    v, v_split_back = chain(split_heads(v, kv_heads), _store(cache, "v"))
    attend, prefix_back = attention, None
    if "Pk" in p:
        if bias is not None:
            raise ValueError("multi_head_attention: a prefix has no bias: expected None beside Pk and Pv")
        (k, v), prefix_back = with_prefix(k, v, p["Pk"], p["Pv"])
        mask = beyond_prefix(mask, p["Pk"].shape[1])
    elif isinstance(mask, Visible):  # a single block is the plain form, which keeps P and so need not compute it twice
        attend, mask = (block_attention, mask) if x.shape[1] > BLOCK else (attention, mask.array)
    o, o_back = attend(q, k, v, bias, mask=mask, scale=scale, rate=rate, key=key)
    y, y_back = linear(merge_heads(o), p["Wo"], p.get("bo"))

    def backward(dy):
        do, dWo, dbo = y_back(dy)
        dq, dk, dv, dbias = o_back(split_heads(do, heads))
        dprefix = {}
        if prefix_back is not None:
            dk, dv, *dprefix = prefix_back(dk, dv)
            dprefix = dict(zip(("Pk", "Pv"), dprefix))
        split = ((q_split_back, dq), (k_split_back, dk), (v_split_back, dv))
        dp, dx, dcontext = project_back(*(merge_heads(split_back(d)) for split_back, d in split))
        dp |= {"Wo": dWo, "bo": dbo, **dprefix}
        return {name: dp[name] for name in p}, dx, dcontext, dbias

    return y, backward


@expects("k (B, K, S, E), v (B, K, S, E2), Pk (K, P, E), Pv (K, P, E2)")
def with_prefix(k, v, Pk, Pv):
    """Keys and values (B, K, S, E) behind the same P of each sample (K, P, E): (B, K, P + S, E) each.

    backward(dk', dv') gives (dk, dv, dPk, dPv): the columns of S, and those of P summed over the samples.
    """
    xp, P = array_module(k), Pk.shape[1]

    def behind(prefix, a):
        return xp.concatenate([xp.broadcast_to(prefix, (a.shape[0], *prefix.shape)), a], axis=2)

    def backward(dk, dv):
        return dk[:, :, P:], dv[:, :, P:], dk[:, :, :P].sum(axis=0), dv[:, :, :P].sum(axis=0)

    return (behind(Pk, k), behind(Pv, v)), backward


def beyond_prefix(mask, P):
    """The mask (..., T, S) with P columns in front that all queries see; None stays None."""
    mask = mask.array if isinstance(mask, Visible) else mask
    if mask is None:
        return None
    xp = array_module(mask)
    return xp.concatenate([xp.ones((*mask.shape[:-1], P), dtype=bool), mask], axis=-1)


def _project(p, x, context):
    """q, k, v = x Wq + bq, c Wk + bk, c Wv + bv with c = context, or x itself; backward gives (dp, dx, dcontext)."""
    source = x if context is None else context
    q, q_back = linear(x, p["Wq"], p.get("bq"))
    k, k_back = linear(source, p["Wk"], p.get("bk"))
    v, v_back = linear(source, p["Wv"], p.get("bv"))

    def backward(dq, dk, dv):
        dx, dWq, dbq = q_back(dq)
        dsource_k, dWk, dbk = k_back(dk)
        dsource_v, dWv, dbv = v_back(dv)
        dsource = dsource_k + dsource_v
        dp = {"Wq": dWq, "Wk": dWk, "Wv": dWv, "bq": dbq, "bk": dbk, "bv": dbv}
        return (dp, add(dx, dsource), None) if context is None else (dp, dx, dsource)

    return (q, k, v), backward


def _project_joined(p, x, context, heads, kv_heads):
    """q, k, v = the columns of x Wqkv + bqkv; backward gives (dp, dx, None)."""
    if context is not None:
        raise ValueError("multi_head_attention: Wqkv is for self-attention, but a context was given")
    if p["Wqkv"].shape[1] % (heads + 2 * kv_heads):
        raise ValueError(
            f"multi_head_attention: {heads} heads and {kv_heads} key/value heads do not divide Wqkv {p['Wqkv'].shape}"
        )
    y, back = linear(x, p["Wqkv"], p.get("bqkv"))
    E = y.shape[-1] // (heads + 2 * kv_heads)
    q, k, v = y[..., : heads * E], y[..., heads * E : -kv_heads * E], y[..., -kv_heads * E :]

    def backward(*dqkv):
        dx, dW, db = back(array_module(x).concatenate(dqkv, axis=-1))
        return {"Wqkv": dW, "bqkv": db}, dx, None

    return (q, k, v), backward


def join_projections(p):
    """p with Wqkv = [Wq, Wk, Wv], and bqkv where there are biases: a copy, for decoding.  Without gradients.

    One product of a token with a larger matrix is faster than three, of which each has to start its threads.
    """
    xp = array_module(p["Wq"])
    joined = {f"{kind}qkv": xp.concatenate([p[f"{kind}{n}"] for n in "qkv"], axis=-1) for kind in "Wb" if f"{kind}q" in p}
    return {**joined, **{name: a for name, a in p.items() if name[1] == "o" or name[0] == "P"}}


def _store(cache, name):
    """The component that writes keys ("k") or values ("v") into a layer's cache and gives all there are; None without one."""
    if cache is None:
        return None
    if not isinstance(cache, tuple) or len(cache) != 2:
        raise wrong("multi_head_attention: cache", "the buffers and the start of one layer, from layer_cache", cache)
    buffers, start = cache
    return lambda x: extend(x, buffer=buffers[name], start=start)
