"""Counts of adjacent pairs in a corpus, updated incrementally as pairs are replaced.

Every trainer that merges pairs (BPE, WordPiece, SentencePiece's BPE) repeats two steps: choose a
pair by the counts, and replace it everywhere by a new symbol.  The choice differs; the counts are
shared here.

As in bpe.py, each distinct word is stored once, with its count; a symbol is an id, and a word is a
string with one character, chr(id), per symbol.  Overlapping occurrences count: x x x contains the
pair x x twice.  They are replaced from left to right: x x x becomes xx x.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from operator import add


class PairCounts:
    """counts[chr(a) + chr(b)]: how often a directly precedes b, in all words."""

    def __init__(self, word_counts: Mapping[str, int]):
        self.words, self.frequency = list(word_counts), list(word_counts.values())
        self.counts: dict[str, int] = defaultdict(int)
        # pair -> indices of words that contained it: perhaps listed twice, perhaps without it by
        # now
        self._where: dict[str, list[int]] = defaultdict(list)
        for w, word in enumerate(self.words):
            for pair in map(add, word, word[1:]):
                self.counts[pair] += self.frequency[w]
                self._where[pair].append(w)

    def replace(self, pair: str, new: str) -> tuple[int, list[str]]:
        """Replace a pair by a new symbol.  Returns the number of replacements and the new pairs.

        Only words with the pair are visited, and only the neighbours of the new symbols are
        recounted.  All new pairs contain the new symbol; the counts of the other pairs can only
        decrease.
        """
        a, b = pair[0], pair[1]
        counts, total = self.counts, 0
        fresh: dict[str, list[int]] = defaultdict(list)
        for w in self._where.pop(pair):
            pieces = self.words[w].split(pair)
            if len(pieces) == 1:  # the pair is gone, or the word was listed twice
                continue
            self.words[w] = new.join(pieces)
            f = self.frequency[w]
            total += f * (len(pieces) - 1)
            # The pair between two pieces becomes `new`, with a new neighbour on both sides.  Where
            # two pairs met (with an empty piece between them), that is counted once, at the second.
            for k in range(1, len(pieces)):
                left, right = pieces[k - 1], pieces[k]
                if left:
                    counts[left[-1] + a] -= f
                    counts[left[-1] + new] += f
                    fresh[left[-1] + new].append(w)
                elif k > 1:
                    counts[b + a] -= f
                    counts[new + new] += f
                    fresh[new + new].append(w)
                if right:
                    counts[b + right[0]] -= f
                    counts[new + right[0]] += f
                    fresh[new + right[0]].append(w)
        # Any remaining count is that of overlaps (x x in x x x), which are gone as well.
        del counts[pair]
        self._where |= fresh
        return total, list(fresh)
