"""SentencePiece's .model files: read, and put together from components.          Kudo & Richardson 2018

A .model is a protocol buffer: fields of (number, kind, value), one after the other.  Few of them matter:

    1 pieces          1 piece, 2 score, 3 type
    2 trainer_spec    3 model_type, 24 treat_whitespace_as_suffix, 35 byte_fallback, 40-43 ids of unk, bos, eos, pad
    3 normalizer_spec 2 precompiled_charsmap, 3 add_dummy_prefix, 4 remove_extra_whitespaces, 5 escape_whitespaces
    5 denormalizer_spec 2 precompiled_charsmap

(https://github.com/google/sentencepiece, src/sentencepiece_model.proto).  A text is normalised by the character map, its spaces
are tidied up and written "▁", one more in front; the whole of it is then one word for the model.  What would change ids and is
not supported is refused by name.
"""

from __future__ import annotations

import base64
import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import decoding, normalization
from .added import AddedToken
from .bpe_model import BPE
from .precompiled import LongestMatch
from .sentencepiece_bpe import Piece, merges_from_scores
from .unigram import Unigram

KINDS = {1: "normal", 2: "unknown", 3: "control", 4: "user_defined", 5: "unused", 6: "byte"}
MODEL_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}


@dataclass(frozen=True)
class SentencePieceModel:
    """What a .model says; defaults are those of the format."""

    pieces: Sequence[Piece]  # (piece, score, kind), the place is the id
    model_type: str = "unigram"
    byte_fallback: bool = False
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    ids: Mapping[str, int] = field(default_factory=dict)  # "bos_token" ... -> id, negative if there is none

    def parts(self) -> dict[str, Any]:
        """The arguments of Tokenizer.  Ids are those of SentencePiece; bos and eos are not added, as there."""
        return {
            "model": self.model(),
            "normalizer": self.normalizer(),
            "decoder": self.decoder(),
            "added_tokens": [AddedToken(p, id) for id, (p, _, kind) in enumerate(self.pieces) if kind in ("unknown", "control")],
            "named": {name: self.pieces[id][0] for name, id in self.ids.items() if 0 <= id < len(self.pieces)},
        }

    def model(self) -> Unigram | BPE:
        unknown = next(id for id, (_, _, kind) in enumerate(self.pieces) if kind == "unknown")
        if self.model_type == "unigram":
            unseen = frozenset(p for p, _, kind in self.pieces if kind not in ("normal", "user_defined"))
            pieces = tuple(zip([p for p, _, _ in self.pieces], self._scores()))
            return Unigram(unknown, pieces, self.byte_fallback, unseen, single=True)
        if chosen := [p for p, _, kind in self.pieces if kind == "user_defined"]:
            raise ValueError(f"user-defined pieces in a BPE model are not supported: {chosen[0]!r}")
        vocab = {p: id for id, (p, _, _) in enumerate(self.pieces)}
        merges = merges_from_scores(self.pieces)
        return BPE(vocab, merges, self.pieces[unknown][0], fuse_unk=True, byte_fallback=self.byte_fallback)

    def _scores(self) -> list[float]:
        """A user-defined piece has length times the best score: more than its parts together, though not more than one longer
        piece that covers it, which is taken then."""
        best = max((score for _, score, kind in self.pieces if kind == "normal"), default=0.0)
        return [
            array("f", [len(p.encode()) * best])[0] - 0.1 if kind == "user_defined" else score for p, score, kind in self.pieces
        ]

    def normalizer(self) -> normalization.Sequence:
        steps: list[Any] = []
        if self.charsmap:
            steps.append(LongestMatch(base64.b64encode(self.charsmap).decode()))
            for piece, _, kind in self.pieces:  # they are kept from it there
                if kind == "user_defined" and steps[0](piece) != piece:
                    raise ValueError(f"a user-defined piece that the character map changes, {piece!r}, is not supported")
        if self.remove_extra_whitespaces:
            steps.append(normalization.Replace({"Regex": r"\A +"}, ""))
            steps.append(normalization.Replace({"Regex": " {2,}"}, " "))
        if self.add_dummy_prefix:
            steps.append(normalization.Prepend("▁"))
        steps.append(normalization.Replace({"String": " "}, "▁"))
        if self.remove_extra_whitespaces:  # at the end also a ▁ that was in the text, even the one in front, if all is ▁
            steps.append(normalization.Replace({"Regex": r"(?<!▁)▁++(?![\s\S])"}, ""))
        return normalization.Sequence(tuple(steps))

    def decoder(self) -> decoding.Sequence:
        steps = [decoding.Replace({"String": "▁"}, " "), decoding.ByteFallback(), decoding.Fuse()]
        return decoding.Sequence(
            (*steps, *([decoding.Strip(" ", 1, 0)] if self.add_dummy_prefix or self.remove_extra_whitespaces else []))
        )


def read_model(data: bytes, name: str) -> SentencePieceModel:
    """ValueError, with the name of the file, for what is damaged or not supported."""
    try:
        fields = list(_fields(data))
        pieces = [_piece(dict(_fields(value))) for number, value in fields if number == 1]
        trainer, normalizer, denormalizer = (
            dict(_fields(b"".join(value for number, value in fields if number == n))) for n in (2, 3, 5)
        )
        charsmap = normalizer.get(2, b"")
        unk, bos, eos, pad = (_signed(trainer.get(40 + k, default)) for k, default in enumerate((0, 1, 2, -1)))
    except (ValueError, IndexError, TypeError, AttributeError, struct.error) as error:
        raise ValueError(f"{name}: not a SentencePiece model, or damaged: {error}") from None

    def refuse(what: str) -> None:
        raise ValueError(f"{name}: {what} is not supported")

    if not pieces:
        raise ValueError(f"{name}: not a SentencePiece model: it has no pieces")
    if (kind := MODEL_TYPES.get(trainer.get(3, 1))) not in ("unigram", "bpe"):
        refuse(f"model_type {kind}")
    if trainer.get(24):
        refuse("treat_whitespace_as_suffix")
    if not normalizer.get(5, 1):
        refuse("escape_whitespaces = false")
    if denormalizer.get(2):
        refuse("a denormalizer_spec")
    if unused := [p for p, _, kind in pieces if kind == "unused"]:
        refuse(f"a piece marked as unused, {unused[0]!r},")
    if (count := [kind for _, _, kind in pieces].count("unknown")) != 1:
        raise ValueError(f"{name}: one piece must be of kind unknown, got {count}")
    seen: set[str] = set()
    if twice := [p for p, _, _ in pieces if p in seen or seen.add(p)]:
        raise ValueError(f"{name}: the piece {twice[0]!r} occurs twice")
    ids = {"unk_token": unk, "bos_token": bos, "eos_token": eos, "pad_token": pad}
    return SentencePieceModel(
        pieces, kind, bool(trainer.get(35)), charsmap, bool(normalizer.get(3, 1)), bool(normalizer.get(4, 1)), ids
    )


def _piece(fields: dict[int, Any]) -> Piece:
    if 1 not in fields:
        raise ValueError("a piece without a text")
    (score,) = struct.unpack("<f", fields.get(2, bytes(4)))
    if (kind := fields.get(3, 1)) not in KINDS:
        raise ValueError(f"a piece of type {kind}")
    return fields[1].decode("utf-8"), score, KINDS[kind]


def _signed(value: int) -> int:
    """Negative numbers are stored as 64 bits, modulo 2^64."""
    return value - (1 << 64) if value >> 63 else value


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of a message; the value is an int, or bytes: a text, a message, a number of fixed length."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind = tag & 7
        if kind == 0:
            value, place = _varint(data, place)
        elif kind in (1, 2, 5):
            length, place = _varint(data, place) if kind == 2 else (8 if kind == 1 else 4, place)
            value, place = data[place : place + length], place + length
            if place > len(data):
                raise ValueError("it ends within a field")
        else:
            raise ValueError(f"a field of kind {kind}")
        yield tag >> 3, value


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first; the highest bit says that more follow."""
    value = shift = 0
    while True:
        if place >= len(data) or shift > 63:
            raise ValueError("it ends within a number")
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
