"""Pre-tokenizers: cut normalized text into words.  The model (BPE, WordPiece, Unigram) then works
within each word.

    Whitespace, WhitespaceSplit, BertPreTokenizer, CharDelimiterSplit    separators are dropped
    Punctuation, Digits, Split                                           matches are cut out
    ByteLevel (GPT-2), Metaspace (SentencePiece)                         spaces become visible

`cut` returns the words as the model sees them; `cut_aligned` returns the same with the origin of
each character (alignment.py).  Names and behaviour are those of the components of a tokenizer.json.

White space is Unicode's White_Space (without the separators U+001C to U+001F, which Python's
str.isspace includes).  Letters, digits and punctuation are those of the package `regex`.
Punctuation includes all ASCII symbols, as in BERT's code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import regex

from ...arguments import check_choice, mismatch, wrong
from ..component import Component, read_parts
from .alignment import Aligned, Span
from .bytelevel import BYTE_TO_CHAR, bytes_to_chars, split_words
from .patterns import Limited, compile_pattern, find_matches

BEHAVIORS = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
MOST_BYTE_LEVELS = 4
_PUNCTUATION = r"\p{P}!-/:-@\[-`{-~"  # for use in a set


class PreTokenizer(Component):
    def cut(self, text: str, first: bool = True) -> list[str]:
        """The words.  first: the piece is at the start of the text."""
        raise NotImplementedError

    def cut_aligned(self, piece: Aligned, first: bool = True) -> list[Aligned]:
        """The words of `cut`, with spans."""
        raise NotImplementedError


class _Matches(PreTokenizer):
    """The words are the matches of a pattern; everything else is dropped."""

    word: ClassVar[regex.Pattern]

    def cut(self, text: str, first: bool = True) -> list[str]:
        return self.word.findall(text)

    def cut_aligned(self, piece: Aligned, first: bool = True) -> list[Aligned]:
        return piece.parts(match.span() for match in self.word.finditer(piece.text))


@dataclass(frozen=True)
class Whitespace(_Matches):
    """Runs of letters, marks, digits and connectors; runs of everything else but white space."""

    word = regex.compile(r"\w+|[^\w\s]+")


@dataclass(frozen=True)
class WhitespaceSplit(_Matches):
    """Everything between white space."""

    word = regex.compile(r"\S+")


@dataclass(frozen=True)
class BertPreTokenizer(_Matches):
    """Cut at white space; each punctuation character is a word."""

    word = regex.compile(rf"[{_PUNCTUATION}]|[^\s{_PUNCTUATION}]+")


@dataclass(frozen=True)
class CharDelimiterSplit(_Matches):
    """Cut at a character, which is dropped."""

    delimiter: str

    def __post_init__(self) -> None:
        _check_char(self.delimiter, "delimiter")

    @cached_property
    def word(self) -> regex.Pattern:
        return regex.compile(rf"[^{regex.escape(self.delimiter)}]+")


@dataclass(frozen=True)
class Digits(_Matches):
    """Cut digits and other numbers (½, Ⅳ) from the rest: each by itself, or a run as one word."""

    individual_digits: bool = False

    @cached_property
    def word(self) -> regex.Pattern:
        return regex.compile(r"\p{N}|\P{N}+" if self.individual_digits else r"\p{N}+|\P{N}+")


class _Cuts(PreTokenizer):
    """Text is cut around the matches of a pattern; `behavior` says what happens to the matches:

        "a--b-c" cut at "-"     Removed                a b c
                                Isolated               a - - b - c
                                MergedWithPrevious     a- - b- c
                                MergedWithNext         a - -b -c
                                Contiguous             a -- b - c

    invert: exchange the roles of the matches and the rest.
    """

    behavior: str
    invert: bool

    @property
    def _regex(self) -> regex.Pattern | Limited:
        raise NotImplementedError

    def cut(self, text: str, first: bool = True) -> list[str]:
        if self.behavior == "Isolated" and not self._regex.groups:
            words = self._regex.findall(text)
            # The patterns of most models match the whole text.
            if "" not in words and sum(map(len, words)) == len(text):
                return words
        return [text[start:end] for start, end in self._spans(text) if start < end]

    def cut_aligned(self, piece: Aligned, first: bool = True) -> list[Aligned]:
        return piece.parts(self._spans(piece.text))

    def _spans(self, text: str) -> list[Span]:
        """The spans of the words; some may be empty."""
        # They cover the text; hit: whether the stretch is to be removed, isolated or merged.
        stretches: list[tuple[int, int, bool]] = []
        place = 0
        for start, end in find_matches(self._regex, text):
            if place < start:
                stretches.append((place, start, self.invert))
            stretches.append((start, end, not self.invert))
            place = end
        if place < len(text):
            stretches.append((place, len(text), self.invert))
        if self.behavior == "Removed":
            return [(start, end) for start, end, hit in stretches if not hit]
        if self.behavior == "MergedWithNext":  # MergedWithPrevious, read from right to left
            backward = [(end, start, hit) for start, end, hit in reversed(stretches)]
            merged = _merged(backward, "MergedWithPrevious")
            return [(start, end) for end, start in reversed(merged)]
        return _merged(stretches, self.behavior)


def _merged(stretches: Iterable[tuple[int, int, bool]], behavior: str) -> list[Span]:
    """Each stretch either starts a word or is appended to the previous one."""
    words: list[Span] = []
    before = None  # whether the previous stretch was a hit
    for start, end, hit in stretches:
        if (behavior == "MergedWithPrevious" and hit and before is False) or (
            behavior == "Contiguous" and hit is before
        ):
            words[-1] = (words[-1][0], end)
        else:
            words.append((start, end))
        before = hit
    return words


@dataclass(frozen=True)
class Punctuation(_Cuts):
    """Cut punctuation characters from the rest."""

    behavior: str = "Isolated"

    invert = False
    _regex = regex.compile(f"[{_PUNCTUATION}]")

    def __post_init__(self) -> None:
        check_choice("behavior", self.behavior, BEHAVIORS)


@dataclass(frozen=True)
class Split(_Cuts):
    """Cut by a pattern (patterns.py)."""

    pattern: dict[str, str]
    behavior: str
    invert: bool = False

    def __post_init__(self) -> None:
        check_choice("behavior", self.behavior, BEHAVIORS)
        _ = self._regex  # checks the pattern

    @cached_property
    def _regex(self) -> regex.Pattern | Limited:
        return compile_pattern(self.pattern)


@dataclass(frozen=True)
class ByteLevel(PreTokenizer):
    """The words of GPT-2, written in its characters for bytes (bytelevel.py).

    add_prefix_space: a space is inserted before each piece that does not start with one.
    use_regex: cut by GPT-2's pattern; otherwise the piece is one word, as after a Split.
    trim_offsets only concerns the post-processor of the same name.
    """

    add_prefix_space: bool = True
    trim_offsets: bool = True
    use_regex: bool = True

    def words(self, text: str, first: bool = True) -> list[str]:
        """The words before `spell`.  Fewer of them are distinct, so a cache of words rarely calls
        `spell`."""
        if self.add_prefix_space and text and text[0] != " ":
            text = " " + text
        if self.use_regex:
            return split_words(text)
        return [text] if text else []

    def spell(self, word: str) -> str:
        """A word in byte characters."""
        return bytes_to_chars(word.encode("utf-8"))

    def cut(self, text: str, first: bool = True) -> list[str]:
        return list(map(self.spell, self.words(text)))

    def cut_aligned(self, piece: Aligned, first: bool = True) -> list[Aligned]:
        if self.add_prefix_space and piece.text and piece.text[0] != " ":
            piece = _prepended(" ", piece)
        words, end = [], 0
        for word in self.words(piece.text):
            start, end = end, end + len(word)
            edits = [
                (BYTE_TO_CHAR[byte], int(k > 0))
                for char in word
                for k, byte in enumerate(char.encode("utf-8"))
            ]
            words.append(piece.part(start, end).changed(edits))
        return words


@dataclass(frozen=True)
class Metaspace(PreTokenizer):
    """Replace spaces by a visible character that starts each word, as in SentencePiece (Kudo and
    Richardson 2018, section 3.3).

    prepend_scheme: insert one before a piece that does not start with a space: "always", "never",
    or only at the start of the text ("first").  split: cut before each space; otherwise the piece
    stays one word.
    """

    replacement: str = "▁"
    prepend_scheme: str = "always"
    split: bool = True

    def __post_init__(self) -> None:
        _check_char(self.replacement, "replacement")
        check_choice("prepend_scheme", self.prepend_scheme, ("always", "first", "never"))

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> Metaspace:
        """Old files have add_prefix_space instead of prepend_scheme, and repeat the replacement as
        str_rep."""
        content = dict(content)
        content.pop("str_rep", None)
        prefix = content.pop("add_prefix_space", None)
        if prefix is False and content.setdefault("prepend_scheme", "never") != "never":
            raise wrong(
                f"{where} Metaspace: prepend_scheme",
                "'never', as add_prefix_space is false",
                content["prepend_scheme"],
            )
        return super().from_json(content, where)

    def cut(self, text: str, first: bool = True) -> list[str]:
        text = text.replace(" ", self.replacement)
        if self._prepends(text, first):
            text = self.replacement + text
        return self._word.findall(text)

    def cut_aligned(self, piece: Aligned, first: bool = True) -> list[Aligned]:
        piece = piece.replaced(piece.text.replace(" ", self.replacement))
        if self._prepends(piece.text, first):
            piece = _prepended(self.replacement, piece)
        return piece.parts(match.span() for match in self._word.finditer(piece.text))

    def _prepends(self, text: str, first: bool) -> bool:
        asked = self.prepend_scheme == "always" or (self.prepend_scheme == "first" and first)
        return asked and text != "" and text[0] != self.replacement

    @cached_property
    def _word(self) -> regex.Pattern:
        char = regex.escape(self.replacement)
        return regex.compile(rf"{char}[^{char}]*|[^{char}]+" if self.split else r"(?s).+")


@dataclass(frozen=True)
class Sequence(PreTokenizer):
    """Several in a row; each cuts the words of the previous one.  If the last is a ByteLevel, it
    has `words` and `spell`."""

    pretokenizers: tuple[PreTokenizer, ...]

    def __post_init__(self) -> None:
        # Each ByteLevel may double the text.
        count = sum(isinstance(part, ByteLevel) for part in self._flat)
        if count > MOST_BYTE_LEVELS:
            raise mismatch("pretokenizers", f"at most {MOST_BYTE_LEVELS} ByteLevel", count)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> Sequence:
        parts = read_parts(content, "pretokenizers", PRE_TOKENIZERS, where)
        return super().from_json({**content, "pretokenizers": parts}, where)

    def to_json(self) -> dict[str, Any]:
        parts = [part.to_json() for part in self.pretokenizers]
        return {"type": "Sequence", "pretokenizers": parts}

    def cut(self, text: str, first: bool = True) -> list[str]:
        return self._cut(self._flat, text, first)

    def cut_aligned(self, piece: Aligned, first: bool = True) -> list[Aligned]:
        return self._cut_aligned(self._flat, piece, first)

    def words(self, text: str, first: bool = True) -> list[str]:
        """See ByteLevel."""
        *before, last = self._flat
        pieces = self._cut(before, text, first)
        if not isinstance(last, ByteLevel) or not (last.add_prefix_space or last.use_regex):
            return pieces
        return [word for piece in pieces for word in last.words(piece)]

    @property
    def spell(self) -> Callable[[str], str]:
        last = self._flat[-1] if self._flat else None
        if not isinstance(last, ByteLevel):
            raise AttributeError("spell: expected a Sequence that ends with ByteLevel, got another")
        return last.spell

    @cached_property
    def _flat(self) -> list[PreTokenizer]:
        """The parts, with nested Sequences flattened."""
        return [
            flat
            for part in self.pretokenizers
            for flat in (part._flat if isinstance(part, Sequence) else [part])
        ]

    def _cut(self, parts: list[PreTokenizer], text: str, first: bool) -> list[str]:
        if first and any(
            isinstance(part, Metaspace) and part.prepend_scheme == "first" for part in parts[1:]
        ):
            # Only its position tells whether a word is at the start of the text.
            return [word.text for word in self._cut_aligned(parts, Aligned.of(text), first)]
        words = [text] if text else []
        for part in parts:
            words = [word for piece in words for word in part.cut(piece, first)]
        return words

    def _cut_aligned(self, parts: list[PreTokenizer], piece: Aligned, first: bool) -> list[Aligned]:
        words, start = [piece] if piece.text else [], piece.start
        for part in parts:
            words = [
                word
                for piece in words
                for word in part.cut_aligned(piece, first and piece.start == start)
            ]
        return words


def _check_char(char: str, name: str) -> None:
    if not isinstance(char, str) or len(char) != 1:
        raise wrong(name, "one character", char)


def _prepended(char: str, piece: Aligned) -> Aligned:
    """With a character inserted before it, which has the span of the first one."""
    return Aligned(char + piece.text, piece.spans[:1] + piece.spans, piece.start)


_KINDS: tuple[type[PreTokenizer], ...] = (
    *(Whitespace, WhitespaceSplit, BertPreTokenizer, CharDelimiterSplit, Digits, Punctuation),
    *(Split, ByteLevel, Metaspace, Sequence),
)
PRE_TOKENIZERS: dict[str, type[PreTokenizer]] = {kind.__name__: kind for kind in _KINDS}
