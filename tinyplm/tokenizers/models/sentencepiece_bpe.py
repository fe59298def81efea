"""SentencePiece's BPE, applied: the scores of pieces are converted to merges.

Kudo & Richardson 2018.

A trained model has pieces with scores, 0, -1, -2, ... in the order in which they were learned, and
no list of merges: among the adjacent parts whose concatenation is a piece, the pair with the best
score is joined, leftmost first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import regex

from ...arguments import mismatch, shown, wrong

# spelling, score, kind: normal, unknown, control, user_defined, byte, or (only in files) unused
Piece = tuple[str, float, str]

# The sum of the cubed piece lengths: about two seconds.  Gemma's 256,000 pieces reach 3% of it.
MOST_WORK = 5 * 10**9


def merges_from_scores(pieces: Sequence[Piece]) -> list[tuple[str, str]]:
    """Merges (left, right), ordered by rank, that encode any text as joining by score does.

    Each piece gets at most one merge, although it can be divided in many ways.  While a text is
    joined, a stretch that no piece crosses goes through the same steps as it would alone: the best
    pairs inside the stretch come in the same order.  So a piece is always formed from the same two
    pieces, those that remain before the last step when it is joined alone.  If it never gets down
    to two alone, it is never formed in any text and has no merge.

    This holds for normal pieces.  The others are not formed by joining: control, unknown and byte
    pieces are not text, and user-defined pieces must be matched as a whole beforehand, with nothing
    joined to them.  So a piece that contains a user-defined one is never formed.

    ValueError for what merges cannot express: two pieces that can be formed and have the same score
    (the leftmost would come first, but ranks cannot be equal); a letter in such a piece that is not
    a piece itself (a BPE model treats it as unknown from the start); an unused piece that can be
    formed (it takes part in joining and is split again at the end).
    """
    scores = {text: score for text, score, kind in pieces if kind in ("normal", "unused")}
    unused = {text for text, _, kind in pieces if kind == "unused"}
    chosen = [regex.escape(text) for text, _, kind in pieces if kind == "user_defined"]
    contains_chosen = regex.compile("|".join(chosen)).search if chosen else lambda text: None
    if sum(len(text) ** 3 for text in scores) > MOST_WORK:
        expected = "shorter ones, to convert their scores to merges"
        raise mismatch("pieces", expected, f"{max(map(len, scores))} characters in the longest")
    merges = []
    for piece, score in scores.items():
        parts = None if contains_chosen(piece) else _last_two(piece, scores)
        if parts is None:
            continue
        if piece in unused:
            raise wrong("pieces", "no unused piece that others can form", piece)
        if missing := [letter for letter in piece if letter not in scores]:
            given = f"none for {shown(missing[0])}"
            raise mismatch("pieces", f"a piece for each letter of {shown(piece)}", given)
        merges.append((-score, *parts))
    merges.sort(key=lambda merge: merge[0])
    for (score, *one), (other, *two) in zip(merges, merges[1:]):
        if score == other:
            raise ValueError(
                f"pieces: expected different scores, to order the merges, "
                f"got {-score} for both {shown(''.join(one))} and {shown(''.join(two))}"
            )
    return [(left, right) for _, left, right in merges]


def _last_two(piece: str, scores: Mapping[str, float]) -> tuple[str, str] | None:
    """The last two parts of `piece` when it is joined by score; None if joining stops earlier."""
    parts = list(piece)
    while len(parts) > 2:
        joined = [a + b for a, b in zip(parts, parts[1:])]
        known = [i for i, text in enumerate(joined) if text in scores]
        if not known:
            return None
        best = max(known, key=lambda i: scores[joined[i]])  # the first of equals
        parts[best : best + 2] = [joined[best]]
    return (parts[0], parts[1]) if len(parts) == 2 else None
