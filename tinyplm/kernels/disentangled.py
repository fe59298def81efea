"""Scores between content and relative positions, without gathering."""

from __future__ import annotations

from ..core import Array, Backward
from ..layers.attention import transposed
from ..layers.embedding import embedding
from ..layers.relative_shift import relative_shift
from ..shapes import expects


@expects("x (B, H, T, E), table (R, H, E), rows (N,) integers")
def relative_scores(x: Array, table: Array, *, rows: Array) -> tuple[Array, Backward]:
    """layers.disentangled.relative_scores, with the table's rows laid out by distance first.

    With the plain form a training step of DeBERTa v2 (L 2, D 256, 2048 tokens) takes 4% longer at
    T 128, 22% at T 256, 31% at T 512, and 14 to 23% less memory.

    by_distance[p] = table[rows(T - p)], p = 0 .. T + S - 1, so y[t, s] is in column T - t + s of
    product = x by_distance^T, and `relative_shift` reads it.  A row that several distances share is
    multiplied several times, which still costs less than to gather and scatter entries.
    dproduct = dy shifted back,   dx = dproduct by_distance,   dby_distance = dproduct^T x, summed
    over samples,   dtable[r] = sum of dby_distance[p] over the p with rows(T - p) = r.
    """
    B, H, T, E = x.shape
    S = rows.shape[0] - T - 1
    flat = table.reshape(len(table), H * E)
    by_distance, flat_back = embedding(flat, ids=rows[:0:-1], name="row")
    by_head = by_distance.reshape(T + S, H, E).transpose(1, 0, 2)  # (H, T + S, E)
    y, shift_back = relative_shift(x @ transposed(by_head), keys=S)

    def backward(dy: Array) -> tuple[Array, Array]:
        dproduct = shift_back(dy)
        dby_head = (transposed(dproduct) @ x).sum(axis=0)
        dflat = flat_back(dby_head.transpose(1, 0, 2).reshape(T + S, H * E))
        return dproduct @ by_head, dflat.reshape(table.shape)

    return y, backward
