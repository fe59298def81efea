"""Shingles: the set of all runs of w words or characters in a text, as 32-bit hashes.

    S(text) = { (x_i, ..., x_{i+w-1}) : i = 0 ... n - w }                     Broder 1997, sec. 2
    J(A, B) = |A & B| / |A | B|, the Jaccard similarity ("resemblance")

With h a 64-bit hash of a word or character and an odd base g, a run has the upper 32 bits of

    h(x_i) g^(w-1) + ... + h(x_{i+w-2}) g + h(x_{i+w-1})   mod 2^64,

computed for all runs at once by w products and sums of arrays; NumPy's unsigned integers wrap
around, which is the modulus.  Two sets of m and n runs share m n / 2^32 of them by chance.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from ...arguments import check_choice, check_text, check_whole
from ...random import fold, key
from .hashing import FORMS, encoded

UNITS = ("words", "characters")
WIDEST = 1000
LONGEST_WORD, MOST_WORDS = 40, 1 << 18  # characters, entries: of words whose hash is remembered
_BASE = np.uint64(0x9E3779B97F4A7C15)
_CHARACTERS = key(0x5418)  # arbitrary


def check_shingles(unit: object, width: object, normalize: object) -> None:
    check_choice("unit", unit, UNITS)
    check_whole("width", width, 1, WIDEST)
    check_choice("normalize", normalize, FORMS)


def shingles(
    text: str, *, unit: str = "words", width: int = 5, normalize: str = "ccnet"
) -> np.ndarray:
    """The set of runs of `width` words (between white space) or characters: (n,) uint32, sorted.

    A shorter text has one shingle, all of it; an empty one has none.
    """
    check_text("text", text)
    check_shingles(unit, width, normalize)
    return as_set(shingle_hashes(FORMS[normalize](text), unit, width))


def shingle_hashes(text: str, unit: str, width: int) -> np.ndarray:
    """The hashes of all runs of a text in order, repeated ones too: (n,) uint32."""
    h = word_hashes(text.split()) if unit == "words" else character_hashes(text)
    return (run_hashes(h, min(width, len(h))) >> np.uint64(32)).astype(np.uint32)


def run_hashes(h: np.ndarray, width: int) -> np.ndarray:
    """The sums above before the shift: h (n,) uint64 -> (n - width + 1,) uint64, at least none."""
    count = max(len(h) - width + 1, 0) if width else 0
    runs = h[:count].copy()
    for i in range(1, width):
        runs *= _BASE
        runs += h[i : i + count]
    return runs


def as_set(values: np.ndarray) -> np.ndarray:
    """Sorted, each once."""
    values = np.sort(values)
    new = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=new[1:])
    return values[new]


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """|A & B| / |A | B| of two sorted sets; 0 for two empty ones."""
    both = np.sort(np.concatenate([a, b]))
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / max(len(both) - shared, 1)


class _Remembered(dict):
    """word -> hash.  Most words of a text are few and common."""

    def __missing__(self, word: str) -> int:
        digest = blake2b(encoded(word), digest_size=8).digest()
        value = int.from_bytes(digest, "little")
        if len(word) <= LONGEST_WORD:
            if len(self) >= MOST_WORDS:
                self.clear()
            self[word] = value
        return value


_remembered = _Remembered()


def word_hashes(words: list[str]) -> np.ndarray:
    """(n,) uint64."""
    return np.fromiter(map(_remembered.__getitem__, words), np.uint64, len(words))


def character_hashes(text: str) -> np.ndarray:
    """(n,) uint64."""
    return fold(_CHARACTERS, np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4"))
