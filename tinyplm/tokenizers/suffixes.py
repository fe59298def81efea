"""Substrings that occur more than once, from a suffix array.       Manber & Myers 1993; Abouelhoda, Kurtz & Ohlebusch 2004

Sort the suffixes of a text.  Suffixes that begin with the same substring are neighbours then, and a substring is an interval
of the sorted list.  Let lcp[i] be the length of the common prefix of suffixes i - 1 and i.  A maximal interval within which
lcp >= d everywhere, and = d somewhere, is a substring of length d that cannot be made longer without losing occurrences: an
inner node of the suffix tree.  With substrings of at most m characters in view, it is enough to compare m + 1 characters.
"""

from __future__ import annotations

import numpy as np


def repeated_substrings(codes: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Substrings of 2 to `longest` characters that occur at least twice and are followed by at least two different characters.

    codes: the text's code points; it ends with a 0, and substrings with a 0 in them are left out.
    Returns the suffix array, suffixes that agree in all that is compared being in any order, and for each substring its
    interval in it (first, last + 1) and its length.
    """
    n = len(codes)
    # ranks[k] orders the suffixes by their first 2^k characters
    ranks = [np.unique(codes, return_inverse=True)[1].astype(np.int64)]
    while 2 ** len(ranks) < longest + 2:
        ranks.append(np.unique(_doubled(ranks), return_inverse=True)[1])
    suffixes = np.argsort(_doubled(ranks), kind="stable")

    # lcp, up to 2^(number of ranks) - 1 > longest: the powers of two that agree, the greatest first, make it up
    common = np.zeros(n + 1, dtype=np.int64)
    left, right = suffixes[:-1].copy(), suffixes[1:].copy()
    for k in range(len(ranks) - 1, -1, -1):
        inside = (left < n) & (right < n)
        same = inside & (ranks[k][np.minimum(left, n - 1)] == ranks[k][np.minimum(right, n - 1)])
        common[1:-1] += same * 2**k
        left += same * 2**k
        right += same * 2**k

    zeros = np.flatnonzero(codes == 0)
    room = zeros[np.searchsorted(zeros, np.arange(n))] - np.arange(n)  # characters until the next 0
    found = []
    for length in range(2, longest + 1):
        # common[0] = common[n] = 0 are walls; an interval is a run of places with common >= length, and the one before
        edges = np.flatnonzero(np.diff((common >= length).astype(np.int8)))
        first, last = edges[::2], edges[1::2] + 1
        exact = np.concatenate([[0], np.cumsum(common == length)])
        kept = (exact[last] > exact[first + 1]) & (room[suffixes[first]] >= length)
        found.append((first[kept], last[kept], np.full(kept.sum(), length)))
    if not found:
        found = [(np.zeros(0, dtype=np.int64),) * 3]
    first, last, length = (np.concatenate(part) for part in zip(*found))
    return suffixes, first, last, length


def _doubled(ranks: list[np.ndarray]) -> np.ndarray:
    """Prefix doubling: an order by twice as many characters is that by the pairs (rank here, rank where those end)."""
    rank, step = ranks[-1], 2 ** (len(ranks) - 1)
    following = np.concatenate([rank[step:] + 1, np.zeros(min(step, len(rank)), dtype=np.int64)])  # 0: the text has ended
    return rank * (len(rank) + 1) + following
