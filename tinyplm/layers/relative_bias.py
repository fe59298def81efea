"""Relative position bias (T5): what attention adds to a score, by the bucket of a distance."""

from __future__ import annotations

from ..arguments import wrong
from ..backend import array_module
from ..core import Array, Backward, in_float32
from ..shapes import expects
from .embedding import embedding
from .relative_shift import relative_shift


@expects("table (N, H), rows (R,) integers; whole keys >= 1")
@in_float32
def relative_bias(table: Array, *, rows: Array, keys: int) -> tuple[Array, Backward]:
    """bias[0, h, t, s] = table[rows[s - t + T - 1], h].

    Raffel et al. 2020, sec. 2.1.   table (N, H), N buckets; rows (T + S - 1,) integers, the bucket
    of each distance s - t from 1 - T to S - 1, such as `t5_rows` of relative_buckets.py; S = keys
    -> bias (1, H, T, S), which attention adds to its scores.   rows may be on the host.
    Looks up one row for each distance, and `relative_shift` lays them out by query and key.
    dtable[n, h] = sum of dbias[0, h, t, s] over all t, s whose bucket is n: dbias is shifted back
    and summed along each diagonal, then the diagonals of a bucket are added.
    ValueError when rows is shorter than keys or (on the host) has a bucket that table lacks.
    """
    xp = array_module(table)
    S, T = keys, rows.shape[0] - keys + 1
    if T < 1:
        raise wrong("relative_bias: rows", f"at least {S} rows, T + S - 1 for S = {S} keys", rows)
    # relative_shift has a column in front for a distance that no query and key have
    columns = xp.asarray(rows)[xp.maximum(xp.arange(T + S) - 1, 0)]
    by_distance, table_back = embedding(table, ids=columns, name="row")  # (T + S, H)
    H = table.shape[1]
    bias, shift_back = relative_shift(
        xp.broadcast_to(by_distance.T[:, None], (H, T, T + S)), keys=S
    )

    def backward(dbias: Array) -> Array:
        diagonals = shift_back(dbias[0]).sum(axis=1)  # (H, T + S)
        return table_back(diagonals.T)

    return bias[None], backward
