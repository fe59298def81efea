"""What a text becomes: ids, and beside each id all that is known of it.  Cut to a length, filled to a length, put into arrays.

    tokens               [CLS]   the    dog   [SEP]   ran   [SEP]   [PAD]
    ids                    101  1996   3899     102  2743     102       0
    type_ids                 0     0      0       0     1       1       0     which segment the model is told (BERT)
    special_tokens_mask      1     0      0       1     0       1       1     not from the text
    attention_mask           1     1      1       1     1       1       0     to be looked at
    offsets              (0,0) (0,3)  (4,7)   (0,0) (0,3)   (0,0)   (0,0)     characters of the text it came from
    word_ids              None     0      1    None     0    None    None     which word of the text
    sequence_ids          None     0      0    None     1    None    None     which of the two texts

Texts are cut before special tokens are added, so their number is taken off the length first.  What is cut off is not lost: it
follows in pieces of the same length, in `overflowing`, each repeating the last `stride` tokens of the one before, so that a
phrase which a cut divides stands whole in one of them (question answering over long documents needs that).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import reduce
from math import inf
from typing import Any

import numpy as np

from ...arguments import check_flag, check_text, check_whole, shown, wrong
from ..component import Component

Span = tuple[int, int]

LONGEST_PADDING = 1 << 20  # tokens that a file may have each text filled to
LARGEST_TYPE_ID = (1 << 32) - 1


@dataclass(frozen=True)
class Encoding:
    """The lists have one entry for each token.  Nothing is changed in place: what changes an encoding returns a new one."""

    ids: list[int]
    type_ids: list[int]
    tokens: list[str]
    offsets: list[Span]
    word_ids: list[int | None]
    special_tokens_mask: list[int]
    attention_mask: list[int]
    overflowing: list[Encoding] = field(default_factory=list)
    sequence_ranges: dict[int, Span] = field(
        default_factory=dict
    )  # text 0 or 1 -> its tokens, start and end

    @classmethod
    def of(
        cls,
        ids: list[int],
        tokens: list[str],
        offsets: list[Span],
        word_ids: list[int | None],
        type_id: int = 0,
    ) -> Encoding:
        """One text, nothing added to it."""
        count = len(ids)
        return cls(
            ids,
            [type_id] * count,
            tokens,
            offsets,
            word_ids,
            [0] * count,
            [1] * count,
            [],
            {0: (0, count)},
        )

    @classmethod
    def special(
        cls, ids: Sequence[int], tokens: Sequence[str], type_id: int = 0, attention: int = 1
    ) -> Encoding:
        """Tokens that come from no text."""
        n = len(ids)
        return cls(
            list(ids),
            [type_id] * n,
            list(tokens),
            [(0, 0)] * n,
            [None] * n,
            [1] * n,
            [attention] * n,
        )

    @classmethod
    def merge(cls, encodings: Iterable[Encoding]) -> Encoding:
        """One after the other."""
        return reduce(Encoding.joined, encodings, cls.special([], []))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sequence_ids(self) -> list[int | None]:
        """0 or 1 for tokens of the first or second text, None for those of neither."""
        numbers: list[int | None] = [None] * len(self)
        for number, (start, end) in self.sequence_ranges.items():
            numbers[start:end] = [number] * (end - start)
        return numbers

    def numbered(self, number: int) -> Encoding:
        """The same as text `number`, its overflow too."""
        overflowing = [piece.numbered(number) for piece in self.overflowing]
        return replace(self, sequence_ranges={number: (0, len(self))}, overflowing=overflowing)

    def joined(self, other: Encoding) -> Encoding:
        """This and then the other.  Overflow: each piece of either with each of the other, nested as in `tokenizers`."""
        overflowing = []
        for piece in self.overflowing:
            overflowing += [
                piece.joined(other),
                *(piece.joined(rest) for rest in other.overflowing),
            ]
        overflowing += [self.joined(rest) for rest in other.overflowing]
        moved = {
            k: (start + len(self), end + len(self))
            for k, (start, end) in other.sequence_ranges.items()
        }
        lists = (getattr(self, name) + getattr(other, name) for name in PER_TOKEN)
        return Encoding(*lists, overflowing, self.sequence_ranges | moved)

    def cut(self, length: int, stride: int, direction: str) -> Encoding:
        """At most `length` tokens, the first ones ("Right": cut on the right) or the last; the others in `overflowing`."""
        if len(self) <= length:
            return self
        if length == 0:
            return replace(self.part(0, 0), overflowing=[self])
        if stride >= length:
            raise ValueError(
                f"stride {stride} must be less than the {length} tokens that are left for this text"
            )
        starts = range(
            0, len(self) - stride, length - stride
        )  # the last window is the first to reach the end
        windows = [(start, min(start + length, len(self))) for start in starts]
        if direction == "Left":  # the same, seen from the other end
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
        return Encoding(*(getattr(self, name)[start:end] for name in PER_TOKEN), [], ranges)


PER_TOKEN = tuple(
    f.name for f in fields(Encoding) if f.name not in ("overflowing", "sequence_ranges")
)


class _Settings(Component):
    """Like a component, but the file has no "type" for it: it is known by its place."""

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in super().to_json().items() if name != "type"}


@dataclass(frozen=True)
class Truncation(_Settings):
    """max_length: tokens in all, special ones included.  strategy: which text is cut.  direction: the side that is cut off."""

    max_length: int
    strategy: str = "LongestFirst"
    stride: int = 0
    direction: str = "Right"

    def __post_init__(self) -> None:
        _one_of("strategy", self.strategy, ("LongestFirst", "OnlyFirst", "OnlySecond"))
        _one_of("direction", self.direction, ("Right", "Left"))
        _number("max_length", self.max_length)
        _number("stride", self.stride)
        if self.stride and self.stride >= self.max_length:
            raise ValueError(
                f"stride must be less than max_length, got stride {shown(self.stride)} and max_length {shown(self.max_length)}"
            )


@dataclass(frozen=True)
class Padding(_Settings):
    """strategy: "BatchLongest", to the longest of the batch, or {"Fixed": n}.  direction: the side that is filled."""

    strategy: str | Mapping[str, int] = "BatchLongest"
    direction: str = "Right"
    pad_to_multiple_of: int | None = None
    pad_id: int = 0
    pad_type_id: int = 0
    pad_token: str = "[PAD]"

    def __post_init__(self) -> None:
        _one_of("direction", self.direction, ("Right", "Left"))
        if not (isinstance(self.strategy, str) and self.strategy == "BatchLongest"):
            if not isinstance(self.strategy, Mapping) or list(self.strategy) != ["Fixed"]:
                raise ValueError(
                    f'strategy must be "BatchLongest" or {{"Fixed": length}}, got {shown(self.strategy)}'
                )
            _number("strategy's Fixed", self.strategy["Fixed"], LONGEST_PADDING)
        if self.pad_to_multiple_of is not None:
            _number("pad_to_multiple_of", self.pad_to_multiple_of, LONGEST_PADDING)
        check_text("pad_token", self.pad_token)
        _number("pad_id", self.pad_id)
        _number("pad_type_id", self.pad_type_id, LARGEST_TYPE_ID)


def truncate(
    first: Encoding, second: Encoding | None, truncation: Truncation, added: int = 0
) -> tuple[Encoding, Encoding | None]:
    """Cut so that with `added` special tokens there are at most max_length.

    LongestFirst takes tokens off the longer text, one at a time, until all fit; of equally long ones the one that was the shorter
    at first gives (the first text, if they were equal).  ValueError when the chosen text cannot give enough, or is missing.
    """
    _check_encodings("first", first)
    _check_encodings("second", *(() if second is None else (second,)))
    if not isinstance(truncation, Truncation):
        raise wrong("truncation", "a Truncation", truncation)
    check_whole("added", added, 0, 2**40)
    length = truncation.max_length - added
    if length < 0:
        raise ValueError(
            f"max_length {truncation.max_length} has no room for the {shown(added)} special tokens"
        )
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
            raise ValueError(
                f"the text is {excess} tokens too long, and OnlySecond finds no second text to cut"
            )
        lengths[chosen] -= excess
        if lengths[chosen] <= 0:
            raise ValueError(
                f"{truncation.strategy}: {excess} of the {lengths[chosen] + excess} tokens of the {('first', 'second')[chosen]} "
                f"text would have to go to leave {length} in all; at least one must stay"
            )
    stride, direction = truncation.stride, truncation.direction
    return first.cut(lengths[0], stride, direction), second and second.cut(
        lengths[1], stride, direction
    )


def pad(encodings: Sequence[Encoding], padding: Padding) -> list[Encoding]:
    """All filled to one length, overflow too.  With {"Fixed": n} those longer than n stay as they are."""
    if not isinstance(padding, Padding):
        raise wrong("padding", "a Padding", padding)
    encodings = _several_encodings(encodings)
    if isinstance(padding.strategy, str):
        length = max(map(len, encodings), default=0)
    else:
        length = padding.strategy["Fixed"]
    if padding.pad_to_multiple_of:
        length += -length % padding.pad_to_multiple_of
    return [_filled(encoding, length, padding) for encoding in encodings]


def _filled(encoding: Encoding, length: int, padding: Padding) -> Encoding:
    overflowing = [_filled(piece, length, padding) for piece in encoding.overflowing]
    alone = replace(encoding, overflowing=[])
    n = max(0, length - len(encoding))
    filling = Encoding.special(
        [padding.pad_id] * n, [padding.pad_token] * n, padding.pad_type_id, attention=0
    )
    filled = alone.joined(filling) if padding.direction == "Right" else filling.joined(alone)
    return replace(filled, overflowing=overflowing)


def arrays(encodings: Sequence[Encoding], overflowing: bool = True) -> dict[str, np.ndarray]:
    """input_ids, attention_mask, token_type_ids, special_tokens_mask of shape (B, T), and offsets (B, T, 2), int64.

    overflowing: each text's overflow follows it as rows of its own, and overflow_to_sample (B,) says which text a row is of;
    it is there only if there is overflow.  ValueError when lengths differ: pad first.
    """
    check_flag("overflowing", overflowing)
    encodings = _several_encodings(encodings)
    rows = [[encoding, *(encoding.overflowing if overflowing else ())] for encoding in encodings]
    flat = [row for group in rows for row in group]
    lengths = sorted({len(row) for row in flat})
    if len(lengths) > 1:
        raise ValueError(
            f"encodings in one array must be of one length, got lengths {lengths[0]} to {lengths[-1]}: pad them"
        )
    shape = (len(flat), lengths[0] if lengths else 0)
    names = {
        "input_ids": "ids",
        "attention_mask": "attention_mask",
        "token_type_ids": "type_ids",
        "special_tokens_mask": "special_tokens_mask",
        "offsets": "offsets",
    }
    result = {}
    for name, source in names.items():
        values = np.array([getattr(row, source) for row in flat], dtype=np.int64)
        result[name] = values.reshape(*shape, 2) if name == "offsets" else values.reshape(shape)
    if len(flat) > len(rows):
        result["overflow_to_sample"] = np.repeat(
            np.arange(len(rows)), [len(group) for group in rows]
        )
    return result


def _several_encodings(encodings: Any) -> list[Encoding]:
    if not isinstance(encodings, (list, tuple)):
        raise wrong("encodings", "a list of Encoding", encodings)
    _check_encodings("encodings", *encodings)
    return list(encodings)


def _check_encodings(name: str, *encodings: Any) -> None:
    for encoding in encodings:
        if not isinstance(encoding, Encoding):
            raise wrong(name, "an Encoding", encoding)


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {shown(value)}")


def _number(name: str, value: object, most: float = inf) -> None:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(
            f"{name} must be a number from 0 {'on' if most == inf else f'to {most}'}, got {shown(value)}"
        )
