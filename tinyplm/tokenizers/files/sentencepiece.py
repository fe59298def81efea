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

from ...arguments import shown
from ..models.bpe import BPE
from ..models.unigram import Unigram
from ..text import decoding, normalization
from ..text.added_tokens import AddedToken
from ..text.precompiled import LongestMatch
from ..training.sentencepiece_bpe import Piece, merges_from_scores

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
    ids: Mapping[str, int] = field(
        default_factory=dict
    )  # "bos_token" ... -> id, negative if there is none

    def parts(self) -> dict[str, Any]:
        """The arguments of Tokenizer.  Ids are those of SentencePiece; bos and eos are not added, as there."""
        return {
            "model": self.model(),
            "normalizer": self.normalizer(),
            "decoder": self.decoder(),
            "added_tokens": [
                AddedToken(p, id)
                for id, (p, _, kind) in enumerate(self.pieces)
                if kind in ("unknown", "control")
            ],
            "named": {
                name: self.pieces[id][0]
                for name, id in self.ids.items()
                if 0 <= id < len(self.pieces)
            },
        }

    def model(self) -> Unigram | BPE:
        unknown = next(id for id, (_, _, kind) in enumerate(self.pieces) if kind == "unknown")
        if self.model_type == "unigram":
            unseen = frozenset(
                p for p, _, kind in self.pieces if kind not in ("normal", "user_defined")
            )
            pieces = tuple(zip([p for p, _, _ in self.pieces], self._scores()))
            return Unigram(unknown, pieces, self.byte_fallback, unseen, single=True)
        if chosen := [p for p, _, kind in self.pieces if kind == "user_defined"]:
            raise ValueError(
                f"user-defined pieces in a BPE model are not supported: {shown(chosen[0])}"
            )
        vocab = {p: id for id, (p, _, _) in enumerate(self.pieces)}
        merges = merges_from_scores(self.pieces)
        return BPE(
            vocab, merges, self.pieces[unknown][0], fuse_unk=True, byte_fallback=self.byte_fallback
        )

    def _scores(self) -> list[float]:
        """A user-defined piece has length times the best score: more than its parts together, though not more than one longer
        piece that covers it, which is taken then."""
        best = max((score for _, score, kind in self.pieces if kind == "normal"), default=0.0)
        return [
            array("f", [len(p.encode()) * best])[0] - 0.1 if kind == "user_defined" else score
            for p, score, kind in self.pieces
        ]

    def normalizer(self) -> normalization.Sequence:
        steps: list[Any] = []
        if self.charsmap:
            steps.append(LongestMatch(base64.b64encode(self.charsmap).decode()))
            for piece, _, kind in self.pieces:  # they are kept from it there
                if kind == "user_defined" and steps[0](piece) != piece:
                    raise ValueError(
                        f"a user-defined piece that the character map changes, {shown(piece)}, is not supported"
                    )
        if self.remove_extra_whitespaces:
            steps.append(normalization.Replace({"Regex": r"\A +"}, ""))
            steps.append(normalization.Replace({"Regex": " {2,}"}, " "))
        if self.add_dummy_prefix:
            steps.append(normalization.Prepend("▁"))
        steps.append(normalization.Replace({"String": " "}, "▁"))
        if (
            self.remove_extra_whitespaces
        ):  # at the end also a ▁ that was in the text, even the one in front, if all is ▁
            steps.append(normalization.Replace({"Regex": r"(?<!▁)▁++(?![\s\S])"}, ""))
        return normalization.Sequence(tuple(steps))

    def decoder(self) -> decoding.Sequence:
        steps = [decoding.Replace({"String": "▁"}, " "), decoding.ByteFallback(), decoding.Fuse()]
        return decoding.Sequence(
            (
                *steps,
                *(
                    [decoding.Strip(" ", 1, 0)]
                    if self.add_dummy_prefix or self.remove_extra_whitespaces
                    else []
                ),
            )
        )


def read_model(data: bytes, name: str) -> SentencePieceModel:
    """ValueError, with the name of the file, for what is damaged or not supported."""
    try:
        fields = _messages(data)
        pieces = [_piece(_Message(value)) for value in fields.get(1, [])]
        trainer, normalizer, denormalizer = (
            _Message(b"".join(fields.get(number, []))) for number in (2, 3, 5)
        )
        charsmap = normalizer.bytes(2)
        unk, bos, eos, pad = (
            _signed(trainer.number(40 + k, default)) for k, default in enumerate((0, 1, 2, -1))
        )
        model_type, byte_fallback, suffix = (
            trainer.number(3, 1),
            trainer.number(35, 0),
            trainer.number(24, 0),
        )
        dummy_prefix, tidied, escaped = (normalizer.number(k, 1) for k in (3, 4, 5))
        denormalized = denormalizer.bytes(2)
    except ValueError as error:  # also of UTF-8
        raise ValueError(f"{name}: not a SentencePiece model, or damaged: {error}") from None

    def refuse(what: str) -> None:
        raise ValueError(f"{name}: {what} is not supported")

    if not pieces:
        raise ValueError(f"{name}: not a SentencePiece model: it has no pieces")
    if (kind := MODEL_TYPES.get(model_type)) not in ("unigram", "bpe"):
        refuse(f"model_type {kind or shown(model_type)}")
    if suffix:
        refuse("treat_whitespace_as_suffix")
    if not escaped:
        refuse("escape_whitespaces = false")
    if denormalized:
        refuse("a denormalizer_spec")
    if unused := [p for p, _, kind in pieces if kind == "unused"]:
        refuse(f"a piece marked as unused, {shown(unused[0])},")
    if (count := [kind for _, _, kind in pieces].count("unknown")) != 1:
        raise ValueError(f"{name}: one piece must be of kind unknown, got {count}")
    seen: set[str] = set()
    if twice := [p for p, _, _ in pieces if p in seen or seen.add(p)]:
        raise ValueError(f"{name}: the piece {shown(twice[0])} occurs twice")
    ids = {"unk_token": unk, "bos_token": bos, "eos_token": eos, "pad_token": pad}
    return SentencePieceModel(
        pieces, kind, bool(byte_fallback), charsmap, bool(dummy_prefix), bool(tidied), ids
    )


def _piece(message: _Message) -> Piece:
    if (text := message.bytes(1, None)) is None:
        raise ValueError("a piece without a text")
    (score,) = struct.unpack("<f", message.bytes(2, bytes(4), 5))
    if (kind := message.number(3, 1)) not in KINDS:
        raise ValueError(f"a piece of type {kind}")
    return text.decode("utf-8"), score, KINDS[kind]


def _messages(data: bytes) -> dict[int, list[bytes]]:
    """The parts of the whole file, all of which are messages, by number."""
    found: dict[int, list[bytes]] = {}
    for number, kind, value in _fields(data):
        if number in (1, 2, 3, 5):
            if kind != 2:
                raise ValueError(f"field {number} is of kind {kind}, expected a message")
            found.setdefault(number, []).append(value)
    return found


class _Message:
    """A message's fields; of one that occurs several times the last counts.  ValueError for one of another kind than expected."""

    def __init__(self, data: bytes):
        self.fields = {number: (kind, value) for number, kind, value in _fields(data)}

    def _get(self, number: int, kind: int, default: Any) -> Any:
        found, value = self.fields.get(number, (kind, default))
        if found != kind:
            raise ValueError(f"field {number} is of kind {found}, expected {kind}")
        return value

    def number(self, number: int, default: int) -> int:
        return self._get(number, 0, default)

    def bytes(self, number: int, default: Any = b"", kind: int = 2) -> Any:
        return self._get(number, kind, default)


def _signed(value: int) -> int:
    """Negative numbers are stored as 64 bits, modulo 2^64."""
    return value - (1 << 64) if value >> 63 else value


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """(number, kind, value) of a message: an int (kind 0), bytes of a text or a message (2), 8 or 4 bytes of a number (1, 5)."""
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
        yield tag >> 3, kind, value


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
