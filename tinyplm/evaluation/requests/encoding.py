"""Tokens of what a model is asked: a context and its continuation, the windows of a long text.

The rules are those of EleutherAI's lm-evaluation-harness (lm_eval/api/model.py, lm_eval/utils.py,
release 0.4.13), so that equal models get equal numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ...arguments import check_text, check_whole, mismatch, wrong


class Scored(NamedTuple):
    """Tokens to read, and how many of the last tokens are to be predicted: ids[-wanted:]."""

    ids: tuple[int, ...]
    wanted: int


def prefix_id(tokenizer: Any) -> int:
    """The token before a text that has no context: bos_token, else the one that ends a text."""
    first = tokenizer.named_id("bos_token")
    first = tokenizer.eos_id if first is None else first
    if first is None:
        expected = "one with a token that begins or ends a text"
        raise mismatch("tokenizer", expected, "one without")
    return first


def encode_pair(tokenizer: Any, context: str, continuation: str) -> Scored:
    """The tokens of context + continuation, those of the continuation to be predicted.

    Spaces at the end of the context belong to the continuation, as words of most vocabularies begin
    with a space.  Both are encoded as one text, and the continuation is what follows the first
    len(tokens of the context) tokens.  Without a context the first token is predicted from
    prefix_id (which is not put twice if the continuation begins with it).
    ValueError for a continuation without tokens.
    """
    check_text("context", context)
    check_text("continuation", continuation, empty=False)
    if context:
        kept = context.rstrip()
        continuation, context = context[len(kept) :] + continuation, kept
        whole, before = tokenizer.prompt(context + continuation), tokenizer.prompt(context)
        before = before or [prefix_id(tokenizer)]  # a context of spaces alone
        scored = Scored((*before, *whole[len(before) if context else 0 :]), 0)
        count = len(scored.ids) - len(before)
    else:
        first, ids = prefix_id(tokenizer), tokenizer.encode(continuation)
        ids = ids if ids[:1] == [first] else [first, *ids]
        scored, count = Scored(tuple(ids), 0), len(ids) - 1
    if count < 1:
        raise wrong("continuation", "one that adds at least one token", continuation)
    return scored._replace(wanted=count)


def cut(scored: Scored, longest: int) -> Scored:
    """Without the first tokens that a model of `longest` tokens cannot read.

    Of N tokens N - 1 are read.  ValueError for a continuation longer than that.
    """
    if scored.wanted > longest:
        raise mismatch("continuation", f"at most {longest} tokens, the context", scored.wanted)
    return scored._replace(ids=scored.ids[-(longest + 1) :])


def rolling_windows(
    ids: Sequence[int], *, first: int, longest: int, least: int = 1
) -> Iterator[Scored]:
    """Windows that predict each of the ids once, the first of them from the token `first`.

    A window reads at most `longest` tokens.  The first predicts `longest` tokens; each later one
    the longest - least + 1 that follow, from at least `least` tokens before them, and it reads as
    many as fit, so the last window is full too.    least = 1 as in lm-evaluation-harness
    """
    check_whole("longest", longest, 1)
    check_whole("least", least, 1, longest)
    everything, done = [first, *ids], 0
    while done < len(ids):
        new = min(len(ids) - done, longest if done == 0 else longest - least + 1)
        done += new
        yield Scored(tuple(everything[max(0, done - longest) : done + 1]), new)
