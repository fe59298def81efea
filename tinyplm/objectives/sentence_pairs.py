"""Pairs of segments for next-sentence prediction (BERT) and sentence-order prediction (ALBERT).

    NSP   label 0: b follows a   label 1: b is from another document    Devlin et al. 2019, sec. 3.1
    SOP   label 0: b follows a   label 1: a follows b (swapped)         Lan et al. 2020, sec. 3.1

A document is walked once: sentences (at least two) are collected until they have the target number
of tokens, then cut into a and b at a random boundary. For one pair in ten the target is itself
random, from 2 up, so that short inputs are seen too. If b is drawn from elsewhere, the walk resumes
at the sentences it replaced, so none is lost. A single sentence left at the end of a document makes
no pair. (BERT's released code keeps it, and any single sentence that is long enough, always with a
random b, so the length reveals the label. Here the label is a fair coin for any text.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..arguments import MOST, check_key, check_number, check_whole, mismatch, wrong
from ..random import fold
from .draws import Draws
from .inputs import Documents

SHORT_RATE = 0.1


class Pair(NamedTuple):
    """Two runs of sentences, each (first, stop), of a `Documents`, and the label."""

    a: tuple[int, int]
    b: tuple[int, int]
    label: int


def next_sentence_pairs(
    documents: Documents, number: int, *, tokens: int, key: int, short_rate: float = SHORT_RATE
) -> list[Pair]:
    """The NSP pairs of document `number`, of about `tokens` tokens each, still to be truncated.

    The key may be the same for all documents. With tokens = 2 and short_rate = 0 these are pairs of
    single sentences: RoBERTa's SENTENCE-PAIR (Liu et al. 2019, sec. 4.2).
    ValueError for a document with fewer than two sentences, or if it is the only one.
    """
    if not isinstance(documents, Documents):
        raise wrong("documents", "Documents", documents)
    if len(documents) < 2:
        expected = "two or more (a random next sentence comes from another one)"
        raise mismatch("documents", expected, "1")

    def second(draws: Draws, a: tuple[int, int], end: int, wanted: int) -> tuple[Pair, int]:
        if draws.uniform() < 0.5:
            return Pair(a, (a[1], end), 0), end
        other = draws.integer(len(documents) - 1)
        first, stop = documents.sentences(other + (other >= number))
        start = first + draws.integer(stop - first)
        b = (start, documents.reaching(start, wanted - documents.size(*a), 1, stop))
        return Pair(a, b, 1), a[1]

    return list(_pairs(documents, number, tokens, key, short_rate, second))


def sentence_order_pairs(
    documents: Documents, number: int, *, tokens: int, key: int, short_rate: float = SHORT_RATE
) -> list[Pair]:
    """The SOP pairs of document `number`, likewise. ValueError for fewer than two sentences."""

    def second(draws: Draws, a: tuple[int, int], end: int, wanted: int) -> tuple[Pair, int]:
        b = (a[1], end)
        return (Pair(a, b, 0) if draws.uniform() < 0.5 else Pair(b, a, 1)), end

    return list(_pairs(documents, number, tokens, key, short_rate, second))


def _pairs(
    documents: Documents, number: int, tokens: int, key: int, short_rate: float, second: Callable
) -> Iterator[Pair]:
    if not isinstance(documents, Documents):
        raise wrong("documents", "Documents", documents)
    check_whole("number", number, 0, len(documents) - 1)
    check_whole("tokens", tokens, 2, MOST)
    check_number("short_rate", short_rate, least=0, most=1)
    check_key("key", key)
    start, end = documents.sentences(number)
    if end - start < 2:
        raise ValueError(f"document {number}: expected 2 or more sentences, got {end - start}")
    while end - start >= 2:
        draws = Draws(fold(key, start))
        wanted = 2 + draws.integer(tokens - 1) if draws.uniform() < short_rate else tokens
        stop = documents.reaching(start, wanted, 2, end)
        a = (start, start + 1 + draws.integer(stop - start - 1))
        pair, start = second(draws, a, stop, wanted)
        yield pair
