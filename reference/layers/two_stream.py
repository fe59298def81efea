"""Attention with relative positions and segments, and XLNet's two streams."""

import math

import numpy as np

from reference.layers.linear import linear
from reference.layers.softmax import softmax
from reference.scalar import numbers, zeros


def distance_encodings(
    queries: int, keys: int, width: int, *, clamp: int = -1, base: float = 10000.0
) -> np.ndarray:
    """R[p] = [sin(d w_0), sin(d w_1), .., cos(d w_0), cos(d w_1), ..],

    d = keys - p,  w_i = base^(-2i / width), for the distances from `keys` down to 1 - queries.
    -> (queries + keys, width); clamp > 0 clips d to -clamp .. clamp.
    The sinusoids of Vaswani et al. 2017, sec. 3.5, of the distance instead of the position: Dai et
    al. 2019, sec. 3.3.
    """
    table = np.zeros((queries + keys, width))
    half = width // 2
    for p in range(queries + keys):
        d = keys - p
        if clamp > 0:
            d = max(-clamp, min(clamp, d))
        for i in range(half):
            angle = d * base ** (-2 * i / width)
            table[p, i] = math.sin(angle)
            table[p, half + i] = math.cos(angle)
    return table


def relative_shift(x: np.ndarray, *, keys: int) -> np.ndarray:
    """y[t, j] = the entry of x[t] for the distance between query t and key j.

    x (..., T, T + S) has one entry for each distance S, S - 1, .. 1 - T; the queries are the last T
    of S = keys positions.  Dai et al. 2019, appendix B, which shifts all queries at once.
    """
    T = x.shape[-2]
    return relative_rows(x, places=np.arange(T), keys=keys)


def relative_rows(x: np.ndarray, *, places: np.ndarray, keys: int) -> np.ndarray:
    """relative_shift for queries anywhere: places (B, M) or (M,), x (B, H, M, T + S).

    places counts from the first of the last T of S = keys positions.
    """
    x = numbers(x)
    T = x.shape[-1] - keys
    where = np.broadcast_to(
        np.asarray(places), (*x.shape[:-3], x.shape[-2]) if x.ndim > 2 else x.shape[:1]
    )
    y = zeros((*x.shape[:-1], keys), like=x)
    for index in np.ndindex(x.shape[:-1]):
        sample, query = index[:-2], index[-1]
        for j in range(keys):
            distance = (keys - T) + int(where[(*sample, query)]) - j
            y[(*index, j)] = x[(*index, keys - distance)]
    return y


def relative_attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    r: np.ndarray,
    k_bias: np.ndarray,
    r_bias: np.ndarray,
    s_bias: np.ndarray | None = None,
    s: np.ndarray | None = None,
    *,
    different: np.ndarray | None = None,
    places: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    scale: float | None = None,
) -> np.ndarray:
    """o[b, h, i] = sum_j P[b, h, i, j] v[b, h, j],  P = softmax_j(scale a_ij) where mask is True,

    a_ij = (q_i + k_bias) . k_j  +  (q_i + r_bias) . r_(i - j)  +  (q_i + s_bias) . s_ij,
    s_ij = s[1] if query and key are in different segments, s[0] if they are in the same one.
    q (B, H, M, E), k and v (B, H, S, E), r (B or 1, H, T + S, E) for the distances S .. 1 - T,
    biases (H, E), s (2, H, E), different (B, M, S), places (B, M): the queries' positions within
    the last T of the S, None for 0 .. T - 1 -> (B, H, M, E).
    Content and position: Dai et al. 2019, sec. 3.3 (its u is k_bias, its v is r_bias).
    Segments: Yang et al. 2019, sec. 2.5 (its b is s_bias, its s_+ is s[0] and s_- is s[1]).
    """
    q, k, v, r, k_bias, r_bias = (numbers(a) for a in (q, k, v, r, k_bias, r_bias))
    B, H, M, E = q.shape
    S = k.shape[2]
    T = r.shape[2] - S
    scale = E**-0.5 if scale is None else scale
    a = zeros((B, H, M, S), like=(q, k, r, k_bias, r_bias, s_bias, s))
    for b, h, i, j in np.ndindex(B, H, M, S):
        place = i if places is None else int(places[b, i])
        distance = (S - T) + place - j
        r_ij = r[b if r.shape[0] > 1 else 0, h, S - distance]
        total = 0.0
        for e in range(E):
            total += (q[b, h, i, e] + k_bias[h, e]) * k[b, h, j, e]
            total += (q[b, h, i, e] + r_bias[h, e]) * r_ij[e]
            if s is not None:
                total += (q[b, h, i, e] + s_bias[h, e]) * s[1 if different[b, i, j] else 0, h, e]
        a[b, h, i, j] = scale * total
    P = softmax(a, mask=mask)
    o = zeros((B, H, M, v.shape[3]), like=(P, v))
    for b, h, i, e in np.ndindex(o.shape):
        for j in range(S):
            o[b, h, i, e] += P[b, h, i, j] * v[b, h, j, e]
    return o


def two_stream_attention(
    p: dict,
    x: np.ndarray,
    *,
    relative: np.ndarray,
    content: dict,
    query: dict | None = None,
    memory: np.ndarray | None = None,
) -> np.ndarray:
    """Content stream: h_i attends with queries from h_i to keys and values from [memory, h].

    Query stream: g_m, at position places[m], attends with queries from g_m to the same keys and
    values, with the same weights.
    Yang et al. 2019, sec. 2.3 and appendix A.2; the memory: sec. 2.4.

    x (B, T + M, D) is h (B, T, D) followed by g (B, M, D), M = 0 without a query stream -> the same
    shape.
    p: Wq, Wk, Wv, Wr (D, H, E), Wo (H, E, D), k_bias, r_bias, s_bias (H, E), segments (2, H, E).
    relative (B or 1, T + S, D), memory (B, S - T, D).
    content and query: keywords of relative_attention: mask, different, and for query also places.
    """
    x = numbers(x)
    M = 0 if query is None else query["places"].shape[1]
    T = x.shape[1] - M
    h, g = x[:, :T], x[:, T:]
    source = h if memory is None else np.concatenate([memory, h], axis=1)
    k, v, r = _heads(source, p["Wk"]), _heads(source, p["Wv"]), _heads(relative, p["Wr"])
    y = [_stream(p, h, k, v, r, content)]
    if query is not None:
        y.append(_stream(p, g, k, v, r, query))
    return np.concatenate(y, axis=1)


def _stream(
    p: dict, x: np.ndarray, k: np.ndarray, v: np.ndarray, r: np.ndarray, settings: dict
) -> np.ndarray:
    segments = (
        (p["s_bias"], p["segments"]) if settings.get("different") is not None else (None, None)
    )
    o = relative_attention(
        _heads(x, p["Wq"]), k, v, r, p["k_bias"], p["r_bias"], *segments, **settings
    )
    B, H, T, E = o.shape
    y = zeros((B, T, p["Wo"].shape[2]), like=(o, p["Wo"]))
    for b, h, t, e in np.ndindex(o.shape):
        for d in range(y.shape[2]):
            y[b, t, d] += o[b, h, t, e] * p["Wo"][h, e, d]
    return y


def _heads(x: np.ndarray, W: np.ndarray) -> np.ndarray:
    """y[b, h, t] = x[b, t] W[:, h].    x (B, T, D), W (D, H, E) -> y (B, H, T, E)."""
    return np.stack([linear(x, W[:, h]) for h in range(W.shape[1])], axis=1)
