"""Pre-tokenization: normalized text is cut into words, and the model (BPE, WordPiece, Unigram) then works inside each word alone.

    Whitespace, WhitespaceSplit, BertPreTokenizer, CharDelimiterSplit     what separates the words is lost
    Punctuation, Digits, Split                                            what is found is cut out and kept, unless "Removed"
    ByteLevel (GPT-2), Metaspace (SentencePiece)                          spaces become visible characters

`cut` gives the words as the model is to see them; `cut_aligned` gives the same with the place each character came from
(alignment.py).  Names and meaning are those of the components of a tokenizer.json.

White space is Unicode's White_Space (not the separators U+001C to U+001F, which Python's str.isspace has).  Letters, digits and
punctuation are as the package `regex` knows them.  Punctuation is Unicode's and all symbols of ASCII, as in BERT's code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import regex

from ...arguments import shown
from ..component import Component, only_known, read_component
from .alignment import Aligned, Span
from .bytelevel import BYTE_TO_CHAR, bytes_to_chars, split_words
from .patterns import Limited, compile_pattern, find_matches

BEHAVIORS = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
MOST_BYTE_LEVELS = 4
_PUNCTUATION = r"\p{P}!-/:-@\[-`{-~"  # to stand between brackets


class PreTokenizer(Component):
    def cut(self, text: str, first: bool = True) -> list[str]:
        """The words.  `first`: the piece stands at the beginning of the text."""
        raise NotImplementedError

    def cut_aligned(self, piece: Aligned, first: bool = True) -> list[Aligned]:
        """The words of `cut`, aligned."""
        raise NotImplementedError


class _Matches(PreTokenizer):
    """The words are the matches of a pattern, the rest is left out."""

    word: ClassVar[regex.Pattern]

    def cut(self, text: str, first: bool = True) -> list[str]:
        return self.word.findall(text)

    def cut_aligned(self, piece: Aligned, first: bool = True) -> list[Aligned]:
        return piece.parts(match.span() for match in self.word.finditer(piece.text))


@dataclass(frozen=True)
class Whitespace(_Matches):
    """Runs of letters, marks, digits and connectors; runs of what else is not white space."""

    word = regex.compile(r"\w+|[^\w\s]+")


@dataclass(frozen=True)
class WhitespaceSplit(_Matches):
    """Whatever stands between white space."""

    word = regex.compile(r"\S+")


@dataclass(frozen=True)
class BertPreTokenizer(_Matches):
    """Cut at white space; each punctuation character is a word."""

    word = regex.compile(rf"[{_PUNCTUATION}]|[^\s{_PUNCTUATION}]+")


@dataclass(frozen=True)
class CharDelimiterSplit(_Matches):
    """Cut at a character, which is lost."""

    delimiter: str

    def __post_init__(self) -> None:
        _check_char(self.delimiter, "delimiter")

    @cached_property
    def word(self) -> regex.Pattern:
        return regex.compile(rf"[^{regex.escape(self.delimiter)}]+")


@dataclass(frozen=True)
class Digits(_Matches):
    """Digits, and other numbers (½, Ⅳ), are cut from the rest: each alone, or a run of them as one word."""

    individual_digits: bool = False

    @cached_property
    def word(self) -> regex.Pattern:
        return regex.compile(r"\p{N}|\P{N}+" if self.individual_digits else r"\p{N}+|\P{N}+")


class _Cuts(PreTokenizer):
    """Text is cut around the matches of a pattern, and `behavior` says what becomes of the matches:

        "a--b-c" cut at "-"     Removed                a b c
                                Isolated               a - - b - c
                                MergedWithPrevious     a- - b- c
                                MergedWithNext         a - -b -c
                                Contiguous             a -- b - c

    `invert` changes the parts of matches and rest.
    """

    behavior: str
    invert: bool
    _regex: regex.Pattern | Limited

    def cut(self, text: str, first: bool = True) -> list[str]:
        if self.behavior == "Isolated" and not self._regex.groups:
            words = self._regex.findall(text)
            if "" not in words and sum(map(len, words)) == len(
                text
            ):  # as most patterns of models do, the matches cover the text
                return words
        return [text[start:end] for start, end in self._spans(text) if start < end]

    def cut_aligned(self, piece: Aligned, first: bool = True) -> list[Aligned]:
        return piece.parts(self._spans(piece.text))

    def _spans(self, text: str) -> list[Span]:
        """Where the words stand; some may be empty."""
        stretches: list[
            tuple[int, int, bool]
        ] = []  # all of the text; True: what is to be removed, isolated, merged
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
        if (
            self.behavior == "MergedWithNext"
        ):  # the same as MergedWithPrevious, read from right to left
            mirrored = _merged(
                [(end, start, hit) for start, end, hit in reversed(stretches)], "MergedWithPrevious"
            )
            return [(start, end) for end, start in reversed(mirrored)]
        return _merged(stretches, self.behavior)


def _merged(stretches: Iterable[tuple[int, int, bool]], behavior: str) -> list[Span]:
    """Each stretch either begins a word or is taken into the one before it."""
    words: list[Span] = []
    before = None  # was the stretch before this one a hit?
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
    """Punctuation characters are cut from the rest."""

    behavior: str = "Isolated"

    invert = False
    _regex = regex.compile(f"[{_PUNCTUATION}]")

    def __post_init__(self) -> None:
        _check_behavior(self.behavior)


@dataclass(frozen=True)
class Split(_Cuts):
    """Cut by a pattern (patterns.py)."""

    pattern: dict[str, str]
    behavior: str
    invert: bool = False

    def __post_init__(self) -> None:
        _check_behavior(self.behavior)
        _ = self._regex  # refuses what is no pattern

    @cached_property
    def _regex(self) -> regex.Pattern | Limited:
        return compile_pattern(self.pattern)


@dataclass(frozen=True)
class ByteLevel(PreTokenizer):
    """The words of GPT-2, written in its characters for bytes (bytelevel.py).

    add_prefix_space: a space is put before each piece that does not begin with one.  use_regex: cut by GPT-2's pattern; else the
    piece is one word, as after a Split that has cut already.  trim_offsets concerns the post-processor of the same name only.
    """

    add_prefix_space: bool = True
    trim_offsets: bool = True
    use_regex: bool = True

    def words(self, text: str, first: bool = True) -> list[str]:
        """The words in the characters of the text: fewer of them differ, so whoever remembers words calls `spell` seldom."""
        if self.add_prefix_space and text and text[0] != " ":
            text = " " + text
        if self.use_regex:
            return split_words(text)
        return [text] if text else []

    def spell(self, word: str) -> str:
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
    """Spaces become a visible character, as in SentencePiece (Kudo and Richardson 2018, section 3.3), and words begin with it.

    prepend_scheme: a piece that does not begin with a space gets one "always", "never", or only if it is "first" in the text.
    split: cut before each space; else the piece stays one word.
    """

    replacement: str = "▁"
    prepend_scheme: str = "always"
    split: bool = True

    def __post_init__(self) -> None:
        _check_char(self.replacement, "replacement")
        if self.prepend_scheme not in ("always", "first", "never"):
            raise ValueError(
                f"prepend_scheme must be 'always', 'first' or 'never', got {shown(self.prepend_scheme)}"
            )

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> Metaspace:
        """Old files say add_prefix_space instead of prepend_scheme, and the replacement a second time, as str_rep."""
        content = dict(content)
        content.pop("str_rep", None)
        prefix = content.pop("add_prefix_space", None)
        if prefix is False and content.setdefault("prepend_scheme", "never") != "never":
            scheme = content["prepend_scheme"]
            raise ValueError(
                f"{where} Metaspace: add_prefix_space = false contradicts prepend_scheme = {shown(scheme)}"
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
    """One after the other; each cuts the words of the one before.

    After a ByteLevel at the end, `words` and `spell` are there as well.
    """

    pretokenizers: tuple[PreTokenizer, ...]

    def __post_init__(self) -> None:
        if (
            count := sum(isinstance(part, ByteLevel) for part in self._flat)
        ) > MOST_BYTE_LEVELS:  # each may double a text
            raise ValueError(
                f"a Sequence may hold at most {MOST_BYTE_LEVELS} ByteLevel, got {count}"
            )

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> Sequence:
        return super().from_json(
            {
                **content,
                "pretokenizers": read_parts(content, "pretokenizers", PRE_TOKENIZERS, where),
            },
            where,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "type": "Sequence",
            "pretokenizers": [part.to_json() for part in self.pretokenizers],
        }

    def cut(self, text: str, first: bool = True) -> list[str]:
        return self._cut(self._flat, text, first)

    def cut_aligned(self, piece: Aligned, first: bool = True) -> list[Aligned]:
        return self._cut_aligned(self._flat, piece, first)

    def words(self, text: str, first: bool = True) -> list[str]:
        *before, last = self._flat
        pieces = self._cut(before, text, first)
        if not (last.add_prefix_space or last.use_regex):  # as after most Splits
            return pieces
        return [word for piece in pieces for word in last.words(piece)]

    @property
    def spell(self) -> Callable[[str], str]:
        if not self._flat or not isinstance(self._flat[-1], ByteLevel):
            raise AttributeError("only a Sequence with a ByteLevel at its end spells words")
        return self._flat[-1].spell

    @cached_property
    def _flat(self) -> list[PreTokenizer]:
        """The parts, those of a Sequence inside one by one."""
        return [
            flat
            for part in self.pretokenizers
            for flat in (part._flat if isinstance(part, Sequence) else [part])
        ]

    def _cut(self, parts: list[PreTokenizer], text: str, first: bool) -> list[str]:
        if first and any(
            isinstance(part, Metaspace) and part.prepend_scheme == "first" for part in parts[1:]
        ):
            # Whether a word stands at the beginning only its place tells.
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


def read_parts(
    content: Mapping[str, Any], key: str, kinds: Mapping[str, type[Component]], where: str
) -> tuple[Any, ...]:
    """The parts of a Sequence."""
    only_known(content, {"type", key}, f"{where} Sequence")
    parts = content.get(key)
    if not isinstance(parts, list) or None in parts:
        raise ValueError(f"{where} Sequence: {key} must be a list of objects, got {shown(parts)}")
    return tuple(read_component(part, kinds, where) for part in parts)


def _check_char(char: str, name: str) -> None:
    if not isinstance(char, str) or len(char) != 1:
        raise ValueError(f"{name} must be one character, got {shown(char)}")


def _check_behavior(behavior: str) -> None:
    if behavior not in BEHAVIORS:
        raise ValueError(f"behavior must be one of {', '.join(BEHAVIORS)}, got {shown(behavior)}")


def _prepended(char: str, piece: Aligned) -> Aligned:
    """With a character before it, which has the span of the first."""
    return Aligned(char + piece.text, piece.spans[:1] + piece.spans, piece.start)


PRE_TOKENIZERS: dict[str, type[PreTokenizer]] = {
    kind.__name__: kind
    for kind in (
        *(
            Whitespace,
            WhitespaceSplit,
            BertPreTokenizer,
            CharDelimiterSplit,
            Digits,
            Punctuation,
            Split,
        ),
        *(ByteLevel, Metaspace, Sequence),
    )
}
