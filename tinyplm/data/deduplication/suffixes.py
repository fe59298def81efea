"""Exact substrings: runs of at least n characters that occurred before are cut out.

Lee et al. 2022, "Deduplicating Training Data Makes Language Models Better", sec. 4.1, sort all
suffixes of the corpus and find runs of n characters or more that two neighbours share.  For that,
the order by the first n characters suffices.  Prefix doubling (Manber & Myers 1990, sec. 3; Karp,
Miller & Rosenberg 1972) gives it in log2(n) + 1 sorts:

    rank_1(i) = the rank of character i
    rank_2h(i) = the rank of (rank_h(i), rank_h(i + h))
    rank_n(i) = the rank of (rank_h(i), rank_h(i + n - h)),     h the largest power of two <= n

Two places have equal ranks rank_n if and only if their n characters are equal.  A maximal repeat of
m >= n characters shows as m - n + 1 such places in a row.

Removed are the characters of later occurrences, except where the first occurrence of a repeat
overlaps them.  So each run of n characters that repeats is still there once.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ...arguments import check_whole, mismatch
from ..pipeline.step import CorpusStep, Document, Ragged, Result

LARGEST_CORPUS = 1 << 24  # characters that are sorted at once, at about 40 bytes each


def substrings(*, shortest: int = 100) -> CorpusStep:
    """Cut out runs of at least `shortest` characters that occurred before.

    shortest: n >= 1, in characters (Lee et al.: 50 tokens, about 200 characters). A document
    without text left is dropped. A decision has a flag for each character.
    ValueError for a corpus of more than LARGEST_CORPUS characters, since it is sorted in memory.
    """
    check_whole("shortest", shortest, 1, LARGEST_CORPUS)
    return _Substrings(shortest)


def ranks(values: np.ndarray, length: int) -> np.ndarray:
    """values (N,) -> the rank of the `length` values from each place: (N - length + 1,) int32."""
    rank = _ranked(values)
    h = 1
    while 2 * h <= length:
        rank = _ranked(_pairs(rank, h))
        h *= 2
    return rank if h == length else _ranked(_pairs(rank, length - h))


def _pairs(rank: np.ndarray, h: int) -> np.ndarray:
    """(rank(i), rank(i + h)) in the upper and lower half of one number."""
    pairs = rank[: len(rank) - h].astype(np.int64)
    pairs <<= 32
    pairs |= rank[h:]
    return pairs


def _ranked(values: np.ndarray) -> np.ndarray:
    order = np.argsort(values)
    values = values[order]
    new = np.zeros(len(values), np.int32)
    np.not_equal(values[1:], values[:-1], out=new[1:], casting="unsafe")
    rank = np.empty(len(values), np.int32)
    rank[order] = np.cumsum(new, out=new)
    return rank


def repeated_characters(corpus: Ragged, length: int) -> np.ndarray:
    """Characters to remove: code points (N,) of all documents -> (N,) bool."""
    values, offsets = np.asarray(corpus.values), np.asarray(corpus.offsets)
    if len(values) > LARGEST_CORPUS:
        expected = f"at most {LARGEST_CORPUS:,} characters at once (shards, or a shorter corpus)"
        raise mismatch("substrings", expected, f"{len(values):,}")
    if len(values) < length:
        return np.zeros(len(values), bool)
    rank = ranks(values, length)
    ends = np.repeat(offsets[1:], np.diff(offsets))[: len(rank)]
    inside = np.flatnonzero(np.arange(len(rank)) + length <= ends)  # within one document
    pairs = np.sort(rank[inside].astype(np.int64) << 32 | inside)  # by rank, then by place
    rank, order = pairs >> 32, pairs & 0xFFFFFFFF
    same = rank[1:] == rank[:-1]
    later = order[1:][same]
    first = order[:-1][same & ~np.concatenate([[False], same[:-1]])]
    return _covered(later, length, len(values)) & ~_covered(first, length, len(values))


def _covered(starts: np.ndarray, length: int, total: int) -> np.ndarray:
    """The places within start ... start + length - 1 of any start: (total,) bool."""
    depth = np.zeros(total + 1, np.int32)
    depth[starts] += 1  # each start occurs once
    depth[starts + length] -= 1
    return np.cumsum(depth[:-1], out=depth[:-1]) > 0


@dataclasses.dataclass(frozen=True)
class _Substrings:
    shortest: int
    dtype = np.dtype(np.uint32)

    def read(self, document: Document) -> np.ndarray:
        return code_points(document.text)

    def decide(self, signatures: Ragged) -> Any:
        return Ragged(repeated_characters(signatures, self.shortest), signatures.offsets)

    def apply(self, document: Document, decision: Any) -> Result:
        if not decision.any():
            return document, {}
        kept = code_points(document.text)[~decision]
        text = kept.tobytes().decode("utf-32-le", "surrogatepass")
        if not text.strip():
            return None, {"only text that occurred before": 1}
        return document._replace(text=text), {"characters that occurred before": int(sum(decision))}


def code_points(text: str) -> np.ndarray:
    """text -> (n,) uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
