"""How much of a text occurred before in it: lines, paragraphs, runs of words."""

from __future__ import annotations

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
    known: dict[str, int] = {}
    ids = np.array([known.setdefault(word, len(known)) for word in words], np.int64)
    lengths = np.fromiter(map(len, known), np.int64, len(known))
    return ids, lengths[ids] if len(ids) else ids


def repeated_ngrams(
    ids: np.ndarray, lengths: np.ndarray, most: int, gap: int
) -> Iterator[tuple[int, int, int]]:
    """(n, top, covered) for n = 2 ... most, in characters.

    top: of all occurrences of the most frequent n-gram (the first of them, if several are), with
    `gap` characters between its words; 0 if none occurs twice.
    covered: of the words in any n-gram that occurred before, each once.

    An n-gram can only repeat where its first n - 1 words and its last n - 1 words repeat, so each
    n sorts but the places that n - 1 left.
    """
    ends = np.concatenate([[0], np.cumsum(lengths)])
    places = np.arange(len(ids))
    names = ids  # of the (n - 1)-gram at each place, the same for the same words
    for n in range(2, most + 1):
        places = places[places + n <= len(ids)]
        if not len(places):
            yield n, 0, 0
            continue
        pairs = names[places] * np.int64(len(ids) + 1) + ids[places + n - 1]
        maybe = _perhaps_twice(pairs)
        places, pairs = places[maybe], pairs[maybe]
        if not len(places):
            yield n, 0, 0
            continue
        order = np.argsort(pairs, kind="stable")
        pairs, places = pairs[order], places[order]
        new = np.ones(len(pairs), bool)
        np.not_equal(pairs[1:], pairs[:-1], out=new[1:])
        starts = np.flatnonzero(new)
        counts = np.diff(starts, append=len(pairs))
        most_often = counts.max()
        if most_often < 2:
            places = places[:0]
            yield n, 0, 0
            continue
        first = places[starts[counts == most_often]].min()
        characters = ends[first + n] - ends[first] + gap * (n - 1)
        yield n, int(characters * most_often), _covered(places[~new], n, lengths)
        names = np.zeros(len(ids), np.int64)
        groups = np.cumsum(new)
        names[places] = groups
        places = np.sort(places[counts[groups - 1] > 1])


def _perhaps_twice(values: np.ndarray) -> np.ndarray:
    """False for most of those that occur once, without sorting; true for all others."""
    bits = max(8, (4 * len(values)).bit_length())
    buckets = (values * np.int64(-7046029254386353131)) >> np.int64(64 - bits)
    buckets += 1 << (bits - 1)
    return np.bincount(buckets, minlength=1 << bits)[buckets] > 1


def _covered(places: np.ndarray, n: int, lengths: np.ndarray) -> int:
    if not len(places):
        return 0
    steps = np.bincount(places, minlength=len(lengths) + 1)
    steps -= np.bincount(places + n, minlength=len(lengths) + 1)
    return int(lengths[np.cumsum(steps[:-1]) > 0].sum())
