"""Near duplicates by MinHash and locality-sensitive hashing, from documents to decisions.

    document -> shingles -> signature of k numbers      for each document on its own: `read`
    signatures -> b bands -> candidate pairs -> those similar enough -> clusters           `decide`

Of a cluster the first document in the order of the corpus is kept.  Clusters are transitive: a
document may be dropped for a chain of similar ones.  `decide` goes band by band and holds a few
numbers a document; the signatures may be memory-mapped.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ...arguments import check_choice, check_key, check_number, check_whole, mismatch
from ..pipeline.step import CorpusStep, Document, Ragged, Result
from .clusters import join, singletons
from .exact import KEPT
from .hashing import FORMS
from .lsh import band_keys, best_bands, candidate_pairs
from .shingling import as_set, check_shingles, jaccard, shingle_hashes
from .signatures import MOST_PERMUTATIONS, estimate, hash_functions, signature

VERIFY = ("signatures", "shingles", "none")
LARGEST_BUCKET = 200  # documents; see candidate_pairs
PAIRS = 4096  # whose signatures are compared together


def minhash(
    *,
    unit: str = "words",
    width: int = 5,
    normalize: str = "ccnet",
    permutations: int = 128,
    threshold: float = 0.8,
    bands: int | None = None,
    rows: int | None = None,
    verify: str = "signatures",
    seed: int = 0,
) -> CorpusStep:
    """Drop documents that are similar to an earlier one.

    unit, width, normalize: the shingles (shingling.py). permutations: k, numbers of a signature.
    threshold: the Jaccard similarity from which documents are duplicates; it chooses bands and
    rows (lsh.py) where these are not given. verify: accept a candidate pair if at least
    `threshold` is the similarity estimated from all k numbers ("signatures"), or the true one of
    the shingles ("shingles": signatures also hold the hash of each shingle); "none": every pair.
    In a bucket of more than LARGEST_BUCKET documents each is compared with as many that follow it.
    A decision is the number of the document that is kept instead, or -1. Blank documents stay.
    """
    check_shingles(unit, width, normalize)
    check_whole("permutations", permutations, 1, MOST_PERMUTATIONS)
    check_number("threshold", threshold, above=0, below=1)
    check_choice("verify", verify, VERIFY)
    check_key("seed", seed)
    if (bands is None) != (rows is None):
        raise mismatch("bands, rows", "both or neither", f"{bands}, {rows}")
    if bands is None or rows is None:
        bands, rows = best_bands(threshold, permutations)
    check_whole("bands", bands, 1, MOST_PERMUTATIONS)
    check_whole("rows", rows, 1, MOST_PERMUTATIONS)
    if bands * rows > permutations:
        raise mismatch("bands * rows", f"at most {permutations} permutations", bands * rows)
    return MinHash(unit, width, normalize, permutations, threshold, bands, rows, verify, seed)


@dataclasses.dataclass(frozen=True)
class MinHash:
    """The step that `minhash` makes, from checked settings."""

    unit: str
    width: int
    normalize: str
    permutations: int
    threshold: float
    bands: int
    rows: int
    verify: str
    seed: int
    functions: np.ndarray = dataclasses.field(init=False, repr=False, compare=False)
    dtype = np.dtype(np.uint32)

    def __post_init__(self) -> None:
        object.__setattr__(self, "functions", hash_functions(self.permutations, self.seed))

    def read(self, document: Document) -> np.ndarray:
        """The signature (k,), and after it the shingles if they verify; (0,) of a blank text."""
        found = shingle_hashes(FORMS[self.normalize](document.text), self.unit, self.width)
        if not len(found):
            return found
        numbers = signature(found, self.functions)
        return np.concatenate([numbers, as_set(found)]) if self.verify == "shingles" else numbers

    def decide(self, signatures: Ragged) -> Any:
        numbers = np.flatnonzero(np.diff(signatures.offsets))  # of the documents that are not blank
        clusters = singletons(len(numbers))
        most = 1 if self.verify == "none" else LARGEST_BUCKET  # neighbours join the whole bucket
        for band in range(self.bands):
            keys = band_keys(signatures, numbers, band, self.rows, self.seed)
            for left, right in candidate_pairs(keys, clusters, most):
                open_ = clusters[left] != clusters[right]
                left, right = left[open_], right[open_]
                similar = self._similar(signatures, numbers[left], numbers[right])
                join(clusters, left[similar], right[similar])
        decisions = np.full(len(signatures), KEPT)
        later = np.flatnonzero(clusters != singletons(len(numbers)))
        decisions[numbers[later]] = numbers[clusters[later]]
        return decisions

    def apply(self, document: Document, decision: Any) -> Result:
        if decision == KEPT:
            return document, {}
        return None, {"near duplicates of an earlier document": 1}

    def _similar(self, signatures: Ragged, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Which of these pairs of documents are similar enough: (pairs,) bool."""
        similar = np.ones(len(left), bool)
        if self.verify == "shingles":
            k = self.permutations
            for i, (a, b) in enumerate(zip(left, right)):
                similar[i] = jaccard(signatures[a][k:], signatures[b][k:]) >= self.threshold
        elif self.verify == "signatures":
            columns = np.arange(self.permutations)
            values, offsets = signatures.values, signatures.offsets
            for start in range(0, len(left), PAIRS):
                here = slice(start, start + PAIRS)
                a, b = (values[offsets[side[here], None] + columns] for side in (left, right))
                similar[here] = estimate(a, b) >= self.threshold
        return similar
