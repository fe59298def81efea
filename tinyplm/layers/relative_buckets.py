"""Which row of a table of relative positions each distance has.

DeBERTa: rows[j] is the row for the distance j - S = t - s between query t and key s.  Distances run
from -S to T for T queries and S keys; the two ends do not occur, but with them rows[::-1] are the
rows for s - t.   T5: rows[j] is the row for the distance j - (T - 1) = s - t, without such ends.
Computed on the host, from lengths and a config: on a device, a logarithm that rounds differently
would move the edge of a bucket.
"""

from __future__ import annotations

import functools

import numpy as np

from ..arguments import MOST, check_flag, check_whole, mismatch
from ..shapes import check_array


def clipped_rows(T: int, S: int, *, span: int) -> np.ndarray:
    """rows (T + S + 1,) of a table of 2 span rows: clip(distance + span, 0, 2 span - 1).

    He et al. 2021, eq. 3.   On the host.
    """
    _check_lengths("clipped_rows", T, S)
    check_whole("clipped_rows: span", span, 1, MOST)
    return np.clip(np.arange(-S, T + 1) + span, 0, 2 * span - 1)


def bucketed_rows(T: int, S: int, *, buckets: int, longest: int) -> np.ndarray:
    """rows (T + S + 1,) of a table of 2 n rows: clip(log_buckets(distance) + n, 0, 2 n - 1).

    n = buckets.   DeBERTa v2's released code.   On the host.
    """
    _check_lengths("bucketed_rows", T, S)
    distances = log_buckets(np.arange(-S, T + 1), buckets=buckets, longest=longest)
    return np.clip(distances + buckets, 0, 2 * buckets - 1)


def log_buckets(distances: np.ndarray, *, buckets: int, longest: int) -> np.ndarray:
    """d where |d| <= m = buckets // 2, else sign(d) (m + ceil((m - 1) q)),

        q = ln(|d| / m) / ln((longest - 1) / m).

    Each distance up to m has its own bucket; those up to longest - 1 share the other m - 1.
    DeBERTa v2's released code.   Logarithms are float32, as in transformers, since their rounding
    decides at the edges of buckets.
    ValueError unless 1 <= m < longest - 1.
    """
    check_array("log_buckets: distances", distances, "(...) integers")
    check_whole("log_buckets: buckets", buckets, most=MOST)
    check_whole("log_buckets: longest", longest, most=MOST)
    middle = buckets // 2
    if not 1 <= middle < longest - 1:
        raise ValueError(
            "log_buckets: expected buckets >= 2 and longest > buckets // 2 + 1, "
            f"got {buckets} and {longest}"
        )
    far = np.maximum(np.abs(distances), middle).astype("float32") / np.float32(middle)
    quotients = np.log(far) / np.log(np.float32((longest - 1) / middle))
    beyond = middle + np.ceil(quotients * np.float32(middle - 1)).astype(int)
    return np.where(np.abs(distances) <= middle, distances, np.sign(distances) * beyond)


def t5_rows(
    T: int,
    S: int,
    *,
    buckets: int,
    longest: int,
    bidirectional: bool,
    offset: int | None = None,
) -> np.ndarray:
    """rows (T + S - 1,) for `relative_bias`: t5_buckets(j - (T - 1) - offset), j = 0 .. T + S - 2.

    Query t is at position offset + t, key s at position s.   offset is S - T unless given, so that
    the queries are the last T of S positions, as with a cache.   On the host, a view of a table
    that cannot be written to: decoding asks for a row more with each token.
    """
    _check_lengths("t5_rows", T, S)
    check_whole("t5_rows: offset", offset, 0, MOST, or_none=True)
    if offset is None and T > S:
        raise mismatch("t5_rows: T", f"at most S = {S} queries without an offset", T)
    _check_t5(buckets, longest, bidirectional)
    first = 1 - T - (S - T if offset is None else offset)
    reach = max(-first, first + T + S - 2, 1)
    reach = 1 << (reach - 1).bit_length()  # so that few tables serve all lengths
    table = _t5_table(reach, buckets, longest, bidirectional)
    return table[first + reach : first + reach + T + S - 1]


@functools.lru_cache(maxsize=16)
def _t5_table(reach: int, buckets: int, longest: int, bidirectional: bool) -> np.ndarray:
    """The buckets of the distances -reach .. reach."""
    distances = np.arange(-reach, reach + 1)
    table = t5_buckets(distances, buckets=buckets, longest=longest, bidirectional=bidirectional)
    table.flags.writeable = False
    return table


def t5_buckets(
    distances: np.ndarray, *, buckets: int, longest: int, bidirectional: bool
) -> np.ndarray:
    """The buckets of distances s - t: d where d < m = n // 2, else

        min(m + floor((n - m) ln(d / m) / ln(longest / m)), n - 1).

    d = |s - t| and n = buckets // 2 if bidirectional, and n is added where s > t; otherwise
    d = max(t - s, 0), since no query sees later keys, and n = buckets.
    Raffel et al. 2020, sec. 2.1, and its released code, whose logarithm is float32: its rounding
    decides at the edges of buckets.  It is rounded from float64, the same on every processor.
    ValueError unless 1 <= m < longest.
    """
    check_array("t5_buckets: distances", distances, "(...) integers")
    n, exact = _check_t5(buckets, longest, bidirectional)
    distances = distances.astype(int)  # unsigned ones have no negatives
    d = np.abs(distances) if bidirectional else np.maximum(-distances, 0)
    ratios = np.maximum(d, exact).astype("float32") / np.float32(exact)
    logarithms = np.log(ratios.astype("float64")).astype("float32")
    quotients = logarithms / np.log(longest / exact).astype("float32") * np.float32(n - exact)
    beyond = np.clip(exact + quotients.astype(int), 0, n - 1)
    return np.where(d < exact, d, beyond) + np.where(bidirectional & (distances > 0), n, 0)


def _check_t5(buckets: int, longest: int, bidirectional: bool) -> tuple[int, int]:
    """(n, m) of `t5_buckets`."""
    check_whole("t5_buckets: buckets", buckets, most=MOST)
    check_whole("t5_buckets: longest", longest, most=MOST)
    check_flag("t5_buckets: bidirectional", bidirectional)
    n = buckets // 2 if bidirectional else buckets
    exact = n // 2
    if not 1 <= exact < longest:
        raise ValueError(
            f"t5_buckets: expected buckets >= {4 if bidirectional else 2} and longest > {exact}, "
            f"got {buckets} and {longest}"
        )
    return n, exact


def _check_lengths(name: str, T: int, S: int) -> None:
    check_whole(f"{name}: T", T, 1, MOST)
    check_whole(f"{name}: S", S, 1, MOST)
