"""How much of a text occurred before in it: lines, paragraphs, runs of words."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

import numpy as np


def duplicate_share(parts: list[str], total: int) -> tuple[float, float]:
    """Of parts that occurred before: their number as a share, their characters as a share of
    `total`."""
    if not parts:
        return 0.0, 0.0
    different = set(parts)
    if len(different) == len(parts):
        return 0.0, 0.0
    again = sum(map(len, parts)) - sum(map(len, different))
    return (len(parts) - len(different)) / len(parts), again / total


def word_ids(words: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(N,) int64 each: the same number for the same word, and its characters."""
    known: defaultdict[str, int] = defaultdict(itertools.count().__next__)
    ids = np.fromiter(map(known.__getitem__, words), np.int64, len(words))
    return ids, np.fromiter(map(len, words), np.int64, len(words))


def repeated_ngrams(
    ids: np.ndarray, lengths: np.ndarray, most: int, gap: int, covered_from: int = 2
) -> Iterator[tuple[int, int, int]]:
    """(n, top, covered) for n = 2 ... most, in characters.

    top: of all occurrences of the most frequent n-gram (the first of them, if several are), with
    `gap` characters between its words; 0 if none occurs twice.
    covered: of the words in any n-gram that occurred before, each once; never more than for a
    smaller n.  0 for n below `covered_from`.

    An n-gram can only repeat where its first n - 1 words and its last n - 1 words repeat, so each
    n sorts but the places that n - 1 left.
    """
    N = len(ids)
    places = np.arange(N)
    names = ids  # of the (n - 1)-gram at each of the places: the same for the same words
    for n in range(2, most + 1):
        if len(places) and places[-1] + n > N:
            inside = np.searchsorted(places, N - n, "right")
            places, names = places[:inside], names[:inside]
        places, groups, new = _grouped(names * (N + 1) + ids[places + n - 1], places)
        counts = np.bincount(groups)
        often = counts.max(initial=1)
        if often < 2:
            yield from ((later, 0, 0) for later in range(n, most + 1))
            return
        counts = counts[groups]
        first = places[counts == often].min()
        characters = int(lengths[first : first + n].sum()) + gap * (n - 1)
        covered = _covered(places[~new], n, lengths) if n >= covered_from else 0
        yield n, characters * int(often), covered
        kept = counts > 1
        places, names = places[kept], groups[kept]
        order = np.argsort(places)
        places, names = places[order], names[order]


def _grouped(values: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The places by value, those of one value in order; the number of its value for each, from 0;
    and where a value begins."""
    bits = int(places[-1]).bit_length() if len(places) else 1
    if len(values) and int(values.max()).bit_length() + bits < 63:
        keys = np.sort(values << bits | places)  # several times as quick as argsort
        values, places = keys >> bits, keys & ((1 << bits) - 1)
    else:
        order = np.argsort(values, kind="stable")
        values, places = values[order], places[order]
    new = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=new[1:])
    return places, np.cumsum(new) - 1, new


def _covered(places: np.ndarray, n: int, lengths: np.ndarray) -> int:
    if not len(places):
        return 0
    steps = np.bincount(places, minlength=len(lengths) + 1)
    steps -= np.bincount(places + n, minlength=len(lengths) + 1)
    return int(lengths[np.cumsum(steps[:-1]) > 0].sum())
