"""What a step did: documents and bytes in and out, counts by reason, a few examples."""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
from collections import Counter
from typing import Any

from .step import Counts, Document

EXAMPLES = 3  # of each reason
EXCERPT = 240  # characters
LEAD = 40  # of these before the first difference


@dataclasses.dataclass
class Tally:
    """Of one step, over some documents; `add` joins those of two parts of a corpus.

    changes: {what: how often} of documents that went on; drops: {why: documents}.
    examples: {reason: [(hash of the document's name, example)]}, those with the lowest hashes, so
    that they do not depend on how the corpus was cut.
    """

    name: str
    documents_in: int = 0
    documents_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    changed: int = 0
    changes: Counts = dataclasses.field(default_factory=dict)
    drops: Counts = dataclasses.field(default_factory=dict)
    examples: dict[str, list[tuple[str, dict[str, Any]]]] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0

    def note(self, before: Document | None, after: Document | None, counts: Counts) -> None:
        """Add the reasons for a document that was changed or dropped.  before: None if unread."""
        kept = after is not None
        into = self.changes if kept else self.drops
        for reason, count in counts.items():
            into[reason] = into.get(reason, 0) + count
        self.changed += kept and after is not before
        name = before.name if before is not None else ""
        key = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        for reason in counts:
            held = self.examples.setdefault(reason, [])
            if before is None or (len(held) == EXAMPLES and key >= held[-1][0]):
                continue
            held.append((key, example(before, after)))
            held.sort(key=lambda item: item[0])
            del held[EXAMPLES:]

    def unread(self, name: str, counts: Counts) -> None:
        """Add a document that could not be read; named even without its text."""
        self.note(Document("", name), None, counts)

    def add(self, other: Tally) -> None:
        for field in ("documents_in", "documents_out", "bytes_in", "bytes_out", "changed"):
            setattr(self, field, getattr(self, field) + getattr(other, field))
        self.seconds += other.seconds
        self.changes = dict(Counter(self.changes) + Counter(other.changes))
        self.drops = dict(Counter(self.drops) + Counter(other.drops))
        for reason, theirs in other.examples.items():
            both = [*self.examples.get(reason, ()), *((key, found) for key, found in theirs)]
            self.examples[reason] = heapq.nsmallest(EXAMPLES, both, key=lambda item: item[0])

    def as_json(self) -> dict[str, Any]:
        """Without the time and the hashes: the same whenever the run is repeated."""
        found = {
            "step": self.name,
            "documents_in": self.documents_in,
            "documents_out": self.documents_out,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "documents_changed": self.changed,
            "changes": dict(sorted(self.changes.items())),
            "drops": dict(sorted(self.drops.items())),
        }
        examples = {
            reason: [shown for _, shown in held]
            for reason, held in sorted(self.examples.items())
            if held
        }
        return {**found, "examples": examples}


def example(before: Document, after: Document | None) -> dict[str, Any]:
    """Where the text first differs, or the beginning of one that was dropped."""
    if after is None:
        return {"document": before.name, "before": before.text[:EXCERPT], "after": None}
    start = max(0, common(before.text, after.text) - LEAD)
    end = start + EXCERPT
    return {
        "document": before.name,
        "before": before.text[start:end],
        "after": after.text[start:end],
    }


def common(a: str, b: str) -> int:
    """How many characters they have in common at the beginning."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def size(text: str) -> int:
    """In bytes of UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
