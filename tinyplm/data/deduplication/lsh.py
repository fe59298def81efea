"""Locality-sensitive hashing: which pairs of signatures to look at.

A signature is cut into b bands of r numbers.  Two documents are candidates if they agree in all r
numbers of some band, which for documents of similarity s has the probability

    P(s) = 1 - (1 - s^r)^b.          Leskovec, Rajaraman & Ullman, Mining of Massive Datasets, 3.4.2

For a threshold t, b and r with b r <= k minimise the two areas between this curve and a step at t,

    w_p int_0^t P(s) ds  +  w_n int_t^1 (1 - P(s)) ds,

weighted false positives and false negatives (the rule of the library datasketch, lsh.py).  P is a
polynomial of degree b r, which Gauss and Legendre's rule with (b r + 1) / 2 points or more
integrates exactly; more than MOST_POINTS change nothing that matters.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...arguments import check_number, check_whole
from ...random import fold, generator, key
from ..pipeline.step import Ragged
from .signatures import MOST_PERMUTATIONS

BLOCK = 1 << 15  # documents whose band is read together
MOST_POINTS = 200  # of the quadrature


def candidate_probability(similarity: float, *, bands: int, rows: int) -> float:
    """P(s) = 1 - (1 - s^r)^b."""
    check_number("similarity", similarity, least=0, most=1)
    check_whole("bands", bands, 1, MOST_PERMUTATIONS)
    check_whole("rows", rows, 1, MOST_PERMUTATIONS)
    return 1 - (1 - float(similarity) ** rows) ** bands


def best_bands(
    threshold: float, count: int, *, false_positives: float = 0.5, false_negatives: float = 0.5
) -> tuple[int, int]:
    """(b, r) for a threshold, from `count` numbers of a signature; not all of them need be used.

    false_positives, false_negatives: the weights w_p and w_n.
    """
    check_number("threshold", threshold, above=0, below=1)
    check_whole("count", count, 1, MOST_PERMUTATIONS)
    check_number("false_positives", false_positives, least=0)
    check_number("false_negatives", false_negatives, least=0)
    points, weights = np.polynomial.legendre.leggauss(min(count // 2 + 1, MOST_POINTS))
    below, above = threshold * (points + 1) / 2, threshold + (1 - threshold) * (points + 1) / 2
    w_p, w_n = false_positives * threshold / 2, false_negatives * (1 - threshold) / 2
    best = (np.inf, 1, 1)
    for r in range(1, count + 1):
        b = np.arange(1, count // r + 1)[:, None]
        areas = w_p * (1 - (1 - below**r) ** b) @ weights + w_n * (1 - above**r) ** b @ weights
        best = min(best, (float(areas.min()), int(areas.argmin()) + 1, r))
    return best[1], best[2]


def band_keys(
    signatures: Ragged, numbers: np.ndarray, band: int, rows: int, seed: int
) -> np.ndarray:
    """One number for the r numbers of a band: documents `numbers` (n,) -> (n,) uint64.

    sum over j of m_j x_j mod 2^64 with odd m_j from the seed.  Different bands x and y get the same
    key with a probability of at most 2^-32 (an odd difference d_j: 2^-63), which adds a candidate.
    """
    raw = generator(fold(key(seed), band)).bit_generator.random_raw(rows)
    multipliers = raw | np.uint64(1)
    keys = np.empty(len(numbers), np.uint64)
    columns = np.arange(band * rows, (band + 1) * rows)
    for start in range(0, len(numbers), BLOCK):
        first = signatures.offsets[numbers[start : start + BLOCK], None]
        values = signatures.values[first + columns].astype(np.uint64)
        keys[start : start + BLOCK] = (values * multipliers).sum(1)
    return keys


def candidate_pairs(
    keys: np.ndarray, clusters: np.ndarray, most: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of documents with the same key, as (left, right) with left < right, in arrays.

    keys (n,); clusters (n,): buckets (documents of one key) that lie in one cluster are passed
    over.  Within a bucket a document is paired with the `most` that follow it: with all, unless
    the bucket is larger.
    """
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    new = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    first = np.flatnonzero(new)
    mixed = np.ones(len(first), bool)
    if len(keys):
        among = clusters[order]
        mixed = np.minimum.reduceat(among, first) != np.maximum.reduceat(among, first)
    starts = np.flatnonzero(mixed[np.cumsum(new) - 1])
    for distance in range(1, most + 1):
        starts = starts[: np.searchsorted(starts, len(keys) - distance)]
        starts = starts[keys[starts] == keys[starts + distance]]
        if not len(starts):
            return
        yield order[starts], order[starts + distance]
