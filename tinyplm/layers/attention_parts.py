"""Parts of multi-head attention that a caller chooses: rotary positions, norms, cache, prefix."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..arguments import wrong
from ..backend import array_module
from ..core import Array, Backward, Component, Tree
from ..shapes import expects
from .activation import capped
from .cache import appended, parts_of
from .dropout import dropout
from .linear import linear
from .mask import Visible, check_boolean
from .softmax import softmax


def turned(rotary: Component) -> Component:
    """(rotary(q), rotary(k), v); rotary: a component of one array, as `rope` with tables."""

    def between(p: Tree, q: Array, k: Array, v: Array) -> tuple[tuple, Backward]:
        q, q_back = rotary(q)
        k, k_back = rotary(k)
        return (q, k, v), lambda dq, dk, dv: ({}, q_back(dq), k_back(dk), dv)

    return between


def normed_heads(norm: Component) -> Component:
    """(norm(q, q_norm), norm(k, k_norm), v), each head on its own: p's q_norm and k_norm (E,).

    Qwen team 2025, sec. 2 (QK-Norm; Dehghani et al. 2023, sec. 3.1).   norm: a component (x, gamma)
    over the last axis, such as rmsnorm.   backward returns its gradients in p's names.
    """

    def between(p: Tree, q: Array, k: Array, v: Array) -> tuple[tuple, Backward]:
        q, q_back = norm(q, p["q_norm"])
        k, k_back = norm(k, p["k_norm"])

        def backward(dq: Array, dk: Array, dv: Array) -> tuple[Tree, Array, Array, Array]:
            dq, dq_norm = q_back(dq)
            dk, dk_norm = k_back(dk)
            return {"q_norm": dq_norm, "k_norm": dk_norm}, dq, dk, dv

        return (q, k, v), backward

    return between


def normed_projections(project: Component, norm: Component) -> Component:
    """`project` with norm(q, q_norm) and norm(k, k_norm) over the whole width, all heads together.

    OLMo team 2025, sec. 3.2.   p's q_norm (H*E,) and k_norm (K*E,); norm as in `normed_heads`.
    """

    between = normed_heads(norm)

    def normed(p: Tree, x: Array, context: Array | None = None) -> tuple[tuple, Backward]:
        qkv, project_back = project(p, x, context)
        qkv, norms_back = between(p, *qkv)

        def backward(*dqkv: Array) -> tuple[Tree, Array, Array | None]:
            dnorms, *dqkv = norms_back(*dqkv)
            dp, dx, dcontext = project_back(*dqkv)
            return {**dp, **dnorms}, dx, dcontext

        return qkv, backward

    return normed


def cached(cache: Any) -> Component:
    """(q, [earlier keys, k], [earlier values, v]): k and v are also written into the layer's cache.

    cache: (buffers, start, window) from layer_cache; S = start + T, or with a window, that many of
    the earlier keys at most, less 1, and T.   The gradients of k and v are the last T places of
    those that come in; nothing flows into the cache.
    """
    parts_of("cached: cache", cache)

    def between(p: Tree, q: Array, k: Array, v: Array) -> tuple[tuple, Backward]:
        k, k_back = appended(k, cache=cache, name="k")
        v, v_back = appended(v, cache=cache, name="v")
        return (q, k, v), lambda dq, dk, dv: ({}, dq, k_back(dk), v_back(dv))

    return between


def prefixed(p: Tree, q: Array, k: Array, v: Array) -> tuple[tuple, Backward]:
    """(q, [Pk, k], [Pv, v]) with p's Pk and Pv (K, P, E), trained keys and values: with_prefix.

    To be attended to by `attend_beyond`.
    """
    (k, v), back = with_prefix(k, v, p["Pk"], p["Pv"])

    def backward(dq: Array, dk: Array, dv: Array) -> tuple[Tree, Array, Array, Array]:
        dk, dv, dPk, dPv = back(dk, dv)
        return {"Pk": dPk, "Pv": dPv}, dq, dk, dv

    return (q, k, v), backward


def in_order(*parts: Component | None) -> Component | None:
    """Several parts between projection and attention, in this order; None if there is none."""
    chosen = [part for part in parts if part is not None]
    if len(chosen) < 2:
        return chosen[0] if chosen else None

    def between(p: Tree, q: Array, k: Array, v: Array) -> tuple[tuple, Backward]:
        backs = []
        for part in chosen:
            (q, k, v), back = part(p, q, k, v)
            backs.append(back)

        def backward(dq: Array, dk: Array, dv: Array) -> tuple[Tree, Array, Array, Array]:
            dp: Tree = {}
            for back in reversed(backs):
                dpart, dq, dk, dv = back(dq, dk, dv)
                dp |= dpart
            return dp, dq, dk, dv

        return (q, k, v), backward

    return between


def attend_beyond(attend: Component, P: int) -> Component:
    """`attend` where the first P keys are a prefix that all queries see; mask: of the others."""

    def beyond(
        q: Array, k: Array, v: Array, bias: Array | None, *, mask: Any, **options: Any
    ) -> tuple[Array, Backward]:
        if bias is not None:
            raise wrong("attend_beyond: bias", "None, since a prefix has no bias", bias)
        if options.get("offsets") is not None:
            expected = "None, since a prefix has no position (ALiBi)"
            raise wrong("attend_beyond: offsets", expected, options["offsets"])
        return attend(q, k, v, None, mask=beyond_prefix(mask, P), **options)

    return beyond


def scores_and_probabilities(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None = None,
    *,
    mask: Visible | Array | None = None,
    scale: float | None = None,
    cap: float | None = None,
    offsets: Array | None = None,
    rate: float = 0.0,
    key: Array | None = None,
) -> tuple[tuple[Array, Array], Backward]:
    """(A, P) of `attention`, which does not return them: what a trace adds on request.

    A, the scores before the mask, P = softmax(A) where mask allows, (B, H, T, S) each.
    backward(do) gives (dA, dP) at the gradient of attention's output, which P alone passes on:
    dP = do v^T taken back through the dropout,   dA = P * (dP - sum_s dP P).
    """
    mask = mask.array if isinstance(mask, Visible) else mask
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat(group, axis=1), v.repeat(group, axis=1)
    A = (q.shape[-1] ** -0.5 if scale is None else scale) * (q @ k.swapaxes(-1, -2))
    A, _ = capped(A, cap)
    for more in (bias, offsets):
        A = A if more is None else A + more
    P, P_back = softmax(A, mask=mask)
    _, drop_back = dropout(P, rate=rate, key=key)

    def backward(do: Array) -> tuple[Array, Array]:
        dP = drop_back(do @ v.swapaxes(-1, -2))
        return P_back(dP), dP

    return (A, P), backward


@expects("k (B, K, S, E), v (B, K, S, E2), Pk (K, P, E), Pv (K, P, E2)")
def with_prefix(k: Array, v: Array, Pk: Array, Pv: Array) -> tuple[tuple[Array, Array], Backward]:
    """[Pk, k] and [Pv, v] along the keys, with the same prefix for each sample.

    Li & Liang 2021, eq. 3.   k (B, K, S, E), v (B, K, S, E2), Pk (K, P, E), Pv (K, P, E2)
    -> (B, K, P + S, E), (B, K, P + S, E2).   backward returns (dk, dv, dPk, dPv): the last S places
    of each gradient, and the first P summed over the samples.
    """
    xp, P = array_module(k), Pk.shape[1]

    def joined_keys(prefix: Array, a: Array) -> Array:
        return xp.concatenate([xp.broadcast_to(prefix, (a.shape[0], *prefix.shape)), a], axis=2)

    def backward(dk: Array, dv: Array) -> tuple[Array, Array, Array, Array]:
        return dk[:, :, P:], dv[:, :, P:], dk[:, :, :P].sum(axis=0), dv[:, :, :P].sum(axis=0)

    return (joined_keys(Pk, k), joined_keys(Pv, v)), backward


def beyond_prefix(mask: Visible | Array | None, P: int) -> Array | None:
    """The mask (..., T, S) with P more columns in front that all queries see; None stays None."""
    mask = mask.array if isinstance(mask, Visible) else mask
    if mask is None:
        return None
    check_boolean(mask)
    xp = array_module(mask)
    return xp.concatenate([xp.ones((*mask.shape[:-1], P), dtype=bool), mask], axis=-1)


def joined(heads: int, kv_heads: int | None = None) -> Component:
    """The projections by one matrix, for decoding: [q, k, v] = x Wqkv + bqkv.

    See join_projections.   Gradients as in `linear`, at [dq, dk, dv].
    """
    kv_heads = heads if kv_heads is None else kv_heads
    return partial(_joined, heads=heads, kv_heads=kv_heads)


def _joined(
    p: Tree, x: Array, context: Array | None = None, *, heads: int, kv_heads: int
) -> tuple[tuple, Backward]:
    W = p["Wqkv"]
    if context is not None:
        raise wrong("joined: context", "None, since Wqkv is for self-attention", context)
    if W.shape[1] % (heads + 2 * kv_heads):
        raise wrong(
            "joined: Wqkv", f"columns of {heads} heads and 2 x {kv_heads} key/value heads", W
        )
    y, back = linear(x, W, p.get("bqkv"))
    E = y.shape[-1] // (heads + 2 * kv_heads)
    q, k, v = y[..., : heads * E], y[..., heads * E : -kv_heads * E], y[..., -kv_heads * E :]

    def backward(*dqkv: Array) -> tuple[Tree, Array, None]:
        dx, dW, db = back(array_module(x).concatenate(dqkv, axis=-1))
        return {"Wqkv": dW, "bqkv": db}, dx, None

    return (q, k, v), backward


def join_projections(p: Tree) -> Tree:
    """p with Wqkv = [Wq, Wk, Wv], and bqkv if there are biases: a copy, for decoding.  No gradient.

    For a single token, one product with a larger matrix is faster than three, each of which has to
    start its threads.  Latent attention (latent.py) stays as it is.
    """
    if "Wk" not in p:
        return p
    xp = array_module(p["Wq"])
    own = {
        f"{kind}qkv": xp.concatenate([p[f"{kind}{n}"] for n in "qkv"], axis=-1)
        for kind in "Wb"
        if f"{kind}q" in p
    }
    joined = {f"{kind}{n}" for kind in "Wb" for n in "qkv"}
    return {**own, **{name: a for name, a in p.items() if name not in joined}}
