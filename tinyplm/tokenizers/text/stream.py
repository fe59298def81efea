"""Text of tokens as they come, one by one: never half a character.

The pieces joined are the text that `decode` gives for all ids; if they come `after` others, the text that they add to those.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from .decoding import is_byte


class ByteStream:
    """For tokens that are bytes: what does not make a character yet is held back."""

    def __init__(self, tokenizer: Any, skip_special: bool = False, after: Sequence[int] = ()):
        """after: plays no part, a text of bytes is the same wherever it stands."""
        self._tokenizer, self._skip_special = tokenizer, skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, id: int) -> str:
        data = self._tokenizer.decode_bytes([id])
        return (
            ""
            if self._skip_special and self._tokenizer.is_special(id)
            else self._decoder.decode(data)
        )

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


class TokenStream:
    """For any other: the text that a token adds is decode(context + [id]) without decode(context).

    The context is the token before, which is enough: a decoder treats only the first and the last token of all in another way
    than those between.  A run of byte tokens (<0xE4><0xBD><0xA0>) is held back until it ends: whether its bytes are text
    at all is judged by the whole run.  So where the ids of `after` end with such a run, all of it is context.
    """

    def __init__(self, tokenizer: Any, skip_special: bool = False, after: Sequence[int] = ()):
        self._tokenizer, self._skip_special = tokenizer, skip_special
        before = [id for id in after if not (skip_special and tokenizer.is_special(id))]
        begin = len(before) - 1
        while begin > 0 and self._is_byte(before[begin]):
            begin -= 1
        self._context = before[max(begin, 0) :]
        self._held: list[int] = []

    def push(self, id: int) -> str:
        if self._skip_special and self._tokenizer.is_special(id):
            return ""
        self._tokenizer.decode([id])  # refuses an id that there is not
        self._held.append(id)
        if self._is_byte(id):
            return ""
        text = self._new_text()
        self._context, self._held = [id], []
        return text

    def finish(self) -> str:
        text = self._new_text()
        self._held = []
        return text

    def _is_byte(self, id: int) -> bool:
        return is_byte(self._tokenizer.id_to_token(id) or "") is not None

    def _new_text(self) -> str:
        known = self._tokenizer.decode(self._context)
        return self._tokenizer.decode(self._context + self._held)[len(known) :]
