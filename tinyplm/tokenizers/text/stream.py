"""Streaming decoding: text from ids that arrive one by one, without partial characters.

The pieces join to what `decode` returns for all ids, or with `after` to what the ids add to the
text of those.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .decoding import byte_of

if TYPE_CHECKING:
    from ..detokenizer import Detokenizer


class ByteStream:
    """For tokens that are bytes: an incomplete character is held back."""

    def __init__(
        self, tokenizer: Detokenizer, skip_special: bool = False, after: Sequence[int] = ()
    ):
        """after: has no effect, since the bytes of a token do not depend on its context."""
        self._tokenizer, self._skip_special = tokenizer, skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, id: int) -> str:
        """The text that is final after this id."""
        data = self._tokenizer.decode_bytes([id])
        if self._skip_special and self._tokenizer.is_special(id):
            return ""
        return self._decoder.decode(data)

    def finish(self) -> str:
        """The rest of the text."""
        return self._decoder.decode(b"", final=True)


class TokenStream:
    """For all other tokens: a token adds decode(context + [id]) minus decode(context).

    The previous token is enough context: a decoder treats only the first and the last token of all
    differently.  A run of byte tokens (<0xE4><0xBD><0xA0>) is held back until it ends, because only
    the whole run shows whether its bytes are valid UTF-8.  Therefore, if `after` ends with such a
    run, all of it is context.
    """

    def __init__(
        self, tokenizer: Detokenizer, skip_special: bool = False, after: Sequence[int] = ()
    ):
        self._tokenizer, self._skip_special = tokenizer, skip_special
        before = [id for id in after if not (skip_special and tokenizer.is_special(id))]
        begin = len(before) - 1
        while begin > 0 and self._is_byte(before[begin]):
            begin -= 1
        self._context = before[max(begin, 0) :]
        self._held: list[int] = []

    def push(self, id: int) -> str:
        """The text that is final after this id."""
        if self._skip_special and self._tokenizer.is_special(id):
            return ""
        self._tokenizer.decode([id])  # raises for an id outside the vocabulary
        self._held.append(id)
        if self._is_byte(id):
            return ""
        text = self._new_text()
        self._context, self._held = [id], []
        return text

    def finish(self) -> str:
        """The rest of the text."""
        text = self._new_text()
        self._held = []
        return text

    def _is_byte(self, id: int) -> bool:
        return byte_of(self._tokenizer.id_to_token(id) or "") is not None

    def _new_text(self) -> str:
        known = self._tokenizer.decode(self._context)
        return self._tokenizer.decode(self._context + self._held)[len(known) :]
