"""Which row of a table of relative positions each distance has.

rows[j] is the row for the distance j - S = t - s between query t and key s.  Distances run from -S
to T for T queries and S keys; the two ends do not occur, but with them rows[::-1] are the rows for
s - t.  Computed on the host, from lengths and a config: on a device, a logarithm that rounds
differently would move the edge of a bucket.
"""

from __future__ import annotations

import numpy as np

from ..arguments import MOST, check_whole
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


def _check_lengths(name: str, T: int, S: int) -> None:
    check_whole(f"{name}: T", T, 1, MOST)
    check_whole(f"{name}: S", S, 1, MOST)
