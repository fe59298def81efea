"""What holds for every vocabulary: tokens and ids, one to one, with ids from 0 on and none left out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

import regex

from ..arguments import as_texts, check_text, check_whole, is_whole, shown, wrong

MAX_SYMBOLS = sys.maxunicode + 1  # bpe.py writes a symbol as one character


def check_vocabulary(vocab: Mapping[str, Any]) -> None:
    """ValueError unless each token is a text, and each id a number of its own from 0 on.  Added tokens may still fill holes."""
    if not isinstance(vocab, Mapping):
        raise ValueError(f"vocab must be an object of tokens and ids, got {type(vocab).__name__}")
    seen: dict[int, str] = {}
    for token, id in vocab.items():
        if not isinstance(token, str):
            raise ValueError(f"a token must be a text, got {shown(token)}")
        if type(id) is not int or not 0 <= id < MAX_SYMBOLS:
            raise ValueError(
                f"the id of token {shown(token)} must be a number from 0 to {MAX_SYMBOLS - 1}, got {shown(id)}"
            )
        if seen.setdefault(id, token) != token:
            raise ValueError(f"id {id} is given to both {shown(seen[id])} and {shown(token)}")


def check_training(
    word_counts: Mapping[str, int],
    vocab_size: int,
    tokens: Iterable[str],
    name: str = "tokens",
    **least: int,
) -> None:
    """ValueError unless a vocabulary can be learnt from these; name: what the caller calls tokens; least: whole numbers >= 0."""
    if not isinstance(word_counts, Mapping):
        raise wrong("word_counts", "a mapping of words to counts", word_counts)
    for word, count in word_counts.items():
        check_text("word_counts", word)
        if not is_whole(count) or count < 0:
            raise ValueError(
                f"word_counts: the word {shown(word)} cannot occur {shown(count)} times"
            )
    check_whole("vocab_size", vocab_size, 1, MAX_SYMBOLS)
    if isinstance(tokens, str):
        raise TypeError(f"{name} must be several strings, got the single str {shown(tokens)}")
    as_texts(name, tokens)
    for other, value in least.items():
        check_whole(other, value, 0)


def tokens_by_id(vocab: Mapping[str, int], added: Iterable[tuple[str, int]]) -> list[str]:
    """The tokens in the order of their ids, which must be 0, 1, 2, ... each used once.  ValueError says what is wrong."""
    token_of: dict[int, str] = {}
    id_of: dict[str, int] = {}
    for token, id in chain(vocab.items(), added):
        if type(id) is not int or id < 0:
            raise ValueError(
                f"the id of token {shown(token)} must be a number from 0 on, got {shown(id)}"
            )
        if token_of.setdefault(id, token) != token:
            raise ValueError(
                f"id {shown(id)} is given to both {shown(token_of[id])} and {shown(token)}"
            )
        if id_of.setdefault(token, id) != id:
            raise ValueError(
                f"token {shown(token)} has two ids, {shown(id_of[token])} and {shown(id)}"
            )
    if len(token_of) > MAX_SYMBOLS:
        raise ValueError(
            f"{len(token_of)} tokens are more than {MAX_SYMBOLS}, the most this implementation can hold"
        )
    for id in range(len(token_of)):
        if id not in token_of:
            raise ValueError(
                f"the vocabulary has a hole: no token has id {id}, but {len(token_of)} ids are used"
            )
    return [token_of[id] for id in range(len(token_of))]


def cutter(vocab: Mapping[str, int]) -> Callable[[str], list[str]]:
    """A function that cuts a text into parts which a BPE model can encode alone, with the same result.

    A SentencePiece model takes a text as one word, with its spaces written "▁".  The parts begin at a "▁" that follows another
    character.  No token goes across such a border when none has a "▁" inside; else the text stays whole.
    """
    inside = regex.compile("[^▁]▁").search
    whole = "▁" not in vocab or any(map(inside, vocab))
    return _whole if whole else split_at_spaces


def _whole(text: str) -> list[str]:
    return [text]


split_at_spaces = regex.compile("▁+[^▁]*|[^▁]+").findall
