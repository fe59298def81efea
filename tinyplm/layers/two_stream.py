"""Attention with relative positions and segments (Transformer-XL), and XLNet's two streams."""

from __future__ import annotations

from functools import partial, reduce
from typing import Any

from ..arguments import wrong
from ..backend import array_module
from ..core import Array, Backward, Tree, add, in_float32, named, unbroadcast
from ..random import fold
from ..shapes import check_array, expects
from .attention import merge_heads, split_heads, transposed
from .dropout import dropout
from .linear import linear
from .relative_shift import relative_rows, relative_shift
from .softmax import softmax


@expects(
    "q (B, H, M, E), k (B, H, S, E), v (B, H, S, E2), r (B or 1, H, R, E), k_bias (H, E), "
    "r_bias (H, E), s_bias (H, E) or None, segments (2, H, E) or None, "
    "different (B, M, S) booleans or None, places (B, M) integers or None"
)
@in_float32
def relative_attention(
    q: Array,
    k: Array,
    v: Array,
    r: Array,
    k_bias: Array,
    r_bias: Array,
    s_bias: Any = None,
    segments: Array | None = None,
    *,
    different: Any = None,
    places: Array | None = None,
    mask: Array | None = None,
    rate: float = 0.0,
    key: Array | None = None,
) -> tuple[Array, Backward]:
    """o = Pd v,   Pd = dropout(P),   P = softmax(a) over the keys that mask allows,

        a_ij = E^-0.5 ((q_i + k_bias) . k_j + (q_i + r_bias) . r_(i-j) + (q_i + s_bias) . s_ij).

    Content and position: Dai et al. 2019, sec. 3.3, whose u and v are k_bias and r_bias.  Segments:
    Yang et al. 2019, sec. 2.5, whose b is s_bias; s_ij is segments[1] where i and j are in
    `different` segments, else segments[0].
    q (B, H, M, E), k and v (B, H, S, E), r (B or 1, H, T + S, E) by distance as in
    relative_shift.py, biases (H, E), segments (2, H, E), different (B, M, S) booleans
    -> o (B, H, M, E).
    places (B, M): where the queries stand among the last T of the S keys; None: at 0 .. T - 1.
    mask as in `attention`: a query without keys gives zeros.
    Keeps qk = E^-0.5 (q + k_bias), qr = E^-0.5 (q + r_bias), qs = E^-0.5 (q + s_bias), P and Pd.

    With s the segments by head (H, 2, E), a is the sum of qk k^T, of qr r^T shifted from distances
    to keys, and of A = qs s^T (B, H, M, 2), from which each key takes the column of its segment.
    da comes from do as in `attention`,   dR is da shifted back to distances,   dA is da summed over
    the keys of each segment:

        dqk = da k,   dk = da^T qk;   dqr = dR r,   dr = dR^T qr;   dqs = dA s,   ds = dA^T qs;
        dq = E^-0.5 (dqk + dqr + dqs),   dk_bias = E^-0.5 dqk, and so dr_bias and ds_bias,
        dv = Pd^T do,

    the gradients of biases, segments, and an r of one sample are summed over what shares them.
    """
    xp = array_module(q)
    S, scale = k.shape[2], q.shape[-1] ** -0.5
    check_distances(q, k, r, places)
    if (segments is None) != (different is None) or (segments is not None and s_bias is None):
        given = [a is not None for a in (s_bias, segments, different)]
        raise wrong("relative_attention: s_bias, segments, different", "all of them or none", given)

    qk, qr = scale * (q + k_bias[:, None]), scale * (q + r_bias[:, None])
    if places is None:
        by_key, shift_back = relative_shift(qr @ transposed(r), keys=S)
    else:
        by_key, shift_back = relative_rows(qr @ transposed(r), places=places, keys=S)
    a = qk @ transposed(k) + by_key
    if segments is not None:
        qs, s = scale * (q + s_bias[:, None]), segments.transpose(1, 0, 2)  # s (H, 2, E)
        A = qs @ transposed(s)  # (B, H, M, 2)
        a = a + xp.where(different[:, None], A[..., 1:], A[..., :1])
    P, P_back = softmax(a, mask=mask)
    Pd, Pd_back = dropout(P, rate=rate, key=key)

    def backward(do: Array) -> tuple[Array | None, ...]:
        dv = transposed(Pd) @ do
        da = P_back(Pd_back(do @ transposed(v)))
        dR = shift_back(da)
        dqk, dqr, dqs = da @ k, dR @ r, None
        dk, dr = transposed(da) @ qk, unbroadcast(transposed(dR) @ qr, r.shape)
        dsegments = None
        if segments is not None:
            other = (da * different[:, None]).sum(axis=-1, keepdims=True)
            dA = xp.concatenate([da.sum(axis=-1, keepdims=True) - other, other], axis=-1)
            dqs = dA @ s
            dsegments = (transposed(dA) @ qs).sum(axis=0).transpose(1, 0, 2)
        dq = scale * add(dqk + dqr, dqs)
        dbiases = (None if d is None else scale * d.sum(axis=(0, 2)) for d in (dqk, dqr, dqs))
        return dq, dk, dv, dr, *dbiases, dsegments

    return Pd @ v, backward


@expects(
    "p {Wq Wk Wv Wr Wo k_bias r_bias ...}, x (B, N, D), relative (B or 1, R, D), "
    "memory (B, N2, D) or None, key (B,) keys or None; 0 <= rate < 1"
)
def two_stream_attention(
    p: Tree,
    x: Array,
    *,
    relative: Array,
    content: dict,
    query: Any = None,
    memory: Array | None = None,
    rate: float = 0.0,
    key: Array | None = None,
) -> tuple[Array, Backward]:
    """y = merge(o) Wo,   o = relative_attention(q, k, v, r, ...) for each of the two streams,

        q = x Wq,   k = [memory, h] Wk,   v = [memory, h] Wv,   r = relative Wr.

    Yang et al. 2019, sec. 2.3-2.5 and appendix A.2.
    x (B, T + M, D) is the content stream h (B, T, D), followed by the query stream g (B, M, D) if
    there is one: M more queries, with the same weights, that no other place attends to.  A content
    place knows its own token, a query only its position.   -> y (B, T + M, D).
    p: Wq, Wk, Wv, Wr (D, H, E), Wo (H, E, D), k_bias, r_bias, s_bias (H, E), segments (2, H, E).
    relative (B or 1, T + S, D): `distance_encodings`; memory (B, S - T, D): hidden states of
    earlier tokens; neither has a gradient.  content and query: dicts with what `relative_attention`
    takes for this stream: mask, different, and places.
    backward returns (dp, dx): with do = dy Wo^T, the two streams' dk, dv, dr and biases are added
    and go back through the projections: dx = dq Wq^T, and dk Wk^T + dv Wv^T for the T of h alone.
    """
    check_streams(x, content, query)
    xp = array_module(x)
    T = x.shape[1] - (0 if query is None else query["places"].shape[1])
    h = x[:, :T]
    source = h if memory is None else xp.concatenate([memory, h], axis=1)
    q, q_back = named("q", project)(x, p["Wq"])
    k, k_back = named("k", project)(source, p["Wk"])
    v, v_back = named("v", project)(source, p["Wv"])
    r, r_back = named("r", project)(relative, p["Wr"])
    segments = ("s_bias", "segments") if content.get("different") is not None else ()
    shared = ("k_bias", "r_bias", *segments)
    attend = partial(relative_attention, rate=rate)
    streams = [(slice(0, T), content, fold(key, 0), named("heads", attend))]
    if query is not None:
        streams.append((slice(T, None), query, fold(key, 1), named("query_heads", attend)))
    weights = [p[name] for name in shared]
    outputs = [
        attend(q[:, :, rows], k, v, r, *weights, **stream, key=stream_key)
        for rows, stream, stream_key, attend in streams
    ]
    o = xp.concatenate([o for o, _ in outputs], axis=2)
    y, y_back = linear(merge_heads(o), p["Wo"].reshape(-1, p["Wo"].shape[-1]))

    def backward(dy: Array) -> tuple[Tree, Array]:
        do, dWo, _ = y_back(dy)
        do = split_heads(do, q.shape[1])
        gradients = [back(do[:, :, rows]) for (rows, *_), (_, back) in zip(streams, outputs)]
        dx, dWq = q_back(xp.concatenate([dq for dq, *_ in gradients], axis=2))
        dk, dv, dr, *dshared = reduce(add, [list(others) for _, *others in gradients])
        (dsource_k, dWk), (dsource_v, dWv), (_, dWr) = k_back(dk), v_back(dv), r_back(dr)
        dh = (dsource_k + dsource_v)[:, -T:]
        dx = xp.concatenate([dx[:, :T] + dh, dx[:, T:]], axis=1)
        dp = {"Wq": dWq, "Wk": dWk, "Wv": dWv, "Wr": dWr, "Wo": dWo.reshape(p["Wo"].shape)}
        dp |= {name: xp.zeros_like(p[name]) for name in ("s_bias", "segments")}
        dp |= dict(zip(shared, dshared))
        return {name: dp[name] for name in p}, dx

    return y, backward


def project(x: Array, W: Array) -> tuple[Array, Backward]:
    """split_heads(x W): x (B, T, D), W (D, H, E) -> (B, H, T, E); backward returns (dx, dW)."""
    y, y_back = linear(x, W.reshape(W.shape[0], -1))

    def backward(dy: Array) -> tuple[Array, Array]:
        dx, dW, _ = y_back(merge_heads(dy))
        return dx, dW.reshape(W.shape)

    return split_heads(y, W.shape[1]), backward


def check_distances(q: Array, k: Array, r: Array, places: Array | None) -> None:
    """ValueError unless the number of distances fits the queries and keys."""
    T = r.shape[2] - k.shape[2]
    if not 1 <= T <= k.shape[2] or (places is None and T != q.shape[2]):
        raise ValueError(
            "relative_attention: expected q (B, H, M, E), k (B, H, S, E), r (B or 1, H, T + S, E), "
            "T from 1 to S, and M = T without places, "
            f"got q {q.shape}, k {k.shape}, r {r.shape}"
        )


def check_streams(x: Array, content: dict, query: dict | None) -> None:
    """ValueError unless both are dicts of what relative_attention takes for a stream."""
    for name, stream in (("content", content), ("query", query)):
        if name == "query" and stream is None:
            continue
        if not isinstance(stream, dict):
            expected = "a dict of mask, different and places"
            raise wrong(f"two_stream_attention: {name}", expected, stream)
        if more := stream.keys() - {"mask", "different", "places"}:
            raise wrong(f"two_stream_attention: {name}", "only mask, different and places", more)
    if query is not None:
        places = query.get("places")
        check_array("two_stream_attention: query: places", places, "(B, M) integers", B=x.shape[0])
