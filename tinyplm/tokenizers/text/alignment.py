"""Text that tracks the origin of each character on its way to the model.

Normalization inserts, drops and replaces characters, but offsets must point into the text that the
user passed.  So text is accompanied by a list of spans: text[k] came from original[spans[k][0] :
spans[k][1]].  The library `tokenizers` does the same (NormalizedString).  To obtain equal offsets,
its rules are followed here: an inserted character has the span of the previous one; a character
that replaces several has the span of the first.

Only encoding with offsets uses this; ids alone are computed on plain strings.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

Span = tuple[int, int]


class Aligned(NamedTuple):
    text: str
    spans: list[Span]  # one per character
    start: int  # where the piece starts in the original

    @classmethod
    def of(cls, text: str, start: int = 0) -> Aligned:
        """Unchanged text at position `start` of the original."""
        return cls(text, [(k, k + 1) for k in range(start, start + len(text))], start)

    def part(self, start: int, end: int) -> Aligned:
        """Characters start to end - 1 (start < end)."""
        spans = self.spans[start:end]
        return Aligned(self.text[start:end], spans, spans[0][0])

    def parts(self, cuts: Iterable[Span]) -> list[Aligned]:
        """Several parts; empty ones are omitted."""
        return [self.part(start, end) for start, end in cuts if start < end]

    def changed(self, edits: Iterable[tuple[str, int]], dropped: int = 0) -> Aligned:
        """The text rewritten by edits (character, change) that consume the old one from left to
        right:

            change  0   the character stands for the next old one
            change  1   it is inserted
            change -n   it stands for the next old one, and the n after that are dropped

        dropped: the number of old characters that are dropped first.  Those not consumed are
        dropped, too.
        """
        text: list[str] = []
        spans: list[Span] = []
        place = dropped
        for char, change in edits:
            text.append(char)
            if change > 0:
                spans.append(self.spans[place - 1] if place else (self.start, self.start))
            else:
                spans.append(self.spans[place])
                place += 1 - change
        return Aligned("".join(text), spans, self.start)

    def replaced(self, text: str) -> Aligned:
        """A text of the same length, character by character."""
        return Aligned(text, self.spans, self.start)

    def original(self, start: int, end: int) -> Span:
        """The span of characters start to end - 1 in the original."""
        if start == end:
            if start < len(self.spans):
                at = self.spans[start][0]
            else:
                at = self.spans[-1][1] if self.spans else self.start
            return at, at
        return self.spans[start][0], self.spans[end - 1][1]
