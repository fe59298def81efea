"""Duplicates in a corpus, by definition: Broder 1997; Leskovec, Rajaraman & Ullman, ch. 3; Lee et
al. 2022, sec. 4.1.

Sets are Python sets, texts are sequences, and everything is compared with everything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def runs(items: Sequence, width: int) -> set[tuple]:
    """All runs of `width` items; a shorter sequence is one run, an empty one has none."""
    if not items:
        return set()
    width = min(width, len(items))
    return {tuple(items[i : i + width]) for i in range(len(items) - width + 1)}


def jaccard(a: set, b: set) -> float:
    """|A & B| / |A | B|; 0 for two empty sets."""
    return len(a & b) / len(a | b) if a | b else 0.0


def run_hash(hashes: Sequence[int], base: int) -> int:
    """sum_j h_j g^(w - 1 - j) mod 2^64."""
    total = 0
    for j, h in enumerate(hashes):
        total += h * base ** (len(hashes) - 1 - j)
    return total % 2**64


def minimum(numbers: Sequence[int], a: int, b: int) -> int:
    """min_x ((a x + b) mod 2^64) / 2^32, rounded down (Thorup 2015, sec. 3.3)."""
    return min((a * x + b) % 2**64 // 2**32 for x in numbers)


def probability(similarity: float, bands: int, rows: int) -> float:
    """The sum of the chances that band i is the first in which all rows agree."""
    band = 1.0
    for _ in range(rows):
        band *= similarity
    total, none_before = 0.0, 1.0
    for _ in range(bands):
        total += none_before * band
        none_before *= 1 - band
    return total


def areas(threshold: float, bands: int, rows: int, steps: int) -> tuple[float, float]:
    """int_0^t P(s) ds and int_t^1 (1 - P(s)) ds by the midpoint rule."""
    below = above = 0.0
    for i in range(steps):
        s = threshold * (i + 0.5) / steps
        below += probability(s, bands, rows) * threshold / steps
        s = threshold + (1 - threshold) * (i + 0.5) / steps
        above += (1 - probability(s, bands, rows)) * (1 - threshold) / steps
    return below, above


def clusters(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    """For each element the smallest of its cluster: union-find (Galler & Fisher 1964)."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for left, right in pairs:
        a, b = root(left), root(right)
        parent[max(a, b)] = min(a, b)
    return [root(i) for i in range(count)]


def repeated(texts: Sequence[str], length: int) -> list[list[bool]]:
    """Which characters of each text to remove.

    Those of every run of `length` that equals an earlier one, but for those of a run that a later
    one equals and no earlier one does.
    """
    places = [(t, i) for t, text in enumerate(texts) for i in range(len(text) - length + 1)]
    removed = [[False] * len(text) for text in texts]
    needed = [[False] * len(text) for text in texts]
    for number, (t, i) in enumerate(places):
        run = texts[t][i : i + length]
        equal = [m for m, (u, j) in enumerate(places) if texts[u][j : j + length] == run]
        for j in range(i, i + length):
            if equal[0] < number:
                removed[t][j] = True
            elif len(equal) > 1:
                needed[t][j] = True
    return [[remove and not need for remove, need in zip(*flags)] for flags in zip(removed, needed)]


def binomial_tail(count: int, least: int, p: float) -> float:
    """P(X >= least) for X binomial(count, p), summed in logarithms."""
    total = 0.0
    for k in range(least, count + 1):
        if (p == 0 and k > 0) or (p == 1 and k < count):
            continue
        log = math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        log += (k * math.log(p) if k else 0.0) + ((count - k) * math.log(1 - p) if k < count else 0)
        total += math.exp(log)
    return total
