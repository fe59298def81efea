"""Measures of benchmarks, from the papers: pass@k, windows of a long text."""

from __future__ import annotations

from collections.abc import Iterator
from math import comb


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k), in whole numbers.                     Chen et al. 2021, eq. 1"""
    return 1 - comb(samples - correct, k) / comb(samples, k)


def contexts(count: int, longest: int, least: int) -> Iterator[tuple[int, int]]:
    """(first token read, token predicted) of each of `count` tokens behind a first one, number 0.

    The first `longest` tokens are read from number 0; then longest - least + 1 at a time, or what
    remains, are predicted from the last `longest` tokens before the last of them.
    """
    end = min(longest, count)
    for place in range(1, end + 1):
        yield 0, place
    while end < count:
        after = min(count, end + longest - least + 1)
        for place in range(end + 1, after + 1):
            yield after - longest, place
        end = after
