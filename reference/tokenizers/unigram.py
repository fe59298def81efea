"""The unigram model by enumeration of all segmentations.                                   Kudo 2018, section 3.2

A word of n characters can be cut at n - 1 places, so there are 2^(n - 1) ways to cut it; those count whose parts are all
pieces, or single unknown characters, which have a score of their own.  Standard library only.
"""

from __future__ import annotations

import math
from itertools import product


def segmentations(word: str, scores: dict[str, float], unknown: float) -> list[tuple[list[str], float]]:
    """All (parts, log probability). unknown: the score of a character that is no piece."""
    found = []
    for cut_here in product([False, True], repeat=max(len(word) - 1, 0)):
        parts = [word[:1]]
        for char, cut in zip(word[1:], cut_here):
            if cut:
                parts.append(char)
            else:
                parts[-1] += char
        if word == "":
            parts = []
        logs = [scores.get(part, unknown if len(part) == 1 else None) for part in parts]
        if None not in logs:
            found.append((parts, sum(logs)))
    return found


def log_likelihood(word: str, scores: dict[str, float], unknown: float) -> float:
    return math.log(math.fsum(math.exp(score) for _, score in segmentations(word, scores, unknown)))


def nbest(word: str, scores: dict[str, float], unknown: float, n: int) -> list[tuple[list[str], float]]:
    return sorted(segmentations(word, scores, unknown), key=lambda found: -found[1])[:n]


def distribution(word: str, scores: dict[str, float], unknown: float, alpha: float) -> list[tuple[list[str], float]]:
    """(parts, probability) in proportion to P(parts)^alpha."""
    found = segmentations(word, scores, unknown)
    total = math.fsum(math.exp(alpha * score) for _, score in found)
    return [(parts, math.exp(alpha * score) / total) for parts, score in found]


def expected_counts(words: dict[str, int], scores: dict[str, float], unknown: float) -> dict[str, float]:
    """How often each piece is expected in the words, over all segmentations in proportion to their probability."""
    expected = {piece: 0.0 for piece in scores}
    for word, count in words.items():
        for parts, probability in distribution(word, scores, unknown, 1.0):
            for part in parts:
                if part in expected:
                    expected[part] += count * probability
    return expected


def seeds(words: list[str], longest: int) -> dict[str, int]:
    """Substrings of 2 to `longest` characters, within one word, that two different characters follow: how often they occur.

    The end of a word is a character, too.
    """
    text = "".join(word + "\0" for word in words)
    followers: dict[str, list[str]] = {}
    for start in range(len(text)):
        for end in range(start + 2, min(start + longest, len(text) - 1) + 1):
            followers.setdefault(text[start:end], []).append(text[end])
    return {part: len(after) for part, after in followers.items() if "\0" not in part and len(set(after)) > 1}


def loss(piece: str, frequency: dict[str, int], scores: dict[str, float], unknown: float) -> float:
    """The fall of the log likelihood if the piece gives way to the second best segmentation of its spelling."""
    others = {other: score for other, score in scores.items() if other != piece}
    parts = nbest(piece, others, unknown, 1)[0][0]
    f, total = frequency[piece], sum(frequency.values())
    with_it = f * math.log(f / total)
    without = f * sum(math.log((frequency.get(part, 0) + f) / (total + f * (len(parts) - 1))) for part in parts)
    return with_it - without
