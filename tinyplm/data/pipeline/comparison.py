"""Two corpora beside one another: sizes, lengths, words, and documents that both have.

Memory holds 8 bytes for each document, and counts of at most MOST different words and pairs; where
there are more, those seen once are forgotten, which the result says.
"""

from __future__ import annotations

import dataclasses
import math
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...arguments import check_text, check_whole, known_arguments
from ..cleaning.words import words_of
from ..deduplication.hashing import FORMS, hashes
from .readers import LONGEST, read
from .sources import files_of, shards_of
from .step import Document
from .tally import size

MOST = 1 << 20  # different words, and pairs of words, in memory
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
FREQUENT = 10_000  # the words whose overlap is told
Inputs = str | os.PathLike | Sequence[str | os.PathLike]


@dataclasses.dataclass
class Measured:
    """A corpus in numbers."""

    documents: int = 0
    unread: int = 0
    bytes: int = 0
    characters: int = 0
    words: int = 0
    lengths: array = dataclasses.field(default_factory=lambda: array("q"))  # words of a document
    hashes: array = dataclasses.field(default_factory=lambda: array("Q"))
    counts: dict[str, Counter] = dataclasses.field(
        default_factory=lambda: {"words": Counter(), "pairs": Counter()}
    )
    forgotten: dict[str, int] = dataclasses.field(default_factory=dict)
    languages: Counter = dataclasses.field(default_factory=Counter)
    quality: array = dataclasses.field(default_factory=lambda: array("d"))

    def add(self, document: Document) -> None:
        text = document.text
        words = words_of(text).words
        self.documents += 1
        self.bytes += size(text)
        self.characters += len(text)
        self.words += len(words)
        self.lengths.append(len(words))
        self.hashes.append(int(hashes([FORMS["spaces"](text)], 64)[0]))
        self._count("words", words)
        self._count("pairs", zip(words, words[1:]))
        if isinstance(language := document.fields.get("language"), str):
            self.languages[language] += 1
        if isinstance(quality := document.fields.get("quality"), (int, float)):
            self.quality.append(quality)

    def _count(self, what: str, found: Any) -> None:
        counter = self.counts[what]
        counter.update(found)
        least = 1
        while len(counter) > MOST:
            kept = Counter({key: n for key, n in counter.items() if n > least})
            gone = counter.total() - kept.total()
            self.forgotten[what] = self.forgotten.get(what, 0) + gone
            self.counts[what] = counter = kept
            least += 1

    def as_json(self) -> dict[str, Any]:
        lengths = np.frombuffer(self.lengths, np.int64) if self.lengths else np.zeros(1, np.int64)
        found = {
            "documents": self.documents,
            "unread": self.unread,
            "bytes": self.bytes,
            "characters": self.characters,
            "words": self.words,
            "different_words": len(self.counts["words"]),
            "copies": self.documents - len(set(self.hashes)),
            "words_of_a_document": {f"{q:.0%}": float(np.quantile(lengths, q)) for q in QUANTILES},
            "forgotten": self.forgotten,
        }
        if self.languages:
            found["languages"] = dict(self.languages.most_common())
        if self.quality:
            found["quality"] = float(np.mean(self.quality))
        return found


@dataclasses.dataclass(frozen=True)
class Comparison:
    """a and b; divergences in bits, from 0 (the same) to 1 (nothing in common)."""

    a: dict[str, Any]
    b: dict[str, Any]
    shared: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def lines(self) -> list[tuple[str, str, str]]:
        """Cells of a table."""
        found = [("", "A", "B")]
        for name in ("documents", "unread", "bytes", "words", "different_words", "copies"):
            found.append((name.replace("_", " "), f"{self.a[name]:,}", f"{self.b[name]:,}"))
        for q in self.a["words_of_a_document"]:
            cells = (f"{c['words_of_a_document'][q]:,.0f}" for c in (self.a, self.b))
            found.append((f"words of a document, {q}", *cells))  # type: ignore[arg-type]
        languages = {**self.a.get("languages", {}), **self.b.get("languages", {})}
        for language in languages:
            cells = (f"{c.get('languages', {}).get(language, 0):,}" for c in (self.a, self.b))
            found.append((f"language {language}", *cells))  # type: ignore[arg-type]
        if "quality" in self.a and "quality" in self.b:
            found.append(("quality", f"{self.a['quality']:.3f}", f"{self.b['quality']:.3f}"))
        for name, value in self.shared.items():
            shown = f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
            found.append((name.replace("_", " "), shown, ""))
        return found


@known_arguments
def compare_corpora(
    a: Inputs, b: Inputs, *, field: str = "text", longest: int = LONGEST
) -> Comparison:
    """What two corpora have and share; each is a file, folder or pattern, or several.

    shared: documents of B that A has, too, apart from white space; the share of the FREQUENT
    most frequent words that both have (intersection over union); the Jensen-Shannon divergence of
    words and of pairs of words, in bits.
    """
    check_text("field", field, empty=False)
    check_whole("longest", longest, 1, 1 << 34)
    files = [files_of(inputs) for inputs in (a, b)]
    first, second = (_measure(found, field, longest) for found in files)
    tops = [{w for w, _ in m.counts["words"].most_common(FREQUENT)} for m in (first, second)]
    both = tops[0] | tops[1]
    known = set(first.hashes)
    shared = {
        "documents_of_B_in_A": sum(found in known for found in second.hashes),
        "overlap_of_frequent_words": len(tops[0] & tops[1]) / len(both) if both else 0.0,
        "divergence_of_words": divergence(first.counts["words"], second.counts["words"]),
        "divergence_of_pairs": divergence(first.counts["pairs"], second.counts["pairs"]),
    }
    return Comparison(first.as_json(), second.as_json(), shared)


def _measure(files: Sequence[str], field: str, longest: int) -> Measured:
    found = Measured()
    for document in _documents(files, field, longest):
        if document is None:
            found.unread += 1
        else:
            found.add(document)
    return found


def _documents(files: Sequence[str], field: str, longest: int) -> Iterator[Document | None]:
    for part in (part for shard in shards_of(files)[1] for part in shard):
        for _, document, _ in read(part, field=field, longest=longest):
            yield document


def divergence(p: Counter, q: Counter) -> float:
    """Jensen-Shannon, in bits: (KL(p, m) + KL(q, m)) / 2 with m = (p + q) / 2.  Counts; the order
    of their keys has no influence.  0 if both are empty, 1 if one is."""
    P, Q = p.total(), q.total()
    if not P or not Q:
        return float(P != Q)
    found = []
    for mine, total, other, others in ((p, P, q, Q), (q, Q, p, P)):
        for key, count in mine.items():
            share = count / total
            middle = (share + other.get(key, 0) / others) / 2
            found.append(share * math.log2(share / middle))
    return max(0.0, math.fsum(found) / 2)
