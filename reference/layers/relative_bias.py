"""Relative position bias: a learned number for each head and bucket of distances (T5)."""

import math

import numpy as np

from reference.scalar import numbers, zeros


def t5_bucket(distance: int, *, buckets: int, longest: int, bidirectional: bool) -> int:
    """The bucket of distance = key's position - query's position.

    bidirectional: the first half of the buckets is for keys at or before the query, the second half
    for keys after it.  Otherwise all buckets are for keys at or before the query, and a later key
    counts as distance 0.
    Of n such buckets, the first m = n // 2 hold one distance d each.  The others hold longer and
    longer ranges, up to `longest`, and the last holds everything beyond:

        m + floor((n - m) ln(d / m) / ln(longest / m)), but at most n - 1.

    Raffel et al. 2020, sec. 2.1: "the ranges increase in size logarithmically up to an offset of
    128"; the formula is that of the released code, computed in float32.
    """
    n = buckets
    first = 0
    if bidirectional:
        n = buckets // 2
        first = n if distance > 0 else 0
        d = abs(distance)
    else:
        d = -min(distance, 0)
    m = n // 2
    if d < m:
        return first + d
    ratio = np.float32(d) / np.float32(m)
    quotient = np.float32(math.log(ratio)) / np.float32(math.log(longest / m))
    return first + min(m + math.floor(quotient * np.float32(n - m)), n - 1)


def bucket_table(T: int, S: int, bucket, *, first: int = 0) -> np.ndarray:
    """buckets[t, s] = bucket(s - (first + t)): query t is at position first + t.   -> (T, S)."""
    table = np.zeros((T, S), dtype=np.int64)
    for t in range(T):
        for s in range(S):
            table[t, s] = bucket(s - (first + t))
    return table


def relative_bias(table: np.ndarray, *, buckets: np.ndarray) -> np.ndarray:
    """bias[0, h, t, s] = table[buckets[t, s], h]: "each embedding is simply a scalar".

    table (N, H), buckets (T, S) integers -> (1, H, T, S), added to the logits of attention.
    Raffel et al. 2020, sec. 2.1
    """
    table = numbers(table)
    H = table.shape[1]
    T, S = buckets.shape
    bias = zeros((1, H, T, S), like=table)
    for h, t, s in np.ndindex(H, T, S):
        bias[0, h, t, s] = table[buckets[t, s], h]
    return bias
