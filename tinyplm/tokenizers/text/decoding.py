"""Decoding: tokens, as the vocabulary spells them, to text: what undoes the pre-tokenizer's and the model's spelling.

A decoder makes a list of strings into another; the text is the last list joined.  Several in a row, as LLaMA's

    Replace "▁" by " "    ByteFallback    Fuse    Strip " " once in front
    ["▁Gr", "<0xC3>", "<0xBC>", "ße"] -> [" Gr", "<0xC3>", ...] -> [" Gr", "ü", "ße"] -> [" Grüße"] -> ["Grüße"]

Names and meaning are those of the components of a tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import regex

from ...arguments import shown
from ..component import Component
from . import pretokenization
from .backtracking import within_time
from .bytelevel import chars_to_bytes, check_encodable
from .patterns import GROWTH, Limited, check_growth, compile_pattern, substitute

_BYTE = regex.compile(
    r"<0x([0-9A-Fa-f]{2}|\+[0-9A-Fa-f])>"
)  # the library reads "+A" as a number, too


def is_byte(token: str) -> int | None:
    """The byte that a token of byte fallback stands for: "<0x4A>" -> 0x4A; None for any other token."""
    match = _BYTE.fullmatch(token)
    return int(match[1], 16) if match else None


class Decoder(Component):
    def chain(self, tokens: list[str]) -> list[str]:
        raise NotImplementedError


@dataclass(frozen=True)
class ByteLevel(pretokenization.ByteLevel, Decoder):
    """The bytes that GPT-2's characters stand for, joined; U+FFFD for what is not UTF-8.  The options play no part."""

    def chain(self, tokens: list[str]) -> list[str]:
        return [b"".join(map(chars_to_bytes, tokens)).decode("utf-8", errors="replace")]


@dataclass(frozen=True)
class Metaspace(pretokenization.Metaspace, Decoder):
    """The replacement becomes a space; in the first token it is dropped, unless none was put in front."""

    def chain(self, tokens: list[str]) -> list[str]:
        texts = [token.replace(self.replacement, " ") for token in tokens]
        if tokens and self.prepend_scheme != "never":
            texts[0] = tokens[0].replace(self.replacement, "")
        return texts


@dataclass(frozen=True)
class WordPiece(Decoder):
    """Tokens are joined by spaces, those that continue a word (##ing) without.

    cleanup: the spaces before punctuation and inside English contractions, which BERT's pre-tokenizer made, are dropped again.
    """

    prefix: str = "##"
    cleanup: bool = True

    def chain(self, tokens: list[str]) -> list[str]:
        texts = tokens[:1]
        texts += [
            token[len(self.prefix) :] if token.startswith(self.prefix) else " " + token
            for token in tokens[1:]
        ]
        return list(map(_clean, texts)) if self.cleanup else texts


_CLEANED = (
    *((" " + mark, mark) for mark in ".?!,"),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" do not", " don't"),
    *((" " + end, end) for end in ("'s", "'ve", "'re")),
)


def _clean(text: str) -> str:
    for spaced, cleaned in _CLEANED:
        text = text.replace(spaced, cleaned)
    return text


@dataclass(frozen=True)
class BPEDecoder(Decoder):
    """The suffix that marks the end of a word becomes a space, in the last token nothing (Sennrich et al. 2016: "</w>")."""

    suffix: str = "</w>"

    def chain(self, tokens: list[str]) -> list[str]:
        return [token.replace(self.suffix, " ") for token in tokens[:-1]] + [
            token.replace(self.suffix, "") for token in tokens[-1:]
        ]


@dataclass(frozen=True)
class ByteFallback(Decoder):
    """A run of byte tokens becomes the text whose UTF-8 it is, or one U+FFFD for each of its bytes if it is none."""

    def chain(self, tokens: list[str]) -> list[str]:
        texts: list[str] = []
        for fallback, run in groupby(tokens, key=lambda token: is_byte(token) is not None):
            if not fallback:
                texts += run
                continue
            data = bytes(map(is_byte, run))
            try:
                texts.append(data.decode("utf-8"))
            except UnicodeDecodeError:
                texts += ["\N{REPLACEMENT CHARACTER}"] * len(data)
        return texts


@dataclass(frozen=True)
class Fuse(Decoder):
    """All tokens become one, for the decoders after it."""

    def chain(self, tokens: list[str]) -> list[str]:
        return ["".join(tokens)]


@dataclass(frozen=True)
class Strip(Decoder):
    """A character is dropped up to `start` times at the beginning and up to `stop` times at the end of each token.

    The library panics on a token that both ends have to share ("_" with one at each); here it becomes empty.
    """

    content: str = " "
    start: int = 0
    stop: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.content, str) or len(self.content) != 1:
            raise ValueError(f"content must be one character, got {shown(self.content)}")
        if self.start < 0 or self.stop < 0:
            raise ValueError(
                f"start and stop must not be negative, got {self.start} and {self.stop}"
            )

    def chain(self, tokens: list[str]) -> list[str]:
        return list(map(self._stripped, tokens))

    def _stripped(self, token: str) -> str:
        start = min(self.start, len(token) - len(token.lstrip(self.content)))
        end = max(len(token) - self.stop, len(token.rstrip(self.content)))
        return token[start:end]


@dataclass(frozen=True)
class Replace(Decoder):
    r"""Each match of a pattern (patterns.py) is replaced by a text, in which \1 means nothing special."""

    pattern: dict[str, str]
    content: str

    def __post_init__(self) -> None:
        check_encodable(self.content, "content")
        _ = self._regex  # refuses what is no pattern

    @cached_property
    def _regex(self) -> regex.Pattern | Limited:
        return compile_pattern(self.pattern)

    @within_time
    def chain(self, tokens: list[str]) -> list[str]:
        string = self.pattern.get("String")
        if string and len(self.content) <= GROWTH:  # it cannot grow too much
            return [token.replace(string, self.content) for token in tokens]
        return [substitute(self._regex, self.content, token) for token in tokens]


@dataclass(frozen=True)
class Sequence(Decoder):
    """One after the other."""

    decoders: tuple[Decoder, ...]

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> Sequence:
        return cls(pretokenization.read_parts(content, "decoders", DECODERS, where))

    def to_json(self) -> dict[str, Any]:
        return {"type": "Sequence", "decoders": [decoder.to_json() for decoder in self.decoders]}

    @within_time
    def chain(self, tokens: list[str]) -> list[str]:
        before = sum(map(len, tokens)) if (grows := self._grows) else 0
        for decoder in self._flat:
            tokens = decoder.chain(tokens)
            if grows:
                check_growth(before, sum(map(len, tokens)))
        return tokens

    @cached_property
    def _grows(self) -> bool:
        """Whether a part may make of each character several."""
        return any(
            len(part.content) > len(part.pattern.get("String", ""))
            if isinstance(part, Replace)
            else isinstance(part, BPEDecoder) and not part.suffix
            for part in self._flat
        )

    @cached_property
    def _flat(self) -> list[Decoder]:
        """The parts, those of a Sequence inside one by one."""
        return [
            flat
            for part in self.decoders
            for flat in (part._flat if isinstance(part, Sequence) else [part])
        ]


DECODERS: dict[str, type[Decoder]] = {
    kind.__name__: kind
    for kind in (
        ByteLevel,
        WordPiece,
        Metaspace,
        BPEDecoder,
        ByteFallback,
        Fuse,
        Strip,
        Replace,
        Sequence,
    )
}
