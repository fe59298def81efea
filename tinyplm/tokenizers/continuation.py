"""Text that continues a text.

A tokenizer treats the beginning of a text differently: SentencePiece puts a space there (LLaMA's dummy prefix); and a word cut in
two gives other tokens than the whole.  So encode(a) + encode(b) is not encode(a + b).  Two questions, two rules:

continuations   texts behind a text, to train on or to score: the tokens are those of the whole text, as in pretraining
continue_ids    a text behind ids that a model has read or written already: these ids stay
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..arguments import check_text, shown

NEAR = 32  # ids before a text that decide how it begins


def continuations(
    tokenizer: Any, prompt: str, answers: Iterable[str]
) -> tuple[list[int], list[list[int]]]:
    check_text("prompt", prompt)
    start = tokenizer.prompt(prompt)
    wholes = []
    for answer in answers:
        check_text("answer", answer)
        wholes.append(tokenizer.prompt(prompt + answer))
    border = min((_common(start, whole) for whole in wholes), default=len(start))
    if border == 0 < len(start):
        raise ValueError(
            f"prompt: expected a text that ends where a token ends, got {shown(prompt)}, whose first token reaches "
            "into the answer"
        )
    return start[:border], [whole[border:] for whole in wholes]


def continue_ids(tokenizer: Any, ids: Sequence[int], text: str, allow_special: bool) -> list[int]:
    """The text is encoded behind the text that it follows; where a token would reach over the border, behind something that it
    does not merge with: the character before, a full stop, a letter."""
    ids = list(ids)
    check_text("text", text)
    if not ids or ids == tokenizer.prompt(""):  # the text begins here
        return tokenizer.encode(text, allow_special)
    near = next((n for n in range(len(ids), 0, -1) if tokenizer.is_special(ids[n - 1])), 0)
    if near == len(ids):  # directly behind a special token, inside a text
        behind = tokenizer.encode(tokenizer.id_to_token(ids[-1]) + text, allow_special=True)
        same = allow_special or tokenizer.encode(text, allow_special=True) == tokenizer.encode(text)
        return (
            behind[1:] if same and behind[:1] == ids[-1:] else tokenizer.encode(text, allow_special)
        )
    before = tokenizer.decode(ids[max(near, len(ids) - NEAR) :])
    for context in filter(None, (before, before[-1:], ".", "x")):
        first, both = (tokenizer.encode(some, allow_special) for some in (context, context + text))
        if both[: len(first)] == first:
            return both[len(first) :]
    return tokenizer.encode(text, allow_special)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids two lists share at their beginning."""
    return next((n for n, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
