"""Encoding text that continues other text.

A tokenizer treats the start of a text specially: SentencePiece inserts a space (LLaMA's dummy
prefix), and a word split in two has other tokens than the whole word.  So encode(a) + encode(b) is
not encode(a + b).  There are two cases:

continuations   answers to a prompt, to train on or to score: tokenized together, as in pretraining
continue_ids    text after ids that a model has already read or generated: those ids are kept
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..arguments import check_text, mismatch, shown

if TYPE_CHECKING:
    from .tokenizer import Tokenizer

NEAR = 32  # the number of preceding ids that can affect how a text starts


def continuations(
    tokenizer: Tokenizer, prompt: str, answers: Iterable[str]
) -> tuple[list[int], list[list[int]]]:
    """See Tokenizer.continuations."""
    check_text("prompt", prompt)
    start = tokenizer.prompt(prompt)
    wholes = []
    for answer in answers:
        check_text("answer", answer)
        wholes.append(tokenizer.prompt(prompt + answer))
    border = min((_common(start, whole) for whole in wholes), default=len(start))
    if border == 0 < len(start):
        given = f"{shown(prompt)}, whose first token extends into the answer"
        raise mismatch("prompt", "a text that ends where a token ends", given)
    return start[:border], [whole[border:] for whole in wholes]


def continue_ids(
    tokenizer: Tokenizer, ids: Sequence[int], text: str, allow_special: bool
) -> list[int]:
    """See Tokenizer.continue_ids.

    The text is encoded after the text that it follows.  If a token would span the border, it is
    encoded instead after something that it does not merge with: the character before, a full stop,
    a letter.
    """
    ids = list(ids)
    check_text("text", text)
    if not ids or ids == tokenizer.prompt(""):  # the text starts here
        return tokenizer.encode(text, allow_special)
    near = next((n for n in range(len(ids), 0, -1) if tokenizer.is_special(ids[n - 1])), 0)
    if near == len(ids):  # directly after a special token, inside a text
        behind = tokenizer.encode(str(tokenizer.id_to_token(ids[-1])) + text, allow_special=True)
        same = allow_special or tokenizer.encode(text, allow_special=True) == tokenizer.encode(text)
        if same and behind[:1] == ids[-1:]:
            return behind[1:]
        return tokenizer.encode(text, allow_special)
    before = tokenizer.decode(ids[max(near, len(ids) - NEAR) :])
    for context in filter(None, (before, before[-1:], ".", "x")):
        first, both = (tokenizer.encode(some, allow_special) for some in (context, context + text))
        if both[: len(first)] == first:
            return both[len(first) :]
    return tokenizer.encode(text, allow_special)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """The length of the common prefix of two lists."""
    return next((n for n, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
