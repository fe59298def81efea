"""What a step of the corpus pipeline is: a function of one document, or of one after all.

A step of one document      document, counts = step(document)
    document: as it goes on, or None where it is dropped
    counts: {what: how often}, such as {"mail addresses masked": 2}; of a dropped document, why:
    {"fewer than 50 words": 1}.  A document that passes untouched has no counts.

A step of the whole corpus  for what only all documents together decide, such as duplicates:

    signature = step.read(document)               a 1-D array, for each document on its own
    decisions = step.decide(Ragged(signatures))   one for each document, in the order of the corpus
    document, counts = step.apply(document, decisions[i])

`read` and `apply` run in many processes.  `decide` runs in one; it sees the signatures alone, which
may lie on disk, and gives the same decisions for any number of processes, since their order is that
of the corpus.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

Counts = dict[str, int]


class Document(NamedTuple):
    """A text and where it comes from."""

    text: str
    name: str  # the file, and the line or number in it: "web.jsonl:12"
    fields: Mapping[str, Any] = {}  # the other fields of its line in a JSON file


Result = tuple[Document | None, Counts]
Step = Callable[[Document], Result]


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Arrays of different lengths one after another: [i] is values[offsets[i]: offsets[i + 1]].

    values: (total,); offsets: (n + 1,) int64, from 0 to total.  Both may be memory-mapped.
    """

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    @classmethod
    def of(cls, arrays: Iterable[np.ndarray], dtype: Any) -> Ragged:
        """From arrays in memory."""
        some = [np.asarray(array, dtype) for array in arrays]
        ends = np.cumsum([0, *map(len, some)], dtype=np.int64)
        return cls(np.concatenate([np.empty(0, dtype), *some]), ends)


class CorpusStep(Protocol):
    """A step of the whole corpus; see the top of this module."""

    dtype: np.dtype  # of the signatures

    def read(self, document: Document) -> np.ndarray: ...

    def decide(self, signatures: Ragged) -> Sequence[Any]: ...

    def apply(self, document: Document, decision: Any) -> Result: ...
