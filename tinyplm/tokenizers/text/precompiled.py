"""The normalizers Precompiled and LongestMatch: SentencePiece's compiled replacement rules.

SentencePiece (Kudo and Richardson 2018, section 3.2, "customizable character normalization")
compiles its rules, pairs of a string and its replacement, into one block of bytes, the
`precompiled_charsmap`; a tokenizer.json has it in base64:

    4 bytes    the size of the trie in bytes (little-endian, like all numbers here)
    the trie   units of 4 bytes: all strings to be replaced, each with an offset into the text below
    the text   the replacements in UTF-8, each terminated by a zero byte

The trie is a double array (Aoe 1989) in the layout of the library darts-clone: a state is an index
into the array, and the byte c leads from it to the index `base ^ c` if the unit there has the label
c.  The bits of a unit:

    0-7      label
    8        a string ends here
    9        the base is shifted left by 8
    10-30    base ^ index
    31       the unit is a value

The value of a string is in bits 0-30 of the unit at `base ^ 0`.

SentencePiece replaces, from left to right, the longest string that matches: LongestMatch, for
models read from its own files.  For a tokenizer.json, the library `tokenizers` first cuts the text
into grapheme clusters (user-perceived characters: a letter with its marks, \\r\\n): Precompiled.
For a cluster of fewer than 6 bytes, it replaces the whole cluster by the replacement of the
SHORTEST string that the cluster starts with; otherwise it replaces each character separately.  So
"e" + U+0301 becomes "é" in both, but half-width "ｶﾞ" (6 bytes) becomes "ガ" only in SentencePiece;
and with Precompiled, "ﬁ" + U+0301 becomes "fi" (the mark is dropped), and \\r\\n a single space.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import add
from typing import Any, Generic, TypeVar

import numpy as np
import regex

from ..component import Normalizer
from .alignment import Aligned

K = TypeVar("K")
V = TypeVar("V")

LONGEST_REPLACEMENT = 256  # characters; NFKC's longest has 18

# Extended grapheme clusters, Unicode Standard Annex #29, table 1c: line ends and controls;
# otherwise a core (a Hangul syllable, a flag, joined emoji, consonants joined by a virama, or any
# character) with what precedes and follows it.  `regex` has \X for clusters, but there a virama
# joins a consonant to anything.
_clusters = regex.compile(
    r"""(?x) \r\n | \p{GCB=Control} | \r | \n |
    \p{GCB=Prepend}*
    (?: \p{GCB=L}* (?: \p{GCB=V}+ | \p{GCB=LV} \p{GCB=V}* | \p{GCB=LVT} ) \p{GCB=T}*
      | \p{GCB=L}+ | \p{GCB=T}+
      | \p{GCB=Regional_Indicator}{2}
      | \p{ExtPict} (?: \p{GCB=Extend}* \p{GCB=ZWJ} \p{ExtPict} )*
      | \p{InCB=Consonant}
        (?: \p{InCB=Extend}* \p{InCB=Linker} [\p{InCB=Extend}\p{InCB=Linker}]* \p{InCB=Consonant} )+
      | [^\r\n\p{GCB=Control}] )
    [\p{GCB=Extend}\p{GCB=ZWJ}\p{GCB=SpacingMark}]*"""
).findall
# A cluster of several characters in fewer than 6 bytes contains one of these, or is \r\n (flags and
# Hangul are longer).
_may_join = regex.compile(
    r"\r\n|[\p{GCB=Extend}\p{GCB=ZWJ}\p{GCB=SpacingMark}\p{GCB=Prepend}]"
).search


class CharacterMap:
    """The block of bytes, with lookups of strings."""

    def __init__(self, data: bytes):
        size = int.from_bytes(data[:4], "little")
        if len(data) < 4 or size % 4 or size == 0 or len(data) < 4 + size:
            raise ValueError(f"a trie of {size} bytes in {len(data)} bytes")
        self.units = struct.unpack(f"<{size // 4}I", data[4 : 4 + size])
        self.texts = data[4 + size :]
        self._check()

    def _check(self) -> None:
        """ValueError unless each string has a terminated replacement that is UTF-8 and not too
        long."""
        units = np.array(self.units, dtype=np.int64)
        ends = np.flatnonzero((units & 0x80000100) == 0x100)
        offsets = units[ends] >> 10 << np.where(units[ends] & 0x200, 8, 0)
        values = ends ^ offsets
        starts = units[values[values < len(units)]] & 0x7FFFFFFF
        if (
            (values >= len(units)).any()
            or (starts >= len(self.texts)).any()
            or self.texts[-1:] not in (b"", b"\0")
        ):
            raise ValueError("a replacement outside of the text")
        # not the start of a character
        if ((np.frombuffer(self.texts, np.uint8)[starts] & 0xC0) == 0x80).any():
            raise ValueError("a replacement that starts within a character")
        if (longest := max(map(len, self.texts.decode("utf-8").split("\0")))) > LONGEST_REPLACEMENT:
            raise ValueError(
                f"a replacement of {longest} characters, more than {LONGEST_REPLACEMENT}"
            )

    def walk(self, text: str, start: int = 0) -> Iterator[tuple[int, bool]]:
        """The path through the trie: (base, whether a string ends here) after each character that
        matches."""
        base = _offset(self.units[0])
        for place in range(start, len(text)):
            for byte in text[place].encode():
                index = base ^ byte
                if index >= len(self.units) or self.units[index] & 0x800000FF != byte:
                    return
                base = index ^ _offset(self.units[index])
            yield base, bool(self.units[index] & 0x100)

    def shortest(self, text: str) -> str | None:
        """The replacement of the shortest string that is a prefix of the text; None if there is
        none."""
        return next((self._replacement(base) for base, ends in self.walk(text) if ends), None)

    def longest(self, text: str, start: int) -> tuple[str, str] | None:
        """The longest string at `start` and its replacement; None if there is none."""
        found = [
            (end, base)
            for end, (base, ends) in enumerate(self.walk(text, start), start + 1)
            if ends
        ]
        return (text[start : found[-1][0]], self._replacement(found[-1][1])) if found else None

    def leads(self, text: str) -> bool:
        """Whether the text is a prefix of a string."""
        return sum(1 for _ in self.walk(text)) == len(text)

    def _replacement(self, index: int) -> str:
        start = self.units[index] & 0x7FFFFFFF
        return self.texts[start : self.texts.index(b"\0", start)].decode("utf-8")


def _offset(unit: int) -> int:
    return unit >> 10 << (8 if unit & 0x200 else 0)


@dataclass(frozen=True)
class Precompiled(Normalizer):
    """Replacement by grapheme clusters, as in the library `tokenizers`."""

    precompiled_charsmap: str  # base64

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> Precompiled:
        if content.get("longest_match") is True and cls is Precompiled:
            content = {key: value for key, value in content.items() if key != "longest_match"}
            return LongestMatch.from_json(content, where)
        return super().from_json(content, where)

    def __post_init__(self) -> None:
        _ = self._map  # checks it

    @cached_property
    def _map(self) -> CharacterMap:
        try:
            return CharacterMap(base64.b64decode(self.precompiled_charsmap, validate=True))
        except (binascii.Error, TypeError, ValueError) as error:
            raise ValueError(
                f"precompiled_charsmap: expected SentencePiece's format in base64, got: {error}"
            ) from None

    @cached_property
    def _of_code(self) -> _Cache[int, str]:
        return _Cache(lambda code: self._character(chr(code)))

    @cached_property
    def _of_cluster(self) -> _Cache[str, str]:
        return _Cache(lambda cluster: "".join(new for _, new in self.replacements(cluster)))

    def _character(self, char: str) -> str:
        new = self._map.shortest(char)
        return char if new is None else new

    def replacements(self, text: str) -> Iterator[tuple[str, str]]:
        """(old, new) for each part of the text."""
        for cluster in _clusters(text):
            if len(cluster.encode()) < 6 and (new := self._map.shortest(cluster)) is not None:
                yield cluster, new
            else:
                yield from zip(cluster, map(self._character, cluster))

    def _joins(self, text: str) -> bool:
        """Whether several characters of the text may be replaced together."""
        return _may_join(text) is not None

    def __call__(self, text: str) -> str:
        if self._joins(text):
            return "".join(map(self._of_cluster.__getitem__, _clusters(text)))
        return text.translate(self._of_code)

    def aligned(self, piece: Aligned) -> Aligned:
        """A replacement stands for the old string, character by character.  Surplus characters are
        inserted; if there are too few, the last character (of the text so far) also stands for the
        rest.  At the start of the text there is no such character: what is dropped there is
        forgotten, and all spans are too far left.  The library does so, and offsets must be equal.
        """
        if not self._joins(piece.text) and all(
            len(self._of_code[ord(char)]) == 1 for char in set(piece.text)
        ):
            return piece.replaced(self(piece.text))
        edits: list[tuple[str, int]] = []
        for old, new in self.replacements(piece.text):
            edits += [(char, int(k >= len(old))) for k, char in enumerate(new)]
            if len(new) < len(old) and edits:
                edits[-1] = edits[-1][0], edits[-1][1] - (len(old) - len(new))
        return piece.changed(edits)


@dataclass(frozen=True)
class LongestMatch(Precompiled):
    """SentencePiece's own rule: replace, from left to right, the longest string that matches.

    A tokenizer.json has no type for it.  We write a Precompiled with an additional key, which only
    we read.
    """

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"type": "Precompiled", "longest_match": True}

    @cached_property
    def _leads(self) -> _Cache[str, bool]:
        return _Cache(self._map.leads)

    def _joins(self, text: str) -> bool:
        return any(map(self._leads.__getitem__, set(map(add, text, text[1:]))))

    def __call__(self, text: str) -> str:
        if self._joins(text):
            return "".join([new for _, new in self.replacements(text)])
        return text.translate(self._of_code)

    def replacements(self, text: str) -> Iterator[tuple[str, str]]:
        place = 0
        while place < len(text):
            char = text[place]
            if self._leads[text[place : place + 2]] and (found := self._map.longest(text, place)):
                old, new = found
            else:
                old, new = char, self._of_code[ord(char)]
            yield old, new
            place += len(old)


class _Cache(dict[K, V], Generic[K, V]):
    """A function's values.  Cleared when full: the most frequent ones return at once."""

    def __init__(self, function: Callable[[K], V]):
        super().__init__()
        self.function = function

    def __missing__(self, key: K) -> V:
        if len(self) >= 1 << 16:
            self.clear()
        self[key] = value = self.function(key)
        return value
