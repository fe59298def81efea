"""Attention whose softmax has one more term, the head's sink, that belongs to no key."""

import numpy as np

from reference.scalar import exp, numbers, zeros


def sink_softmax(x: np.ndarray, sinks: np.ndarray, *, mask: np.ndarray | None = None) -> np.ndarray:
    """y[b, h, t, s] = exp(x[b, h, t, s]) / (exp(sinks[h]) + sum_u exp(x[b, h, t, u])),

    over the s and u where mask[b, h, t] is True; y is 0 where it is False.
    x (B, H, T, S), sinks (H,), boolean mask broadcastable to x or None -> y (B, H, T, S).
    OpenAI 2025, sec. 2.2
    """
    x = numbers(x)
    sinks = numbers(sinks)
    mask = np.broadcast_to(np.asarray(True if mask is None else mask, dtype=bool), x.shape)
    y = zeros(x.shape, like=(x, sinks))
    for b, h, t in np.ndindex(x.shape[:3]):
        places = [s for s in range(x.shape[3]) if mask[b, h, t, s]]
        largest = max([sinks[h]] + [x[b, h, t, s] for s in places])
        total = exp(sinks[h] - largest)
        for s in places:
            total += exp(x[b, h, t, s] - largest)
        for s in places:
            y[b, h, t, s] = exp(x[b, h, t, s] - largest) / total
    return y


def sink_attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    sinks: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    scale: float | None = None,
) -> np.ndarray:
    """y[b, h, t] = sum_s P[b, h, t, s] v[b, g, s],   P = sink_softmax(scale q[b, h, t] . k[b, g]).

    g = h // (H // K) is the key/value head of head h; scale is E^-0.5 if None.
    q (B, H, T, E), k (B, K, S, E), v (B, K, S, E2), sinks (H,), boolean mask broadcastable to
    (B, H, T, S) -> y (B, H, T, E2).   OpenAI 2025, sec. 2.2
    """
    q = numbers(q)
    k = numbers(k)
    v = numbers(v)
    B, H, T, E = q.shape
    K, S, E2 = v.shape[1:]
    if scale is None:
        scale = E**-0.5

    scores = zeros((B, H, T, S), like=(q, k))
    for b, h, t, s in np.ndindex(B, H, T, S):
        dot = 0.0
        for e in range(E):
            dot += q[b, h, t, e] * k[b, h // (H // K), s, e]
        scores[b, h, t, s] = scale * dot

    probabilities = sink_softmax(scores, sinks, mask=mask)

    y = zeros((B, H, T, E2), like=(probabilities, v))
    for b, h, t, e in np.ndindex(B, H, T, E2):
        total = 0.0
        for s in range(S):
            total += probabilities[b, h, t, s] * v[b, h // (H // K), s, e]
        y[b, h, t, e] = total
    return y
