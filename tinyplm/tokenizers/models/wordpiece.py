"""Applying WordPiece: cover a word from left to right with the longest tokens that match.

    unaffable  ->  un ##aff ##able                                        Devlin et al. 2019 (BERT)

A token with the prefix "##" only occurs inside a word.  Unlike BPE there are no merges: the
vocabulary is all there is, and a token does not depend on what follows it.  If no token matches at
some position, the whole word becomes the unknown token.  training/wordpiece.py learns a vocabulary.

At each position, a dictionary is queried with one slice of the word per token length, longest
first.  A word of n letters thus costs at most n times the number of distinct lengths, however long
it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from ...arguments import shown, wrong
from ..component import Component
from ..vocabulary import check_vocabulary


@dataclass(frozen=True)
class WordPiece(Component):
    """vocab: token -> id.  Words longer than `max_input_chars_per_word` become unk_token
    unexamined."""

    vocab: Mapping[str, int] = field(repr=False)
    unk_token: str = "[UNK]"
    continuing_subword_prefix: str = "##"
    max_input_chars_per_word: int = 100

    def __post_init__(self) -> None:
        check_vocabulary(self.vocab)
        if self.max_input_chars_per_word < 0:
            raise wrong(
                "max_input_chars_per_word", "an integer >= 0", self.max_input_chars_per_word
            )

    def encode(self, word: str) -> list[int]:
        return [i for i, _, _ in self.encode_spans(word)]

    def encode_spans(self, word: str) -> list[tuple[int, int, int]]:
        """(id, start, end) of each token; the unknown token spans the whole word."""
        if len(word) > self.max_input_chars_per_word:
            return [self._unknown(word)]
        spans = []
        start, (ids, lengths) = 0, self._first
        while start < len(word):
            for length in lengths:
                i = ids.get(word[start : start + length])
                # Near the end the slice may be shorter than `length`; it is retried at its own
                # length.
                if i is not None and start + length <= len(word):
                    break
            else:
                return [self._unknown(word)]
            spans.append((i, start, start + length))
            start += length
            ids, lengths = self._inner
        return spans

    def without(self, tokens: Iterable[str]) -> WordPiece:
        """See Model.without."""
        hidden = {*tokens} - {self.unk_token}
        return replace(
            self, vocab={token: i for token, i in self.vocab.items() if token not in hidden}
        )

    def _unknown(self, word: str) -> tuple[int, int, int]:
        if self.unk_token not in self.vocab:
            expected = f"words that the vocabulary covers, since it has no {shown(self.unk_token)}"
            raise wrong("text", expected, word)
        return self.vocab[self.unk_token], 0, len(word)

    @cached_property
    def _first(self) -> tuple[Mapping[str, int], list[int]]:
        """Tokens that can start a word (even "##x", for the text "##x"), and their lengths."""
        return self.vocab, _lengths(self.vocab)

    @cached_property
    def _inner(self) -> tuple[Mapping[str, int], list[int]]:
        """Tokens that can occur inside a word, without the prefix, and their lengths."""
        prefix = self.continuing_subword_prefix
        ids = {
            token[len(prefix) :]: i for token, i in self.vocab.items() if token.startswith(prefix)
        }
        return ids, _lengths(ids)


def _lengths(tokens: Mapping[str, int]) -> list[int]:
    """The distinct lengths of the tokens, longest first."""
    return sorted(set(map(len, tokens)) - {0}, reverse=True)
