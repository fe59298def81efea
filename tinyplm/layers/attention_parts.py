"""Parts of multi-head attention that a caller chooses: rotary positions, a cache, a trained prefix, joined projections."""

from __future__ import annotations

from functools import partial

from ..arguments import wrong
from ..backend import array_module
from ..shapes import expects
from .cache import extend
from .linear import linear
from .mask import Visible, check_boolean


def turned(rotary):
    """Queries and keys turned by their positions; rotary is a component of one array (B, heads, T, E) (layers/rope.py)."""

    def between(p, q, k, v):
        q, q_back = rotary(q)
        k, k_back = rotary(k)
        return (q, k, v), lambda dq, dk, dv: ({}, q_back(dq), k_back(dk), dv)

    return between


def cached(cache):
    """Keys and values written into a layer's cache, behind the old ones, all of which come out.

    cache: (buffers, start) of layer_cache, so S = start + T.  Backward takes the columns of the new ones.
    """
    if not isinstance(cache, tuple) or len(cache) != 2:
        raise wrong("cached: cache", "the buffers and the start of one layer, from layer_cache", cache)
    buffers, start = cache

    def between(p, q, k, v):
        k, k_back = extend(k, buffer=buffers["k"], start=start)
        v, v_back = extend(v, buffer=buffers["v"], start=start)
        return (q, k, v), lambda dq, dk, dv: ({}, dq, k_back(dk), v_back(dv))

    return between


def prefixed(p, q, k, v):
    """p's Pk and Pv (K, P, E), trained keys and values, in front of the others; to be followed by `attend_beyond`."""
    (k, v), back = with_prefix(k, v, p["Pk"], p["Pv"])

    def backward(dq, dk, dv):
        dk, dv, dPk, dPv = back(dk, dv)
        return {"Pk": dPk, "Pv": dPv}, dq, dk, dv

    return (q, k, v), backward


def in_order(*parts):
    """Several parts between projection and attention as one, None for none."""
    parts = [part for part in parts if part is not None]
    if len(parts) < 2:
        return parts[0] if parts else None

    def between(p, q, k, v):
        backs = []
        for part in parts:
            (q, k, v), back = part(p, q, k, v)
            backs.append(back)

        def backward(dq, dk, dv):
            dp = {}
            for back in reversed(backs):
                dpart, dq, dk, dv = back(dq, dk, dv)
                dp |= dpart
            return dp, dq, dk, dv

        return (q, k, v), backward

    return between


def attend_beyond(attend, P):
    """`attend` where the first P keys are a prefix: all queries see it, and the mask is that of the other keys."""

    def beyond(q, k, v, bias, *, mask, **options):
        if bias is not None:
            raise wrong("attend_beyond: bias", "None, since a prefix has no bias", bias)
        return attend(q, k, v, None, mask=beyond_prefix(mask, P), **options)

    return beyond


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
    check_boolean(mask)
    xp = array_module(mask)
    return xp.concatenate([xp.ones((*mask.shape[:-1], P), dtype=bool), mask], axis=-1)


def joined(heads, kv_heads=None):
    """The projections by one matrix: q, k, v = the columns of x Wqkv + bqkv, as `join_projections` puts them."""
    kv_heads = heads if kv_heads is None else kv_heads
    return partial(_joined, heads=heads, kv_heads=kv_heads)


def _joined(p, x, context=None, *, heads, kv_heads):
    if context is not None:
        raise ValueError("joined: context: expected None, since Wqkv is for self-attention, got one")
    if p["Wqkv"].shape[1] % (heads + 2 * kv_heads):
        raise ValueError(f"joined: expected Wqkv for {heads} heads and {kv_heads} key/value heads, got {p['Wqkv'].shape}")
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
