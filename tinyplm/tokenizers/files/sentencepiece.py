"""SentencePiece .model files: parsed, and converted to components.          Kudo & Richardson 2018

A .model is a protocol buffer: a sequence of fields (number, wire type, value).  Few of them matter:

    1 pieces            1 piece, 2 score, 3 type
    2 trainer_spec      3 model_type, 24 treat_whitespace_as_suffix, 35 byte_fallback,
                        40-43 ids of unk, bos, eos, pad
    3 normalizer_spec   2 precompiled_charsmap, 3 add_dummy_prefix, 4 remove_extra_whitespaces,
                        5 escape_whitespaces
    5 denormalizer_spec 2 precompiled_charsmap

(https://github.com/google/sentencepiece, src/sentencepiece_model.proto).  A text is normalized by
the character map, its spaces are cleaned up and written "▁", with one more at the start; the model
then takes all of it as one word.  Anything that would change ids and is not supported is refused by
name.
"""

from __future__ import annotations

import base64
import struct
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...arguments import mismatch, shown, wrong
from ..component import Normalizer
from ..models.bpe import BPE
from ..models.sentencepiece_bpe import Piece, merges_from_scores
from ..models.unigram import Unigram
from ..text import decoding, normalization
from ..text.added_tokens import AddedToken
from ..text.precompiled import LongestMatch

KINDS = {1: "normal", 2: "unknown", 3: "control", 4: "user_defined", 5: "unused", 6: "byte"}
MODEL_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}


@dataclass(frozen=True)
class SentencePieceModel:
    """The content of a .model; the defaults are those of the format."""

    pieces: Sequence[Piece]  # (piece, score, kind); the index is the id
    model_type: str = "unigram"
    byte_fallback: bool = False
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    # "bos_token" ... -> id, negative if there is none
    ids: Mapping[str, int] = field(default_factory=dict)

    def parts(self) -> dict[str, Any]:
        """The arguments of Tokenizer.  As in SentencePiece, bos and eos are not added to texts."""
        special = ("unknown", "control")
        pieces = [(id, piece, kind) for id, (piece, _, kind) in enumerate(self.pieces)]
        known = {name: id for name, id in self.ids.items() if 0 <= id < len(pieces)}
        added = [AddedToken(piece, id) for id, piece, kind in pieces if kind in special]
        return {
            "model": self.model(),
            "normalizer": self.normalizer(),
            "decoder": self.decoder(),
            "added_tokens": added + self._matched_first(),
            "named": {name: self.pieces[id][0] for name, id in known.items()},
        }

    def model(self) -> Unigram | BPE:
        """The model with the ids of the file."""
        unknown = next(id for id, (_, _, kind) in enumerate(self.pieces) if kind == "unknown")
        if self.model_type == "unigram":
            text = ("normal", "user_defined")
            hidden = frozenset(piece for piece, _, kind in self.pieces if kind not in text)
            pieces = tuple(zip([piece for piece, _, _ in self.pieces], self._scores()))
            return Unigram(unknown, pieces, self.byte_fallback, hidden, single=True)
        vocab = {piece: id for id, (piece, _, _) in enumerate(self.pieces)}
        merges = merges_from_scores(self.pieces)
        unk_token = self.pieces[unknown][0]
        return BPE(vocab, merges, unk_token, fuse_unk=True, byte_fallback=self.byte_fallback)

    def _matched_first(self) -> list[AddedToken]:
        """The user-defined pieces of a BPE model: matched in the normalized text, from left to
        right, the longest at each place, before the other text is divided."""
        if self.model_type == "unigram":
            return []  # there they are pieces with a high score
        chosen = [(p, id) for id, (p, _, kind) in enumerate(self.pieces) if kind == "user_defined"]
        if chosen and self.add_dummy_prefix:
            expected = (
                f"false in a BPE model with user-defined pieces, such as {shown(chosen[0][0])}"
            )
            raise mismatch("add_dummy_prefix", expected, "true")
        normalizer = self.normalizer()
        for piece, _ in chosen:
            if normalizer(piece) != piece:
                expected = "user-defined ones that normalization preserves"
                raise wrong("pieces", expected, piece)
        return [AddedToken(piece, id, special=False, normalized=True) for piece, id in chosen]

    def _scores(self) -> list[float]:
        """A user-defined piece scores its length times the best score: more than its parts
        together, but not necessarily more than one longer piece that covers it, which then wins."""
        best = max((score for _, score, kind in self.pieces if kind == "normal"), default=0.0)
        return [
            array("f", [len(p.encode()) * best])[0] - 0.1 if kind == "user_defined" else score
            for p, score, kind in self.pieces
        ]

    def normalizer(self) -> normalization.Sequence:
        """The character map and the handling of spaces."""
        steps: list[Normalizer] = []
        if self.charsmap:
            charsmap = LongestMatch(base64.b64encode(self.charsmap).decode())
            for piece, _, kind in self.pieces:
                # SentencePiece exempts these from the map.  mT5's "▁<extra_id_0>" changes only
                # where a text has "▁" itself, which the map makes a space.
                if kind == "user_defined" and charsmap(piece) not in (piece, _spaced(piece)):
                    raise wrong(
                        "pieces", "user-defined ones that the character map preserves", piece
                    )
            steps.append(charsmap)
        if self.remove_extra_whitespaces:
            steps.append(normalization.Replace({"Regex": r"\A +"}, ""))
            steps.append(normalization.Replace({"Regex": " {2,}"}, " "))
        if self.add_dummy_prefix:
            steps.append(normalization.Prepend("▁"))
        steps.append(normalization.Replace({"String": " "}, "▁"))
        if self.remove_extra_whitespaces:
            # Also removes a final ▁ of the text, and even the inserted one if the text has only ▁.
            steps.append(normalization.Replace({"Regex": r"(?<!▁)▁++(?![\s\S])"}, ""))
        return normalization.Sequence(tuple(steps))

    def decoder(self) -> decoding.Sequence:
        """The inverse: spaces, bytes, and no space at the start."""
        steps: list[decoding.Decoder] = [
            decoding.Replace({"String": "▁"}, " "),
            decoding.ByteFallback(),
            decoding.Fuse(),
        ]
        if self.add_dummy_prefix or self.remove_extra_whitespaces:
            steps.append(decoding.Strip(" ", 1, 0))
        return decoding.Sequence(tuple(steps))


def _spaced(piece: str) -> str:
    """The piece with a space for a first "▁"."""
    return f" {piece[1:]}" if piece.startswith("▁") else piece


def read_model(data: bytes, name: str) -> SentencePieceModel:
    """Parse a .model.  name: the file, for messages.  ValueError for what is damaged or not
    supported."""
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
        model_type, byte_fallback = trainer.number(3, 1), trainer.number(35, 0)
        suffix = trainer.number(24, 0)
        dummy_prefix, tidied, escaped = (normalizer.number(k, 1) for k in (3, 4, 5))
        denormalized = denormalizer.bytes(2)
    except ValueError as error:  # including UnicodeDecodeError
        raise ValueError(f"{name}: expected a SentencePiece model, got: {error}") from None

    kind = MODEL_TYPES.get(model_type, shown(model_type))
    spellings = [piece for piece, _, _ in pieces]
    kinds = [kind for _, _, kind in pieces]
    if not pieces:
        raise ValueError(f"{name}: expected a SentencePiece model, got no pieces")
    if kind not in ("unigram", "bpe"):
        raise ValueError(f"{name}: model_type: expected unigram or bpe, got {kind}")
    if suffix:
        raise ValueError(f"{name}: treat_whitespace_as_suffix: expected false, got true")
    if not escaped:
        raise ValueError(f"{name}: escape_whitespaces: expected true, got false")
    if denormalized:
        raise ValueError(f"{name}: denormalizer_spec: expected none, got a character map")
    if kind == "unigram" and "unused" in kinds:
        expected = "no unused ones in a Unigram model"
        raise wrong(f"{name}: pieces", expected, spellings[kinds.index("unused")])
    if (count := kinds.count("unknown")) != 1:
        raise ValueError(f"{name}: pieces: expected one of kind unknown, got {count}")
    if twice := [piece for piece, count in Counter(spellings).items() if count > 1]:
        raise wrong(f"{name}: pieces", "different ones", twice[0])
    ids = {"unk_token": unk, "bos_token": bos, "eos_token": eos, "pad_token": pad}
    return SentencePieceModel(
        pieces, kind, bool(byte_fallback), charsmap, bool(dummy_prefix), bool(tidied), ids
    )


def _piece(message: _Message) -> Piece:
    """One entry of the vocabulary."""
    if (text := message.bytes(1, None)) is None:
        raise ValueError("a piece without text")
    (score,) = struct.unpack("<f", message.bytes(2, bytes(4), 5))
    if (kind := message.number(3, 1)) not in KINDS:
        raise ValueError(f"a piece of type {kind}")
    return text.decode("utf-8"), score, KINDS[kind]


def _messages(data: bytes) -> dict[int, list[bytes]]:
    """The relevant parts of the file by number; all are messages."""
    found: dict[int, list[bytes]] = {}
    for number, kind, value in _fields(data):
        if number in (1, 2, 3, 5):
            if kind != 2:
                raise ValueError(f"field {number} of wire type {kind}, not a message")
            found.setdefault(number, []).append(value)
    return found


class _Message:
    """The fields of a message; of repeated ones the last counts.  ValueError for an unexpected wire
    type."""

    def __init__(self, data: bytes):
        self.fields = {number: (kind, value) for number, kind, value in _fields(data)}

    def _get(self, number: int, kind: int, default: Any) -> Any:
        found, value = self.fields.get(number, (kind, default))
        if found != kind:
            raise ValueError(f"field {number} of wire type {found}, not {kind}")
        return value

    def number(self, number: int, default: int) -> int:
        return self._get(number, 0, default)

    def bytes(self, number: int, default: Any = b"", kind: int = 2) -> Any:
        return self._get(number, kind, default)


def _signed(value: int) -> int:
    """Negative numbers are stored modulo 2^64."""
    return value - (1 << 64) if value >> 63 else value


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """(number, wire type, value) of each field: an int (0), bytes of a string or message (2), 8 or
    4 bytes of a number (1, 5)."""
    value: Any
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
                raise ValueError("an end within a field")
        else:
            raise ValueError(f"a field of wire type {kind}")
        yield tag >> 3, kind, value


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Seven bits per byte, the lowest first; the top bit marks that more follow."""
    value = shift = 0
    while True:
        if place >= len(data) or shift > 63:
            raise ValueError("an end within a number")
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
