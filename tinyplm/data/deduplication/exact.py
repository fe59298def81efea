"""Exact duplicates: documents, paragraphs or lines that equal an earlier one.

A unit is dropped if its hash occurred before in the corpus, or earlier in its own document; the
first one stays.  Units are compared in a form (`normalize`, see hashing.py); what stays, stays as
it was written.  CCNet drops paragraphs so, by 64 bits of a hash (Wenzek et al. 2020, sec. 3.1), C4
spans of sentences (Raffel et al. 2020, sec. 2.2).
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import regex

from ...arguments import MOST, check_choice, check_whole
from ..pipeline.step import CorpusStep, Document, Ragged, Result
from .hashing import FORMS, hashes, repeats

KEPT = -1  # the decision on a document without an earlier copy
HASH = np.dtype(np.uint64)


class Unit(NamedTuple):
    """Parts of a document: where it is split, and what joins those that remain."""

    plural: str
    border: regex.Pattern
    joint: str


PARAGRAPHS = Unit("paragraphs", regex.compile(r"\n(?:[^\S\n]*\n)+"), "\n\n")
LINES = Unit("lines", regex.compile(r"\n"), "\n")


def exact_documents(*, normalize: str = "spaces", bits: int = 128) -> CorpusStep:
    """Drop documents that equal an earlier one.

    normalize: the form in which they are compared, "none", "spaces" or "ccnet"; bits: of a hash, 64
    or 128.  A decision is the number of the document that is kept instead, or -1.
    """
    _check(normalize, bits)
    return _Documents(normalize, bits)


def exact_paragraphs(*, normalize: str = "spaces", bits: int = 64, shortest: int = 1) -> CorpusStep:
    """Cut out paragraphs that occurred before, in this document or an earlier one.

    A paragraph is a block between blank lines; those with fewer than `shortest` characters
    (without white space at the ends) stay.  In a document that loses one, the others are joined by
    one blank line each.  A document without text left is dropped.  A decision has a flag for each
    paragraph that counts.
    """
    _check(normalize, bits)
    check_whole("shortest", shortest, 1, MOST)
    return _Parts(PARAGRAPHS, normalize, bits, shortest)


def exact_lines(*, normalize: str = "spaces", bits: int = 64, shortest: int = 1) -> CorpusStep:
    """The same by line."""
    _check(normalize, bits)
    check_whole("shortest", shortest, 1, MOST)
    return _Parts(LINES, normalize, bits, shortest)


def _check(normalize: Any, bits: Any) -> None:
    check_choice("normalize", normalize, FORMS)
    check_choice("bits", bits, (64, 128))


@dataclasses.dataclass(frozen=True)
class _Documents:
    normalize: str
    bits: int
    dtype = HASH

    def read(self, document: Document) -> np.ndarray:
        return hashes([FORMS[self.normalize](document.text)], self.bits)

    def decide(self, signatures: Ragged) -> Any:
        decisions = np.full(len(signatures), KEPT)
        for later, first in repeats(signatures.values.reshape(-1, self.bits // 64)):
            decisions[later] = first
        return decisions

    def apply(self, document: Document, decision: Any) -> Result:
        if decision == KEPT:
            return document, {}
        return None, {"copies of an earlier document": 1}


@dataclasses.dataclass(frozen=True)
class _Parts:
    unit: Unit
    normalize: str
    bits: int
    shortest: int
    dtype = HASH

    def read(self, document: Document) -> np.ndarray:
        form = FORMS[self.normalize]
        parts = self.unit.border.split(document.text)
        return hashes((form(part) for part in parts if self._counts(part)), self.bits)

    def decide(self, signatures: Ragged) -> Any:
        numbers = self.bits // 64
        rows = signatures.values.reshape(-1, numbers)
        repeated = np.zeros(len(rows), bool)
        for later, _ in repeats(rows):
            repeated[later] = True
        return Ragged(repeated, np.asarray(signatures.offsets) // numbers)

    def apply(self, document: Document, decision: Any) -> Result:
        if not decision.any():
            return document, {}
        flags = iter(decision)
        parts = self.unit.border.split(document.text)
        kept = [part for part in parts if not (self._counts(part) and next(flags))]
        text = self.unit.joint.join(kept)
        plural = self.unit.plural
        if not text.strip():
            return None, {f"only {plural} that occurred before": 1}
        return document._replace(text=text), {f"{plural} that occurred before": int(sum(decision))}

    def _counts(self, part: str) -> bool:
        return len(part.strip()) >= self.shortest
