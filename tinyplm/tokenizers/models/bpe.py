"""Applying byte-pair encoding.       Sennrich et al. 2016, Algorithm 1

Carry out the earliest learned merge that fits, until none fits.

`Merger` works on symbols (see training/bpe.py: an id as one character, a word as a string of them).
`BPE` is the model of a tokenizer.json: it maps the characters of a word to symbols, including
unknown characters and bytes, and symbols to ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from heapq import heapify, heappop, heappush
from operator import add
from typing import Any

from ...arguments import mismatch, shown, wrong
from ..component import Component
from ..vocabulary import byte_ids, check_vocabulary, cutter


class Merger:
    """Applies merges (left, right, merged) to words that are strings of symbols.

    The rule: among the adjacent pairs that have a merge, replace the one learned first, leftmost
    occurrence first; repeat until there is none.  Rescanning the word for each merge is O(n^2), as
    in reference/tokenizers/bpe.py; a priority queue of the possible merges makes it O(n log n).
    """

    def __init__(self, merges: Iterable[tuple[int, int, int]]):
        merges = list(merges)
        self.pairs = [chr(a) + chr(b) for a, b, _ in merges]
        self.results = [chr(new) for _, _, new in merges]
        self.ranks = {pair: rank for rank, pair in enumerate(self.pairs)}

    def merge(self, word: str) -> list[str]:
        """A list as long as `word`: each merged symbol at the position of its first part, "" at the
        other positions.

        The queue is ordered by (rank, position); the symbols form a doubly linked list.

        A merge removes up to two other pairs and creates up to two.  Entries of removed pairs stay
        in the queue and are recognized when popped, because the symbols at their position have
        changed.
        """
        n = len(word)
        rank_of = self.ranks.get
        symbols = list(word)  # "" where a symbol was merged into the one on its left
        before, after = list(range(-1, n - 1)), list(range(1, n + 1))
        # The single integer rank * n + position sorts like (rank, position) and compares faster.
        queue = [
            rank * n + i
            for i, rank in enumerate(map(rank_of, map(add, word, word[1:])))
            if rank is not None
        ]
        heapify(queue)
        while queue:
            rank, i = divmod(heappop(queue), n)
            j = after[i]
            if j == n or symbols[i] + symbols[j] != self.pairs[rank]:
                continue
            symbols[i], symbols[j] = self.results[rank], ""
            h, k = before[i], after[j]
            after[i] = k
            if k < n:
                before[k] = i
                if (next_rank := rank_of(symbols[i] + symbols[k])) is not None:
                    heappush(queue, next_rank * n + i)
            if h >= 0 and (next_rank := rank_of(symbols[h] + symbols[i])) is not None:
                heappush(queue, next_rank * n + h)
        return symbols


@dataclass(frozen=True)
class BPE(Component):
    """The BPE model of a tokenizer.json.

    vocab: token -> id.  merges: pairs of tokens whose concatenation is also a token.
    unk_token: replaces a character that is not a token, or with fuse_unk a run of them.  Without an
    unk_token such a character is an error (the library silently drops it).
    byte_fallback: such a character becomes its UTF-8 bytes, the tokens <0x00> to <0xFF>, if the
    vocabulary has them.
    end_of_word_suffix: appended to the last character of a word before it is looked up ("</w>",
    Sennrich et al. 2016, section 3.2).
    continuing_subword_prefix: prepended to all characters but the first.
    ignore_merges: a word that is itself a token is encoded as that token, whatever the merges say
    (LLaMA-3).
    """

    vocab: dict[str, int] = field(repr=False)
    merges: list[tuple[str, str]] = field(repr=False)
    unk_token: str | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None
    fuse_unk: bool = False
    byte_fallback: bool = False
    ignore_merges: bool = False

    def __post_init__(self) -> None:
        check_vocabulary(self.vocab)
        _ = self._merger  # checks the merges

    @cached_property
    def _merger(self) -> Merger:
        if not isinstance(self.merges, (list, tuple)):
            raise wrong("merges", "a list of pairs of tokens", self.merges)
        prefix = len(self.continuing_subword_prefix or "")
        merges = []
        for number, merge in enumerate(self.merges):
            if not _is_pair(merge):
                raise wrong(f"merge {number}", "a pair of tokens", merge)
            a, b = merge
            for token in (a, b, a + b[prefix:]):
                if token not in self.vocab:
                    given = f"{shown(a)} and {shown(b)}; the vocabulary has no {shown(token)}"
                    raise mismatch(f"merge {number}", "two tokens that form a third", given)
            merges.append((self.vocab[a], self.vocab[b], self.vocab[a + b[prefix:]]))
        return Merger(merges)

    @cached_property
    def _symbols(self) -> dict[str, str]:
        return {token: chr(id) for token, id in self.vocab.items() if len(token) == 1}

    @cached_property
    def _marked(self) -> bool:
        return bool(self.continuing_subword_prefix or self.end_of_word_suffix)

    def encode(self, word: str) -> Sequence[int]:
        if self.ignore_merges and word in self.vocab:
            return (self.vocab[word],)
        try:
            if self._marked:
                raise KeyError
            symbols = "".join(map(self._symbols.__getitem__, word))
        except KeyError:
            symbols = "".join([symbol for symbol, _, _ in self._first_symbols(word)])
        return tuple(map(ord, "".join(self._merger.merge(symbols))))

    def encode_spans(self, word: str) -> list[tuple[int, int, int]]:
        """(id, start, end) of each token, in characters of the word; a byte token has the span of
        its character."""
        if self.ignore_merges and word in self.vocab:
            return [(self.vocab[word], 0, len(word))]
        first = self._first_symbols(word)
        merged = self._merger.merge("".join([symbol for symbol, _, _ in first]))
        places = [i for i, symbol in enumerate(merged) if symbol]
        return [
            (ord(merged[i]), first[i][1], first[j - 1][2])
            for i, j in zip(places, [*places[1:], len(merged)])
        ]

    def cut(self, text: str) -> list[str]:
        """Parts of the text that can be encoded separately, for text without a pre-tokenizer
        (LLaMA-2)."""
        return [text] if self._marked or self.ignore_merges else self._cutter(text)

    @cached_property
    def _cutter(self) -> Callable[[str], list[str]]:
        return cutter(self.vocab)

    def without(self, tokens: Iterable[str]) -> BPE:
        """See Model.without.  Usually no text produces a special token anyway, and the model itself
        is returned."""
        reached = self.vocab.keys() if self.ignore_merges else self._reached()
        if not (hidden := reached & {*tokens}):
            return self
        vocab = {
            token: id
            for token, id in self.vocab.items()
            if token not in hidden or token == self.unk_token
        }
        prefix = len(self.continuing_subword_prefix or "")
        merges = [
            (a, b) for a, b in self.merges if a in vocab and b in vocab and a + b[prefix:] in vocab
        ]
        return replace(self, vocab=vocab, merges=merges)

    def renamed(self, names: Mapping[int, str]) -> BPE:
        """The model with other names for the placeholders at these ids: InternLM 2's
        [UNUSED_TOKEN_146] is <|im_start|>.  The model itself if a text can produce one of them."""
        old = {token for token, id in self.vocab.items() if names.get(id, token) != token}
        if not old or self.unk_token in old or old & self._reached():
            return self
        return replace(self, vocab={names.get(id, token): id for token, id in self.vocab.items()})

    def _reached(self) -> set[str]:
        """Tokens that are single characters or results of merges."""
        prefix, suffix = self.continuing_subword_prefix or "", self.end_of_word_suffix or ""
        single = {
            t
            for t in self.vocab
            if len(t.removeprefix(prefix)) == 1 or len(t.removesuffix(suffix)) == 1
        }
        return single | {a + b[len(prefix) :] for a, b in self.merges}

    def _first_symbols(self, word: str) -> list[tuple[str, int, int]]:
        """(symbol, start, end) of each character, before any merge."""
        found: list[tuple[str, int, int]] = []
        unknown = None  # the symbol of unk_token
        for i, char in enumerate(word):
            if i and self.continuing_subword_prefix:
                char = self.continuing_subword_prefix + char
            if i == len(word) - 1 and self.end_of_word_suffix:
                char += self.end_of_word_suffix
            if (id := self.vocab.get(char)) is not None:
                found.append((chr(id), i, i + 1))
                continue
            if self.byte_fallback and (ids := byte_ids(self.vocab, char)):
                found += [(chr(id), i, i + 1) for id in ids]
                continue
            if unknown is None:
                unknown = self._unknown(char, word)
            if self.fuse_unk and found and found[-1][0] == unknown:
                found[-1] = (unknown, found[-1][1], i + 1)
            else:
                found.append((unknown, i, i + 1))
        return found

    def _unknown(self, char: str, word: str) -> str:
        if self.unk_token is None:
            expected = "characters of the vocabulary, since it has no unk_token"
            raise mismatch("text", expected, f"{char!r} in {shown(word)}")
        if self.unk_token not in self.vocab:
            raise wrong(
                "unk_token", f"a token of the vocabulary, since {char!r} is unknown", self.unk_token
            )
        return chr(self.vocab[self.unk_token])

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> BPE:
        for name, kind, expected in (("vocab", dict, "an object"), ("merges", list, "a list")):
            if not isinstance(content.get(name), kind):
                raise wrong(f"{where} BPE: {name}", expected, content.get(name))
        merges = [_merge(merge, number, where) for number, merge in enumerate(content["merges"])]
        # The oldest files write null for false, and "" for no prefix.
        flags = {key: value for key, value in content.items() if value not in (None, "")}
        return super().from_json(flags | {"merges": merges}, where)

    def to_json(self) -> dict[str, Any]:
        spaces = any(" " in token for pair in self.merges for token in pair)
        merges = [list(pair) if spaces else " ".join(pair) for pair in self.merges]
        vocab = dict(sorted(self.vocab.items(), key=lambda item: item[1]))
        return super().to_json() | {"dropout": None, "vocab": vocab, "merges": merges}


def _is_pair(value: Any) -> bool:
    """Whether it is a pair of strings."""
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(isinstance(part, str) for part in value)
    )


def _merge(merge: Any, number: int, where: str) -> tuple[str, str]:
    """Older files write a merge as "a b", newer ones as ["a", "b"]."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if not _is_pair(parts) or not all(parts):
        raise wrong(f"{where} BPE: merge {number}", "a pair of tokens", merge)
    return parts[0], parts[1]
