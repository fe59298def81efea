"""Ids to text: at once, and as they arrive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..arguments import check_flag, mismatch
from .lookup import Lookup
from .text.decoding import Decoder
from .text.stream import ByteStream, TokenStream


class Detokenizer(Lookup):
    """The half of a Tokenizer that decodes."""

    decoder: Decoder | None
    _bytes: list[bytes] | None  # of each token, with byte-level decoding

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The joined bytes of the tokens of a byte-level vocabulary; not always valid UTF-8."""
        if self._bytes is None:
            raise mismatch(
                "decoder", "ByteLevel, for tokens that are bytes", type(self.decoder).__name__
            )
        return b"".join(map(self._bytes.__getitem__, self._checked(ids)))

    def decode(
        self, ids: Iterable[int], skip_special: bool = False, after: Sequence[int] = ()
    ) -> str:
        """The text of the tokens, except special ones if `skip_special`; U+FFFD for invalid UTF-8.

        after: the preceding ids, such as a prompt.  The result is the text that `ids` add to it, so
        that a first word keeps its space.
        """
        check_flag("skip_special", skip_special)
        ids, after = self._checked(ids), self._checked(after, "after")
        if after and self._bytes is None:
            known = self.decode(after, skip_special)
            return self.decode([*after, *ids], skip_special)[len(known) :]
        if skip_special:
            ids = [i for i in ids if i not in self._special]
        if self._bytes is not None:
            return b"".join(map(self._bytes.__getitem__, ids)).decode("utf-8", errors="replace")
        tokens = [self._tokens[id] for id in ids]
        return " ".join(tokens) if self.decoder is None else "".join(self.decoder.chain(tokens))

    def stream(
        self, skip_special: bool = False, after: Sequence[int] = ()
    ) -> ByteStream | TokenStream:
        """Decodes one by one: push(id) -> the text that is now final, finish() -> the rest.

        after: the preceding ids, such as a prompt, so that a first word keeps its space.
        """
        check_flag("skip_special", skip_special)
        after = self._checked(after, "after")
        return (TokenStream if self._bytes is None else ByteStream)(self, skip_special, after)
