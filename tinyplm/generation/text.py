"""Text out of tokens as they come: never half a character, never a part of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any


class TextStream:
    """push(id) gives the text that is certain after this token; push(id, last=True), or finish() after it, gives all the rest.

    The pieces joined are tokenizer.decode of all ids, up to the first stop string, which is left out.  Held back are bytes that
    do not yet make a character, and text that may turn out to be the beginning of a stop string.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        check_stop(stop)
        self.tokenizer, self.stop = tokenizer, tuple(stop)
        self.stopped = False  # a stop string has come: nothing follows
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def push(self, id: int, *, last: bool = False) -> str:
        return self._release(self.tokenizer.decode_bytes([id]), final=last)

    def finish(self) -> str:
        return self._release(b"", final=True)

    def _release(self, new: bytes, *, final: bool) -> str:
        if self.stopped:
            return ""
        text = self._held + self._decoder.decode(new, final=final)
        found = [(place, s) for s in self.stop if (place := text.find(s)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[0]]
        kept = 0 if final else max((_overlap(text, s) for s in self.stop), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of the text that begins the stop string."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)


def check_stop(stop: Sequence[str]) -> None:
    if isinstance(stop, str) or not all(isinstance(s, str) and s for s in stop):
        raise ValueError(f"stop strings must be a list of texts that are not empty, got {stop!r}")
