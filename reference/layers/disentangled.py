"""Disentangled attention (DeBERTa): separate vectors for content and relative position.

Each relative position selects a row of one shared table of vectors: by `clipped_row` in DeBERTa's
first version, by `bucketed_row` in the second and third.
"""

import math

import numpy as np

from reference.layers.linear import linear
from reference.layers.softmax import softmax
from reference.scalar import numbers, zeros


def clipped_row(distance: int, *, span: int) -> int:
    """delta(i, j) for distance = i - j, with k = span:

        0 if i - j <= -k,   2k - 1 if i - j >= k,   else i - j + k.

    He et al. 2021 (DeBERTa), eq. 3.
    """
    if distance <= -span:
        return 0
    if distance >= span:
        return 2 * span - 1
    return distance + span


def log_bucket(distance: int, *, buckets: int, longest: int) -> int:
    """The distance d itself if |d| <= m = buckets // 2; otherwise logarithmic:

        sign(d) (m + ceil((m - 1) ln(|d| / m) / ln((longest - 1) / m))),

    which reaches 2m - 1 at d = longest - 1.  This formula is in no paper: the released code of
    DeBERTa v2 and v3 computes it, in float32, where the rounding of the logarithms decides on which
    side of an integer the quotient falls.
    """
    middle = buckets // 2
    if abs(distance) <= middle:
        return distance
    one = np.float32(1)
    quotient = np.log(one * abs(distance) / np.float32(middle)) / np.log(
        one * (longest - 1) / np.float32(middle)
    )
    bucket = middle + math.ceil(quotient * np.float32(middle - 1))
    return bucket if distance > 0 else -bucket


def bucketed_row(distance: int, *, buckets: int, longest: int) -> int:
    """A distance's row in a table of 2 * buckets rows: `clipped_row` of its bucket, k = buckets."""
    return clipped_row(log_bucket(distance, buckets=buckets, longest=longest), span=buckets)


def row_table(T: int, S: int, row) -> np.ndarray:
    """delta[t, s] = row(t - s), where row is one of the functions above.    -> (T, S) integers."""
    delta = np.zeros((T, S), dtype=np.int64)
    for t in range(T):
        for s in range(S):
            delta[t, s] = row(t - s)
    return delta


def relative_scores(x: np.ndarray, table: np.ndarray, *, delta: np.ndarray) -> np.ndarray:
    """y[b, h, t, s] = x[b, h, t] . table[delta[t, s], h].

    x (B, H, T, E), table (R, H, E), delta (T, S) -> y (B, H, T, S).
    He et al. 2021, eq. 4 (content-to-position).
    """
    x = numbers(x)
    table = numbers(table)
    B, H, T, E = x.shape
    S = delta.shape[1]
    y = zeros((B, H, T, S), like=(x, table))
    for b, h, t, s in np.ndindex(B, H, T, S):
        for e in range(E):
            y[b, h, t, s] += x[b, h, t, e] * table[delta[t, s], h, e]
    return y


def disentangled_attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    Kr: np.ndarray | None = None,
    Qr: np.ndarray | None = None,
    *,
    delta: np.ndarray,
    mask: np.ndarray | None = None,
    scale: float | None = None,
) -> np.ndarray:
    """y[b, h, t] = sum_s P[b, h, t, s] v[b, h, s],

    P[b, h, t, :] = softmax_s(scale A[b, h, t, :]) over the s where mask is True,
    A[b, h, t, s] = q[t] . k[s]  +  q[t] . Kr[delta[t, s]]  +  k[s] . Qr[delta[t, s]].

    The terms are content-to-content, content-to-position and position-to-content; without a table,
    its term is absent.  scale is 1 / sqrt(E (1 + number of tables)) if None: 1 / sqrt(3 E) in the
    paper.  The paper has delta(s, t) in the third term; the released code, and so every published
    checkpoint, has delta(t, s).
    q (B, H, T, E), k and v (B, H, S, E), Kr and Qr (R, H, E), delta (T, S) -> y (B, H, T, E).
    A fully masked row gives zeros.                                       He et al. 2021, eq. 4
    """
    q = numbers(q)
    k = numbers(k)
    v = numbers(v)
    B, H, T, E = q.shape
    S = k.shape[2]
    if scale is None:
        scale = 1 / math.sqrt(E * (1 + (Kr is not None) + (Qr is not None)))
    scores = zeros((B, H, T, S), like=(q, k, Kr, Qr))
    for b, h, t, s in np.ndindex(B, H, T, S):
        for e in range(E):
            scores[b, h, t, s] += scale * q[b, h, t, e] * k[b, h, s, e]
            if Kr is not None:
                scores[b, h, t, s] += scale * q[b, h, t, e] * Kr[delta[t, s], h, e]
            if Qr is not None:
                scores[b, h, t, s] += scale * k[b, h, s, e] * Qr[delta[t, s], h, e]
    probabilities = softmax(scores, mask=mask)
    y = zeros((B, H, T, v.shape[3]), like=(probabilities, v))
    for b, h, t, e in np.ndindex(y.shape):
        for s in range(S):
            y[b, h, t, e] += probabilities[b, h, t, s] * v[b, h, s, e]
    return y


def disentangled_multi_head_attention(
    p: dict,
    x: np.ndarray,
    context: np.ndarray | None = None,
    relative: np.ndarray | None = None,
    *,
    heads: int,
    terms: tuple,
    delta: np.ndarray,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """y = Concat(head_1 .. head_H) Wo + bo with the attention above, on

    q = x Wq + bq,   k = c Wk + bk,   v = c Wv + bv,
    Kr = relative Wkr + bkr if "c2p" is in terms,   Qr = relative Wqr + bqr if "p2c" is.

    Without Wkr and Wqr, the content matrices Wk and Wq project the positions too (share_att_key of
    v2 and v3).  Wqkv may replace Wq, Wk and Wv: see split_interleaved.
    scale = 1 / sqrt(E (1 + number of terms)), even if relative is None and those terms are absent.
    x (B, T, D), c = context (B, S, D) or x if None, relative (R, D) or None, delta (T, S)
    -> y (B, T, D).                                               He et al. 2021, eq. 4, alg. 1
    """
    if "Wqkv" in p:
        p = {**p, **dict(zip(("Wq", "Wk", "Wv"), split_interleaved(p["Wqkv"], heads=heads)))}
    context = x if context is None else context
    B, T, _ = x.shape
    q = _split(linear(x, p["Wq"], p.get("bq")), heads)
    k = _split(linear(context, p["Wk"], p.get("bk")), heads)
    v = _split(linear(context, p["Wv"], p.get("bv")), heads)
    Kr = Qr = None
    if relative is not None and "c2p" in terms:
        W, b = (p["Wkr"], p.get("bkr")) if "Wkr" in p else (p["Wk"], p.get("bk"))
        Kr = _split(linear(relative, W, b)[None], heads)[0].swapaxes(0, 1)
    if relative is not None and "p2c" in terms:
        W, b = (p["Wqr"], p.get("bqr")) if "Wqr" in p else (p["Wq"], p.get("bq"))
        Qr = _split(linear(relative, W, b)[None], heads)[0].swapaxes(0, 1)
    E = q.shape[3]
    y = disentangled_attention(
        q, k, v, Kr, Qr, delta=delta, mask=mask, scale=1 / math.sqrt(E * (1 + len(terms)))
    )
    joined = zeros((B, T, heads * E), like=y)
    for b, h, t, e in np.ndindex(B, heads, T, E):
        joined[b, t, h * E + e] = y[b, h, t, e]
    return linear(joined, p["Wo"], p.get("bo"))


def _split(x: np.ndarray, heads: int) -> np.ndarray:
    """y[b, h, t, e] = x[b, t, h E + e].    x (B, T, heads * E) -> y (B, heads, T, E)."""
    B, T, width = x.shape
    E = width // heads
    y = zeros((B, heads, T, E), like=x)
    for b, h, t, e in np.ndindex(y.shape):
        y[b, h, t, e] = x[b, t, h * E + e]
    return y


def split_interleaved(W: np.ndarray, *, heads: int) -> np.ndarray:
    """y[i, d, h E + e] = W[d, h 3 E + i E + e]:   i = 0 queries, 1 keys, 2 values.

    W (D, heads * 3 * E) -> y (3, D, heads * E).  The layout of in_proj in DeBERTa v1's released
    code.
    """
    D, width = W.shape
    E = width // (3 * heads)
    y = zeros((3, D, heads * E), like=W)
    for i, d, h, e in np.ndindex(3, D, heads, E):
        y[i, d, h * E + e] = W[d, h * 3 * E + i * E + e]
    return y


def enhanced_mask_decoder(layer, h: np.ndarray, positions: np.ndarray, *, steps: int) -> np.ndarray:
    """q_0 = h + positions,   q_{n+1} = layer(q_n, h),   n = 0 .. steps - 1   -> q_steps.

    layer(q, h) is the encoder's last layer, with queries and residual from q, and keys and values
    from h, its input (B, T, D).  positions (T, D): absolute position embeddings.
    He et al. 2021, sec. 3.2, with q_0 as in the released code.
    """
    q = zeros(h.shape, like=(h, positions))
    for b, t, d in np.ndindex(h.shape):
        q[b, t, d] = h[b, t, d] + positions[t, d]
    for _ in range(steps):
        q = layer(q, h)
    return q
