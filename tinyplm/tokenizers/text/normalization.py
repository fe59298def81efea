"""Normalizers: rewrite text before it is cut into words, so that equivalent spellings get the same
tokens.

    Lowercase, StripAccents, BertNormalizer, Nmt, Strip, Prepend, Replace, ByteLevel, Sequence
    NFC, NFD, NFKC, NFKD (unicode_forms.py), Precompiled (precompiled.py)

Each has two forms: `normalizer(text)` returns the text, fast, with string methods that run in C;
`normalizer.aligned(piece)` returns the same text with the span of each character.  Both follow the
library `tokenizers`, which the files are written for, even where it departs from the paper (noted
below).

Which characters are cased letters, marks or controls depends on the Unicode version: here, that of
Python's `unicodedata` and of the package `regex`.  The library has tables of several versions
(BERT's marks: Unicode 8), so it may treat characters differently that were added or recategorized
later.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import regex

from ...arguments import mismatch, wrong
from ..component import Normalizer, read_parts
from .alignment import Aligned, Span
from .bytelevel import BYTE_TO_CHAR, check_encodable
from .patterns import GROWTH, ROOM, Limited, check_growth, compile_pattern, find_matches, substitute
from .precompiled import Precompiled
from .unicode_forms import NFC, NFD, NFKC, NFKD


def expanded(piece: Aligned, expand: Callable[[str], str]) -> Aligned:
    """Replaces each character by one or more, which all get its span."""
    return piece.changed(
        (part, min(k, 1)) for char in piece.text for k, part in enumerate(expand(char))
    )


def without(piece: Aligned, drop: regex.Pattern) -> Aligned:
    """Drops the characters that match; the others keep their spans."""
    if not drop.search(piece.text):
        return piece
    kept = [(char, span) for char, span in zip(piece.text, piece.spans) if not drop.match(char)]
    return Aligned("".join(char for char, _ in kept), [span for _, span in kept], piece.start)


# --- case, accents, spaces


@dataclass(frozen=True)
class Lowercase(Normalizer):
    """Lowercase each character by itself: Σ is always σ, where str.lower writes ς at the end of a
    word."""

    def __call__(self, text: str) -> str:
        return text.replace("Σ", "σ").lower()

    def aligned(self, piece: Aligned) -> Aligned:
        text = self(piece.text)
        # No character becomes empty, so an equal length means that each became one character.
        return piece.replaced(text) if len(text) == len(piece.text) else expanded(piece, str.lower)


@dataclass(frozen=True)
class StripAccents(Normalizer):
    """Drop all marks (M).  Composed letters keep theirs, so a decomposition usually precedes it."""

    def __call__(self, text: str) -> str:
        return text if text.isascii() else _MARKS.sub("", text)

    def aligned(self, piece: Aligned) -> Aligned:
        return without(piece, _MARKS)


_MARKS = regex.compile(r"\p{M}+")
_ACCENTS = regex.compile(r"\p{Mn}+")  # BERT's: nonspacing marks only
_DROPPED = regex.compile(r"[\p{Cc}\p{Cf}\p{Co}\uFFFD--[\t\n\r]]", regex.VERSION1)
_SPACE = regex.compile(r"[\t\n\r\p{White_Space}]")
# Blocks of CJK ideographs.  The one at U+2B920 starts at U+2B820 in BERT, but not in the library,
# and therefore not here.
_IDEOGRAPH = regex.compile(
    r"[\u4E00-\u9FFF\u3400-\u4DBF\U00020000-\U0002A6DF\U0002A700-\U0002B73F"
    r"\U0002B740-\U0002B81F\U0002B920-\U0002CEAF\uF900-\uFAFF\U0002F800-\U0002FA1F]"
)


class _BertTable(dict[int, str]):
    """For str.translate: code point -> its cleaned form, with spaces around an ideograph."""

    def __init__(self, clean: bool, set_off: bool):
        super().__init__()
        self.clean, self.set_off = clean, set_off

    def __missing__(self, code: int) -> str:
        char = chr(code)
        if self.clean:
            char = "" if _DROPPED.match(char) else " " if _SPACE.match(char) else char
        self[code] = f" {char} " if self.set_off and _IDEOGRAPH.match(char) else char
        return self[code]


@dataclass(frozen=True)
class BertNormalizer(Normalizer):
    """The normalization of BERT's published code (BasicTokenizer, Devlin et al. 2019), in four
    steps:

    clean_text: drop control characters, U+FFFD, format and private-use characters; white space
    becomes " ".
    handle_chinese_chars: put spaces around each ideograph, which makes it a word.
    strip_accents: NFD, then drop nonspacing marks (Mn).  None: the same as `lowercase`.
    lowercase: each character by itself.
    """

    clean_text: bool = True
    handle_chinese_chars: bool = True
    strip_accents: bool | None = None
    lowercase: bool = True

    def __post_init__(self) -> None:
        if self.strip_accents is not None and not isinstance(self.strip_accents, bool):
            raise wrong("strip_accents", "true, false or null", self.strip_accents)

    @cached_property
    def _table(self) -> _BertTable:
        return _BertTable(self.clean_text, self.handle_chinese_chars)

    @property
    def _strips(self) -> bool:
        return self.lowercase if self.strip_accents is None else self.strip_accents

    def __call__(self, text: str) -> str:
        text = text.translate(self._table)
        if self._strips and not text.isascii():
            text = _ACCENTS.sub("", unicodedata.normalize("NFD", text))
        return Lowercase()(text) if self.lowercase else text

    def aligned(self, piece: Aligned) -> Aligned:
        if self.clean_text:
            piece = without(piece, _DROPPED)
            piece = piece.replaced(_SPACE.sub(" ", piece.text))
        if self.handle_chinese_chars and _IDEOGRAPH.search(piece.text):
            piece = expanded(piece, lambda char: f" {char} " if _IDEOGRAPH.match(char) else char)
        if self._strips:
            piece = without(NFD().aligned(piece), _ACCENTS)
        return Lowercase().aligned(piece) if self.lowercase else piece


@dataclass(frozen=True)
class Nmt(Normalizer):
    """SentencePiece's cleaning for translation ("nmt" in nmt_nfkc): drop controls, unusual white
    space becomes " "."""

    def __call__(self, text: str) -> str:
        return _NMT_SPACE.sub(" ", _NMT_DROPPED.sub("", text))

    def aligned(self, piece: Aligned) -> Aligned:
        piece = without(piece, _NMT_DROPPED)
        return piece.replaced(_NMT_SPACE.sub(" ", piece.text))


_NMT_DROPPED = regex.compile(r"[\x01-\x08\x0B\x0E-\x1F\x7F\x8F\x9F]")
_NMT_SPACE = regex.compile(r"[\t\n\f\r\u1680\u200B-\u200F\u2028\u2029\u2581\uFEFF\uFFFD]")

WHITE_SPACE = "".join(filter(regex.compile(r"\p{White_Space}").match, map(chr, range(0x3001))))


@dataclass(frozen=True)
class Strip(Normalizer):
    """Drop Unicode white space at the start and the end (not U+001C to U+001F, which str.strip
    drops, too)."""

    strip_left: bool = True
    strip_right: bool = True

    def __call__(self, text: str) -> str:
        text = text.lstrip(WHITE_SPACE) if self.strip_left else text
        return text.rstrip(WHITE_SPACE) if self.strip_right else text

    def aligned(self, piece: Aligned) -> Aligned:
        text = self(piece.text)
        # Only white space precedes the rest, so the first occurrence is the right one.
        start = piece.text.find(text) if text else 0
        return Aligned(text, piece.spans[start : start + len(text)], piece.start)


# --- insertions and replacements


@dataclass(frozen=True)
class Prepend(Normalizer):
    """Put a text before any piece that is not empty.  It has the span of the first character."""

    prepend: str

    def __post_init__(self) -> None:
        check_encodable(self.prepend, "prepend")
        if len(self.prepend) > ROOM:
            raise mismatch("prepend", f"at most {ROOM} characters", len(self.prepend))

    def __call__(self, text: str) -> str:
        return self.prepend + text if text else text

    def aligned(self, piece: Aligned) -> Aligned:
        spans = piece.spans[:1] * len(self.prepend) + piece.spans
        return Aligned(self(piece.text), spans, piece.start)


@dataclass(frozen=True)
class Replace(Normalizer):
    """Replace all matches of a pattern (patterns.py), from left to right, by a text in which \\1
    has no special meaning.

    The text has the span of the last replaced character, or for an empty match that of the previous
    character.
    """

    pattern: dict[str, str]
    content: str

    def __post_init__(self) -> None:
        check_encodable(self.content, "content")
        _ = self._regex  # checks the pattern

    @cached_property
    def _regex(self) -> regex.Pattern | Limited:
        return compile_pattern(self.pattern)

    def __call__(self, text: str) -> str:
        if (string := self.pattern.get("String")) is not None:
            if len(self.content) > GROWTH:
                check_growth(len(text), len(text) + text.count(string) * len(self.content))
            return text.replace(string, self.content) if text else text
        return substitute(self._regex, self.content, text)

    def aligned(self, piece: Aligned) -> Aligned:
        spans: list[Span] = []
        place = 0
        matches = find_matches(self._regex, piece.text) if piece.text else []
        if len(self.content) > GROWTH:
            check_growth(len(piece.text), len(piece.text) + len(matches) * len(self.content))
        for start, end in matches:
            span = piece.spans[end - 1] if end else (piece.start, piece.start)
            spans += piece.spans[place:start] + [span] * len(self.content)
            place = end
        return Aligned(self(piece.text), spans + piece.spans[place:], piece.start)


@dataclass(frozen=True)
class ByteLevel(Normalizer):
    """Replace every byte of the UTF-8 by its character in GPT-2's table (bytelevel.py)."""

    def __call__(self, text: str) -> str:
        return text.encode().decode("latin-1").translate(BYTE_TO_CHAR)

    def aligned(self, piece: Aligned) -> Aligned:
        return expanded(piece, self)


@dataclass(frozen=True)
class Sequence(Normalizer):
    """Several normalizers in a row."""

    normalizers: tuple[Normalizer, ...]

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> Sequence:
        return cls(read_parts(content, "normalizers", NORMALIZERS, where))

    def to_json(self) -> dict[str, Any]:
        return {"type": "Sequence", "normalizers": [part.to_json() for part in self.normalizers]}

    def __call__(self, text: str) -> str:
        before, limit = len(text), GROWTH * len(text) + ROOM
        for part in self._flat:
            text = part(text)
            if len(text) > limit:
                check_growth(before, len(text))
        return text

    def aligned(self, piece: Aligned) -> Aligned:
        before, limit = len(piece.text), GROWTH * len(piece.text) + ROOM
        for part in self._flat:
            piece = part.aligned(piece)
            if len(piece.text) > limit:
                check_growth(before, len(piece.text))
        return piece

    @cached_property
    def _flat(self) -> list[Normalizer]:
        """The parts, with nested Sequences flattened."""
        return [
            flat
            for part in self.normalizers
            for flat in (part._flat if isinstance(part, Sequence) else [part])
        ]


_KINDS: tuple[type[Normalizer], ...] = (
    *(NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, BertNormalizer, Nmt, Strip, Prepend),
    *(Replace, ByteLevel, Precompiled, Sequence),
)
NORMALIZERS: dict[str, type[Normalizer]] = {kind.__name__: kind for kind in _KINDS}
