"""Looking up tokens: ids by token, tokens by id, special and named tokens."""

from __future__ import annotations

from collections.abc import Iterable
from operator import index

from ..arguments import check_text, shown, wrong
from .vocabulary import as_index

END_OF_TEXT = "<|endoftext|>"


class Lookup:
    """The base class of Tokenizer."""

    named: dict[str, str]
    _tokens: list[str]  # by id
    _ids: dict[str, int]
    _special: set[int]

    @property
    def vocab_size(self) -> int:
        """The number of ids, including added tokens: ids run from 0 to vocab_size - 1."""
        return len(self._tokens)

    def __len__(self) -> int:
        return self.vocab_size

    @property
    def vocab(self) -> dict[str, int]:
        """A copy of token -> id in the order of ids, including added tokens."""
        return dict(self._ids)

    @property
    def eos_id(self) -> int | None:
        """The id that ends a document: that of eos_token, else of <|endoftext|>, else None."""
        if "eos_token" in self.named:
            return self.named_id("eos_token")
        return self._ids.get(END_OF_TEXT)

    def named_id(self, name: str) -> int | None:
        """The id of "bos_token", "pad_token", "mask_token" ...; None if there is none."""
        check_text("name", name)
        token = self.named.get(name)
        return None if token is None else self._ids.get(token)

    def token_to_id(self, token: str) -> int | None:
        """The id of a token as the file spells it ("Ġdog" for " dog"); None if there is none."""
        check_text("token", token)
        return self._ids.get(token)

    def id_to_token(self, id: int) -> str | None:
        """The inverse of token_to_id; None if there is none."""
        return self._tokens[id] if 0 <= as_index("id", id) < len(self._tokens) else None

    def is_special(self, id: int) -> bool:
        """Whether the id is that of a special token."""
        return as_index("id", id) in self._special

    def _checked(self, ids: Iterable[int], name: str = "ids") -> list[int]:
        try:
            ids = list(map(index, ids))
        except TypeError:
            raise TypeError(f"{name}: expected several integers, got {shown(ids)}") from None
        size = len(self._tokens)
        if ids and (min(ids) < 0 or max(ids) >= size):
            outside = next(i for i in ids if not 0 <= i < size)
            raise wrong(name, f"ids of the vocabulary, from 0 to {size - 1}", outside)
        return ids

    def _check_id(self, name: str, id: int) -> None:
        if not 0 <= id < len(self._tokens):
            raise wrong(name, f"an id of the vocabulary, from 0 to {len(self._tokens) - 1}", id)
