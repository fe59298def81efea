"""Decontamination: text of test files is removed from the training corpus.

A gram is a run of n words, in lower case and without punctuation.  GPT-3 (Brown et al. 2020,
appendix C) looks for the 13-grams of all test sets, and from a document cuts out each that it
finds, with the 200 characters around it; pieces of fewer than 200 characters are dropped, and so is
a document in more than 10 pieces.  Grams found in more than 10 documents are ignored, as phrases in
common use.  A test text of fewer than n words is one gram, if it has at least SHORTEST_GRAM words
(GPT-3's n is between 8 and 13, by the lengths of a test set's examples).

Here grams are 64-bit hashes, the window lies on each side, and the pieces that remain are joined by
a blank line.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import regex

from ...arguments import MOST, check_choice, check_number, check_path, check_whole, listed, mismatch
from ...files import json_lines, printable, read_json, read_text
from ..pipeline.step import CorpusStep, Document, Ragged, Result
from .shingling import WIDEST, run_hashes, word_hashes

SHORTEST_GRAM = 8  # words of a test text that is shorter than n
ACTIONS = ("cut", "drop")
_WORD = re.compile(r"\S+")
_PUNCTUATION = regex.compile(r"\p{P}+")


def decontaminate(
    *,
    files: Sequence[str | os.PathLike],
    n: int = 13,
    action: str = "cut",
    window: int = 200,
    shortest_piece: int = 200,
    most_pieces: int = 10,
    most_documents: int | None = 10,
    share: float = 0.0,
) -> CorpusStep:
    """Remove what the corpus shares with test files.

    files: JSON lines (.jsonl), JSON (.json), of which every string counts, or text. n: words of a
    gram. action: "cut" it out with `window` characters on each side, keep pieces of at least
    `shortest_piece` and drop the document if there are more than `most_pieces` in all; or "drop"
    the document. most_documents: grams in more documents than this are ignored (None: none are).
    share: act only if at least this share of a document's n-grams occurs in the tests.
    The counts of a document say how many grams it shares with each file. A decision lists the grams
    to act on. ValueError naming a file that is missing, unreadable, or has no gram.
    """
    check_whole("n", n, 1, WIDEST)
    check_choice("action", action, ACTIONS)
    check_whole("window", window, 0, MOST)
    check_whole("shortest_piece", shortest_piece, 1, MOST)
    check_whole("most_pieces", most_pieces, 1, MOST)
    check_whole("most_documents", most_documents, 1, MOST, or_none=True)
    check_number("share", share, least=0, most=1)
    paths = listed("files", files, "a list of paths")
    for path in paths:
        check_path("files", path)
    if not paths:
        raise mismatch("files", "at least one path", "none")
    tests = _read(paths, n)
    return _Decontaminate(
        tests, n, action, window, shortest_piece, most_pieces, most_documents, float(share)
    )


def words_of(text: str) -> list[str]:
    """Its words in lower case without punctuation; what is punctuation alone is no word."""
    return _PUNCTUATION.sub("", text).lower().split()


def places_of_words(text: str) -> tuple[list[str], np.ndarray]:
    """The same words, and where each starts and ends in the text: (words, 2)."""
    words, places = [], []
    for match in _WORD.finditer(text):
        word = _PUNCTUATION.sub("", match.group()).lower()
        if word:
            words.append(word)
            places.append(match.span())
    return words, np.array(places, np.int64).reshape(-1, 2)


# ---- the grams of the tests


@dataclasses.dataclass(frozen=True)
class _Tests:
    """All grams of the test files, numbered by their lengths and then by their hashes."""

    names: tuple[str, ...]
    hashes: dict[int, np.ndarray]  # {length in words: (grams,) uint64, sorted}
    first: dict[int, int]  # {length: the number of its first gram}
    files: Ragged  # the files of each gram

    def numbers(self, h: np.ndarray, length: int) -> np.ndarray:
        """h: the hashes of a text's words -> for each run of `length` its number, or -1."""
        runs, known = run_hashes(h, length), self.hashes[length]
        at = np.minimum(np.searchsorted(known, runs), len(known) - 1)
        return np.where(known[at] == runs, self.first[length] + at, -1)


def _read(paths: list, n: int) -> _Tests:
    found: dict[int, list[tuple[np.ndarray, int]]] = {}
    for file, path in enumerate(paths):
        total = 0
        for text in _texts(path):
            h = word_hashes(words_of(text))
            length = min(n, len(h))
            if length >= min(n, SHORTEST_GRAM):
                found.setdefault(length, []).append((run_hashes(h, length), file))
                total += len(h) - length + 1
        if not total:
            raise mismatch(printable(path), f"a text of {min(n, SHORTEST_GRAM)} words", "none")
    hashes, first, files, total = {}, {}, [], 0
    for length in sorted(found):
        runs = np.concatenate([grams for grams, _ in found[length]])
        of = np.concatenate([np.full(len(grams), file) for grams, file in found[length]])
        hashes[length], at = np.unique(runs, return_inverse=True)
        first[length] = total
        total += len(hashes[length])
        files.append(np.unique(np.stack([at + first[length], of], 1), axis=0))
    pairs = np.concatenate(files)  # (gram, file), sorted
    offsets = np.searchsorted(pairs[:, 0], np.arange(total + 1))
    names = tuple(map(printable, paths))
    return _Tests(names, hashes, first, Ragged(pairs[:, 1].copy(), offsets))


def _texts(path: Any) -> Iterator[str]:
    suffix = Path(path).suffix.lower()
    if suffix == ".jsonl":
        for _, fields in json_lines(path):
            yield from _strings(fields)
    elif suffix == ".json":
        yield from _strings(read_json(path))
    else:
        yield read_text(path)


def _strings(value: Any) -> Iterator[str]:
    """All strings in a value of JSON, but for the names of fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


# ---- the step


@dataclasses.dataclass(frozen=True)
class _Decontaminate:
    tests: _Tests
    n: int
    action: str
    window: int
    shortest_piece: int
    most_pieces: int
    most_documents: int | None
    share: float
    dtype = np.dtype(np.uint32)

    def read(self, document: Document) -> np.ndarray:
        """The numbers of the grams found, each once."""
        h = word_hashes(words_of(document.text))
        found = [self.tests.numbers(h, length) for length in self.tests.hashes]
        numbers = np.unique(np.concatenate(found))
        return numbers[numbers >= 0].astype(np.uint32)

    def decide(self, signatures: Ragged) -> Any:
        if self.most_documents is None:
            return signatures
        found = np.bincount(signatures.values, minlength=1)  # documents of each gram
        rare = found[signatures.values] <= self.most_documents
        ends = np.concatenate([[0], np.cumsum(rare)])
        return Ragged(np.asarray(signatures.values)[rare], ends[signatures.offsets])

    def apply(self, document: Document, decision: Any) -> Result:
        if not len(decision):
            return document, {}
        words, places = places_of_words(document.text)
        h = word_hashes(words)
        cuts: list[tuple[int, int]] = []
        runs = np.zeros(0, bool)
        for length in self.tests.hashes:
            hit = np.isin(self.tests.numbers(h, length), decision)
            at = np.flatnonzero(hit)
            cuts += zip(places[at, 0], places[at + length - 1, 1])
            runs = hit if length == self.n else runs
        if self.share and not (len(runs) and runs.mean() >= self.share):
            return document, {}
        counts = self._counts(decision)
        text = self._remaining(document.text, cuts) if self.action == "cut" else ""
        return (document._replace(text=text) if text else None), counts

    def _counts(self, decision: np.ndarray) -> dict[str, int]:
        files = Counter(int(file) for gram in decision for file in self.tests.files[gram])
        return {f"grams of {self.tests.names[file]}": files[file] for file in sorted(files)}

    def _remaining(self, text: str, cuts: list) -> str:
        """The text without the cuts and the windows around them; empty if that leaves nothing."""
        pieces: list[str] = []
        end = 0
        for start, stop in sorted(cuts):
            if start - self.window > end or not pieces:
                pieces.append(text[end : max(start - self.window, 0)])
            end = max(end, stop + self.window)
        pieces.append(text[end:])
        if len(pieces) > self.most_pieces:
            return ""
        long = [piece.strip() for piece in pieces]
        return "\n\n".join(piece for piece in long if len(piece) >= self.shortest_piece)
