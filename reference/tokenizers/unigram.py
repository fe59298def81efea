"""The unigram model by enumeration of all segmentations.

Kudo 2018, section 3.2.

A word of n characters can be split at n - 1 places, so it has 2^(n - 1) segmentations.  Those
whose parts are all pieces or single unknown characters count; unknown characters have a score of
their own.  Standard library only.
"""

from __future__ import annotations

import math
import struct
from itertools import product


def segmentations(
    word: str, scores: dict[str, float], unknown: float
) -> list[tuple[list[str], float]]:
    """All (parts, log probability). unknown: the score of a character that is not a piece."""
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


def nbest(
    word: str, scores: dict[str, float], unknown: float, n: int
) -> list[tuple[list[str], float]]:
    return sorted(segmentations(word, scores, unknown), key=lambda found: -found[1])[:n]


def best_in_single_precision(word: str, scores: dict[str, float]) -> list[str]:
    """Viterbi in SentencePiece's arithmetic: sums are rounded to float32; ties keep the piece that
    starts first."""

    def rounded(number: float) -> float:
        return struct.unpack("f", struct.pack("f", number))[0]

    best: list[tuple[float, list[str]]] = [(0.0, [])]
    for end in range(1, len(word) + 1):
        found = [
            (
                rounded(best[start][0] + rounded(scores[word[start:end]])),
                [*best[start][1], word[start:end]],
            )
            for start in range(end)
            if word[start:end] in scores
        ]
        best.append(max(found, key=lambda sum_and_pieces: sum_and_pieces[0]))  # ties: the first
    return best[-1][1]


def distribution(
    word: str, scores: dict[str, float], unknown: float, alpha: float
) -> list[tuple[list[str], float]]:
    """(parts, probability) in proportion to P(parts)^alpha."""
    found = segmentations(word, scores, unknown)
    total = math.fsum(math.exp(alpha * score) for _, score in found)
    return [(parts, math.exp(alpha * score) / total) for parts, score in found]


def expected_counts(
    words: dict[str, int], scores: dict[str, float], unknown: float
) -> dict[str, float]:
    """The expected count of each piece in the words, over all segmentations."""
    expected = {piece: 0.0 for piece in scores}
    for word, count in words.items():
        for parts, probability in distribution(word, scores, unknown, 1.0):
            for part in parts:
                if part in expected:
                    expected[part] += count * probability
    return expected


def seeds(words: dict[str, int], longest: int) -> dict[str, int]:
    """Substrings of 2 to `longest` characters that occur at least twice, with their counts.

    Only those that end a word somewhere or are followed by two different characters: any other can
    be extended without occurring less often.
    """
    occurrences: dict[str, int] = {}
    followers: dict[str, set[str]] = {}
    for word, count in words.items():
        for part in word.split("\0"):
            for start in range(len(part)):
                for end in range(start + 2, min(start + longest, len(part)) + 1):
                    found = part[start:end]
                    occurrences[found] = occurrences.get(found, 0) + count
                    followers.setdefault(found, set()).add(part[end] if end < len(part) else "end")
    return {
        part: n
        for part, n in occurrences.items()
        if n > 1 and (len(followers[part]) > 1 or "end" in followers[part])
    }


def loss(piece: str, frequency: dict[str, int], scores: dict[str, float], unknown: float) -> float:
    """The drop in log likelihood if the piece is replaced by its second-best segmentation."""
    others = {other: score for other, score in scores.items() if other != piece}
    parts = nbest(piece, others, unknown, 1)[0][0]
    f, total = frequency[piece], sum(frequency.values())
    with_it = f * math.log(f / total)
    without = f * sum(
        math.log((frequency.get(part, 0) + f) / (total + f * (len(parts) - 1))) for part in parts
    )
    return with_it - without
