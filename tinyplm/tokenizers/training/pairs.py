"""Pairs of neighbouring symbols in a corpus, counted once and then kept right while pairs are replaced.

Every trainer that merges pairs (BPE, WordPiece, SentencePiece's BPE) does the same two things in each round: choose a pair by the
counts, replace it everywhere by a new symbol.  The choice is theirs; the counts are here.

As in bpe.py, each distinct word is kept once, with its count; a symbol is an id, and a word is a string with one character,
chr(id), for each symbol.  Overlapping occurrences of a pair count: x x x holds the pair x x twice.  They are replaced from
left to right: x x x becomes xx x.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from operator import add


class PairCounts:
    """counts[chr(a) + chr(b)]: how often a stands directly before b, in all words."""

    def __init__(self, word_counts: Mapping[str, int]):
        self.words, self.frequency = list(word_counts), list(word_counts.values())
        self.counts: dict[str, int] = defaultdict(int)
        self._where: dict[str, list[int]] = defaultdict(
            list
        )  # pair -> words it was seen in, perhaps twice, perhaps no more
        for w, word in enumerate(self.words):
            for pair in map(add, word, word[1:]):
                self.counts[pair] += self.frequency[w]
                self._where[pair].append(w)

    def replace(self, pair: str, new: str) -> tuple[int, list[str]]:
        """Replace a pair by a symbol that is not in use yet.  Returns how often that was done, and the pairs that are new.

        Only words that hold the pair are visited, and in them only the neighbours of the new symbols are counted anew.
        New pairs are those with the new symbol; the counts of all others can only shrink.
        """
        a, b = pair
        counts, fresh, total = self.counts, defaultdict(list), 0
        for w in self._where.pop(pair):
            pieces = self.words[w].split(pair)
            if len(pieces) == 1:  # the pair has gone, or the word is listed twice and done already
                continue
            self.words[w] = new.join(pieces)
            f = self.frequency[w]
            total += f * (len(pieces) - 1)
            # Between two pieces stood the pair and now stands `new`: a new neighbour on both sides.  Where two pairs met
            # (an empty piece between them), that is counted once, at the second.
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
        del counts[
            pair
        ]  # what may be left of it are overlaps (x x in x x x), which have gone with it
        self._where |= fresh
        return total, list(fresh)
