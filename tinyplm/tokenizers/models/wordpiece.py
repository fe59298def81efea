"""WordPiece, applied: a word is covered from left to right by the longest tokens that fit.      Devlin et al. 2019 (BERT)

    unaffable  ->  un ##aff ##able

A token that begins with the prefix "##" can only stand inside a word.  Unlike BPE there are no merges: the vocabulary is
all there is, and what the next token is does not depend on what comes after it.  If at some place no token fits, the word
as a whole becomes the unknown token.  How a vocabulary is learnt is in wordpiece_training.py.

At each place one dictionary is asked for one slice of the word for each length that a token has, longest first.  So a word
of n letters takes at most n times the number of lengths, however long it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from ...arguments import shown
from ..component import Component
from ..vocabulary import check_vocabulary


@dataclass(frozen=True)
class WordPiece(Component):
    """`vocab`: token -> id.  Words longer than `max_input_chars_per_word` are unknown without a look."""

    vocab: Mapping[str, int] = field(repr=False)
    unk_token: str = "[UNK]"
    continuing_subword_prefix: str = "##"
    max_input_chars_per_word: int = 100

    def __post_init__(self) -> None:
        check_vocabulary(self.vocab)
        if self.max_input_chars_per_word < 0:
            raise ValueError(
                f"max_input_chars_per_word must not be negative, got {self.max_input_chars_per_word}"
            )

    def encode(self, word: str) -> list[int]:
        return [i for i, _, _ in self.encode_spans(word)]

    def encode_spans(self, word: str) -> list[tuple[int, int, int]]:
        """(id, start, end) of each token; the unknown token spans the word."""
        if len(word) > self.max_input_chars_per_word:
            return [self._unknown(word)]
        spans = []
        start, (ids, lengths) = 0, self._first
        while start < len(word):
            for length in lengths:
                i = ids.get(word[start : start + length])
                # A slice at the end of the word may be shorter than asked for: it is asked for again at its own length.
                if i is not None and start + length <= len(word):
                    break
            else:
                return [self._unknown(word)]
            spans.append((i, start, start + length))
            start += length
            ids, lengths = self._inner
        return spans

    def without(self, tokens: Iterable[str]) -> WordPiece:
        """The same, but text that looks like one of `tokens` (special ones) is only text."""
        hidden = {*tokens} - {self.unk_token}
        return replace(
            self, vocab={token: i for token, i in self.vocab.items() if token not in hidden}
        )

    def _unknown(self, word: str) -> tuple[int, int, int]:
        if self.unk_token not in self.vocab:
            raise ValueError(
                f"the vocabulary has no tokens for {shown(word)}, and unk_token {shown(self.unk_token)} is not in it either"
            )
        return self.vocab[self.unk_token], 0, len(word)

    @cached_property
    def _first(self) -> tuple[Mapping[str, int], list[int]]:
        """What can begin a word, "##x" too where the text has just these characters; and the lengths, longest first."""
        return self.vocab, _lengths(self.vocab)

    @cached_property
    def _inner(self) -> tuple[Mapping[str, int], list[int]]:
        """What can stand inside a word, without the prefix."""
        prefix = self.continuing_subword_prefix
        ids = {
            token[len(prefix) :]: i for token, i in self.vocab.items() if token.startswith(prefix)
        }
        return ids, _lengths(ids)


def _lengths(tokens: Mapping[str, int]) -> list[int]:
    return sorted(set(map(len, tokens)) - {0}, reverse=True)
