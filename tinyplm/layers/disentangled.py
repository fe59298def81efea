"""Disentangled attention (DeBERTa): attention between content and relative position, by tables.

rows (T + S + 1,) says which row of a table each distance between query t and key s has, rows(t - s)
below being rows[S + t - s]: see relative_buckets.py.
"""

from __future__ import annotations

from typing import Any

from ..arguments import wrong
from ..backend import array_module, is_host, scatter_add
from ..core import Array, Backward, Component, Tree, add, named
from ..shapes import expects
from .attention import attention, merge_heads, split_heads, transposed
from .embedding import check_ids
from .linear import linear


@expects("x (B, H, T, E), table (R, H, E), rows (N,) integers")
def relative_scores(x: Array, table: Array, *, rows: Array) -> tuple[Array, Backward]:
    """y[t, s] = x[t] . table[rows(t - s)]: read from the product with the whole table.

    He et al. 2021, eq. 4 (content-to-position), alg. 1.
    x (B, H, T, E), table (R, H, E), rows (T + S + 1,) -> y (B, H, T, S).   Keeps x and table.
    With product = x table^T (B, H, T, R):   dproduct[t, r] = sum of dy[t, s] over the s with
    rows(t - s) = r,   dx = dproduct table,   dtable = dproduct^T x, summed over samples.
    ValueError (on the host) for a row out of range.
    """
    B, H, T, E = x.shape
    xp, R, S = array_module(x), table.shape[0], rows.shape[0] - T - 1
    if is_host(rows):  # on a GPU this check would wait for the device
        check_ids(rows[1:], R, "row")
    query = xp.arange(T)[:, None]
    row = rows[query - xp.arange(S) + S]  # (T, S)
    product = x @ table.transpose(1, 2, 0)  # (B, H, T, R)

    def backward(dy: Array) -> tuple[Array, Array]:
        entries = (query * R + row).reshape(-1)
        dproduct = scatter_add(T * R, entries, dy.reshape(B * H, T * S).T).T.reshape(B, H, T, R)
        dtable = transposed(dproduct) @ x  # (B, H, R, E)
        return dproduct @ table.transpose(1, 0, 2), dtable.sum(axis=0).transpose(1, 0, 2)

    return product[:, :, query, row], backward


@expects(
    "q (B, H, T, E), k (B, H, S, E), v (B, H, S, E2), Kr (R, H, E) or None, Qr (R2, H, E) or None, "
    "rows (N,) integers or None; scale or None, function scores"
)
def disentangled_attention(
    q: Array,
    k: Array,
    v: Array,
    Kr: Array | None = None,
    Qr: Array | None = None,
    *,
    rows: Any = None,
    mask: Array | None = None,
    scale: float | None = None,
    rate: float = 0.0,
    key: Array | None = None,
    scores: Component = relative_scores,
) -> tuple[Array, Backward]:
    """o = dropout(softmax(A)) v over the keys that mask allows,

        A[t, s] = scale (q_t . k_s  +  q_t . Kr[rows(t - s)]  +  k_s . Qr[rows(t - s)]).

    He et al. 2021, eq. 4.   q (B, H, T, E), k (B, H, S, E), v (B, H, S, E2); Kr and Qr (R, H, E),
    the projected tables of relative positions, either or both None to leave its term out
    -> o (B, H, T, E2).   The terms are content-to-content, content-to-position (c2p) and
    position-to-content (p2c).  The paper gives the third the distance s - t, but the released code,
    and so all published weights, t - s.
    scale is 1 / sqrt(E (1 + number of tables)) unless given; mask, rate and key as in `attention`.
    The two position terms are the bias of `attention`; scores computes them: `relative_scores`, or
    its twin in kernels/.  With dv and dA, the gradient of that bias, as in `attention`:

        dq_t = scale sum_s dA[t, s] (k_s + Kr[rows(t - s)]),
        dk_s = scale sum_t dA[t, s] (q_t + Qr[rows(t - s)]),
        dKr[r] = scale sum dA[t, s] q_t,   dQr[r] = scale sum dA[t, s] k_s,

    the last two over all samples and all t, s with rows(t - s) = r.
    ValueError when rows or a table does not fit q and k.
    """
    B, H, T, E = q.shape
    check_tables(q, k, rows, {"Kr": Kr, "Qr": Qr})
    scale = (E * (1 + (Kr is not None) + (Qr is not None))) ** -0.5 if scale is None else scale

    def term(x: Array, table: Array | None, step: int) -> tuple[Array | None, Backward]:
        if table is None:
            return None, lambda dy: (None, None)
        # the table is scaled, since it is smaller than the scores
        y, back = scores(x, table * scale, rows=rows[::step])

        def backward(dy: Array) -> tuple[Array, Array]:
            dx, dtable = back(dy)
            return dx, dtable * scale

        return y, backward

    c2p, c2p_back = term(q, Kr, 1)
    p2c, p2c_back = term(k, Qr, -1)  # (B, H, S, T), by the distance s - t
    bias = add(c2p, None if p2c is None else transposed(p2c))
    o, attention_back = attention(q, k, v, bias, mask=mask, scale=scale, rate=rate, key=key)

    def backward(do: Array) -> tuple[Array | None, ...]:
        dq, dk, dv, dA = attention_back(do)
        dq_c2p, dKr = c2p_back(dA)
        dk_p2c, dQr = p2c_back(None if dA is None else transposed(dA))
        return add(dq, dq_c2p), add(dk, dk_p2c), dv, dKr, dQr

    return o, backward


@expects(
    "p {Wo ...}, x (B, T, D), context (B, S, D) or None, relative (R, D) or None; "
    "whole heads >= 1, function scores"
)
def disentangled_multi_head_attention(
    p: Tree,
    x: Array,
    context: Array | None = None,
    relative: Array | None = None,
    *,
    heads: int,
    terms: tuple[str, ...] | list[str],
    rows: Array | None = None,
    mask: Array | None = None,
    rate: float = 0.0,
    key: Array | None = None,
    scores: Component = relative_scores,
) -> tuple[Array, Backward]:
    """y = merge(disentangled_attention(q, k, v, Kr, Qr)) Wo + bo.    He et al. 2021, eq. 4, alg. 1

    q = x Wq + bq, k = c Wk + bk, v = c Wv + bv, c = context or x;   Kr = relative Wkr + bkr if
    "c2p" is in terms,   Qr = relative Wqr + bqr if "p2c" is; each None otherwise.
    x (B, T, D), context (B, S, D) or None, relative (R, D), the embeddings of relative positions,
    or None -> y (B, T, D).
    p: Wq, Wk, Wv (D, H*E), or Wqkv for `split_interleaved`; Wo (H*E, D), biases bq, ... where the
    family has them; and Wkr, Wqr (D, H*E) with bkr, bqr: without these, positions are projected by
    Wk and Wq of the contents (share_att_key).
    scale = 1 / sqrt(E (1 + number of terms)), with or without `relative`.
    backward returns (dp, dx, dcontext, drelative), None for what was not given: the gradients of
    `disentangled_attention`, each taken back through its projection.  Those that share an input or
    a matrix are added.
    """
    check_terms(terms)
    p, separated_back = separated(p, heads)
    source = x if context is None else context
    q, q_back = named("q", linear)(x, p["Wq"], p.get("bq"))
    k, k_back = named("k", linear)(source, p["Wk"], p.get("bk"))
    v, v_back = named("v", linear)(source, p["Wv"], p.get("bv"))
    if q.shape[-1] % heads:
        expected = f"a divisor of the queries' width, {q.shape[-1]}"
        raise wrong("disentangled_multi_head_attention: heads", expected, heads)
    Kr, Kr_back = projected_positions(p, relative if "c2p" in terms else None, "kr", "k", heads)
    Qr, Qr_back = projected_positions(p, relative if "p2c" in terms else None, "qr", "q", heads)
    E = q.shape[-1] // heads
    o, o_back = named("heads", disentangled_attention)(
        split_heads(q, heads),
        split_heads(k, heads),
        split_heads(v, heads),
        Kr,
        Qr,
        rows=rows,
        mask=mask,
        scale=(E * (1 + len(terms))) ** -0.5,
        rate=rate,
        key=key,
        scores=scores,
    )
    y, y_back = linear(merge_heads(o), p["Wo"], p.get("bo"))

    def backward(dy: Array) -> tuple[Tree, Array, Array | None, Array | None]:
        do, dWo, dbo = y_back(dy)
        dq, dk, dv, dKr, dQr = o_back(split_heads(do, heads))
        dx, dWq, dbq = q_back(merge_heads(dq))
        dsource_k, dWk, dbk = k_back(merge_heads(dk))
        dsource_v, dWv, dbv = v_back(merge_heads(dv))
        dp = {"Wq": dWq, "Wk": dWk, "Wv": dWv, "Wo": dWo}
        dp |= {"bq": dbq, "bk": dbk, "bv": dbv, "bo": dbo}
        (dp_Kr, drelative_Kr), (dp_Qr, drelative_Qr) = Kr_back(dKr), Qr_back(dQr)
        dp = separated_back(add(add(dp, dp_Kr), dp_Qr))
        dsource, drelative = dsource_k + dsource_v, add(drelative_Kr, drelative_Qr)
        if context is None:
            return dp, dx + dsource, None, drelative
        return dp, dx, dsource, drelative

    return y, backward


def projected_positions(
    p: Tree, relative: Array | None, own: str, shared: str, heads: int
) -> tuple[Array | None, Backward]:
    """relative W + b as a table (R, H, E), with W = p["W" + own], or p["W" + shared] without that.

    relative (R, D), or None, which gives None.   backward returns (the part of dp, drelative).
    """
    if relative is None:
        return None, lambda dtable: (None, None)
    name = own if f"W{own}" in p else shared
    table, back = linear(relative, p[f"W{name}"], p.get(f"b{name}"))

    def backward(dtable: Array) -> tuple[Tree, Array]:
        drelative, dW, db = back(dtable.reshape(table.shape))
        return {f"W{name}": dW, f"b{name}": db}, drelative

    return table.reshape(len(relative), heads, -1), backward


@expects("W (D, N); whole heads >= 1")
def split_interleaved(W: Array, *, heads: int) -> tuple[Array, Backward]:
    """y[0], y[1], y[2] = the columns of W for queries, keys, values, which W holds head by head.

    W (D, heads * 3 * E) -> y (3, D, heads * E); DeBERTa v1's files have such a W.
    dW = the columns of dy, put back in their places.
    """
    D, width = W.shape
    if width % (3 * heads):
        raise wrong("split_interleaved: W", f"3 times {heads} equal heads as columns", W)

    def backward(dy: Array) -> Array:
        return dy.reshape(3, D, heads, -1).transpose(1, 2, 0, 3).reshape(D, width)

    return W.reshape(D, heads, 3, -1).transpose(2, 0, 1, 3).reshape(3, D, width // 3), backward


def separated(p: Tree, heads: int) -> tuple[Tree, Backward]:
    """p with Wq, Wk and Wv in place of Wqkv, where it has that."""
    if "Wqkv" not in p:
        return p, lambda dp: {name: dp[name] for name in p}
    W, back = split_interleaved(p["Wqkv"], heads=heads)

    def backward(dp: Tree) -> Tree:
        dW = array_module(W).stack([dp["Wq"], dp["Wk"], dp["Wv"]])
        return {name: back(dW) if name == "Wqkv" else dp[name] for name in p}

    others = {name: a for name, a in p.items() if name != "Wqkv"}
    return {"Wq": W[0], "Wk": W[1], "Wv": W[2], **others}, backward


def check_terms(terms: tuple[str, ...] | list[str]) -> None:
    """ValueError unless they are some of c2p and p2c."""
    right = isinstance(terms, (tuple, list))
    if not right or not all(isinstance(t, str) and t in ("c2p", "p2c") for t in terms):
        raise wrong("disentangled_multi_head_attention: terms", "a tuple of c2p and p2c", terms)


def check_tables(q: Array, k: Array, rows: Array | None, tables: dict[str, Array | None]) -> None:
    """ValueError unless rows and the tables that are given fit q and k."""
    (H, T, E), S = q.shape[1:], k.shape[2]
    shape = getattr(rows, "shape", None)
    for name, table in tables.items():
        if table is not None and (table.shape[1:] != (H, E) or shape != (T + S + 1,)):
            raise ValueError(
                f"disentangled_attention: {name}, rows: expected (R, {H}, {E}) and ({T + S + 1},) "
                f"for q {q.shape} and k {k.shape}, got {table.shape} and {shape}"
            )
