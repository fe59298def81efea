"""A text as the counts of its words and pairs of neighbouring words, hashed into buckets."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np

from ...arguments import check_text, check_whole

# a run of letters, digits and _; each character on its own where words are not separated
_WORD = re.compile(r"[぀-ヿ㐀-鿿]|[^\W぀-ヿ㐀-鿿]+")
LONGEST_TEXT = 100_000  # characters of a text that are looked at, from its start
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def text_words(text: str) -> list[str]:
    """The words of a text in lower case; Chinese and Japanese characters one by one."""
    check_text("text", text)
    return _WORD.findall(text[:LONGEST_TEXT].lower())


def text_features(text: str, *, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """(buckets, values), both (N,), buckets ascending: int64 in [0, 2^bits), values float32.

    Each word and each pair of neighbouring words falls into the bucket of its hash; a value is the
    count c of its bucket over sqrt(sum c^2), so that the length of a text does not matter.   The
    hashing trick of Weinberger et al. 2009, without signs.
    """
    check_whole("bits", bits, 1, 24)
    words = [zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in text_words(text)]
    one = _mixed(np.array(words, np.uint64) + np.uint64(1))
    two = _mixed(one[:-1] + np.array(words[1:], np.uint64)) if len(one) > 1 else one[:0]
    hashes = np.concatenate([one, two]) >> np.uint64(64 - bits)
    buckets, counts = np.unique(hashes.astype(np.int64), return_counts=True)
    norm = np.sqrt((counts.astype(np.float64) ** 2).sum())
    return buckets, (counts / norm).astype(np.float32) if len(counts) else np.empty(0, np.float32)


def padded(rows: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """(ids, weights), both (B, longest row, at least 1): bucket 0 with weight 0 after the end."""
    longest = max([1, *(len(buckets) for buckets, _ in rows)])
    ids = np.zeros((len(rows), longest), np.int64)
    weights = np.zeros((len(rows), longest), np.float32)
    for i, (buckets, values) in enumerate(rows):
        ids[i, : len(buckets)], weights[i, : len(values)] = buckets, values
    return ids, weights


def _mixed(h: np.ndarray) -> np.ndarray:
    """SplitMix64's first half: every bit of the sum reaches the upper ones."""
    h = h * _MULTIPLIER
    h ^= h >> np.uint64(32)
    return h * _MULTIPLIER
