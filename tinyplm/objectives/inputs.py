"""From token ids to the arrays that an encoder reads.

    tokens               [CLS]   the    dog   [SEP]   ran   [SEP]   [PAD]
    input_ids              101  1996   3899     102  2743     102       0
    token_type_ids           0     0      0       0     1       1       0     which of the two texts
    special_tokens_mask      1     0      0       1     0       1       1     not from a text: never masked
    attention_mask           1     1      1       1     1       1       0     to be looked at

Texts are cut first, then special tokens are added, then rows are filled to one length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arguments import (
    MOST,
    as_array,
    as_ids,
    check_flag,
    check_key,
    check_several,
    check_whole,
    is_whole,
    wrong,
)
from .draws import Draws

Row = dict[str, np.ndarray]  # one sample: arrays (n,)


@dataclass(frozen=True)
class Layout:
    """The special tokens of an encoder and where they stand: first + a + last, or first + a + between + b + last.

    second_type is the token type of b and of what follows it: 1, but 0 in models that have one type only (RoBERTa).
    """

    first: tuple[int, ...]
    between: tuple[int, ...]
    last: tuple[int, ...]
    pad_id: int
    second_type: int = 1

    @classmethod
    def bert(cls, *, cls_id: int, sep_id: int, pad_id: int) -> Layout:
        """[CLS] a [SEP] b [SEP]."""
        return cls((cls_id,), (sep_id,), (sep_id,), pad_id)

    @classmethod
    def roberta(cls, *, bos_id: int, eos_id: int, pad_id: int) -> Layout:
        """<s> a </s></s> b </s>."""
        return cls((bos_id,), (eos_id, eos_id), (eos_id,), pad_id, second_type=0)

    def __post_init__(self) -> None:
        for name in ("first", "between", "last"):
            if not isinstance(getattr(self, name), (tuple, list)):
                raise wrong(f"Layout: {name}", "a tuple of ids", getattr(self, name))
        for i in (*self.first, *self.between, *self.last, self.pad_id):
            if not is_whole(i) or not 0 <= i <= MOST:
                raise wrong(
                    "special token", "an id (does the vocabulary have all special tokens?)", i
                )
        check_whole("Layout: second_type", self.second_type, 0, MOST)

    def room(self, length: int, pair: bool) -> int:
        """How many tokens of text fit into `length`.   ValueError where it is less than one for each text."""
        check_whole("length", length, most=MOST)
        check_flag("pair", pair)
        room = length - len(self.first) - len(self.last) - (len(self.between) if pair else 0)
        if room < 1 + pair:
            raise ValueError(
                f"length {length} leaves {room} tokens beside the special ones, expected {1 + pair} or more"
            )
        return room

    def single(self, a: np.ndarray, special: np.ndarray | None = None) -> Row:
        """One text.  special (len(a),) marks what in it is special all the same (separators between documents), 1 = special."""
        a = as_ids("a", a)
        if special is not None and len(
            as_array("special", special, "integers (len(a),)", "iu")
        ) != len(a):
            raise wrong("special", f"one integer for each of {len(a)} ids", special)
        marks = np.zeros(len(a), np.int64) if special is None else special
        return _row([self.first, a, self.last], [1, marks, 1], [0, 0, 0])

    def pair(self, a: np.ndarray, b: np.ndarray) -> Row:
        a, b = as_ids("a", a), as_ids("b", b)
        types = [0, 0, 0, self.second_type, self.second_type]
        return _row([self.first, a, self.between, b, self.last], [1, 0, 1, 0, 1], types)


def _row(parts, special, types) -> Row:
    sizes = [len(part) for part in parts]
    return {
        "input_ids": np.concatenate([np.asarray(part, np.int64) for part in parts]),
        "token_type_ids": np.repeat(types, sizes),
        "special_tokens_mask": np.concatenate(
            [np.broadcast_to(s, n) for s, n in zip(special, sizes)]
        ),
    }


def pad(rows: Sequence[Row], length: int, fill: dict[str, int], *, left: bool = False) -> Row:
    """Rows of different lengths as arrays (B, length), and "attention_mask" (B, length): 1 for what was there.

    fill: what stands in the empty places of each array ({"input_ids": pad_id}; special_tokens_mask gets 1, all others 0).
    ValueError for a row that is longer.
    """
    check_several("rows", rows, "rows")
    check_whole("length", length, 0, MOST)
    check_flag("left", left)
    if not isinstance(fill, dict) or not all(is_whole(n) and abs(n) <= MOST for n in fill.values()):
        raise wrong("fill", "a dict of integers", fill)
    rows = list(rows)
    for b, row in enumerate(rows):
        if not isinstance(row, dict) or "input_ids" not in row or row.keys() != rows[0].keys():
            raise wrong(
                f"rows: row {b}", "a dict of arrays (n,), the same in each row, with input_ids", row
            )
        for name, values in row.items():
            if len(as_array(f"rows: {name}", values, "integers (n,)", "iub")) != len(
                row["input_ids"]
            ):
                raise wrong(f"rows: {name}", f"{len(row['input_ids'])} integers", values)
    fill = {"special_tokens_mask": 1, **fill}
    names = [*rows[0], "attention_mask"] if rows else []
    arrays = {name: np.full((len(rows), length), fill.get(name, 0), np.int64) for name in names}
    for b, row in enumerate(rows):
        n = len(row["input_ids"])
        if n > length:
            raise ValueError(f"row {b} has {n} tokens, expected at most {length}")
        here = slice(length - n, length) if left else slice(0, n)
        for name, values in row.items():
            arrays[name][b, here] = values
        arrays["attention_mask"][b, here] = 1
    return arrays


def check_samples(first: int, count: int) -> None:
    """ValueError unless `count` samples from number `first` on can be asked for."""
    check_whole("first", first, 0, 2**62)
    check_whole("count", count, 1, MOST)


def check_setup(layout: Any, seed: Any) -> None:
    """ValueError unless these are a Layout and a seed."""
    if not isinstance(layout, Layout):
        raise wrong("layout", "a Layout", layout)
    check_key("seed", seed)


def check_pairs(pairs: Any) -> list[tuple[list[int], list[int]]]:
    """Pairs of lists of ids; ValueError for anything else."""
    check_several("pairs", pairs, "pairs of lists of ids")
    found = []
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise wrong("pairs", "pairs of lists of ids", pair)
        found.append(tuple(as_ids("pairs", ids).tolist() for ids in pair))
    return found


def truncate_pair(
    a: np.ndarray, b: np.ndarray, room: int, key: int
) -> tuple[np.ndarray, np.ndarray]:
    """Both texts cut to `room` tokens together: always the longer one (b, if they are equally long) loses a token, at its front
    or at its back by a fair coin, as BERT's released code does, so that the model sees beginnings and endings.
    ValueError for room for less than one token of each.
    """
    a, b = as_ids("a", a), as_ids("b", b)
    check_whole("room", room, 2)
    check_key("key", key)
    bounds = [[0, len(a)], [0, len(b)]]
    excess = max(0, len(a) + len(b) - room)
    for front in Draws(key).uniforms(excess) < 0.5:
        longer = (
            bounds[0] if bounds[0][1] - bounds[0][0] > bounds[1][1] - bounds[1][0] else bounds[1]
        )
        if front:
            longer[0] += 1
        else:
            longer[1] -= 1
    return a[slice(*bounds[0])], b[slice(*bounds[1])]


class Documents:
    """Documents of sentences of ids, in one array: sentence s is ids[starts[s] : starts[s + 1]], document d has the sentences
    first[d] ... first[d + 1] - 1, so that any run of sentences is a slice.

    documents: each a list of sentences, each a list of ids.  Empty sentences are left out.
    shortest: the least number of sentences that is useful.  A document with fewer is an error, or with skip_short it is left out
    and counted in `skipped`.   ValueError also for ids that are none, and where no document is left.
    """

    def __init__(
        self,
        documents: Sequence[Sequence[Sequence[int]]],
        *,
        shortest: int = 1,
        skip_short: bool = False,
    ) -> None:
        check_several("documents", documents, "documents, lists of sentences")
        check_whole("shortest", shortest, 0, MOST)
        check_flag("skip_short", skip_short)
        parts: list[np.ndarray] = []
        first = [0]
        self.skipped = 0
        for number, document in enumerate(documents):
            check_several(f"document {number}", document, "sentences that are lists of ids")
            sentences = [
                ids for sentence in document if len(ids := as_ids(f"document {number}", sentence))
            ]
            if len(sentences) < shortest and not skip_short:
                raise ValueError(
                    f"document {number} has {len(sentences)} sentences, expected {shortest} or more "
                    "(skip_short=True leaves such documents out)"
                )
            if len(sentences) < shortest or not sentences:
                self.skipped += 1
                continue
            parts += sentences
            first.append(len(parts))
        if not parts:
            raise ValueError(f"no document of {shortest} sentences or more, among {self.skipped}")
        self.ids = np.concatenate(parts)
        self.starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        self.first = np.array(first)

    def __len__(self) -> int:
        return len(self.first) - 1

    def sentences(self, document: int) -> tuple[int, int]:
        """The first sentence of a document and the first one after it."""
        return int(self.first[document]), int(self.first[document + 1])

    def text(self, start: int, end: int) -> np.ndarray:
        """The ids of sentences start ... end - 1."""
        return self.ids[self.starts[start] : self.starts[end]]

    def size(self, start: int, end: int) -> int:
        """How many ids these sentences have."""
        return int(self.starts[end] - self.starts[start])

    def reaching(self, start: int, tokens: int, least: int, end: int) -> int:
        """The first sentence after a run from `start` that has `tokens` ids and `least` sentences, but not beyond `end`."""
        reached = int(np.searchsorted(self.starts, self.starts[start] + tokens))
        return min(max(reached, start + least), end)


# ---- RoBERTa's two formats without pairs (Liu et al. 2019, sec. 4.2); those with pairs are in sentence_pairs.py


def doc_sentences(documents: Documents, number: int, room: int) -> Iterator[np.ndarray]:
    """DOC-SENTENCES: whole sentences of one document, as many as fit into `room`, so its last row may be short.

    A sentence that does not fit into a row is cut.
    """
    start, end = documents.sentences(number)
    place, stop = int(documents.starts[start]), int(documents.starts[end])
    while place < stop:
        # the last end of a sentence within reach, or the middle of a sentence that is too long
        last = int(
            documents.starts[np.searchsorted(documents.starts, place + room, side="right") - 1]
        )
        reached = min(last if last > place else place + room, stop)
        yield documents.ids[place:reached]
        place = reached


def full_sentences(
    documents: Documents, order: Sequence[int], room: int, separator: Sequence[int] = ()
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """FULL-SENTENCES: whole sentences on and on, as many as fit into `room`; where a document ends within a row the separator
    follows, and then the next one in `order` (at least one document).  Yields ids and special, both (n,): 1 for the separator.

    A sentence that does not fit into a row is cut.
    """
    ids: list[np.ndarray] = []
    special: list[np.ndarray] = []
    used = 0
    for number in order:
        gap = len(separator)
        for sentence in range(*documents.sentences(int(number))):
            text = documents.text(sentence, sentence + 1)
            for piece in [text[i : i + room] for i in range(0, len(text), room)]:
                if used and used + gap + len(piece) > room:
                    yield np.concatenate(ids), np.concatenate(special)
                    ids, special, used = [], [], 0
                if used and gap:
                    ids.append(np.array(separator, np.int64))
                    special.append(np.ones(gap, np.int64))
                    used += gap
                ids.append(piece)
                special.append(np.zeros(len(piece), np.int64))
                used += len(piece)
                gap = 0
    yield np.concatenate(ids), np.concatenate(special)


def batches_of_tokens(sizes: Sequence[int], tokens: int) -> list[tuple[int, int]]:
    """(first, count) of neighbouring rows that hold about as many tokens, `tokens` or fewer: more rows where rows are short, as
    Liu et al. 2019 do for DOC-SENTENCES.  A row larger than that is a batch by itself."""
    sizes = as_ids("sizes", sizes).tolist()
    check_whole("tokens", tokens, 1)
    batches, first, held = [], 0, 0
    for n, size in enumerate(sizes):
        if n > first and held + size > tokens:
            batches.append((first, n - first))
            first, held = n, 0
        held += size
    return [*batches, (first, len(sizes) - first)] if len(sizes) else []
