"""Decoders: tokens, as the vocabulary spells them, to text.  They undo the spelling of the
pre-tokenizer and the model.

A decoder maps a list of strings to a list of strings; the text is the last list, joined.  LLaMA
uses several in a row:

                             ["▁Gr", "<0xC3>", "<0xBC>", "ße"]
    Replace "▁" by " "       [" Gr", "<0xC3>", "<0xBC>", "ße"]
    ByteFallback             [" Gr", "ü", "ße"]
    Fuse                     [" Grüße"]
    Strip " " at the start   ["Grüße"]

Names and behaviour are those of the components of a tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import regex

from ...arguments import wrong
from ..component import Component, read_parts
from . import normalization, pretokenization
from .backtracking import within_time
from .bytelevel import chars_to_bytes
from .patterns import GROWTH, check_growth, substitute

# The library also parses "+A" as a number.
_BYTE = regex.compile(r"<0x([0-9A-Fa-f]{2}|\+[0-9A-Fa-f])>")


def byte_of(token: str) -> int | None:
    """The byte of a byte-fallback token: "<0x4A>" -> 0x4A; None for any other token."""
    match = _BYTE.fullmatch(token)
    return int(match[1], 16) if match else None


class Decoder(Component):
    """See above."""

    def chain(self, tokens: list[str]) -> list[str]:
        """One step of a chain of decoders."""
        raise NotImplementedError


@dataclass(frozen=True)
class ByteLevel(pretokenization.ByteLevel, Decoder):
    """Decode the bytes behind GPT-2's characters, with U+FFFD for invalid UTF-8.  The options have
    no effect."""

    def chain(self, tokens: list[str]) -> list[str]:
        return [b"".join(map(chars_to_bytes, tokens)).decode("utf-8", errors="replace")]


@dataclass(frozen=True)
class Metaspace(pretokenization.Metaspace, Decoder):
    """Replace the replacement character by a space; drop it in the first token, unless none is ever
    prepended."""

    def chain(self, tokens: list[str]) -> list[str]:
        texts = [token.replace(self.replacement, " ") for token in tokens]
        if tokens and self.prepend_scheme != "never":
            texts[0] = tokens[0].replace(self.replacement, "")
        return texts


@dataclass(frozen=True)
class WordPiece(Decoder):
    """Join tokens with spaces, except before those that continue a word (##ing).

    cleanup: also drop the spaces before punctuation and inside English contractions, which BERT's
    pre-tokenizer introduces.
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
    """Replace the end-of-word suffix by a space, and drop it in the last token (Sennrich et al.
    2016: "</w>")."""

    suffix: str = "</w>"

    def chain(self, tokens: list[str]) -> list[str]:
        spaced = [token.replace(self.suffix, " ") for token in tokens[:-1]]
        return spaced + [token.replace(self.suffix, "") for token in tokens[-1:]]


@dataclass(frozen=True)
class ByteFallback(Decoder):
    """Decode runs of byte tokens as UTF-8; a run that is not valid UTF-8 becomes one U+FFFD per
    byte."""

    def chain(self, tokens: list[str]) -> list[str]:
        texts: list[str] = []
        for fallback, run in groupby(tokens, key=lambda token: byte_of(token) is not None):
            if not fallback:
                texts += run
                continue
            data = bytes(byte for token in run if (byte := byte_of(token)) is not None)
            try:
                texts.append(data.decode("utf-8"))
            except UnicodeDecodeError:
                texts += ["\N{REPLACEMENT CHARACTER}"] * len(data)
        return texts


@dataclass(frozen=True)
class Fuse(Decoder):
    """Join all tokens into one, for the decoders that follow."""

    def chain(self, tokens: list[str]) -> list[str]:
        return ["".join(tokens)]


@dataclass(frozen=True)
class Strip(Decoder):
    """Drop a character up to `start` times at the start of each token, and up to `stop` times at
    its end.

    Where both ends compete for the same character ("_" with one at each end) the library panics;
    here the token becomes empty.
    """

    content: str = " "
    start: int = 0
    stop: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.content, str) or len(self.content) != 1:
            raise wrong("content", "one character", self.content)
        for name, count in (("start", self.start), ("stop", self.stop)):
            if count < 0:
                raise wrong(name, "an integer >= 0", count)

    def chain(self, tokens: list[str]) -> list[str]:
        return list(map(self._stripped, tokens))

    def _stripped(self, token: str) -> str:
        start = min(self.start, len(token) - len(token.lstrip(self.content)))
        end = max(len(token) - self.stop, len(token.rstrip(self.content)))
        return token[start:end]


@dataclass(frozen=True)
class Replace(normalization.Replace, Decoder):
    """The same replacement as the normalizer's, in each token."""

    @within_time
    def chain(self, tokens: list[str]) -> list[str]:
        string = self.pattern.get("String")
        if string and len(self.content) <= GROWTH:  # it cannot grow too much
            return [token.replace(string, self.content) for token in tokens]
        return [substitute(self._regex, self.content, token) for token in tokens]


@dataclass(frozen=True)
class Sequence(Decoder):
    """Several decoders in a row."""

    decoders: tuple[Decoder, ...]

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> Sequence:
        return cls(read_parts(content, "decoders", DECODERS, where))

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
        """Whether a part can lengthen the text."""
        return any(
            len(part.content) > len(part.pattern.get("String", ""))
            if isinstance(part, Replace)
            else isinstance(part, BPEDecoder) and not part.suffix
            for part in self._flat
        )

    @cached_property
    def _flat(self) -> list[Decoder]:
        """The parts, with nested Sequences flattened."""
        return [
            flat
            for part in self.decoders
            for flat in (part._flat if isinstance(part, Sequence) else [part])
        ]


DECODERS: dict[str, type[Decoder]] = {
    "ByteLevel": ByteLevel,
    "WordPiece": WordPiece,
    "Metaspace": Metaspace,
    "BPEDecoder": BPEDecoder,
    "ByteFallback": ByteFallback,
    "Fuse": Fuse,
    "Strip": Strip,
    "Replace": Replace,
    "Sequence": Sequence,
}
