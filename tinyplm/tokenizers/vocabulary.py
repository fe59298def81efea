"""Checks and helpers for every vocabulary: a bijection between tokens and the ids 0, 1, 2, ..."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from operator import index
from typing import Any

import regex

from ..arguments import as_texts, check_text, check_whole, is_whole, mismatch, shown, wrong

MAX_SYMBOLS = sys.maxunicode + 1  # BPE represents a symbol as one character


def check_vocabulary(vocab: Mapping[str, Any]) -> None:
    """ValueError unless tokens are strings and ids distinct integers >= 0.

    Gaps are allowed: added tokens may fill them.
    """
    if not isinstance(vocab, Mapping):
        raise ValueError(f"vocab: expected an object of tokens and ids, got {type(vocab).__name__}")
    seen: dict[int, str] = {}
    for token, id in vocab.items():
        if not isinstance(token, str):
            raise wrong("vocab", "tokens that are strings", token)
        if type(id) is not int or not 0 <= id < MAX_SYMBOLS:
            raise wrong(f"vocab: token {shown(token)}", f"an id from 0 to {MAX_SYMBOLS - 1}", id)
        if seen.setdefault(id, token) != token:
            raise mismatch(
                "vocab", "one token per id", f"{shown(seen[id])} and {shown(token)} with id {id}"
            )


def check_training(
    word_counts: Mapping[str, int],
    vocab_size: int,
    tokens: Iterable[str],
    name: str = "tokens",
    **least: int,
) -> None:
    """ValueError unless a vocabulary can be learned from these.

    name: the caller's name for `tokens`.  least: arguments that must be integers >= 0.
    """
    if not isinstance(word_counts, Mapping):
        raise wrong("word_counts", "a mapping of words to counts", word_counts)
    for word, count in word_counts.items():
        check_text("word_counts", word)
        if not is_whole(count) or count < 0:
            raise wrong(f"word_counts: {shown(word)}", "an integer >= 0", count)
    check_whole("vocab_size", vocab_size, 1, MAX_SYMBOLS)
    if isinstance(tokens, str):
        raise TypeError(f"{name}: expected several strings, got the single string {shown(tokens)}")
    as_texts(name, tokens)
    for other, value in least.items():
        check_whole(other, value, 0)


def tokens_by_id(vocab: Mapping[str, int], added: Iterable[tuple[str, int]]) -> list[str]:
    """The tokens sorted by id.  ValueError unless the ids are 0, 1, 2, ..., each used once."""
    token_of: dict[int, str] = {}
    id_of: dict[str, int] = {}
    for token, id in chain(vocab.items(), added):
        if type(id) is not int or id < 0:
            raise wrong(f"vocab: token {shown(token)}", "an id >= 0", id)
        if token_of.setdefault(id, token) != token:
            given = f"{shown(token_of[id])} and {shown(token)} with id {shown(id)}"
            raise mismatch("vocab", "one token per id", given)
        if id_of.setdefault(token, id) != id:
            raise ValueError(
                f"vocab: expected one id per token, got {shown(id_of[token])} and {shown(id)} "
                f"for {shown(token)}"
            )
    if len(token_of) > MAX_SYMBOLS:
        raise ValueError(f"vocab: expected at most {MAX_SYMBOLS} tokens, got {len(token_of)}")
    for id in range(len(token_of)):
        if id not in token_of:
            raise mismatch("vocab", f"the ids 0 to {len(token_of) - 1}", f"none with id {id}")
    return [token_of[id] for id in range(len(token_of))]


def as_index(name: str, value: Any) -> int:
    """An integer, or what can stand for one; TypeError for anything else."""
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {shown(value)}") from None


def byte_ids(vocab: Mapping[str, int], text: str) -> list[int]:
    """Byte fallback: the ids of <0x..> for the text's UTF-8 bytes; [] if one is missing."""
    ids = [vocab.get(f"<0x{byte:02X}>") for byte in text.encode()]
    known = [id for id in ids if id is not None]
    return known if len(known) == len(ids) else []


def cutter(vocab: Mapping[str, int]) -> Callable[[str], list[str]]:
    """A function that cuts text into parts that a BPE model can encode separately, to equal effect.

    A SentencePiece model takes a whole text as one word, with spaces written as "▁".  The parts
    begin at a "▁" that follows another character.  If no token has an inner "▁", no token crosses
    such a border; otherwise the text stays whole.
    """
    inside = regex.compile("[^▁]▁").search
    whole = "▁" not in vocab or any(map(inside, vocab))
    return _whole if whole else split_at_spaces


def _whole(text: str) -> list[str]:
    return [text]


split_at_spaces = regex.compile("▁+[^▁]*|[^▁]+").findall
