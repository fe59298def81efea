"""WordPiece, recounting everything in each round.

Schuster & Nakajima 2012; Devlin et al. 2019.

A word is a list of tokens as they are spelled, with the prefix "##" except at the word's start.
"""

from __future__ import annotations

from fractions import Fraction

PREFIX = "##"


def letters_of(word: str) -> list[str]:
    return [letter if i == 0 else PREFIX + letter for i, letter in enumerate(word)]


def merged(a: str, b: str) -> str:
    """a + b as one token; b is inside a word, so its prefix is removed."""
    return a + b[len(PREFIX) :]


def replace(word: list[str], a: str, b: str) -> list[str]:
    """Each a b, from left to right, becomes one token."""
    result: list[str] = []
    i = 0
    while i < len(word):
        if word[i : i + 2] == [a, b]:
            result.append(merged(a, b))
            i += 2
        else:
            result.append(word[i])
            i += 1
    return result


def score(a: str, b: str, corpus: list[tuple[list[str], int]]) -> Fraction:
    """count(a b) / (count(a) count(b))."""
    count_a = sum(count for word, count in corpus for token in word if token == a)
    count_b = sum(count for word, count in corpus for token in word if token == b)
    return Fraction(pair_count(a, b, corpus), count_a * count_b)


def pair_count(a: str, b: str, corpus: list[tuple[list[str], int]]) -> int:
    """Overlapping occurrences count: x x x contains x x twice."""
    return sum(
        count for word, count in corpus for i in range(len(word) - 1) if word[i : i + 2] == [a, b]
    )


def train(
    words: dict[str, int],
    tokens: list[str],
    vocab_size: int,
    min_frequency: int = 1,
    by_frequency: bool = False,
) -> list[str]:
    """Special tokens, letters, "##" letters, then one merged token per round.

    Each round merges the pair with the highest score or count; ties go to the pair whose parts come
    first in the vocabulary.  Pairs whose merged token already exists are skipped.
    """
    alphabet = sorted({letter for word in words for letter in word})
    vocabulary = tokens + alphabet + [PREFIX + letter for letter in alphabet]
    corpus = [(letters_of(word), count) for word, count in words.items()]
    while len(vocabulary) < vocab_size:
        candidates = []
        for word, _ in corpus:
            for a, b in zip(word, word[1:]):
                if pair_count(a, b, corpus) >= min_frequency and merged(a, b) not in vocabulary:
                    value = pair_count(a, b, corpus) if by_frequency else score(a, b, corpus)
                    candidates.append((-value, vocabulary.index(a), vocabulary.index(b)))
        if not candidates:
            break
        _, i, j = min(candidates)
        a, b = vocabulary[i], vocabulary[j]
        vocabulary.append(merged(a, b))
        corpus = [(replace(word, a, b), count) for word, count in corpus]
    return vocabulary


def encode(
    word: str, vocabulary: list[str], unknown: str = "[UNK]", longest: int = 100
) -> list[str]:
    """The longest match from left to right; one unknown token if some position has no match, or the
    word is too long."""
    if len(word) > longest:
        return [unknown]
    tokens: list[str] = []
    start = 0
    while start < len(word):
        for end in range(len(word), start, -1):
            token = (PREFIX if start > 0 else "") + word[start:end]
            if token in vocabulary:
                tokens.append(token)
                start = end
                break
        else:
            return [unknown]
    return tokens
