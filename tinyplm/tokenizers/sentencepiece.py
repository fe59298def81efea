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
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from . import decoding, normalization
from .added import AddedToken
from .bpe_model import BPE
from .sentencepiece_bpe import merges_from_scores
from .unigram import Unigram

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # the types of a piece
UNIGRAM, BYTE_PAIRS = 1, 2  # the types of a model


class Piece(NamedTuple):
    piece: str
    score: float
    type: int = NORMAL


@dataclass(frozen=True)
class SentencePieceModel:
    """What a .model says; defaults are those of the format."""

    pieces: list[Piece]
    model_type: int = UNIGRAM
    byte_fallback: bool = False
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    ids: dict[str, int] = field(default_factory=lambda: {"unk_token": 0, "bos_token": 1, "eos_token": 2, "pad_token": -1})

    def parts(self) -> dict[str, Any]:
        """The arguments of Tokenizer.  Ids are those of SentencePiece; bos and eos are not added, as there."""
        named = {name: self.pieces[id].piece for name, id in self.ids.items() if 0 <= id < len(self.pieces)}
        added = [AddedToken(p.piece, id) for id, p in enumerate(self.pieces) if p.type in (UNKNOWN, CONTROL)]
        model = self._unigram() if self.model_type == UNIGRAM else self._bpe()
        return {"model": model, "normalizer": self._normalizer(), "decoder": self._decoder(), "added_tokens": added, "named": named}

    def _unigram(self) -> Unigram:
        """A user-defined piece is always taken; in a lattice of scores: length times the best score, which nothing can beat."""
        best = max((p.score for p in self.pieces if p.type == NORMAL), default=0.0)
        scores = [len(p.piece.encode()) * best - 0.1 if p.type == USER_DEFINED else p.score for p in self.pieces]
        unknown = next(id for id, p in enumerate(self.pieces) if p.type == UNKNOWN)
        return Unigram(unknown, [(p.piece, score) for p, score in zip(self.pieces, scores)], self.byte_fallback)

    def _bpe(self) -> BPE:
        if chosen := [p.piece for p in self.pieces if p.type == USER_DEFINED]:
            raise ValueError(f"user-defined pieces in a BPE model are not supported: {chosen[0]!r}")
        vocab = {p.piece: id for id, p in enumerate(self.pieces)}
        merges = merges_from_scores([(p.piece, p.score) for p in self.pieces if p.type == NORMAL])
        unknown = next(p.piece for p in self.pieces if p.type == UNKNOWN)
        return BPE(vocab, merges, unknown, fuse_unk=True, byte_fallback=self.byte_fallback)

    def _normalizer(self) -> Any:
        steps: list[Any] = []
        if self.charsmap:
            steps.append(normalization.Precompiled(base64.b64encode(self.charsmap).decode()))
        if self.remove_extra_whitespaces:
            steps.append(normalization.Replace({"Regex": r"\A +| +(?![\s\S])"}, ""))
            steps.append(normalization.Replace({"Regex": " {2,}"}, " "))
        if self.add_dummy_prefix:
            steps.append(normalization.Prepend("▁"))
        return normalization.Sequence([*steps, normalization.Replace({"String": " "}, "▁")])

    def _decoder(self) -> Any:
        steps = [decoding.Replace({"String": "▁"}, " "), decoding.ByteFallback(), decoding.Fuse()]
        return decoding.Sequence([*steps, *([decoding.Strip(" ", 1, 0)] if self.add_dummy_prefix else [])])


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
    if (kind := trainer.get(3, UNIGRAM)) not in (UNIGRAM, BYTE_PAIRS):
        refuse(f"model_type {({3: 'WORD', 4: 'CHAR'}).get(kind, kind)}")
    if trainer.get(24):
        refuse("treat_whitespace_as_suffix")
    if not normalizer.get(5, 1):
        refuse("escape_whitespaces = false")
    if denormalizer.get(2):
        refuse("a denormalizer_spec")
    if unused := [p.piece for p in pieces if p.type == UNUSED]:
        refuse(f"a piece marked as unused, {unused[0]!r},")
    if sum(p.type == UNKNOWN for p in pieces) != 1:
        raise ValueError(f"{name}: one piece must be of type UNKNOWN, got {sum(p.type == UNKNOWN for p in pieces)}")
    if len({p.piece for p in pieces}) < len(pieces):
        seen: set[str] = set()
        raise ValueError(f"{name}: the piece {next(p.piece for p in pieces if p.piece in seen or seen.add(p.piece))!r} occurs twice")
    return SentencePieceModel(pieces, kind, bool(trainer.get(35)), charsmap, bool(normalizer.get(3, 1)), bool(normalizer.get(4, 1)),
                              {"unk_token": unk, "bos_token": bos, "eos_token": eos, "pad_token": pad})  # fmt: skip


def _piece(fields: dict[int, Any]) -> Piece:
    (score,) = struct.unpack("<f", fields.get(2, bytes(4)))
    if not NORMAL <= (kind := fields.get(3, NORMAL)) <= BYTE:
        raise ValueError(f"a piece of type {kind}")
    return Piece(fields[1].decode("utf-8"), score, kind)


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
