"""The character n-grams of a text, hashed to numbers of buckets, all at once."""

from __future__ import annotations

import re

import numpy as np

from ...arguments import check_text, check_whole
from .scripts import code_points

_NOT_LETTERS = re.compile(r"[\W\d_]+")
_MULTIPLIER = np.uint32(0x9E3779B1)  # 2^32 / golden ratio, Knuth's multiplicative hashing


def normalized(text: str) -> str:
    """Lower case, with one space for all that stands between two words, and at both ends."""
    return f" {_NOT_LETTERS.sub(' ', text).strip().lower()} "


def character_ngrams(text: str, *, longest: int, bits: int) -> np.ndarray:
    """The buckets of all n-grams of 1 to `longest` characters of the normalised text.

    -> (M,) int64 in [0, 2^bits), those of one character first; M = sum_n (length - n + 1) without
    the n-grams of a single space.   With c the code points, h_1 = mix(c_i), h_n = mix(h_{n-1} of
    the n-gram without its last character + its code point); the bucket is the top `bits` of h_n.
    """
    check_text("text", text)
    check_whole("longest", longest, 1, 8)
    check_whole("bits", bits, 1, 24)
    codes = code_points(normalized(text))
    found = []
    h = np.zeros(len(codes), np.uint32)
    for n in range(1, min(longest, len(codes)) + 1):
        h = h[: len(codes) - n + 1] + codes[n - 1 :] + np.uint32(1)
        h ^= h >> np.uint32(15)
        h *= _MULTIPLIER
        found.append(h[codes != ord(" ")] if n == 1 else h)
    buckets = np.concatenate(found) >> np.uint32(32 - bits)
    return buckets.astype(np.int64)
