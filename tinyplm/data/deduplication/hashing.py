"""Hashes of texts that are the same in every process, and the forms in which texts are compared.

Python's own hash() differs from process to process.  BLAKE2b (RFC 7693) does not, and cuts to any
number of bits b: among n different texts some two have the same hash with probability below
n^2 / 2^(b + 1), which is 3e-8 for a million texts at 64 bits and 2e-21 for a billion at 128.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b

import numpy as np
import regex

LARGEST_PART = 1 << 21  # hashes that are sorted together
_DROPPED = regex.compile(r"[\p{P}\p{Mn}]+")
_DIGIT = regex.compile(r"\d")


def _spaces(text: str) -> str:
    return " ".join(text.split())


def _ccnet(text: str) -> str:
    text = text.lower()
    if not text.isascii():
        text = unicodedata.normalize("NFD", text)
    return _spaces(_DIGIT.sub("0", _DROPPED.sub("", text)))


# none     the text as it is
# spaces   runs of white space as one space, none at the ends
# ccnet    also in lower case, digits as 0, without punctuation and accents (Wenzek et al. 2020,
#          "CCNet", sec. 3.1)
FORMS: dict[str, Callable[[str], str]] = {"none": str, "spaces": _spaces, "ccnet": _ccnet}


def encoded(text: str) -> bytes:
    """UTF-8, and lone surrogates as they are."""
    return text.encode("utf-8", "surrogatepass")


def hashes(texts: Iterable[str], bits: int) -> np.ndarray:
    """texts (n) -> (n * bits / 64,) uint64: one or two numbers a text."""
    size = bits // 8
    joined = b"".join(blake2b(encoded(text), digest_size=size).digest() for text in texts)
    return np.frombuffer(joined, "<u8").astype(np.uint64)


def repeats(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Where hashes (n, numbers) occur again: pairs (later places, the first place of each).

    hashes may be memory-mapped.  They are sorted in parts, by their remainder, so that memory holds
    at most about LARGEST_PART of them.
    """
    parts = -(-len(hashes) // LARGEST_PART)
    for part in range(parts):
        places = _places(hashes[:, 0], part, parts)
        rows = hashes[places]
        order = np.lexsort(rows.T[::-1])  # stable: equal rows stay in the order of the corpus
        rows, places = rows[order], places[order]
        new = np.ones(len(rows), bool)
        new[1:] = (rows[1:] != rows[:-1]).any(1)
        first = np.maximum.accumulate(np.where(new, np.arange(len(rows)), 0))
        yield places[~new], places[first[~new]]


def _places(hashes: np.ndarray, part: int, parts: int) -> np.ndarray:
    """The places of the hashes with remainder `part`."""
    found = [
        start + np.flatnonzero(hashes[start : start + LARGEST_PART] % np.uint64(parts) == part)
        for start in range(0, len(hashes), LARGEST_PART)
    ]
    return np.concatenate(found)
