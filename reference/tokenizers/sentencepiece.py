"""SentencePiece's BPE, recounting and searching everything in each round.

Kudo & Richardson 2018; Sennrich et al. 2016.

A word is a list of strings.  Spaces are written ▁.  Standard library only.
"""

from __future__ import annotations

SPACE = "▁"


def allowed(text: str, scripts: dict[str, str], longest: int) -> bool:
    """Whether text may be a piece: short enough, ▁ only in front, all letters of one script.

    Letters outside the alphabet are not in `scripts`.
    """
    if len(text) > longest or SPACE in text[1:]:
        return False
    letters = [letter for letter in text if letter != SPACE]
    return all(letter in scripts and scripts[letter] == scripts[letters[0]] for letter in letters)


def train(
    words: dict[str, int], scripts: dict[str, str], rounds: int, longest: int = 16
) -> list[str]:
    """The merged pieces: each round merges the most frequent pair.

    Ties go to the shorter, then to the smaller text.  Overlapping occurrences count: x x x contains
    the pair x x twice.
    """
    corpus = [(list(word), count) for word, count in words.items()]
    pieces: list[str] = []
    for _ in range(rounds):
        counts: dict[tuple[str, str], int] = {}
        for word, count in corpus:
            for a, b in zip(word, word[1:]):
                if allowed(a + b, scripts, longest):
                    counts[a, b] = counts.get((a, b), 0) + count
        counts = {pair: count for pair, count in counts.items() if count > 0}
        if not counts:
            break
        a, b = min(
            counts, key=lambda pair: (-counts[pair], len(pair[0] + pair[1]), pair[0] + pair[1])
        )
        pieces.append(a + b)
        corpus = [(join(word, a, b), count) for word, count in corpus]
    return pieces


def join(word: list[str], a: str, b: str) -> list[str]:
    """Each a b, from left to right, becomes one piece."""
    result: list[str] = []
    i = 0
    while i < len(word):
        if word[i : i + 2] == [a, b]:
            result.append(a + b)
            i += 2
        else:
            result.append(word[i])
            i += 1
    return result


def encode(text: str, scores: dict[str, float], user_defined: tuple[str, ...] = ()) -> list[str]:
    """Repeatedly join the two neighbours whose joined text is the piece with the best score.

    Ties go to the leftmost.  User-defined pieces are matched first, from left to right, the longest
    at each position, and are never joined.  Letters that are not pieces stay unchanged.
    """
    parts: list[tuple[str, bool]] = []  # text, and whether it may be joined
    while text:
        found = max(
            (piece for piece in user_defined if text.startswith(piece)), key=len, default=""
        )
        parts.append((found, False) if found else (text[0], True))
        text = text[len(parts[-1][0]) :]
    while True:
        best = None
        for i in range(len(parts) - 1):
            (a, free), (b, also_free) = parts[i], parts[i + 1]
            if (
                free
                and also_free
                and a + b in scores
                and (best is None or scores[a + b] > scores[best[1]])
            ):
                best = (i, a + b)
        if best is None:
            return [part for part, _ in parts]
        i, joined = best
        parts[i : i + 2] = [(joined, True)]
