"""Multi-head latent attention (MLA): one small vector a token holds all heads' keys and values.

Sizes besides those in DESIGN.md: C the width of that vector c (kv_lora_rank), Q that of the
queries' (q_lora_rank); in a head, E components without position, R rotary ones, E2 of its value.

Two forms of the same attention, with the same parameters.  `latent_attention` expands c to keys and
values; `absorbed_attention` multiplies queries and outputs by those matrices instead, and so never
builds keys and values, which is less work for few queries.  Either takes a cache of
{"c": C, "k_r": R} and one head: C + R numbers a token and layer, where keys and values are
H (E + R + E2).  In DeepSeek-V3 (H 128, C 512, E 128, R 64, E2 128) that is 576 instead of 40,960.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ..arguments import mismatch, wrong
from ..backend import array_module
from ..core import Array, Backward, Component, Tree, named, unbroadcast
from ..shapes import expects
from .attention import attention, merge_heads, split_heads, transposed
from .cache import appended
from .linear import linear
from .norm import rmsnorm

ARGUMENTS = (
    "p {Wdkv kv_norm Wkr Wuk Wuv Wo Wq? Wdq? q_norm? Wuq? bdq? bdkv? bkr? bo?}, x (B, T, D); "
    "whole heads >= 1, function rotary or None, function norm, scale or None"
)


@expects(f"{ARGUMENTS}, function attend", hot=True)
def latent_attention(
    p: Tree,
    x: Array,
    *,
    heads: int,
    rotary: Component | None = None,
    norm: Component = rmsnorm,
    cache: Any = None,
    mask: Any = None,
    scale: float | None = None,
    rate: float = 0.0,
    key: Array | None = None,
    attend: Component = attention,
) -> tuple[Array, Backward]:
    """y = merge(o) Wo + bo,   o = attention([q_c, q_r], [k_c, k_r], v).

        [q_c, q_r'] = norm(x Wdq + bdq) Wuq,   or x Wq,   of each head;   q_r = rotary(q_r')
        c = norm(x Wdkv + bdkv),   k_c = c Wuk,   v = c Wuv;   k_r = rotary(x Wkr + bkr).

    DeepSeek team 2024a (V2), eq. 9-19; 2024b (V3), eq. 1-11.   k_r is one key for all heads.
    p: Wdkv (D, C), kv_norm (C,), Wkr (D, R), Wuk (C, H*E), Wuv (C, H*E2), Wo (H*E2, D);
    Wdq (D, Q), q_norm (Q,), Wuq (Q, H*(E + R)), or Wq (D, H*(E + R)) as in DeepSeek-V2-Lite, each
    head's E columns (the paper's W^UQ) before its R (W^QR); biases bdq, bdkv, bkr, bo if the family
    has them.   x (B, T, D) -> y (B, T, D).
    rotary: component of one array (B, H or 1, T, R), such as `rope` with tables; DeepSeek's files
    need interleaved pairs.   norm: component (x, gamma); eps is 1e-6 in DeepSeek, whatever its
    config says.   cache: of one layer, from layer_cache; c and k_r follow the earlier ones there,
    and nothing flows back into those.   mask, rate, key as in `attention`; scale is (E + R)^-0.5
    unless given (times YaRN's factor: `yarn_score_scale`).   attend: as `attention`.
    backward returns (dp, dx), by the chain:   dc = dk_c Wuk^T + dv Wuv^T, dk_r is summed over the
    heads, dx over the queries, c and k_r.   ValueError when the widths do not fit.
    """
    E, _ = widths("latent_attention", p, heads)
    turn = rotary or identity
    ask, compress = named(("q", "q_rotary"), queries), named(("latent", "k_rotary"), compressed)
    (q_c, q_r), q_back = ask(p, x, heads=heads, rotary=turn, norm=norm)
    (c, k_r), c_back = compress(p, x, rotary=turn, norm=norm, cache=cache)
    k_c, k_back = named("k", linear)(c[:, 0], p["Wuk"])
    v, v_back = named("v", linear)(c[:, 0], p["Wuv"])
    k_c, v = split_heads(k_c, heads), split_heads(v, heads)
    xp = array_module(x)
    shared = xp.broadcast_to(k_r, (*k_c.shape[:3], k_r.shape[3]))
    q, k = xp.concatenate([q_c, q_r], axis=-1), xp.concatenate([k_c, shared], axis=-1)
    o, o_back = attend(q, k, v, None, mask=mask, scale=scale, rate=rate, key=key)
    y, y_back = linear(merge_heads(o), p["Wo"], p.get("bo"))

    def backward(dy: Array) -> tuple[Tree, Array]:
        do, dWo, dbo = y_back(dy)
        dq, dk, dv, _ = o_back(split_heads(do, heads))
        dc_k, dWuk, _ = k_back(merge_heads(dk[..., :E]))
        dc_v, dWuv, _ = v_back(merge_heads(dv))
        dk_r = unbroadcast(dk[..., E:], k_r.shape)
        dp_c, dx = c_back((dc_k + dc_v)[:, None], dk_r)
        dp_q, dx_q = q_back(dq[..., :E], dq[..., E:])
        dp = {**dp_q, **dp_c, "Wuk": dWuk, "Wuv": dWuv, "Wo": dWo, "bo": dbo}
        return {name: dp[name] for name in p}, dx + dx_q

    return y, backward


@expects(f"{ARGUMENTS}, function attend", hot=True)
def absorbed_attention(
    p: Tree,
    x: Array,
    *,
    heads: int,
    rotary: Component | None = None,
    norm: Component = rmsnorm,
    cache: Any = None,
    mask: Any = None,
    scale: float | None = None,
    rate: float = 0.0,
    key: Array | None = None,
    attend: Component = attention,
) -> tuple[Array, Backward]:
    """`latent_attention` without its keys and values: of head h, with Uk = Wuk_h and Uv = Wuv_h,

        q_c k_c^T = q_c (c Uk)^T = (q_c Uk^T) c^T,      P v = P (c Uv) = (P c) Uv,

    so attention takes place among the c themselves, one key and value for all heads:
    o = (P c) Uv,   P = softmax(scale (q_a c^T + q_r k_r^T)),   q_a = q_c Uk^T.
    DeepSeek team 2024a, sec. 2.1.2.
    Arguments, shapes, cache and gradients as there.   A query and key cost 2 C + R products a head
    instead of E + R + E2, but no key has to be expanded, which costs C (E + E2).
    backward: the chain;   dc = dk + dv of the two places where attention takes c.
    """
    E, R = widths("absorbed_attention", p, heads)
    scale = (E + R) ** -0.5 if scale is None else scale
    turn = rotary or identity
    ask, compress = named(("q", "q_rotary"), queries), named(("latent", "k_rotary"), compressed)
    (q_c, q_r), q_back = ask(p, x, heads=heads, rotary=turn, norm=norm)
    (c, k_r), c_back = compress(p, x, rotary=turn, norm=norm, cache=cache)
    q_a, absorb_back = per_head(q_c, transposed(by_head(p["Wuk"], heads)))
    A_r, A_back = shared_scores(scale * q_r, k_r)
    a, a_back = attend(q_a, c, c, A_r, mask=mask, scale=scale, rate=rate, key=key)
    o, o_back = per_head(a, by_head(p["Wuv"], heads))
    y, y_back = linear(merge_heads(o), p["Wo"], p.get("bo"))

    def backward(dy: Array) -> tuple[Tree, Array]:
        do, dWo, dbo = y_back(dy)
        da, dUv = o_back(split_heads(do, heads))
        dq_a, dk, dv, dA_r = a_back(da)
        dq_r, dk_r = A_back(dA_r)
        dq_c, dUk = absorb_back(dq_a)
        dp_c, dx = c_back(dk + dv, dk_r)
        dp_q, dx_q = q_back(dq_c, scale * dq_r)
        dp = {**dp_q, **dp_c, "Wuk": side_by_side(transposed(dUk)), "Wuv": side_by_side(dUv)}
        dp |= {"Wo": dWo, "bo": dbo}
        return {name: dp[name] for name in p}, dx + dx_q

    return y, backward


def queries(
    p: Tree, x: Array, *, heads: int, rotary: Component, norm: Component
) -> tuple[tuple[Array, Array], Backward]:
    """(q_c (B, H, T, E), q_r (B, H, T, R)), the latter turned.   backward(dq_c, dq_r) -> dp, dx."""
    low_rank = "Wq" not in p
    latent, n_back = x, None
    if low_rank:
        h, h_back = linear(x, p["Wdq"], p.get("bdq"))
        latent, n_back = norm(h, p["q_norm"])
    q, q_back = linear(latent, p["Wuq" if low_rank else "Wq"])
    q = split_heads(q, heads)
    E = q.shape[-1] - p["Wkr"].shape[1]
    q_r, turn_back = rotary(q[..., E:])

    def backward(dq_c: Array, dq_r: Array) -> tuple[Tree, Array]:
        dq = array_module(dq_c).concatenate([dq_c, turn_back(dq_r)], axis=-1)
        dlatent, dW, _ = q_back(merge_heads(dq))
        if n_back is None:
            return {"Wq": dW}, dlatent
        dh, dq_norm = n_back(dlatent)
        dx, dWdq, dbdq = h_back(dh)
        return {"Wdq": dWdq, "bdq": dbdq, "q_norm": dq_norm, "Wuq": dW}, dx

    return (q[..., :E], q_r), backward


def compressed(
    p: Tree, x: Array, *, rotary: Component, norm: Component, cache: Any = None
) -> tuple[tuple[Array, Array], Backward]:
    """(c (B, 1, S, C), k_r (B, 1, S, R)), the latter turned; with a cache, after its earlier ones.

    backward(dc, dk_r) -> dp, dx.
    """
    h, h_back = linear(x, p["Wdkv"], p.get("bdkv"))
    c, n_back = norm(h, p["kv_norm"])
    k_r, k_back = linear(x, p["Wkr"], p.get("bkr"))
    k_r, turn_back = rotary(k_r[:, None])
    keep = identity if cache is None else partial(appended, cache=cache)
    c, c_back = keep(c[:, None], name="c")
    k_r, r_back = keep(k_r, name="k_r")

    def backward(dc: Array, dk_r: Array) -> tuple[Tree, Array]:
        dh, dkv_norm = n_back(c_back(dc)[:, 0])
        dx, dWdkv, dbdkv = h_back(dh)
        dx_r, dWkr, dbkr = k_back(turn_back(r_back(dk_r))[:, 0])
        dp = {"Wdkv": dWdkv, "bdkv": dbdkv, "kv_norm": dkv_norm, "Wkr": dWkr, "bkr": dbkr}
        return dp, dx + dx_r

    return (c, k_r), backward


def per_head(x: Array, W: Array) -> tuple[Array, Backward]:
    """y_h = x_h W_h.   x (B, H, T, N), W (H, N, M) -> y (B, H, T, M).

    dx_h = dy_h W_h^T,   dW_h = x_h^T dy_h, summed over samples and positions.
    """
    B, H, T, _ = x.shape

    def rows(a: Array) -> Array:
        """(B, H, T, n) -> (H, B * T, n): one product a head."""
        return a.swapaxes(0, 1).reshape(H, B * T, a.shape[3])

    def back(a: Array) -> Array:
        return a.reshape(H, B, T, a.shape[2]).swapaxes(0, 1)

    def backward(dy: Array) -> tuple[Array, Array]:
        return back(rows(dy) @ transposed(W)), transposed(rows(x)) @ rows(dy)

    return back(rows(x) @ W), backward


def shared_scores(q: Array, k: Array) -> tuple[Array, Backward]:
    """A_h = q_h k^T with one key for all heads.   q (B, H, T, R), k (B, 1, S, R) -> (B, H, T, S).

    dq_h = dA_h k,   dk = sum_h dA_h^T q_h.
    """
    B, H, T, R = q.shape
    rows = q.reshape(B, 1, H * T, R)

    def backward(dA: Array) -> tuple[Array, Array]:
        dA = dA.reshape(B, 1, H * T, k.shape[2])
        return (dA @ k).reshape(q.shape), transposed(dA) @ rows

    return (rows @ transposed(k)).reshape(B, H, T, k.shape[2]), backward


def by_head(W: Array, heads: int) -> Array:
    """(C, H * n) -> (H, C, n), a view: the columns of each head."""
    return W.reshape(W.shape[0], heads, W.shape[1] // heads).swapaxes(0, 1)


def side_by_side(W: Array) -> Array:
    """(H, C, n) -> (C, H * n), the inverse."""
    return W.swapaxes(0, 1).reshape(W.shape[1], W.shape[0] * W.shape[2])


def identity(x: Array, *, name: str = "") -> tuple[Array, Backward]:
    """x itself: no rotary part, no cache."""
    return x, lambda dy: dy


def widths(name: str, p: Tree, heads: int) -> tuple[int, int]:
    """(E, R) of p; ValueError unless its matrices are there and fit each other."""
    if ("Wq" in p) == ("Wuq" in p) or len({"Wdq", "q_norm", "Wuq"} & p.keys()) not in (0, 3):
        raise wrong(f"{name}: p", "either Wq, or Wdq, q_norm and Wuq", list(p))
    query = "Wq" if "Wq" in p else "Wuq"
    for matrix in ("Wdkv", "Wkr", query, "Wuk", "Wuv"):
        if getattr(p[matrix], "ndim", 0) != 2:
            raise wrong(f"{name}: {matrix}", "an array of two axes", p[matrix])
    for matrix in (query, "Wuk", "Wuv"):
        if p[matrix].shape[1] % heads:
            raise wrong(f"{name}: heads", f"a divisor of {matrix}'s columns", heads)
    E, R = p["Wuk"].shape[1] // heads, p["Wkr"].shape[1]
    if p[query].shape[1] != heads * (E + R):
        expected = f"{heads} x ({E} + {R}) columns, as Wuk and Wkr have"
        raise mismatch(f"{name}: {query}", expected, p[query].shape[1])
    C = p["Wdkv"].shape[1]
    for matrix in ("Wuk", "Wuv"):
        if p[matrix].shape[0] != C:
            raise mismatch(f"{name}: {matrix}", f"{C} rows, as Wdkv columns", p[matrix].shape[0])
    return E, R
