"""Byte-pair encoding: learning the merges, and applying them.          Sennrich et al. 2016, Algorithm 1
(after Gage 1994)

Learning: write every word of the corpus as a sequence of symbols; find the pair of neighbouring symbols that
is most frequent; replace it everywhere by a new symbol; repeat. Applying: in a new word, carry out the
earliest learned merge that fits, until none fits.

A symbol here is an id, and a word is a Python string with one character for each symbol, chr(id). "Replace
the pair by a new symbol" is then literally `word.replace(pair, new)`, and pairs of ids sort as strings of two
characters do. Nothing in this file knows what the symbols stand for: bytes (bytelevel.py) are one choice.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from operator import add

MAX_SYMBOLS = sys.maxunicode + 1  # a symbol is one character


def train_bpe(
    word_counts: Mapping[str, int], tokens: Sequence[str], vocab_size: int
) -> tuple[list[str], list[tuple[int, int, int]]]:
    """Learn merges until there are `vocab_size` tokens, or no pair is left.

    word_counts: words over the initial symbols, and how often each occurs. tokens[i]: how symbol i is
    spelled; a merged symbol is spelled as its parts joined. Returns the tokens, initial ones first, and the
    merges (left, right, merged) in the order of learning.

    Algorithm 1 counts all pairs again in each round: rounds x length of the corpus. Here each distinct word
    is kept once, with its count; for each pair we hold its count and the words it was seen in; a round visits
    only the words that hold the chosen pair, and corrects the counts of the neighbours that changed. Only
    counts of pairs with the new symbol can grow, so the most frequent pair is found with a heap whose entries
    may be out of date: a popped entry whose count has shrunk meanwhile goes back with the true count.

    The most frequent pair wins, then the one with the smallest ids, as in the library `tokenizers`, and so
    are two cases that the paper leaves open, both about a spelling reached in two ways ("a" + "aa" and "aa" +
    "a" are one symbol): an entry owns the words found when it was made, so that such a pair may be merged in
    two rounds (the later one is its rank), and the count of a pair is not reset to zero when it is merged.
    """
    if vocab_size > MAX_SYMBOLS:
        raise ValueError(
            f"vocab_size {vocab_size} is more than {MAX_SYMBOLS}, the most this implementation can hold"
        )
    tokens = list(tokens)
    symbol_of = {token: chr(i) for i, token in enumerate(tokens)}
    words = sorted(word_counts)  # so that the order of the documents plays no part
    frequency = [word_counts[word] for word in words]

    counts: dict[str, int] = defaultdict(int)
    where: dict[str, list[int]] = defaultdict(list)
    for w, word in enumerate(words):
        for pair in map(add, word, word[1:]):
            counts[pair] += frequency[w]
            where[pair].append(w)
    heap = [
        (-counts[pair], pair, found) for pair, found in where.items()
    ]  # smallest first: the count is negated
    heapify(heap)

    merges: dict[str, str] = {}
    while len(tokens) < vocab_size and heap:
        count, pair, found = heappop(heap)
        if -count != counts[pair]:
            if counts[pair] > 0:
                heappush(heap, (-counts[pair], pair, found))
            continue

        a, b = pair
        spelled = tokens[ord(a)] + tokens[ord(b)]
        if spelled not in symbol_of:
            symbol_of[spelled] = chr(len(tokens))
            tokens.append(spelled)
        new = symbol_of[spelled]
        merges.pop(pair, None)  # a pair merged twice takes the later place
        merges[pair] = new

        where = defaultdict(list)
        for w in found:
            pieces = words[w].split(pair)
            if len(pieces) == 1:  # listed twice and done already, or the pair has gone since
                continue
            words[w] = new.join(pieces)
            f = frequency[w]
            # Between two pieces there was the pair and now there is `new`. What it touches has changed on
            # both sides; two pairs in a row (an empty piece) touch each other, counted at the second of them.
            for k in range(1, len(pieces)):
                left, right = pieces[k - 1], pieces[k]
                if left:
                    counts[left[-1] + a] -= f
                    counts[left[-1] + new] += f
                    where[left[-1] + new].append(w)
                elif k > 1:
                    counts[b + a] -= f
                    counts[new + new] += f
                    where[new + new].append(w)
                if right:
                    counts[b + right[0]] -= f
                    counts[new + right[0]] += f
                    where[new + right[0]].append(w)
        for fresh, found in where.items():
            heappush(heap, (-counts[fresh], fresh, found))

    return tokens, [(ord(pair[0]), ord(pair[1]), ord(new)) for pair, new in merges.items()]


class BPE:
    """Applies merges: BPE(merges).merge(word), with words as strings of symbols.

    The rule is: of all neighbouring pairs that have a merge, replace the one learned first, the leftmost if
    it occurs more than once; repeat. `merge_short` does just that. `merge_long` gives the same result in O(n
    log n) instead of O(n^2).
    """

    SHORT = 48  # below this length searching again each time is faster than keeping a queue

    def __init__(self, merges: Iterable[tuple[int, int, int]]):
        merges = list(merges)
        self.pairs = [chr(a) + chr(b) for a, b, _ in merges]
        self.results = [chr(new) for _, _, new in merges]
        self.ranks = _Ranks({pair: rank for rank, pair in enumerate(self.pairs)})

    def merge(self, word: str) -> str:
        return self.merge_short(word) if len(word) < self.SHORT else self.merge_long(word)

    def merge_short(self, word: str) -> str:
        rank_of, pairs, results = self.ranks.__getitem__, self.pairs, self.results
        while len(word) > 1:
            rank = min(map(rank_of, map(add, word, word[1:])))
            if rank == _NEVER:
                break
            word = word.replace(pairs[rank], results[rank], 1)
        return word

    def merge_long(self, word: str) -> str:
        """A queue of all possible merges by (rank, position), over a doubly linked list of symbols.

        A merge ends at most two neighbouring pairs and begins at most two. Entries of ended pairs are not
        searched for in the queue: they are recognised when they come up, because the symbols at their place
        are others by then.
        """
        n = len(word)
        rank_of = self.ranks.get
        symbols = list(word)  # "" where a symbol was merged into the one on its left
        before, after = list(range(-1, n - 1)), list(range(1, n + 1))
        # One integer, rank * n + position, orders as (rank, position) does and is faster to compare.
        queue = [
            rank * n + i
            for i, pair in enumerate(map(add, word, word[1:]))
            if (rank := rank_of(pair)) is not None
        ]
        heapify(queue)
        while queue:
            rank, i = divmod(heappop(queue), n)
            j = after[i]
            if j == n or symbols[i] + symbols[j] != self.pairs[rank]:
                continue
            symbols[i], symbols[j] = self.results[rank], ""
            h, k = before[i], after[j]
            after[i] = k
            if k < n:
                before[k] = i
                if (rank := rank_of(symbols[i] + symbols[k])) is not None:
                    heappush(queue, rank * n + i)
            if h >= 0 and (rank := rank_of(symbols[h] + symbols[i])) is not None:
                heappush(queue, rank * n + h)
        return "".join(symbols)


_NEVER = sys.maxsize  # the rank of a pair without a merge


class _Ranks(dict):
    def __missing__(self, pair: str) -> int:
        return _NEVER
