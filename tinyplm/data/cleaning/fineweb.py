"""The rules of FineWeb: Penedo et al. 2024, "The FineWeb datasets", sec. 3.5 and its code."""

from __future__ import annotations

from ...arguments import check_number, check_whole, known_arguments
from ..pipeline.step import Document, Result, Step
from .repeats import duplicate_share
from .words import words_of

ENDS = tuple(".?!。？！．｡؟۔।॥")  # without closing quotes, as in its code


def punctuation_share(lines: list[str]) -> float:
    """Of the lines, those that end with punctuation."""
    return sum(line.endswith(ENDS) for line in lines) / len(lines) if lines else 0.0


def short_share(lines: list[str], length: int) -> float:
    """Of the lines, those of at most `length` characters."""
    return sum(len(line) <= length for line in lines) / len(lines) if lines else 0.0


@known_arguments
def fineweb(
    *,
    least_punctuation: float = 0.12,
    most_short: float = 0.67,
    short: int = 30,
    most_duplicates: float = 0.01,
    most_line_ends: float = 0.3,
) -> Step:
    """Drops documents that break a rule.

    least_punctuation: the share of lines that end with punctuation (the paper drops those with at
    most 0.12).   most_short: the share of lines with fewer than `short` characters (0.67).
    most_duplicates: characters in lines that occurred before, as a share of all (the paper drops
    those with at least 0.1; its code, and this, more than 0.01).   most_line_ends: line ends for
    each word (lists; in the code alone).

    Blank lines do not count.  ENDS are the signs that end a line.
    """
    shares = {"least_punctuation": least_punctuation, "most_short": most_short}
    for name, value in {**shares, "most_duplicates": most_duplicates}.items():
        check_number(name, value, least=0, most=1)
    check_whole("short", short, 0, 1 << 40)
    check_number("most_line_ends", most_line_ends, least=0)

    def broken(text: str) -> str | None:
        lines = [line for line in map(str.rstrip, text.split("\n")) if line]
        if not lines:
            return "no text"
        if punctuation_share(lines) < least_punctuation:
            return f"fewer than {least_punctuation:.0%} of lines end with punctuation"
        if short_share(lines, short) > most_short:
            return f"more than {most_short:.0%} of lines have at most {short} characters"
        ends = text.count("\n")
        if duplicate_share(lines, len(text) - ends)[1] > most_duplicates:
            return f"more than {most_duplicates:.0%} of characters in duplicate lines"
        words = words_of(text).words
        if ends > most_line_ends * len(words):
            return f"more than {most_line_ends:g} line ends for each word"
        return None

    def step(document: Document) -> Result:
        reason = broken(document.text)
        return (document, {}) if reason is None else (None, {reason: 1})

    return step
