"""Encodings: the ids of a text with everything known about each, and truncation, padding and arrays
of them.

    tokens               [CLS]   the    dog   [SEP]   ran   [SEP]   [PAD]
    ids                    101  1996   3899     102  2743     102       0
    type_ids                 0     0      0       0     1       1       0     segment ids (BERT)
    special_tokens_mask      1     0      0       1     0       1       1     1: not from the text
    attention_mask           1     1      1       1     1       1       0     0: padding
    offsets              (0,0) (0,3)  (4,7)   (0,0) (0,3)   (0,0)   (0,0)     span in the text
    word_ids              None     0      1    None     0    None    None     word of the text
    sequence_ids          None     0      0    None     1    None    None     which of the two texts

Texts are truncated before special tokens are added, so the number of these is first subtracted from
the length.  What is cut off is kept in `overflowing`, in pieces of the same length that each repeat
the last `stride` tokens of the previous one, so a phrase divided by a cut is still whole in one of
them (as question answering over long documents requires).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import reduce
from math import inf
from typing import Any

import numpy as np

from ...arguments import check_choice, check_flag, check_text, check_whole, mismatch, shown, wrong
from ..component import Component

Span = tuple[int, int]

LONGEST_PADDING = 1 << 20  # tokens; the most that a file can pad each text to
LARGEST_TYPE_ID = (1 << 32) - 1


@dataclass(frozen=True)
class Encoding:
    """Lists with one entry per token.  Encodings are immutable: methods return new ones."""

    ids: list[int]
    type_ids: list[int]
    tokens: list[str]
    offsets: list[Span]
    word_ids: list[int | None]
    special_tokens_mask: list[int]
    attention_mask: list[int]
    overflowing: list[Encoding] = field(default_factory=list)
    sequence_ranges: dict[int, Span] = field(default_factory=dict)  # text 0 or 1 -> token range

    @classmethod
    def of(
        cls,
        ids: list[int],
        tokens: list[str],
        offsets: list[Span],
        word_ids: list[int | None],
        type_id: int = 0,
    ) -> Encoding:
        """The encoding of one text, with nothing added."""
        n = len(ids)
        return cls(ids, [type_id] * n, tokens, offsets, word_ids, [0] * n, [1] * n, [], {0: (0, n)})

    @classmethod
    def special(
        cls, ids: Sequence[int], tokens: Sequence[str], type_id: int = 0, attention: int = 1
    ) -> Encoding:
        """Tokens that do not come from a text."""
        n = len(ids)
        types, offsets, words = [type_id] * n, [(0, 0)] * n, [None] * n
        return cls(list(ids), types, list(tokens), offsets, [*words], [1] * n, [attention] * n)

    @classmethod
    def merge(cls, encodings: Iterable[Encoding]) -> Encoding:
        """The concatenation of several."""
        return reduce(Encoding.joined, encodings, cls.special([], []))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sequence_ids(self) -> list[int | None]:
        """0 or 1 for tokens of the first or second text, None for all others."""
        numbers: list[int | None] = [None] * len(self)
        for number, (start, end) in self.sequence_ranges.items():
            numbers[start:end] = [number] * (end - start)
        return numbers

    def numbered(self, number: int) -> Encoding:
        """The same as text `number`, including its overflow."""
        overflowing = [piece.numbered(number) for piece in self.overflowing]
        return replace(self, sequence_ranges={number: (0, len(self))}, overflowing=overflowing)

    def joined(self, other: Encoding) -> Encoding:
        """This followed by the other.  Overflow: each piece of one with each of the other, nested
        as in `tokenizers`."""
        overflowing = []
        for piece in self.overflowing:
            overflowing += [piece.joined(rest) for rest in (other, *other.overflowing)]
        overflowing += [self.joined(rest) for rest in other.overflowing]
        moved = {
            k: (start + len(self), end + len(self))
            for k, (start, end) in other.sequence_ranges.items()
        }
        lists: Any = {name: getattr(self, name) + getattr(other, name) for name in PER_TOKEN}
        ranges = self.sequence_ranges | moved
        return Encoding(**lists, overflowing=overflowing, sequence_ranges=ranges)

    def cut(self, length: int, stride: int, direction: str) -> Encoding:
        """At most `length` tokens, the first ("Right") or the last ("Left"); the rest goes to
        `overflowing`."""
        if len(self) <= length:
            return self
        if length == 0:
            return replace(self.part(0, 0), overflowing=[self])
        if stride >= length:
            raise wrong("stride", f"less than the {length} tokens this text is cut to", stride)
        # The last window is the first one to reach the end.
        starts = range(0, len(self) - stride, length - stride)
        windows = [(start, min(start + length, len(self))) for start in starts]
        if direction == "Left":  # mirrored
            windows = [(len(self) - end, len(self) - start) for start, end in windows]
        first, *others = (self.part(start, end) for start, end in windows)
        return replace(first, overflowing=others)

    def part(self, start: int, end: int) -> Encoding:
        """Tokens start to end - 1, without overflow."""
        ranges = {
            k: (max(a, start) - start, min(b, end) - start)
            for k, (a, b) in self.sequence_ranges.items()
            if a < end and b > start
        }
        lists: Any = {name: getattr(self, name)[start:end] for name in PER_TOKEN}
        return Encoding(**lists, sequence_ranges=ranges)


PER_TOKEN = tuple(
    f.name for f in fields(Encoding) if f.name not in ("overflowing", "sequence_ranges")
)


class _Settings(Component):
    """A component without a "type" in the file: its key identifies it."""

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in super().to_json().items() if name != "type"}


@dataclass(frozen=True)
class Truncation(_Settings):
    """max_length includes special tokens.  strategy: which text is truncated.  direction: the side
    that is cut."""

    max_length: int
    strategy: str = "LongestFirst"
    stride: int = 0
    direction: str = "Right"

    def __post_init__(self) -> None:
        check_choice("strategy", self.strategy, ("LongestFirst", "OnlyFirst", "OnlySecond"))
        check_choice("direction", self.direction, ("Right", "Left"))
        _check_int("max_length", self.max_length)
        _check_int("stride", self.stride)
        if self.stride and self.stride >= self.max_length:
            raise wrong("stride", f"less than max_length {shown(self.max_length)}", self.stride)


@dataclass(frozen=True)
class Padding(_Settings):
    """strategy: "BatchLongest", the longest of the batch, or {"Fixed": n}.  direction: the padded
    side."""

    strategy: str | Mapping[str, int] = "BatchLongest"
    direction: str = "Right"
    pad_to_multiple_of: int | None = None
    pad_id: int = 0
    pad_type_id: int = 0
    pad_token: str = "[PAD]"

    def __post_init__(self) -> None:
        check_choice("direction", self.direction, ("Right", "Left"))
        if not (isinstance(self.strategy, str) and self.strategy == "BatchLongest"):
            if not isinstance(self.strategy, Mapping) or list(self.strategy) != ["Fixed"]:
                raise wrong("strategy", '"BatchLongest" or {"Fixed": length}', self.strategy)
            _check_int("strategy: Fixed", self.strategy["Fixed"], LONGEST_PADDING)
        if self.pad_to_multiple_of is not None:
            _check_int("pad_to_multiple_of", self.pad_to_multiple_of, LONGEST_PADDING)
        check_text("pad_token", self.pad_token)
        _check_int("pad_id", self.pad_id)
        _check_int("pad_type_id", self.pad_type_id, LARGEST_TYPE_ID)


def truncate(
    first: Encoding, second: Encoding | None, truncation: Truncation, added: int = 0
) -> tuple[Encoding, Encoding | None]:
    """Truncate so that, with `added` special tokens, at most max_length tokens result.

    LongestFirst removes tokens one at a time from the text that is longer at that moment; ties go
    to the text that was shorter originally (the first text, if they were equal).  ValueError if the
    chosen text is missing or too short for the cut.
    """
    _check_encodings("first", first)
    _check_encodings("second", *(() if second is None else (second,)))
    if not isinstance(truncation, Truncation):
        raise wrong("truncation", "a Truncation", truncation)
    check_whole("added", added, 0, 2**40)
    length = truncation.max_length - added
    if length < 0:
        raise wrong("max_length", f"room for {shown(added)} special tokens", truncation.max_length)
    lengths = [len(first), 0 if second is None else len(second)]
    excess = sum(lengths) - length
    if excess <= 0:
        return first, second
    if length == 0:
        lengths = [0, 0]
    elif truncation.strategy == "LongestFirst":
        longer = int(lengths[0] <= lengths[1])
        short = min(lengths[1 - longer], length // 2)
        lengths[longer], lengths[1 - longer] = length - short, short
    else:
        chosen = int(truncation.strategy == "OnlySecond")
        if chosen and second is None:
            raise ValueError("strategy: expected a second text for OnlySecond, got none")
        lengths[chosen] -= excess
        if lengths[chosen] <= 0:
            raise ValueError(
                f"max_length: expected room for a token of the {('first', 'second')[chosen]} text "
                f"({truncation.strategy}), got {excess} too many of {lengths[chosen] + excess}"
            )
    stride, direction = truncation.stride, truncation.direction
    cut = first.cut(lengths[0], stride, direction)
    return cut, None if second is None else second.cut(lengths[1], stride, direction)


def pad(encodings: Sequence[Encoding], padding: Padding) -> list[Encoding]:
    """Pad all to one length, including overflow.  With {"Fixed": n}, longer encodings are
    unchanged."""
    if not isinstance(padding, Padding):
        raise wrong("padding", "a Padding", padding)
    listed = _listed_encodings(encodings)
    if isinstance(padding.strategy, str):
        length = max(map(len, listed), default=0)
    else:
        length = padding.strategy["Fixed"]
    if padding.pad_to_multiple_of:
        length += -length % padding.pad_to_multiple_of
    return [_padded(encoding, length, padding) for encoding in listed]


def _padded(encoding: Encoding, length: int, padding: Padding) -> Encoding:
    overflowing = [_padded(piece, length, padding) for piece in encoding.overflowing]
    alone = replace(encoding, overflowing=[])
    n = max(0, length - len(encoding))
    filling = Encoding.special(
        [padding.pad_id] * n, [padding.pad_token] * n, padding.pad_type_id, attention=0
    )
    filled = alone.joined(filling) if padding.direction == "Right" else filling.joined(alone)
    return replace(filled, overflowing=overflowing)


def arrays(encodings: Sequence[Encoding], overflowing: bool = True) -> dict[str, np.ndarray]:
    """input_ids, attention_mask, token_type_ids, special_tokens_mask of shape (B, T) and offsets
    (B, T, 2), int64.

    overflowing: the overflow of each text follows it in rows of its own.  If there is any,
    overflow_to_sample (B,) gives the index of each row's text.  ValueError if lengths differ: pad
    first.
    """
    check_flag("overflowing", overflowing)
    listed = _listed_encodings(encodings)
    rows = [[encoding, *(encoding.overflowing if overflowing else ())] for encoding in listed]
    flat = [row for group in rows for row in group]
    lengths = sorted({len(row) for row in flat})
    if len(lengths) > 1:
        raise mismatch("encodings", "equal lengths (pad first)", f"{lengths[0]} to {lengths[-1]}")
    shape = (len(flat), lengths[0] if lengths else 0)
    names = {
        "input_ids": "ids",
        "attention_mask": "attention_mask",
        "token_type_ids": "type_ids",
        "special_tokens_mask": "special_tokens_mask",
        "offsets": "offsets",
    }
    result: dict[str, np.ndarray] = {}
    for name, source in names.items():
        values = np.array([getattr(row, source) for row in flat], dtype=np.int64)
        result[name] = values.reshape(*shape, 2) if name == "offsets" else values.reshape(shape)
    if len(flat) > len(rows):
        counts = [len(group) for group in rows]
        result["overflow_to_sample"] = np.repeat(np.arange(len(rows)), counts)
    return result


def _listed_encodings(encodings: Any) -> list[Encoding]:
    if not isinstance(encodings, (list, tuple)):
        raise wrong("encodings", "a list of Encoding", encodings)
    _check_encodings("encodings", *encodings)
    return list(encodings)


def _check_encodings(name: str, *encodings: Any) -> None:
    for encoding in encodings:
        if not isinstance(encoding, Encoding):
            raise wrong(name, "an Encoding", encoding)


def _check_int(name: str, value: object, most: float = inf) -> None:
    if type(value) is not int or not 0 <= value <= most:
        raise wrong(
            name, "an integer >= 0" if most == inf else f"an integer from 0 to {most}", value
        )
