"""Byte-pair encoding, recounting everything in each round.

Sennrich et al. 2016, Algorithm 1.

A word is a list of symbols; a symbol is a number. Standard library only.
"""

from __future__ import annotations


def pairs_of(word: list[int]) -> list[tuple[int, int]]:
    return [(word[i], word[i + 1]) for i in range(len(word) - 1)]


def replace(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """Each occurrence of the pair, from left to right, becomes `new`."""
    result: list[int] = []
    i = 0
    while i < len(word):
        if tuple(word[i : i + 2]) == pair:
            result.append(new)
            i += 2
        else:
            result.append(word[i])
            i += 1
    return result


def train(
    corpus: list[tuple[list[int], int]], first_new: int, rounds: int
) -> list[tuple[int, int, int]]:
    """Merges (left, right, new), one per round.

    corpus: words and their counts. The new symbols are first_new, first_new + 1, ...; at most
    `rounds`. Each round merges the most frequent pair; ties go to the smallest pair. Overlapping
    occurrences count: x x x contains the pair x x twice.
    """
    words = [(list(word), count) for word, count in corpus]
    merges = []
    for new in range(first_new, first_new + rounds):
        counts: dict[tuple[int, int], int] = {}
        for word, count in words:
            for pair in pairs_of(word):
                counts[pair] = counts.get(pair, 0) + count
        if not counts:
            break
        most = max(counts.values())
        best = min(pair for pair in counts if counts[pair] == most)
        words = [(replace(word, best, new), count) for word, count in words]
        merges.append((*best, new))
    return merges


def encode(word: list[int], merges: list[tuple[int, int, int]]) -> list[int]:
    """Repeatedly apply the earliest merge that occurs in the word, at its leftmost occurrence."""
    word = list(word)
    while True:
        for a, b, new in merges:
            if (a, b) in pairs_of(word):
                at = pairs_of(word).index((a, b))
                word[at : at + 2] = [new]
                break
        else:
            return word
