"""Text from tokens as they arrive: never part of a character, never part of a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..arguments import wrong


class TextStream:
    """push(id) returns the text that is certain after this token; the end comes from finish().

    push(id, last=True) combines both. Joined, the pieces are tokenizer.decode of all ids up to the
    first stop string, which is removed, or what the ids add to the text of the ids in `after`. Held
    back are bytes that do not yet form a character (tokenizers/text/stream.py) and text that may
    begin a stop string.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = (), after: Sequence[int] = ()) -> None:
        check_stop(stop)
        if not hasattr(tokenizer, "stream"):
            raise wrong("tokenizer", "a tokenizer", tokenizer)
        self.stop = tuple(stop)
        self.stopped = False  # a stop string was found: nothing follows
        self._stream = tokenizer.stream(after=after)
        self._held = ""

    def push(self, id: int, *, last: bool = False) -> str:
        """The text that is certain after this token; with `last` all that remains."""
        new = self._stream.push(id)
        return self._release(new + self._stream.finish() if last else new, final=last)

    def finish(self) -> str:
        """The remaining text."""
        return self._release(self._stream.finish(), final=True)

    def _release(self, new: str, *, final: bool) -> str:
        if self.stopped:
            return ""
        text = self._held + new
        found = [(place, s) for s in self.stop if (place := text.find(s)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[0]]
        kept = 0 if final else max((_overlap(text, s) for s in self.stop), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]


def _overlap(text: str, stop: str) -> int:
    """The length of the longest suffix of the text that is a prefix of the stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if stop.startswith(text[-n:])), 0)


def check_stop(stop: Sequence[str], name: str = "stop") -> None:
    """ValueError unless it is a list of non-empty strings."""
    if not isinstance(stop, (list, tuple)) or not all(isinstance(s, str) and s for s in stop):
        raise wrong(name, "a list of non-empty strings", stop)
