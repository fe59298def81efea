"""The normalizers Precompiled and LongestMatch: SentencePiece's rules of replacement, as a model file carries them.

SentencePiece (Kudo and Richardson 2018, section 3.2, "customizable character normalization") compiles its rules, strings and
what replaces them, into one block of bytes, the `precompiled_charsmap`; a tokenizer.json has it in base64:

    4 bytes    the size of the trie in bytes (little-endian, as all numbers here)
    the trie   units of 4 bytes: all strings to be replaced, each with a place in the text below
    the text   the replacements in UTF-8, each ended by a zero byte

The trie is a double array (Aoe 1989) in the layout of the library darts-clone: a state is an index of the array, and the byte c
leads from it to the index `base ^ c`, if the unit there carries the label c.  Bits of a unit:

    0-7  the label    8  a string ends here    9  the base is to be shifted left by 8    10-30  base ^ index    31  it is a value

A string's value is in bits 0-30 of the unit at `base ^ 0`.

SentencePiece replaces, from left to right, the longest string that fits: LongestMatch, for what is read from its own files.
The library `tokenizers`, for a tokenizer.json, first cuts the text into grapheme clusters (what a reader takes for one
character: a letter with its marks, \\r\\n): Precompiled.  In a cluster of fewer than 6 bytes it looks for the SHORTEST string
that the cluster begins with, and its replacement stands for the whole cluster; otherwise each character is replaced by itself.
So "e" + U+0301 becomes "é" in both, but half-width "ｶﾞ" (6 bytes) becomes "ガ" only in SentencePiece; and with Precompiled
"ﬁ" + U+0301 becomes "fi" (the mark is lost), and \\r\\n a single space.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import add
from typing import Any

import numpy as np
import regex

from ..component import Component
from .alignment import Aligned

LONGEST_REPLACEMENT = 256  # characters; in NFKC's table 18

# Extended grapheme clusters, Unicode Standard Annex #29, table 1c: line ends and controls; otherwise a core (a Hangul syllable,
# a flag, emoji that are joined, consonants that a virama joins, or any character) with what goes before and after it.
# `regex` has \X for them, but there a virama joins a consonant to anything.
_clusters = regex.compile(
    r"""(?x) \r\n | \p{GCB=Control} | \r | \n |
    \p{GCB=Prepend}*
    (?: \p{GCB=L}* (?: \p{GCB=V}+ | \p{GCB=LV} \p{GCB=V}* | \p{GCB=LVT} ) \p{GCB=T}* | \p{GCB=L}+ | \p{GCB=T}+
      | \p{GCB=Regional_Indicator}{2}
      | \p{ExtPict} (?: \p{GCB=Extend}* \p{GCB=ZWJ} \p{ExtPict} )*
      | \p{InCB=Consonant} (?: \p{InCB=Extend}* \p{InCB=Linker} [\p{InCB=Extend}\p{InCB=Linker}]* \p{InCB=Consonant} )+
      | [^\r\n\p{GCB=Control}] )
    [\p{GCB=Extend}\p{GCB=ZWJ}\p{GCB=SpacingMark}]*"""
).findall
# A cluster of several characters in fewer than 6 bytes has one of these kinds in it, or is \r\n (flags and Hangul are longer).
_may_join = regex.compile(
    r"\r\n|[\p{GCB=Extend}\p{GCB=ZWJ}\p{GCB=SpacingMark}\p{GCB=Prepend}]"
).search


class CharacterMap:
    """The block of bytes, and how a string is looked up in it."""

    def __init__(self, data: bytes):
        size = int.from_bytes(data[:4], "little")
        if len(data) < 4 or size % 4 or size == 0 or len(data) < 4 + size:
            raise ValueError(f"{len(data)} bytes cannot hold a trie of {size} bytes")
        self.units = struct.unpack(f"<{size // 4}I", data[4 : 4 + size])
        self.texts = data[4 + size :]
        self._check()

    def _check(self) -> None:
        """ValueError unless each string of the trie has a replacement, ended, in UTF-8 and not too long."""
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
            raise ValueError("what replaces a string is not in it")
        if (
            (np.frombuffer(self.texts, np.uint8)[starts] & 0xC0) == 0x80
        ).any():  # within a character
            raise ValueError("what replaces a string is not UTF-8")
        if (longest := max(map(len, self.texts.decode("utf-8").split("\0")))) > LONGEST_REPLACEMENT:
            raise ValueError(
                f"what replaces a string has {longest} characters, expected at most {LONGEST_REPLACEMENT}"
            )

    def walk(self, text: str, start: int = 0) -> Iterator[tuple[int, bool]]:
        """The way through the trie, as far as it leads: after each character (base, whether a string ends here)."""
        base = _offset(self.units[0])
        for place in range(start, len(text)):
            for byte in text[place].encode():
                index = base ^ byte
                if index >= len(self.units) or self.units[index] & 0x800000FF != byte:
                    return
                base = index ^ _offset(self.units[index])
            yield base, bool(self.units[index] & 0x100)

    def shortest(self, text: str) -> str | None:
        """The replacement of the shortest string that the text begins with; None if there is none."""
        return next((self._replacement(base) for base, ends in self.walk(text) if ends), None)

    def longest(self, text: str, start: int) -> tuple[str, str] | None:
        """The longest string that stands at `start`, and its replacement; None if there is none."""
        found = [
            (end, base)
            for end, (base, ends) in enumerate(self.walk(text, start), start + 1)
            if ends
        ]
        return (text[start : found[-1][0]], self._replacement(found[-1][1])) if found else None

    def leads(self, text: str) -> bool:
        """Does a string begin with the text?"""
        return sum(1 for _ in self.walk(text)) == len(text)

    def _replacement(self, index: int) -> str:
        start = self.units[index] & 0x7FFFFFFF
        return self.texts[start : self.texts.index(b"\0", start)].decode("utf-8")


def _offset(unit: int) -> int:
    return unit >> 10 << (8 if unit & 0x200 else 0)


@dataclass(frozen=True)
class Precompiled(Component):
    precompiled_charsmap: str  # base64

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> Precompiled:
        if content.get("longest_match") is True and cls is Precompiled:
            return LongestMatch.from_json(
                {key: value for key, value in content.items() if key != "longest_match"}, where
            )
        return super().from_json(content, where)

    def __post_init__(self) -> None:
        _ = self._map  # refuses what is no map

    @cached_property
    def _map(self) -> CharacterMap:
        try:
            return CharacterMap(base64.b64decode(self.precompiled_charsmap, validate=True))
        except (binascii.Error, TypeError, ValueError) as error:
            raise ValueError(
                f"precompiled_charsmap is not a map of SentencePiece in base64: {error}"
            ) from None

    @cached_property
    def _of_code(self) -> _Known:
        return _Known(self._normalized_code)

    @cached_property
    def _of_cluster(self) -> _Known:
        return _Known(self._normalized_cluster)

    def _normalized_code(self, code: int) -> str:
        return self._character(chr(code))

    def _normalized_cluster(self, cluster: str) -> str:
        return "".join(new for _, new in self.replacements(cluster))

    def _character(self, char: str) -> str:
        new = self._map.shortest(char)
        return char if new is None else new

    def replacements(self, text: str) -> Iterator[tuple[str, str]]:
        """(what is replaced, by what) for each part of the text."""
        for cluster in _clusters(text):
            if len(cluster.encode()) < 6 and (new := self._map.shortest(cluster)) is not None:
                yield cluster, new
            else:
                yield from zip(cluster, map(self._character, cluster))

    def _joins(self, text: str) -> bool:
        """May characters of the text be replaced together?"""
        return _may_join(text) is not None

    def __call__(self, text: str) -> str:
        if self._joins(text):
            return "".join(map(self._of_cluster.__getitem__, _clusters(text)))
        return text.translate(self._of_code)

    def aligned(self, piece: Aligned) -> Aligned:
        """A replacement stands, character by character, for what it replaces; more characters are inserted, and if there are
        fewer, the last one (of the text so far) also stands for the rest.  At the beginning of the text there is none: what is
        dropped there is forgotten, and all spans are too far left.  The library does so, and offsets are to be equal.
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
    """SentencePiece's own way: from left to right the longest string that stands at a place, else the character itself.

    A tokenizer.json has no name for it: it is a Precompiled there with a key that only we read.
    """

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"type": "Precompiled", "longest_match": True}

    @cached_property
    def _leads(self) -> _Known:
        return _Known(self._map.leads)

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


class _Known(dict):
    """What is known of a function's values.  Emptied when full: the most frequent come back at once."""

    def __init__(self, function: Callable[[Any], Any]):
        super().__init__()
        self.function = function

    def __missing__(self, key: int | str) -> Any:
        if len(self) >= 1 << 16:
            self.clear()
        self[key] = value = self.function(key)
        return value
