"""The normalizers NFC, NFD, NFKC, NFKD: the four normalization forms of Unicode (Unicode Standard Annex #15).

The same text can be written in several ways: "é" is one character, or "e" and a combining accent.  The decomposed forms (D) write
all that can be taken apart in parts, the marks in a fixed order; the composed forms (C) then put together what they can.  With K,
characters that differ in appearance only are also replaced: "ﬁ" by "fi", "²" by "2", full width by normal width.

The text alone comes from Python's `unicodedata`.  With spans the algorithm is carried out here, on pairs (character, change), see
Aligned.changed; the changes are those of the library `tokenizers`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from ..component import Component
from .alignment import Aligned

Edit = tuple[str, int]


def decomposition(text: str, form: str) -> list[Edit]:
    """Full decomposition (Unicode Standard, section 3.7) and canonical ordering (section 3.11, D109).

    `form`: NFD or NFKD.  Of what a character decomposes into, the first part stands for it and the others are inserted.
    Each run of marks (combining class above 0) is then sorted by class, stably; the marks take their changes along.  So after a
    reordering the spans are those of the places, no longer those of the characters: as in the library.
    """
    parts = [
        (part, min(k, 1))
        for char in text
        for k, part in enumerate(unicodedata.normalize(form, char))
    ]
    edits: list[Edit] = []
    for _, run in groupby(parts, lambda edit: unicodedata.combining(edit[0]) > 0):
        edits += sorted(
            run, key=lambda edit: unicodedata.combining(edit[0])
        )  # characters of class 0 stay as they are
    return edits


def composition(edits: list[Edit]) -> Iterator[Edit]:
    """Canonical composition (Unicode Standard, section 3.11, D117) of what is decomposed and ordered.

    A character is joined to the last starter (a character of class 0) if the pair has a composite and nothing blocks it: between
    them stands no starter, and no mark of the same class or higher.  The changes are then added, and 1 is subtracted since one
    character is gone: the composite also stands for what the other one stood for.
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


class _UnicodeForm(Component):
    def __call__(self, text: str) -> str:
        return unicodedata.normalize(type(self).__name__, text)

    def aligned(self, piece: Aligned) -> Aligned:
        form = type(self).__name__
        if unicodedata.is_normalized(form, piece.text):
            return piece
        edits = decomposition(piece.text, form.replace("C", "D"))
        return piece.changed(composition(edits) if form.endswith("C") else edits)


@dataclass(frozen=True)
class NFC(_UnicodeForm):
    """Composed: "e" and U+0301 become "é"."""


@dataclass(frozen=True)
class NFD(_UnicodeForm):
    """Decomposed: "é" becomes "e" and U+0301."""


@dataclass(frozen=True)
class NFKC(_UnicodeForm):
    """Composed, without differences of mere appearance: "ﬁ" becomes "fi", "²" becomes "2"."""


@dataclass(frozen=True)
class NFKD(_UnicodeForm):
    """Decomposed, without differences of mere appearance."""
