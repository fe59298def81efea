"""BPE as the model of a tokenizer.json: words of text to symbols and back, unknown characters, bytes; and its training.

The algorithm is in bpe.py, and knows symbols only.  A symbol is a token's id as one character.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ...arguments import check_whole, shown
from ..component import Component
from ..training.bpe import Merger, train_bpe
from ..vocabulary import check_vocabulary, cutter


@dataclass(frozen=True)
class BPE(Component):
    """The model of a tokenizer.json: words of text to ids, by the merges in their order.

    vocab: token -> id. merges: pairs of tokens, whose join is a token too.
    unk_token: stands for a character that is no token; one for a run of them if fuse_unk. Without an unk_token such a
    character is an error (the library leaves it out without a word).
    byte_fallback: such a character becomes its UTF-8 bytes, the tokens <0x00> to <0xFF>, where the vocabulary has them.
    end_of_word_suffix: the last character of a word is looked up with it ("</w>", Sennrich et al. 2016, section 3.2);
    continuing_subword_prefix: all but the first with that.
    ignore_merges: a word that is a token as a whole is that token, whatever the merges say (LLaMA-3).
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
        if not isinstance(self.merges, (list, tuple)):
            raise ValueError(f"merges must be a list of pairs of tokens, got {shown(self.merges)}")
        prefix = len(self.continuing_subword_prefix or "")
        merges = []
        for number, merge in enumerate(self.merges):
            if (
                not isinstance(merge, (tuple, list))
                or len(merge) != 2
                or not all(isinstance(part, str) for part in merge)
            ):
                raise ValueError(f"merge {number} must be a pair of tokens, got {shown(merge)}")
            a, b = merge
            for token in (a, b, a + b[prefix:]):
                if token not in self.vocab:
                    raise ValueError(
                        f"merge {number} ({shown(a)}, {shown(b)}) needs token {shown(token)}, not in the vocabulary"
                    )
            merges.append((self.vocab[a], self.vocab[b], self.vocab[a + b[prefix:]]))
        single = {token: chr(id) for token, id in self.vocab.items() if len(token) == 1}
        object.__setattr__(self, "_merger", Merger(merges))
        object.__setattr__(self, "_symbols", single)
        object.__setattr__(
            self, "_marked", bool(self.continuing_subword_prefix or self.end_of_word_suffix)
        )

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
        """(id, start, end) for each token, in characters of the word; bytes have the span of their character."""
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
        """The text in parts that can be encoded alone, for where it was not cut into words: as in LLaMA-2."""
        return [text] if self._marked or self.ignore_merges else self._cutter(text)

    @cached_property
    def _cutter(self) -> Callable[[str], list[str]]:
        return cutter(self.vocab)

    def without(self, tokens: Iterable[str]) -> BPE:
        """The same, but text that looks like one of `tokens` (special ones) is only text.  Mostly no text becomes one anyway."""
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

    def _reached(self) -> set[str]:
        """Tokens that are one character, or what a merge makes."""
        prefix, suffix = self.continuing_subword_prefix or "", self.end_of_word_suffix or ""
        single = {
            t
            for t in self.vocab
            if len(t.removeprefix(prefix)) == 1 or len(t.removesuffix(suffix)) == 1
        }
        return single | {a + b[len(prefix) :] for a, b in self.merges}

    def _first_symbols(self, word: str) -> list[tuple[str, int, int]]:
        """(symbol, start, end) for each character, before any merge."""
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
            if self.byte_fallback:
                ids = [self.vocab.get(f"<0x{byte:02X}>") for byte in char.encode()]
                if None not in ids:
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
            raise ValueError(
                f"the vocabulary has no token for {char!r}, which occurs in {shown(word)}, and no unk_token"
            )
        if self.unk_token not in self.vocab:
            raise ValueError(
                f"{char!r} needs the unk_token {shown(self.unk_token)}, which is not in the vocabulary"
            )
        return chr(self.vocab[self.unk_token])

    @classmethod
    def train(
        cls,
        word_counts: Mapping[str, int],
        vocab_size: int,
        special_tokens: Sequence[str] = (),
        *,
        initial_alphabet: Sequence[str] = (),
        limit_alphabet: int | None = None,
        min_frequency: int = 0,
        end_of_word_suffix: str | None = None,
        unk_token: str | None = None,
    ) -> BPE:
        """Special tokens, then the alphabet, then merges, `vocab_size` tokens at most; ids in this order.

        word_counts: words, and how often each occurs.  The alphabet is every character of the words and of initial_alphabet,
        sorted, and then every last character with the end_of_word_suffix.  limit_alphabet: so many of the characters at most,
        those of initial_alphabet and then the most frequent ones; the others are passed over.  min_frequency: pairs that are
        rarer are not merged.

        ValueError if the special tokens and the alphabet are more than vocab_size.
        """
        check_whole("limit_alphabet", limit_alphabet, 1, or_none=True)
        frequency = Counter()
        for word, count in word_counts.items():
            for char in word:
                frequency[char] += count
        initial = dict.fromkeys(initial_alphabet)
        chosen = sorted(
            {**frequency, **initial}, key=lambda char: (char not in initial, -frequency[char], char)
        )
        alphabet = {*chosen[:limit_alphabet]}
        tokens = [*special_tokens, *sorted(alphabet - {*special_tokens})]
        if suffix := end_of_word_suffix:
            tokens += sorted(
                {word[-1] + suffix for word in word_counts if word and word[-1] in alphabet}
                - {*tokens}
            )
        if len(tokens) > vocab_size:
            raise ValueError(
                f"vocab_size {vocab_size} is too small for the alphabet of {len(tokens) - len(special_tokens)} characters "
                f"and {len(special_tokens)} special tokens"
            )
        symbols = {token: chr(id) for id, token in enumerate(tokens)}
        counts: Counter[str] = Counter()
        for word, count in word_counts.items():
            chars = [*word[:-1], word[-1:] + (suffix or "")] if word else []
            counts["".join([symbols[char] for char in chars if char in symbols])] += count
        tokens, merges = train_bpe(counts, tokens, vocab_size, min_frequency)
        vocab = {token: id for id, token in enumerate(tokens)}
        return cls(
            vocab,
            [(tokens[a], tokens[b]) for a, b, _ in merges],
            unk_token,
            end_of_word_suffix=end_of_word_suffix,
        )

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> BPE:
        if not isinstance(content.get("vocab"), dict) or not isinstance(
            content.get("merges"), list
        ):
            raise ValueError(f"{where} BPE must have an object 'vocab' and a list 'merges'")
        merges = [_merge(merge, number, where) for number, merge in enumerate(content["merges"])]
        # the oldest files have null for false, and "" for no prefix
        flags = {key: value for key, value in content.items() if value not in (None, "")}
        return super().from_json(flags | {"merges": merges}, where)

    def to_json(self) -> dict[str, Any]:
        spaces = any(" " in token for pair in self.merges for token in pair)
        merges = [list(pair) if spaces else " ".join(pair) for pair in self.merges]
        vocab = dict(sorted(self.vocab.items(), key=lambda item: item[1]))
        return super().to_json() | {"dropout": None, "vocab": vocab, "merges": merges}


def _merge(merge: Any, number: int, where: str) -> tuple[str, str]:
    """Older files write a merge as "a b", newer ones as ["a", "b"]."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if (
        not isinstance(parts, (list, tuple))
        or len(parts) != 2
        or not all(isinstance(part, str) and part for part in parts)
    ):
        raise ValueError(f"{where}: merge {number} must be a pair of tokens, got {shown(merge)}")
    return parts[0], parts[1]
