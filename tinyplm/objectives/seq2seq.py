"""From a source and a target text to the arrays that an encoder-decoder reads.

    source, target       the  dog           le  chien
    input_ids            262  3140    1       0             attention_mask   1 1 1 0
    labels               312  9021    1    -100             the targets of the logits
    decoder_input_ids      0   312 9021       1             the labels shifted right, after start_id

Both texts get the layout's special tokens. There is no decoder_attention_mask: padding comes last,
and a causal decoder reads nothing later, so padding reaches no position whose target counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arguments import MOST, as_ids, check_key, check_text, check_whole, mismatch, wrong
from ..core import IGNORED, shift_right
from .epochs import Samples
from .inputs import Batch, check_pairs, check_special, pad

Texts = tuple[Sequence[int] | np.ndarray, Sequence[int] | np.ndarray]  # source, target


@dataclass(frozen=True)
class Seq2SeqLayout:
    """The special tokens of an encoder-decoder: first + text + last on both sides.

    start_id is the decoder's first input (decoder_start_token_id).
    """

    first: tuple[int, ...]
    last: tuple[int, ...]
    start_id: int
    pad_id: int

    @classmethod
    def t5(cls, *, eos_id: int, pad_id: int) -> Seq2SeqLayout:
        """text </s>; the decoder starts with the padding token. Also Marian's."""
        return cls((), (eos_id,), pad_id, pad_id)

    @classmethod
    def bart(cls, *, bos_id: int, eos_id: int, pad_id: int) -> Seq2SeqLayout:
        """<s> text </s>; the decoder starts with </s>."""
        return cls((bos_id,), (eos_id,), eos_id, pad_id)

    def __post_init__(self) -> None:
        parts = {"first": self.first, "last": self.last}
        check_special("Seq2SeqLayout", parts, (self.start_id, self.pad_id))

    @property
    def special(self) -> int:
        """Number of special tokens around a text."""
        return len(self.first) + len(self.last)

    def room(self, length: int, least: int = 1, *, name: str = "length") -> int:
        """Number of text tokens that fit into `length`. ValueError if fewer than `least`.

        name: the argument's, for messages.
        """
        check_whole("least", least, 0, MOST)
        check_text("name", name)
        check_whole(name, length, most=MOST)
        if length - self.special < least:
            expected = f"at least {least + self.special}, with the special tokens"
            raise wrong(name, expected, length)
        return length - self.special

    def framed(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """first + ids + last, int64."""
        return np.array([*self.first, *as_ids("ids", ids).tolist(), *self.last], np.int64)


def seq2seq_batch(
    texts: Sequence[Texts],
    *,
    layout: Seq2SeqLayout,
    length: int | None = None,
    target_length: int | None = None,
) -> Batch:
    """Inputs: input_ids, attention_mask (B, S), decoder_input_ids (B, T); targets: logits (B, T).

    texts: pairs (source, target) of lists of ids without special tokens. length, target_length: S
    and T; None: the longest row's. ValueError for a row that is longer.
    """
    check_layout(layout)
    check_whole("length", length, 1, MOST, or_none=True)
    check_whole("target_length", target_length, 1, MOST, or_none=True)
    if not isinstance(texts, (list, tuple)) or not texts:
        raise wrong("texts", "pairs of lists of ids, one or more", texts)
    for pair in texts:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise wrong("texts", "pairs (source, target) of lists of ids", pair)
    sides = []
    for side, name, width in ((0, "sources", length), (1, "targets", target_length)):
        rows = [layout.framed(as_ids(name, pair[side])) for pair in texts]
        longest = max(map(len, rows))
        if width is not None and longest > width:
            raise wrong(name, f"at most {width} tokens, with the special tokens", longest)
        sides.append(([{"input_ids": row} for row in rows], longest if width is None else width))
    inputs = pad(*sides[0], {"input_ids": layout.pad_id})
    labels = pad(*sides[1], {"input_ids": IGNORED})["input_ids"]
    inputs["decoder_input_ids"] = shift_right(labels, layout.start_id, layout.pad_id)
    return inputs, {"logits": labels}


def check_layout(layout: Any) -> None:
    """ValueError unless it is a Seq2SeqLayout."""
    if not isinstance(layout, Seq2SeqLayout):
        raise wrong("layout", "a Seq2SeqLayout", layout)


class Seq2SeqPairs:
    """Pairs of a source and a target text, in shuffled epochs: translation, summaries, answers.

    pairs: (source, target), lists of ids without special tokens (data.encode_pairs). length,
    target_length: the most tokens of a side, with the special ones; longer texts lose their end,
    never the end token. Batches are padded to their longest row.
    ValueError for an empty list or an empty text.
    """

    def __init__(
        self,
        pairs: Sequence[Texts],
        length: int,
        target_length: int,
        *,
        layout: Seq2SeqLayout,
        seed: int,
    ) -> None:
        check_layout(layout)
        check_key("seed", seed)
        self.layout, self.length, self.target_length = layout, length, target_length
        self._rooms = (layout.room(length), layout.room(target_length, name="target_length"))
        self.pairs = check_pairs(pairs)
        if not self.pairs:
            raise mismatch("pairs", "one or more", "none")
        for number, pair in enumerate(self.pairs):
            for name, ids in zip(("source", "target"), pair):
                if not ids:
                    raise mismatch(f"pairs: number {number}: {name}", "1 or more tokens", "none")
        self._samples = Samples(lambda key: list(range(len(self.pairs))), seed, None)

    def __len__(self) -> int:
        return len(self.pairs)

    def batch(self, first: int, count: int) -> Batch:
        """Samples first ... first + count - 1: (inputs, targets)."""
        found = [self.pairs[n] for n, _ in self._samples.get(first, count)]
        rooms = self._rooms
        texts = [(source[: rooms[0]], target[: rooms[1]]) for source, target in found]
        return seq2seq_batch(texts, layout=self.layout)
