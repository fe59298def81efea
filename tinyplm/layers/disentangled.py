"""Disentangled attention (DeBERTa): content and relative position attend to each other, by tables of relative positions.

`rows` (T + S + 1,) says which row of a table a distance between query and key has: see relative_buckets.py.
"""

from __future__ import annotations

from ..arguments import wrong
from ..backend import array_module, scatter_add
from ..core import add
from ..shapes import expects
from .attention import attention, merge_heads, split_heads
from .embedding import embedding
from .linear import linear
from .relative_shift import relative_shift


@expects("x (B, H, T, E), table (R, H, E), rows (N,) integers")
def gathered_scores(x, table, *, rows):
    """y[t, s] = x[t] . table[rows(t - s)] as it is defined: the product with the whole table, of which each (t, s) picks one.

    x (B, H, T, E), table (R, H, E), rows (T + S + 1,) -> y (B, H, T, S).      He et al. 2021, eq. 4 (content-to-position), alg. 1
    Backward: a row's gradient is the sum of dy over the places that picked it; then that of a product.
    """
    B, H, T, E = x.shape
    xp, R, S = array_module(x), table.shape[0], rows.shape[0] - T - 1
    query = xp.arange(T)[:, None]
    picked = rows[query - xp.arange(S) + S]  # (T, S)
    products = x @ table.transpose(1, 2, 0)  # (B, H, T, R)

    def backward(dy):
        places = (query * R + picked).reshape(-1)
        dproducts = scatter_add(T * R, places, dy.reshape(B * H, T * S).T).T.reshape(B, H, T, R)
        dtable = dproducts.swapaxes(-1, -2) @ x  # (B, H, R, E)
        return dproducts @ table.transpose(1, 0, 2), dtable.sum(axis=0).transpose(1, 0, 2)

    return products[:, :, query, picked], backward


@expects("x (B, H, T, E), table (R, H, E), rows (N,) integers")
def relative_scores(x, table, *, rows):
    """The same as `gathered_scores`, without picking: the table's rows are laid out by distance, T down to 1 - S, so that y[t, s]
    stands in column T - t + s of the product, which is shifted (see relative_shift.py).

    A row that several distances share is multiplied as often; picking and adding up single numbers takes longer than that.
    Backward: shifted back, then that of a product; the gradients of a row's copies are added up.
    """
    B, H, T, E = x.shape
    S = rows.shape[0] - T - 1
    by_distance, table_back = embedding(table.reshape(len(table), H * E), ids=rows[:0:-1], name="row")
    by_head = by_distance.reshape(T + S, H, E).transpose(1, 0, 2)  # (H, T + S, E)
    y, shift_back = relative_shift(x @ by_head.swapaxes(-1, -2), keys=S)

    def backward(dy):
        dproducts = shift_back(dy)
        dby_head = (dproducts.swapaxes(-1, -2) @ x).sum(axis=0)
        dtable = table_back(dby_head.transpose(1, 0, 2).reshape(T + S, H * E))
        return dproducts @ by_head, dtable.reshape(table.shape)

    return y, backward


@expects("q (B, H, T, E), k (B, H, S, E), v (B, H, S, E2), Kr (R, H, E) or None, Qr (R2, H, E) or None, rows (N,) "
         "integers or None; scale or None, function scores")  # fmt: skip
def disentangled_attention(q, k, v, Kr=None, Qr=None, *, rows=None, mask=None, scale=None, rate=0.0, key=None,
                           scores=relative_scores):  # fmt: skip
    """o = dropout(softmax(scale A)) v,   A[t, s] = q_t . k_s  +  q_t . Kr[rows(t - s)]  +  k_s . Qr[rows(t - s)].

    q (B, H, T, E), k and v (B, H, S, E); Kr and Qr (R, H, E), the projected tables of relative positions, each or both None
    for no such term -> o (B, H, T, E).                                                             He et al. 2021, eq. 4
    The terms are content-to-content, content-to-position and position-to-content.  The third one has the distance s - t in the
    paper, but t - s in the released code and so in all published weights.
    scale is 1 / sqrt(E (1 + number of tables)) unless given; mask, rate and key as in `attention`, which does the rest: the two
    terms are its bias.  scores: relative_scores or gathered_scores.
    With dA the gradient of attention's bias, scale (A - q k^T):   the backward of scores at scale dA gives dKr and a part of dq,
    at scale dA^T dQr and a part of dk; the other parts of dq and dk, and dv, are those of `attention`.
    ValueError when rows or a table does not fit q and k.
    """
    B, H, T, E = q.shape
    S = k.shape[2]
    for name, table in (("Kr", Kr), ("Qr", Qr)):
        if table is not None and (table.shape[1:] != (H, E) or rows is None or rows.shape != (T + S + 1,)):
            raise ValueError(f"disentangled_attention: {name} {table.shape} with rows {getattr(rows, 'shape', None)}: "
                             f"expected (R, {H}, {E}) with rows ({T + S + 1},) for q {q.shape} and k {k.shape}")  # fmt: skip
    scale = (E * (1 + (Kr is not None) + (Qr is not None))) ** -0.5 if scale is None else scale

    def term(x, table, step):  # scales the table, which is smaller than the scores
        if table is None:
            return None, lambda dy: (None, None)
        y, back = scores(x, table * scale, rows=rows[::step])

        def backward(dy):
            dx, dtable = back(dy)
            return dx, dtable * scale

        return y, backward

    c2p, c2p_back = term(q, Kr, 1)
    p2c, p2c_back = term(k, Qr, -1)  # (B, H, S, T), by the distance s - t
    o, attention_back = attention(q, k, v, add(c2p, _transposed(p2c)), mask=mask, scale=scale, rate=rate, key=key)

    def backward(do):
        dq, dk, dv, dA = attention_back(do)
        dq_c2p, dKr = c2p_back(dA)
        dk_p2c, dQr = p2c_back(_transposed(dA))
        return add(dq, dq_c2p), add(dk, dk_p2c), dv, dKr, dQr

    return o, backward


def _transposed(a):
    return None if a is None else a.swapaxes(-1, -2)


@expects("p {Wo ...}, x (B, T, D), context (B, S, D) or None, relative (R, D) or None; whole heads >= 1")
def disentangled_multi_head_attention(p, x, context=None, relative=None, *, heads, terms, rows=None, mask=None, rate=0.0,
                                      key=None):  # fmt: skip
    """y = merge(disentangled_attention(q, k, v, Kr, Qr)) Wo + bo,  q = x Wq + bq, k = c Wk + bk, v = c Wv + bv, c = context or x:
    Kr = relative Wkr + bkr if "c2p" is in terms,   Qr = relative Wqr + bqr if "p2c" is.            He et al. 2021, eq. 4, alg. 1

    x (B, T, D), context (B, S, D) or None, relative (R, D), the embeddings of relative positions, or None -> y (B, T, D).
    p: Wq, Wk, Wv (D, H*E), or Wqkv as `split_interleaved` takes it; Wo (H*E, D), biases bq, ... where the family has them; and
    Wkr, Wqr (D, H*E) with bkr, bqr: without these, positions are projected by Wk and Wq of the contents (share_att_key).
    scale = 1 / sqrt(E (1 + number of terms)), also without `relative`, when the other terms are absent.
    backward gives (dp, dx, dcontext, drelative), None for what was not given.
    """
    if not isinstance(terms, (tuple, list)) or not all(isinstance(term, str) and term in ("c2p", "p2c") for term in terms):
        raise wrong("disentangled_multi_head_attention: terms", "a tuple of c2p and p2c", terms)
    p, separated_back = _separated(p, heads)
    source = x if context is None else context
    q, q_back = linear(x, p["Wq"], p.get("bq"))
    k, k_back = linear(source, p["Wk"], p.get("bk"))
    v, v_back = linear(source, p["Wv"], p.get("bv"))
    if q.shape[-1] % heads:
        raise ValueError(f"disentangled_multi_head_attention: {heads} heads do not divide queries of width {q.shape[-1]}")
    Kr, Kr_back = _project_positions(p, relative if "c2p" in terms else None, "kr", "k", heads)
    Qr, Qr_back = _project_positions(p, relative if "p2c" in terms else None, "qr", "q", heads)
    E = q.shape[-1] // heads
    o, o_back = disentangled_attention(*(split_heads(a, heads) for a in (q, k, v)), Kr, Qr, rows=rows, mask=mask,
                                       scale=(E * (1 + len(terms))) ** -0.5, rate=rate, key=key)  # fmt: skip
    y, y_back = linear(merge_heads(o), p["Wo"], p.get("bo"))

    def backward(dy):
        do, dWo, dbo = y_back(dy)
        dq, dk, dv, dKr, dQr = o_back(split_heads(do, heads))
        dx, dWq, dbq = q_back(merge_heads(dq))
        dsource_k, dWk, dbk = k_back(merge_heads(dk))
        dsource_v, dWv, dbv = v_back(merge_heads(dv))
        dp = {"Wq": dWq, "bq": dbq, "Wk": dWk, "bk": dbk, "Wv": dWv, "bv": dbv, "Wo": dWo, "bo": dbo}
        (dp_Kr, drelative), (dp_Qr, drelative_Qr) = Kr_back(dKr), Qr_back(dQr)
        dp, drelative = add(add(dp, dp_Kr), dp_Qr), add(drelative, drelative_Qr)
        dsource = dsource_k + dsource_v
        dx, dcontext = (dx + dsource, None) if context is None else (dx, dsource)
        return separated_back(dp), dx, dcontext, drelative

    return y, backward


def _project_positions(p, relative, own, shared, heads):
    """The table (R, H, E) of relative (R, D) by the matrix W`own`, or W`shared` where there is none; None without `relative`.

    backward gives (the part of dp, drelative).
    """
    if relative is None:
        return None, lambda dtable: (None, None)
    name = own if f"W{own}" in p else shared
    table, back = linear(relative, p[f"W{name}"], p.get(f"b{name}"))

    def backward(dtable):
        drelative, dW, db = back(dtable.reshape(table.shape))
        return {f"W{name}": dW, f"b{name}": db}, drelative

    return table.reshape(len(relative), heads, -1), backward


@expects("W (D, N); whole heads >= 1")
def split_interleaved(W, *, heads):
    """y[i] = the columns of queries (i = 0), keys and values of W, in which each head has its own of all three side by side.

    W (D, heads * 3 * E) -> (3, D, heads * E), how DeBERTa v1 is stored.  dW: the same columns of dy put back.
    """
    D, width = W.shape
    if width % (3 * heads):
        raise ValueError(f"split_interleaved: W {W.shape} does not hold queries, keys and values of {heads} equal heads")

    def backward(dy):
        return dy.reshape(3, D, heads, -1).transpose(1, 2, 0, 3).reshape(D, width)

    return W.reshape(D, heads, 3, -1).transpose(2, 0, 1, 3).reshape(3, D, width // 3), backward


def _separated(p, heads):
    """p with Wq, Wk and Wv in place of Wqkv, where it has that."""
    if "Wqkv" not in p:
        return p, lambda dp: {name: dp[name] for name in p}
    W, back = split_interleaved(p["Wqkv"], heads=heads)

    def backward(dp):
        dW = array_module(W).stack([dp["Wq"], dp["Wk"], dp["Wv"]])
        return {name: back(dW) if name == "Wqkv" else dp[name] for name in p}

    return {"Wq": W[0], "Wk": W[1], "Wv": W[2], **{name: a for name, a in p.items() if name != "Wqkv"}}, backward
