"""Text that is changed on its way to the model, and remembers where each character came from.

Normalisation inserts, drops and replaces characters; offsets are to point into the text as the user gave it.  So beside the
text goes a list of spans: text[k] came from original[spans[k][0] : spans[k][1]].  The library `tokenizers` keeps the same
(NormalizedString); its rules for what an inserted or joined character points to are followed here, since offsets are to be
equal: an inserted character has the span of the one before it; a character that replaces several has the span of the first.

Only encoding with offsets comes through here; ids alone are computed on plain strings.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

Span = tuple[int, int]


class Aligned(NamedTuple):
    text: str
    spans: list[Span]  # one for each character
    start: int  # where the stretch begins in the original

    @classmethod
    def of(cls, text: str, start: int = 0) -> Aligned:
        """Unchanged text, which stands at `start` of the original."""
        return cls(text, [(k, k + 1) for k in range(start, start + len(text))], start)

    def part(self, start: int, end: int) -> Aligned:
        """Characters start to end - 1 (start < end)."""
        spans = self.spans[start:end]
        return Aligned(self.text[start:end], spans, spans[0][0])

    def parts(self, cuts: Iterable[Span]) -> list[Aligned]:
        """Several stretches; empty ones are left out."""
        return [self.part(start, end) for start, end in cuts if start < end]

    def changed(self, edits: Iterable[tuple[str, int]], dropped: int = 0) -> Aligned:
        """The text written anew, one (character, change) after the other, from what is here, read from left to right:

            change  0   the character stands for the next character
            change  1   it is inserted
            change -n   it stands for the next character, and the n characters after that are dropped

        `dropped`: as many characters at the beginning are dropped first.  What is not read is dropped too.
        """
        text, spans, place = [], [], dropped
        for char, change in edits:
            text.append(char)
            if change > 0:
                spans.append(self.spans[place - 1] if place else (self.start, self.start))
            else:
                spans.append(self.spans[place])
                place += 1 - change
        return Aligned("".join(text), spans, self.start)

    def replaced(self, text: str) -> Aligned:
        """The same number of characters, each standing for the one at its place."""
        return Aligned(text, self.spans, self.start)

    def original(self, start: int, end: int) -> Span:
        """Where characters start to end - 1 came from."""
        if start == end:
            at = (
                self.spans[start][0]
                if start < len(self.spans)
                else self.spans[-1][1]
                if self.spans
                else self.start
            )
            return at, at
        return self.spans[start][0], self.spans[end - 1][1]
