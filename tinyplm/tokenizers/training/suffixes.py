"""All substrings of many words, from a suffix array.

Manber & Myers 1993; Abouelhoda, Kurtz & Ohlebusch 2004.

Sort the suffixes of a text.  Suffixes with a common prefix are then adjacent, so a substring is an
interval of the sorted list.  Let common[i] be the length of the longest common prefix of suffixes i
- 1 and i, within their words.  A maximal interval with common >= d everywhere and = d somewhere is
a substring of length d that cannot be extended without losing occurrences: an inner node of the
suffix tree.  A suffix that shares less with both neighbours than the rest of its word occurs once,
and ends with the word: a leaf.  For substrings of at most m characters, it is enough to compare m +
1 characters.
"""

from __future__ import annotations

import numpy as np


def substrings(
    codes: np.ndarray, longest: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All substrings of 2 to `longest` characters within a word that cannot be extended without
    losing occurrences.

    codes: the code points of the words, with a 0 after each.  A substring cannot be extended where
    a word ends, or where different characters follow its occurrences.

    Returns the suffix array, in which suffixes that agree in all compared characters are in any
    order, and for each substring its interval in the array (first, last + 1) and its length.
    """
    n = len(codes)
    # ranks[k] orders the suffixes by their first 2^k characters.
    ranks = [np.unique(codes, return_inverse=True)[1].astype(np.int64)]
    while 2 ** len(ranks) < longest + 2:
        ranks.append(np.unique(_doubled(ranks), return_inverse=True)[1])
    suffixes = np.argsort(_doubled(ranks), kind="stable")

    # The common prefix length, up to 2^len(ranks) - 1 > longest, from matching powers of two, the
    # greatest first.
    common = np.zeros(n + 1, dtype=np.int64)
    left, right = suffixes[:-1].copy(), suffixes[1:].copy()
    for k in range(len(ranks) - 1, -1, -1):
        inside = (left < n) & (right < n)
        same = inside & (ranks[k][np.minimum(left, n - 1)] == ranks[k][np.minimum(right, n - 1)])
        common[1:-1] += same * 2**k
        left += same * 2**k
        right += same * 2**k

    zeros = np.flatnonzero(codes == 0)
    # The number of characters from each suffix to the end of its word.
    room = (zeros[np.searchsorted(zeros, np.arange(n))] - np.arange(n))[suffixes]
    common[1:-1] = np.minimum(common[1:-1], np.minimum(room[:-1], room[1:]))
    found = []
    for length in range(2, longest + 1):
        # common[0] = common[n] = 0 are walls; an interval is a run with common >= length, and the
        # place before it.
        edges = np.flatnonzero(np.diff((common >= length).astype(np.int8)))
        first, last = edges[::2], edges[1::2] + 1
        exact = np.concatenate([[0], np.cumsum(common == length)])
        inner = exact[last] > exact[first + 1]
        leaf = np.flatnonzero((room == length) & (common[:-1] < length) & (common[1:] < length))
        first, last = np.concatenate([first[inner], leaf]), np.concatenate([last[inner], leaf + 1])
        found.append((first, last, np.full(len(first), length)))
    if not found:
        found = [(np.zeros(0, dtype=np.int64),) * 3]
    columns = [np.concatenate(part) for part in zip(*found)]
    return suffixes, columns[0], columns[1], columns[2]


def _doubled(ranks: list[np.ndarray]) -> np.ndarray:
    """Prefix doubling: order by twice as many characters, through pairs (rank here, rank where
    those end)."""
    rank, step = ranks[-1], 2 ** (len(ranks) - 1)
    past_the_end = np.zeros(min(step, len(rank)), dtype=np.int64)
    following = np.concatenate([rank[step:] + 1, past_the_end])
    return rank * (len(rank) + 1) + following
