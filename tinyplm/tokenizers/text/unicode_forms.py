"""The normalizers NFC, NFD, NFKC, NFKD: Unicode's normalization forms (Unicode Standard Annex #15).

The same text can be written in several ways: "é" is one character, or "e" and a combining accent.
The decomposed forms (D) split everything that can be split, with the marks in a fixed order; the
composed forms (C) then join what can be joined.  The forms with K also replace characters that
differ only in appearance: "ﬁ" by "fi", "²" by "2", full width by normal width.

The text alone comes from Python's `unicodedata`.  With spans, the algorithm is carried out here on
edits (character, change), see Aligned.changed; the changes are those of the library `tokenizers`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar, Literal

from ..component import Normalizer
from .alignment import Aligned

Edit = tuple[str, int]
Form = Literal["NFC", "NFD", "NFKC", "NFKD"]


def decomposition(text: str, form: Form) -> list[Edit]:
    """Full decomposition (Unicode Standard, section 3.7) and canonical ordering (section 3.11,
    D109).

    form: NFD or NFKD.  The first part of a decomposed character stands for it, and the others are
    inserted.  Each run of marks (combining class above 0) is then sorted by class, stably, and the
    marks take their changes along.  After a reordering, the spans thus belong to the positions and
    no longer to the characters, as in the library.
    """
    parts = [
        (part, min(k, 1))
        for char in text
        for k, part in enumerate(unicodedata.normalize(form, char))
    ]
    edits: list[Edit] = []
    for _, run in groupby(parts, lambda edit: unicodedata.combining(edit[0]) > 0):
        # Characters of class 0 keep their order.
        edits += sorted(run, key=lambda edit: unicodedata.combining(edit[0]))
    return edits


def composition(edits: list[Edit]) -> Iterator[Edit]:
    """Canonical composition (Unicode Standard, section 3.11, D117) of decomposed, ordered text.

    A character is joined to the last starter (a character of class 0) if the pair has a composite
    and is not blocked: there is no starter between them, and no mark of the same or a higher class.
    Their changes are added, minus 1 for the character that disappears: the composite also stands
    for what that one stood for.
    """
    starter: Edit | None = None
    marks: list[Edit] = []  # after the starter, not joined to it
    for char, change in edits:
        combining = unicodedata.combining(char)
        if starter is None:
            if combining:
                yield char, change
            else:
                starter = char, change
            continue
        last = unicodedata.combining(marks[-1][0]) if marks else -1
        both = unicodedata.normalize("NFC", starter[0] + char) if last < combining else ""
        if len(both) == 1:
            starter = both, starter[1] + change - 1
        elif combining:
            marks.append((char, change))
        else:
            yield starter
            yield from marks
            starter, marks = (char, change), []
    if starter is not None:
        yield starter
        yield from marks


class _UnicodeForm(Normalizer):
    form: ClassVar[Form]
    decomposed: ClassVar[Form]

    def __call__(self, text: str) -> str:
        return unicodedata.normalize(self.form, text)

    def aligned(self, piece: Aligned) -> Aligned:
        if unicodedata.is_normalized(self.form, piece.text):
            return piece
        edits = decomposition(piece.text, self.decomposed)
        return piece.changed(edits if self.form == self.decomposed else composition(edits))


@dataclass(frozen=True)
class NFC(_UnicodeForm):
    """Composed: "e" and U+0301 become "é"."""

    form, decomposed = "NFC", "NFD"


@dataclass(frozen=True)
class NFD(_UnicodeForm):
    """Decomposed: "é" becomes "e" and U+0301."""

    form, decomposed = "NFD", "NFD"


@dataclass(frozen=True)
class NFKC(_UnicodeForm):
    """Composed, and without differences of mere appearance: "ﬁ" becomes "fi", "²" becomes "2"."""

    form, decomposed = "NFKC", "NFKD"


@dataclass(frozen=True)
class NFKD(_UnicodeForm):
    """Decomposed, and without differences of mere appearance."""

    form, decomposed = "NFKD", "NFKD"
