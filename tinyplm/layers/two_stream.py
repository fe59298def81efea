"""Attention with relative positions and segments (Transformer-XL, XLNet), and XLNet's content and query stream."""

from __future__ import annotations

from functools import reduce

from ..arguments import wrong
from ..backend import array_module, at_least_float32, sum_float32
from ..core import add, unbroadcast
from ..random import fold
from ..shapes import check_array, expects
from .attention import merge_heads, split_heads
from .dropout import dropout
from .linear import linear
from .relative_shift import relative_rows, relative_shift
from .softmax import masked_softmax


@expects("q (B, H, M, E), k (B, H, S, E), v (B, H, S, E2), r (B or 1, H, R, E), k_bias (H, E), r_bias (H, E), "
         "s_bias (H, E) or None, segments (2, H, E) or None, different (B, M, S) booleans or None, "
         "places (B, M) integers or None")  # fmt: skip
def relative_attention(q, k, v, r, k_bias, r_bias, s_bias=None, segments=None, *, different=None, places=None, mask=None,
                       rate=0.0, key=None):  # fmt: skip
    """o = dropout(P) v,   P = softmax(E^-0.5 a) over the keys that mask allows,

        a_ij = (q_i + k_bias) . k_j + (q_i + r_bias) . r_(i-j) + (q_i + s_bias) . s_ij.

    Content and position: Dai et al. 2019, sec. 3.3, whose u and v are k_bias and r_bias.  Segment encodings: Yang et al. 2019,
    sec. 2.5, whose b is s_bias; s_ij is segments[1] where i and j are in `different` segments, else segments[0].
    q (B, H, M, E), k and v (B, H, S, E), r (B or 1, H, T + S, E) by distance as in relative_shift.py, biases (H, E),
    segments (2, H, E), different (B, M, S) booleans; places (B, M): where the queries stand among the last T of the S keys,
    None: at 0 .. T - 1.  mask as in `attention`: a query without keys gives zeros.  -> o (B, H, M, E).
    Keeps the three sums q + bias, P, and its dropout mask.

    With dS the gradient of a, E^-0.5 times the dS of `attention`, and dR = dS shifted back to distances:   dqk = dS k,
    dk = dS^T (q + k_bias),   dqr = dR r,   dr = dR^T (q + r_bias), summed over samples where r is one for all;   with dS summed
    over the keys of either kind, dA (M, 2):   dqs = dA s,   ds = dA^T (q + s_bias) summed over samples;
    dq = dqk + dqr + dqs, each bias has its own of the three summed over samples and queries, and dv = dropout(P)^T do.
    """
    xp = array_module(q)
    S, scale = k.shape[2], q.shape[-1] ** -0.5
    _check(q, k, r, places)
    if (segments is None) != (different is None) or (segments is not None and s_bias is None):
        raise ValueError("relative_attention: expected s_bias, segments and different together, got some of them")
    qk, qr = ((q + bias[:, None, :]) * scale for bias in (k_bias, r_bias))
    by_distance = qr @ r.swapaxes(-1, -2)
    by_key, shift_back = (
        relative_shift(by_distance, keys=S) if places is None else relative_rows(by_distance, places=places, keys=S)
    )
    scores = at_least_float32(qk @ k.swapaxes(-1, -2))
    scores += by_key
    if segments is not None:
        qs = (q + s_bias[:, None, :]) * scale
        s = segments.transpose(1, 0, 2)  # (H, 2, E)
        either = qs @ s.swapaxes(-1, -2)  # (B, H, M, 2)
        scores += xp.where(different[:, None], either[..., 1:], either[..., :1])
    P = masked_softmax(scores, mask)
    kept, drop_back = dropout(P.astype(q.dtype, copy=False), rate=rate, key=key)
    o = kept @ v

    def backward(do):
        dv = kept.swapaxes(-1, -2) @ do
        dS = drop_back(do @ v.swapaxes(-1, -2))
        dS = dS - (at_least_float32(do) * o).sum(axis=-1, keepdims=True)
        dS *= P
        dsegments = dqs = None
        if segments is not None:
            apart = (dS * different[:, None]).sum(axis=-1, keepdims=True)
            dA = xp.concatenate([dS.sum(axis=-1, keepdims=True) - apart, apart], axis=-1).astype(q.dtype, copy=False)
            dqs = dA @ s
            dsegments = sum_float32(dA.swapaxes(-1, -2) @ qs, axis=0).transpose(1, 0, 2)
        dS = dS.astype(q.dtype, copy=False)
        dR = shift_back(dS)
        dqk, dqr = dS @ k, dR @ r
        dk = dS.swapaxes(-1, -2) @ qk
        dr = unbroadcast(dR.swapaxes(-1, -2) @ qr, r.shape)
        dq = add(dqk + dqr, dqs) * scale
        dbiases = (None if d is None else sum_float32(d, axis=(0, 2)) * scale for d in (dqk, dqr, dqs))
        return dq, dk, dv, dr, *dbiases, dsegments

    return o, backward


@expects("p {Wq Wk Wv Wr Wo k_bias r_bias ...}, x (B, N, D), relative (B or 1, R, D), memory (B, N2, D) or None, "
         "key (B,) keys or None; 0 <= rate < 1")  # fmt: skip
def two_stream_attention(p, x, *, relative, content, query=None, memory=None, rate=0.0, key=None):
    """y = merge(relative_attention(queries of x, keys and values of [memory, h], positions of relative)) Wo.

    x (B, T + M, D) is the content stream h (B, T, D), and behind it the query stream g (B, M, D) if there is one: M queries more,
    with the same weights, that are nobody's keys.  Content knows its own token, a query only its place.   -> (B, T + M, D).
    Yang et al. 2019, sec. 2.3-2.5 and appendix A.2.
    p: Wq, Wk, Wv, Wr (D, H, E), Wo (H, E, D), k_bias, r_bias, s_bias (H, E), segments (2, H, E).
    relative (B or 1, T + S, D): `distance_encodings`; memory (B, S - T, D): hidden states of earlier tokens.  Neither has a
    gradient.  content and query: dicts with what `relative_attention` takes for this stream: mask, different, and places.
    backward gives (dp, dx); the streams' gradients are added.
    """
    for name, stream in (("content", content), ("query", query)):
        if not isinstance(stream, dict) and not (name == "query" and stream is None):
            raise wrong(f"two_stream_attention: {name}", "a dict of mask, different and places", stream)
        if stream is not None and (more := stream.keys() - {"mask", "different", "places"}):
            raise wrong(f"two_stream_attention: {name}", "mask, different and places alone", more)
    if query is not None:
        check_array("two_stream_attention: query: places", query.get("places"), "(B, M) integers", B=x.shape[0])
    xp = array_module(x)
    T = x.shape[1] - (0 if query is None else query["places"].shape[1])
    h = x[:, :T]
    source = h if memory is None else xp.concatenate([memory, h], axis=1)
    q, q_back = _project(x, p["Wq"])
    k, k_back = _project(source, p["Wk"])
    v, v_back = _project(source, p["Wv"])
    r, r_back = _project(relative, p["Wr"])
    biases = ("k_bias", "r_bias", "s_bias", "segments") if content.get("different") is not None else ("k_bias", "r_bias")
    streams = [(slice(0, T), content, fold(key, 0)), (slice(T, None), query, fold(key, 1))][: 1 if query is None else 2]
    outputs = [relative_attention(q[:, :, rows], k, v, r, *(p[name] for name in biases), **stream, rate=rate, key=own_key)
               for rows, stream, own_key in streams]  # fmt: skip
    o = xp.concatenate([o for o, _ in outputs], axis=2)
    Wo = p["Wo"].reshape(-1, p["Wo"].shape[-1])
    y, y_back = linear(merge_heads(o), Wo)

    def backward(dy):
        do, dWo, _ = y_back(dy)
        do = split_heads(do, q.shape[1])
        gradients = [back(do[:, :, rows]) for (rows, _, _), (_, back) in zip(streams, outputs)]
        dx, dWq = q_back(xp.concatenate([dq for dq, *_ in gradients], axis=2))
        dk, dv, dr, *dbiases = reduce(add, [list(shared) for _, *shared in gradients])
        (dkeys, dWk), (dvalues, dWv), (_, dWr) = k_back(dk), v_back(dv), r_back(dr)
        dh = (dkeys + dvalues)[:, -T:]
        dx = xp.concatenate([dx[:, :T] + dh, dx[:, T:]], axis=1)
        dp = {"Wq": dWq, "Wk": dWk, "Wv": dWv, "Wr": dWr, "Wo": dWo.reshape(p["Wo"].shape)}
        dp |= {name: xp.zeros_like(p[name]) for name in ("s_bias", "segments")} | dict(zip(biases, dbiases))
        return {name: dp[name] for name in p}, dx

    return y, backward


def _project(x, W):
    """split_heads(x W): x (B, T, D), W (D, H, E) -> (B, H, T, E); backward gives (dx, dW)."""
    y, y_back = linear(x, W.reshape(W.shape[0], -1))

    def backward(dy):
        dx, dW, _ = y_back(merge_heads(dy))
        return dx, dW.reshape(W.shape)

    return split_heads(y, W.shape[1]), backward


def _check(q, k, r, places):
    """ValueError unless the number of distances fits the queries and keys."""
    T = r.shape[2] - k.shape[2]
    if not 1 <= T <= k.shape[2] or (places is None and T != q.shape[2]):
        raise ValueError(f"relative_attention: q {q.shape}, k {k.shape}, r {r.shape} do not fit: expected q (B, H, M, E), "
                         "k (B, H, S, E), r (B or 1, H, T + S, E) with T from 1 to S, and M = T without places")  # fmt: skip
