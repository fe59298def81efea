"""From token ids to the arrays that an encoder reads.

    tokens               [CLS]   the    dog   [SEP]   ran   [SEP]   [PAD]
    input_ids              101  1996   3899     102  2743     102       0
    token_type_ids           0     0      0       0     1       1       0     which of the two texts
    special_tokens_mask      1     0      0       1     0       1       1     1: never masked
    attention_mask           1     1      1       1     1       1       0     1: attended to

Texts are truncated first, then special tokens are added, then rows are padded to one length.
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
    mismatch,
    wrong,
)
from .draws import Draws

Row = dict[str, np.ndarray]  # one sample: arrays (n,)
Batch = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]  # inputs, targets: arrays (B, ...)


@dataclass(frozen=True)
class Layout:
    """The special tokens of an encoder: first + a + last, or first + a + between + b + last.

    second_type is the token type of b and everything after it: 1, or 0 in models with a single type
    (RoBERTa).
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
        names = ("first", "between", "last")
        check_special("Layout", {name: getattr(self, name) for name in names}, (self.pad_id,))
        check_whole("Layout: second_type", self.second_type, 0, MOST)

    def room(self, length: int, pair: bool) -> int:
        """Number of text tokens that fit into `length`. ValueError if below one per text."""
        check_whole("length", length, most=MOST)
        check_flag("pair", pair)
        room = length - len(self.first) - len(self.last) - (len(self.between) if pair else 0)
        if room < 1 + pair:
            least = length - room + 1 + pair
            raise wrong("length", f"at least {least}, with the special tokens", length)
        return room

    def single(self, a: np.ndarray, special: np.ndarray | None = None) -> Row:
        """One text. special (len(a),): 1 for ids that count as special, such as separators."""
        a = as_ids("a", a)
        marks = np.zeros(len(a), np.int64) if special is None else special
        if len(as_array("special", marks, "integers (len(a),)", "iu")) != len(a):
            raise wrong("special", f"{len(a)} integers, one per id", special)
        return _row([self.first, a, self.last], [1, marks, 1], [0, 0, 0])

    def pair(self, a: np.ndarray, b: np.ndarray) -> Row:
        """Two texts."""
        a, b = as_ids("a", a), as_ids("b", b)
        types = [0, 0, 0, self.second_type, self.second_type]
        return _row([self.first, a, self.between, b, self.last], [1, 0, 1, 0, 1], types)


def _row(parts: Sequence[Any], special: Sequence[Any], types: Sequence[int]) -> Row:
    sizes = [len(part) for part in parts]
    marks = [np.broadcast_to(s, n) for s, n in zip(special, sizes)]
    return {
        "input_ids": np.concatenate([np.asarray(part, np.int64) for part in parts]),
        "token_type_ids": np.repeat(types, sizes),
        "special_tokens_mask": np.concatenate(marks),
    }


def pad(rows: Sequence[Row], length: int, fill: dict[str, int], *, left: bool = False) -> Row:
    """Rows of different lengths as arrays (B, length), plus "attention_mask" (B, length).

    fill: the padding value of each array, such as {"input_ids": pad_id}; by default 1 for
    special_tokens_mask and 0 for the others. left: pad on the left.
    ValueError for a row longer than `length`.
    """
    check_several("rows", rows, "rows")
    check_whole("length", length, 0, MOST)
    check_flag("left", left)
    if not isinstance(fill, dict) or not all(is_whole(n) and abs(n) <= MOST for n in fill.values()):
        raise wrong("fill", "a dict of integers", fill)
    rows = list(rows)
    for b, row in enumerate(rows):
        if not isinstance(row, dict) or "input_ids" not in row or row.keys() != rows[0].keys():
            expected = "a dict of arrays (n,), the same in each row, with input_ids"
            raise wrong(f"rows: row {b}", expected, row)
        n = len(row["input_ids"])
        for name, values in row.items():
            if len(as_array(f"rows: {name}", values, "integers (n,)", "iub")) != n:
                raise wrong(f"rows: {name}", f"{n} integers", values)
    fill = {"special_tokens_mask": 1, **fill}
    names = [*rows[0], "attention_mask"] if rows else []
    arrays = {name: np.full((len(rows), length), fill.get(name, 0), np.int64) for name in names}
    for b, row in enumerate(rows):
        n = len(row["input_ids"])
        if n > length:
            raise ValueError(f"rows: row {b}: expected at most {length} tokens, got {n}")
        here = slice(length - n, length) if left else slice(0, n)
        for name, values in row.items():
            arrays[name][b, here] = values
        arrays["attention_mask"][b, here] = 1
    return arrays


def check_special(where: str, parts: dict[str, Any], others: Sequence[Any]) -> None:
    """ValueError unless the parts are tuples of ids, and the others are ids."""
    for name, part in parts.items():
        if not isinstance(part, (tuple, list)):
            raise wrong(f"{where}: {name}", "a tuple of ids", part)
    for i in [i for part in (*parts.values(), others) for i in part]:
        if not is_whole(i) or not 0 <= i <= MOST:
            expected = "an id (does the vocabulary have all special tokens?)"
            raise wrong("special token", expected, i)


def check_samples(first: int, count: int) -> None:
    """ValueError unless `first` and `count` are valid sample numbers."""
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
    found: list[tuple[list[int], list[int]]] = []
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise wrong("pairs", "pairs of lists of ids", pair)
        a, b = (as_ids("pairs", ids).tolist() for ids in pair)
        found.append((a, b))
    return found


def truncate_pair(
    a: np.ndarray, b: np.ndarray, room: int, key: int
) -> tuple[np.ndarray, np.ndarray]:
    """Both texts truncated to `room` tokens in total.

    One token at a time is removed from the longer text (b in a tie), at the front or the back with
    equal probability, as in BERT's released code, so that the model sees beginnings and endings.
    ValueError if `room` is below one token for each.
    """
    a, b = as_ids("a", a), as_ids("b", b)
    check_whole("room", room, 2)
    check_key("key", key)
    bounds = [[0, len(a)], [0, len(b)]]
    excess = max(0, len(a) + len(b) - room)
    for front in Draws(key).uniforms(excess) < 0.5:
        a_longer = bounds[0][1] - bounds[0][0] > bounds[1][1] - bounds[1][0]
        longer = bounds[0] if a_longer else bounds[1]
        if front:
            longer[0] += 1
        else:
            longer[1] -= 1
    return a[slice(*bounds[0])], b[slice(*bounds[1])]


class Documents:
    """Documents, each a list of sentences of ids, in one array, so any run of sentences is a slice.

    Sentence s is ids[starts[s] : starts[s + 1]]; document d has the sentences
    first[d] ... first[d + 1] - 1. Empty sentences are dropped. shortest: the fewest sentences a
    document may have. One with fewer is refused or, with skip_short, dropped and counted in
    `skipped`.
    ValueError also for invalid ids, and if no document remains.
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
            name = f"document {number}"
            check_several(name, document, "sentences that are lists of ids")
            sentences = [ids for sentence in document if len(ids := as_ids(name, sentence))]
            if len(sentences) < shortest and not skip_short:
                given = f"{len(sentences)} (skip_short=True drops such documents)"
                raise mismatch(name, f"{shortest} or more sentences", given)
            if len(sentences) < shortest or not sentences:
                self.skipped += 1
                continue
            parts += sentences
            first.append(len(parts))
        if not parts:
            expected = f"one of {shortest} or more sentences"
            raise mismatch("documents", expected, f"{self.skipped} with fewer")
        self.ids = np.concatenate(parts)
        self.starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        self.first = np.array(first)

    def __len__(self) -> int:
        return len(self.first) - 1

    def sentences(self, document: int) -> tuple[int, int]:
        """(first, stop): the document's sentences are first ... stop - 1."""
        return int(self.first[document]), int(self.first[document + 1])

    def text(self, start: int, end: int) -> np.ndarray:
        """The ids of sentences start ... end - 1."""
        return self.ids[self.starts[start] : self.starts[end]]

    def size(self, start: int, end: int) -> int:
        """Number of ids in sentences start ... end - 1."""
        return int(self.starts[end] - self.starts[start])

    def reaching(self, start: int, tokens: int, least: int, end: int) -> int:
        """The stop of the shortest run from `start` with `tokens` ids and `least` sentences.

        It is never beyond `end`.
        """
        reached = int(np.searchsorted(self.starts, self.starts[start] + tokens))
        return min(max(reached, start + least), end)


# ---- RoBERTa's formats without pairs (Liu et al. 2019, sec. 4.2); sentence_pairs.py has the others


def doc_sentences(documents: Documents, number: int, room: int) -> Iterator[np.ndarray]:
    """DOC-SENTENCES: as many whole sentences of one document as fit into `room`.

    The last row may be short. A sentence longer than `room` is cut.
    """
    for bounds in sentence_rows(documents, number, room):
        yield documents.ids[bounds[0] : bounds[-1]]


def sentence_rows(documents: Documents, number: int, room: int) -> Iterator[list[int]]:
    """The rows of `doc_sentences` as bounds in documents.ids: where sentences start, and the end.

    A sentence longer than `room` is cut into pieces that count as sentences.
    """
    bounds = [int(documents.starts[documents.sentences(number)[0]])]
    for sentence in range(*documents.sentences(number)):
        start, end = documents.starts[sentence : sentence + 2].tolist()
        for stop in [*range(start + room, end, room), end]:
            if stop - bounds[0] > room:
                yield bounds
                bounds = bounds[-1:]
            bounds.append(stop)
    yield bounds


def full_sentences(
    documents: Documents,
    order: Sequence[int] | np.ndarray,
    room: int,
    separator: Sequence[int] = (),
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """FULL-SENTENCES: as many whole sentences as fit into `room`, across documents.

    Where a document ends within a row, the separator follows, then the next document in `order` (at
    least one). Yields ids and special, both (n,); special is 1 for separators. A sentence longer
    than `room` is cut.
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
    """(first, count) of consecutive rows with at most `tokens` tokens in total.

    Batches thus have more rows where rows are short, as in Liu et al. 2019 for DOC-SENTENCES. A row
    larger than `tokens` is a batch of its own.
    """
    sizes = as_ids("sizes", sizes).tolist()
    check_whole("tokens", tokens, 1)
    batches, first, held = [], 0, 0
    for n, size in enumerate(sizes):
        if n > first and held + size > tokens:
            batches.append((first, n - first))
            first, held = n, 0
        held += size
    return [*batches, (first, len(sizes) - first)] if len(sizes) else []
