"""Byte-pair encoding: learning the merges, and applying them.       Sennrich et al. 2016, Algorithm 1

Learning: write every word of the corpus as a sequence of symbols; find the pair of neighbouring symbols that
is most frequent; replace it everywhere by a new symbol; repeat. Applying: in a new word, carry out the
earliest learned merge that fits, until none fits.

A symbol here is an id, and a word is a Python string with one character for each symbol, chr(id). "Replace
the pair by a new symbol" is then literally `word.replace(pair, new)`, and pairs of ids sort as strings of two
characters do. Nothing in this file knows what the symbols stand for: bytes (bytelevel.py) are one choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from operator import add

from ..vocabulary import check_training
from .pairs import PairCounts


def train_bpe(
    word_counts: Mapping[str, int], tokens: Sequence[str], vocab_size: int, min_frequency: int = 0
) -> tuple[list[str], list[tuple[int, int, int]]]:
    """Learn merges until there are `vocab_size` tokens, or no pair is left.

    word_counts: words over the initial symbols, and how often each occurs. tokens[i]: how symbol i is
    spelled; a merged symbol is spelled as its parts joined. min_frequency: no merge of a pair that is rarer.
    Returns the tokens, initial ones first, and the merges (left, right, merged) in the order of learning.

    Algorithm 1 counts all pairs again in each round: rounds x length of the corpus. Here a round visits only the
    words with the pair, and corrects the counts of the neighbours that changed (pairs.py). A pair comes into
    being in one round only, when the younger of its symbols does, and its count can only shrink afterwards. So
    the most frequent pair comes from a heap with one entry a pair, whose count may be out of date: an entry that
    comes up with more than the true count goes back with the true one.

    The most frequent pair wins, and of several the one with the smallest ids, as in the library `tokenizers`.
    ValueError if a merge would be spelled like one of `tokens`. Two merges are never spelled alike: all words
    underwent the same replacements, so what is spelled alike is also divided alike at any time.
    """
    check_training(word_counts, vocab_size, tokens, min_frequency=min_frequency)
    if any(ord(symbol) >= len(tokens) for word in word_counts for symbol in word):
        raise ValueError(
            f"word_counts: expected words over {len(tokens)} symbols, one for each of the tokens"
        )
    given = frozenset(tokens)
    tokens = list(tokens)
    pairs = PairCounts(word_counts)
    counts = pairs.counts
    # The count is negated since the smallest entry of a heap comes first.
    heap = [(-count, pair) for pair, count in counts.items()]
    heapify(heap)

    merges: list[tuple[int, int, int]] = []
    while len(tokens) < vocab_size and heap:
        count, pair = heappop(heap)
        if -count != counts[pair]:
            if counts[pair] > 0:
                heappush(heap, (-counts[pair], pair))
            continue
        if -count < min_frequency:
            break

        a, b = map(ord, pair)
        spelled = tokens[a] + tokens[b]
        if spelled in given:
            raise ValueError(
                f"the token {spelled!r} was given, and the words have a merge spelled like it"
            )
        merges.append((a, b, len(tokens)))
        tokens.append(spelled)
        _, fresh = pairs.replace(pair, chr(len(tokens) - 1))
        for new in fresh:
            heappush(heap, (-counts[new], new))

    return tokens, merges


class Merger:
    """Applies merges: Merger(merges).merge(word), with words as strings of symbols.

    The rule: of all neighbouring pairs that have a merge, replace the one learned first, the leftmost where
    it occurs more than once; repeat until there is none. Searching the word anew each time is O(n^2) (and how
    reference/tokenizers/bpe.py does it); with a queue of the possible merges it is O(n log n).
    """

    def __init__(self, merges: Iterable[tuple[int, int, int]]):
        merges = list(merges)
        self.pairs = [chr(a) + chr(b) for a, b, _ in merges]
        self.results = [chr(new) for _, _, new in merges]
        self.ranks = {pair: rank for rank, pair in enumerate(self.pairs)}

    def merge(self, word: str) -> list[str]:
        """A list with a place for each symbol of `word`: a merged symbol is at the place of its first part, "" at the others.

        The queue is ordered by (rank, position); the symbols are a doubly linked list.

        A merge ends up to two other pairs and begins up to two. The entries of ended pairs are not searched
        for in the queue: they are recognised when they come up, by the other symbols at their place.
        """
        n = len(word)
        rank_of = self.ranks.get
        symbols = list(word)  # "" where a symbol went into the one on its left
        before, after = list(range(-1, n - 1)), list(range(1, n + 1))
        # One integer, rank * n + position, is ordered as the two are and faster to compare.
        queue = [
            rank * n + i
            for i, rank in enumerate(map(rank_of, map(add, word, word[1:])))
            if rank is not None
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
        return symbols
