"""The rules of MassiveText: Rae et al. 2021, "Scaling language models: ... Gopher", appendix A.1.1.

Each number is a function of the text; each step asks all its rules and names the first that a
document breaks.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ...arguments import check_number, check_whole, known_arguments
from ..pipeline.step import Document, Result, Step
from .repeats import duplicate_share, repeated_ngrams, word_ids
from .words import Words, lines_of, paragraphs_of, words_of

MOST = 1 << 40  # of a limit
STOP_WORDS = frozenset("the be to of and that have with".split())  # app. A.1.1
BULLETS = ("-", "*", "•", "‣", "◦", "▪", "●", "·")
ELLIPSES = ("...", "…")
TOP = {2: 0.20, 3: 0.18, 4: 0.16}  # table A1
DUPLICATE = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}  # table A1
_WORDLESS = re.compile(r"(?<!\S)(?:[^\w\s]|[\d_])+(?!\S)")

# ---- quality


def mean_length(words: list[str]) -> float:
    """Characters of a word, on average."""
    return sum(map(len, words)) / len(words) if words else 0.0


def symbol_ratio(text: str, words: list[str], symbols: tuple[str, ...]) -> float:
    """How often one of the symbols stands in the text, for each word."""
    return sum(map(text.count, symbols)) / len(words) if words else 0.0


def bullet_share(lines: list[str]) -> float:
    """Of the lines, those that begin with a bullet."""
    return sum(line.startswith(BULLETS) for line in lines) / len(lines) if lines else 0.0


def ellipsis_share(lines: list[str]) -> float:
    """Of the lines, those that end with an ellipsis."""
    return sum(line.endswith(ELLIPSES) for line in lines) / len(lines) if lines else 0.0


def alphabetic_share(words: list[str]) -> float:
    """Of the words, those with a letter."""
    others = [word for word in words if not word.isalpha()]
    joined = " ".join(others)
    if joined.isascii():  # the quicker way; its digits and letters are the same
        without = len(_WORDLESS.findall(joined))
    else:
        without = sum(not any(map(str.isalpha, word)) for word in others)
    return 1 - without / len(words) if words else 0.0


def stop_words(words: list[str]) -> int:
    """How many different ones of STOP_WORDS occur; in small letters, as in datatrove."""
    return len(STOP_WORDS.intersection(words))


@known_arguments
def gopher_quality(
    *,
    least_words: int = 50,
    most_words: int = 100_000,
    least_length: float = 3.0,
    most_length: float = 10.0,
    most_symbols: float = 0.1,
    most_bullets: float = 0.9,
    most_ellipses: float = 0.3,
    least_alphabetic: float = 0.8,
    least_stop_words: int = 2,
) -> Step:
    """Drops documents that break a rule.

    least_words, most_words: words of a document.   least_length, most_length: characters of a word,
    on average.   most_symbols: hash signs, or ellipses, for each word.   most_bullets,
    most_ellipses: the share of lines that begin with a bullet, or end with an ellipsis.
    least_alphabetic: the share of words with a letter.   least_stop_words: of the, be, to, of,
    and, that, have, with, how many occur; for other languages 0.

    Of texts without spaces between words (words.py) an ideograph is a word, and their mean length
    and stop words are not asked.
    """
    check_whole("least_words", least_words, 0, MOST)
    check_whole("most_words", most_words, least_words, MOST)
    check_number("least_length", least_length, least=0, most=MOST)
    check_number("most_length", most_length, least=least_length)
    check_number("most_symbols", most_symbols, least=0)
    shares = {"most_bullets": most_bullets, "most_ellipses": most_ellipses}
    for name, value in {**shares, "least_alphabetic": least_alphabetic}.items():
        check_number(name, value, least=0, most=1)
    check_whole("least_stop_words", least_stop_words, 0, len(STOP_WORDS))

    def broken(text: str) -> str | None:
        words, unspaced = words_of(text)
        if len(words) < least_words:
            return f"fewer than {least_words:,} words"
        if len(words) > most_words:
            return f"more than {most_words:,} words"
        if not unspaced:
            length = mean_length(words)
            if length < least_length:
                return f"words shorter than {least_length:g} on average"
            if length > most_length:
                return f"words longer than {most_length:g} on average"
        for symbols, name in ((("#",), "hash signs"), (ELLIPSES, "ellipses")):
            if symbol_ratio(text, words, symbols) > most_symbols:
                return f"more than {most_symbols:g} {name} for each word"
        lines = lines_of(text)
        if bullet_share(lines) > most_bullets:
            return f"more than {most_bullets:.0%} of lines with bullets"
        if ellipsis_share(lines) > most_ellipses:
            return f"more than {most_ellipses:.0%} of lines end with an ellipsis"
        if alphabetic_share(words) < least_alphabetic:
            return f"fewer than {least_alphabetic:.0%} of words with a letter"
        if not unspaced and stop_words(words) < least_stop_words:
            return f"fewer than {least_stop_words} stop words"
        return None

    return _dropping(broken)


# ---- repetition


@known_arguments
def gopher_repetition(
    *,
    most_lines: float = 0.30,
    most_line_characters: float = 0.20,
    most_paragraphs: float = 0.30,
    most_paragraph_characters: float = 0.20,
    top: float = 1.0,
    duplicate: float = 1.0,
) -> Step:
    """Drops documents that repeat themselves (table A1).

    most_lines, most_paragraphs: the share of lines (paragraphs) that occurred before in the
    document; most_line_characters, most_paragraph_characters: the characters of these, as a share
    of the text.
    top, duplicate: factors on the table's limits for the characters of the most frequent run of 2,
    3 and 4 words (0.20, 0.18, 0.16), and of all runs of 5 to 10 words that occurred before (0.15,
    0.14 ... 0.10), as shares of the text.   0.5 is twice as strict.

    What occurs for the first time does not count as a duplicate.  A character in several runs
    counts once.
    """
    limits = {
        "most_lines": most_lines,
        "most_line_characters": most_line_characters,
        "most_paragraphs": most_paragraphs,
        "most_paragraph_characters": most_paragraph_characters,
    }
    for name, value in limits.items():
        check_number(name, value, least=0, most=1)
    check_number("top", top, above=0)
    check_number("duplicate", duplicate, above=0)

    def broken(text: str) -> str | None:
        for parts, what, share, characters in (
            (paragraphs_of(text), "paragraphs", most_paragraphs, most_paragraph_characters),
            (lines_of(text), "lines", most_lines, most_line_characters),
        ):
            count, length = duplicate_share(parts, len(text))
            if count > share:
                return f"more than {share:.0%} of {what} are duplicates"
            if length > characters:
                return f"more than {characters:.0%} of characters in duplicate {what}"
        return _repetitive(words_of(text), len(text), top, duplicate)

    return _dropping(broken)


def _repetitive(words: Words, total: int, top: float, duplicate: float) -> str | None:
    ids, lengths = word_ids(words.words)
    gap = 0 if words.unspaced else 1
    least = min(DUPLICATE.values()) * duplicate * total
    longest = max(TOP)
    for n, frequent, covered in repeated_ngrams(ids, lengths, max(DUPLICATE), gap, longest):
        if n in TOP and frequent > TOP[n] * top * total:
            return f"more than {TOP[n] * top:.0%} of characters in the most frequent {n}-gram"
        if n >= longest and covered <= least:  # so are the later ones
            return None
        if n in DUPLICATE and covered > DUPLICATE[n] * duplicate * total:
            return f"more than {DUPLICATE[n] * duplicate:.0%} of characters in duplicate {n}-grams"
    return None


def _dropping(broken: Callable[[str], str | None]) -> Step:
    def step(document: Document) -> Result:
        reason = broken(document.text)
        return (document, {}) if reason is None else (None, {reason: 1})

    return step
