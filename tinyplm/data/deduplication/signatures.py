"""MinHash: k numbers from which the Jaccard similarity of two sets can be estimated.

    sig_i(S) = min over x in S of h_i(x),    i = 1 ... k
    P(sig_i(A) = sig_i(B)) = J(A, B)                         Broder 1997, sec. 3
    J^ = mean of [sig_i(A) = sig_i(B)],      standard error sqrt(J (1 - J) / k)

since of a random order of A | B the first element lies in A & B with probability J.  The orders are
those of hash functions from 32 to 32 bits, by multiplication, addition and shift,

    h_i(x) = ((a_i x + b_i) mod 2^64) >> 32,              Dietzfelbinger 1996; Thorup 2015, sec. 3.3

which are pairwise independent for a_i, b_i uniform in [0, 2^64).  That suffices here, as x are
hashes themselves (Mitzenmacher & Vadhan 2008).  Given the sets, the k comparisons are independent.
The shift keeps order, so it is taken of the minimum alone.
"""

from __future__ import annotations

import math

import numpy as np

from ...arguments import check_number, check_whole
from ...random import generator, key

MOST_PERMUTATIONS = 4096
_PIECE = 1024  # shingles whose k hashes are computed together, so that they stay in the cache


def hash_functions(count: int, seed: int) -> np.ndarray:
    """a and b of `count` hash functions: (2, count) uint64."""
    check_whole("count", count, 1, MOST_PERMUTATIONS)
    return generator(key(seed)).bit_generator.random_raw(2 * count).reshape(2, count)


def signature(shingles: np.ndarray, functions: np.ndarray) -> np.ndarray:
    """shingles (n,) uint32, n >= 1, functions (2, k) uint64 -> (k,) uint32."""
    a, b = functions[:, :, None]
    least = None
    for start in range(0, len(shingles), _PIECE):
        products = a * shingles[start : start + _PIECE].astype(np.uint64)  # mod 2^64, on purpose
        products += b
        here = products.min(1)
        least = here if least is None else np.minimum(least, here)
    if least is None:
        raise ValueError("shingles: expected at least one, got none")
    return (least >> np.uint64(32)).astype(np.uint32)


def estimate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """signatures (..., k) -> the share of equal numbers (...): J^."""
    return (a == b).mean(-1)


def standard_error(similarity: float, count: int) -> float:
    """sqrt(J (1 - J) / k): of the estimate from `count` numbers."""
    check_number("similarity", similarity, least=0, most=1)
    check_whole("count", count, 1, MOST_PERMUTATIONS)
    return math.sqrt(similarity * (1 - similarity) / count)
