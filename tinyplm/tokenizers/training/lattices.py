"""The segmentation lattices of many words, processed together.

A word of n characters has n + 1 nodes.  Each piece that occurs in it is an edge from the node
before the piece to the node after it (models/unigram.py).  The nodes of depth k, those with k
characters before them in their words, form a column:

    depth     0   1   2   3   4           Words are sorted by length, longest first.  So the words
    l o w e r o---o---o---o---o---        that have a node of depth k come first, and node `word`
    l o w     o---o---o---o               of column k has the number columns[k] + word.

What a node needs from its incoming edges comes from earlier columns.  One sweep over the columns,
vectorized over all words, is thus forward, backward or Viterbi for all of them.  Edges are sorted
by their end node, so those of a column are one slice, and those of a node one segment of it
(reduceat).  Each node has an edge from the previous one, since an unknown character counts as a
piece.
"""

from __future__ import annotations

import numpy as np


class Lattices:
    """The edges as arrays: start, end (nodes) and piece."""

    def __init__(
        self,
        lengths: np.ndarray,
        word: np.ndarray,
        offset: np.ndarray,
        length: np.ndarray,
        piece: np.ndarray,
    ):
        """lengths: of the words, descending.  Of each edge: its word, offset in the word, length
        and piece."""
        deepest = int(lengths[0]) if len(lengths) else 0
        sizes = np.searchsorted(-lengths, -np.arange(deepest + 1), side="right")
        self.columns = np.concatenate([[0], np.cumsum(sizes)])
        self.depth = np.repeat(np.arange(deepest + 1), sizes)  # per node
        self.word = np.arange(len(self.depth)) - self.columns[self.depth]
        self.last = self.columns[lengths] + np.arange(len(lengths))  # the last node of each word
        start, end = self.columns[offset] + word, self.columns[offset + length] + word
        # By end node, and among the edges of a node by start node.
        order = np.argsort(end * len(self.depth) + start)
        self.start, self.end, self.piece = (a[order].astype(np.int32) for a in (start, end, piece))
        self.by_start = np.argsort(self.start, kind="stable").astype(np.int32)
        self._index()

    def _index(self) -> None:
        """Edges self.arrive[i] to self.arrive[i + 1] - 1 end at node i; self.leave is the same in
        the order by start."""
        nodes = np.arange(len(self.depth) + 1)
        self.arrive = np.searchsorted(self.end, nodes)
        self.leave = np.searchsorted(self.start[self.by_start], nodes)

    def renumber(self, numbers: np.ndarray) -> None:
        """numbers[old] is the new number of a piece, or -1 to remove its edges."""
        piece = numbers[self.piece]
        kept = piece >= 0
        place = np.cumsum(kept) - 1  # the new index of each edge that is kept
        self.by_start = place[self.by_start[kept[self.by_start]]].astype(np.int32)
        self.start, self.end = self.start[kept], self.end[kept]
        self.piece = piece[kept].astype(np.int32)
        self._index()

    def expected(self, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Expected count of each piece.  scores: log probabilities of the pieces; counts: of the
        words.

        The posterior probability of an edge from s to e with piece x is

            exp(alpha(s) + log p(x) + beta(e) - log P(word))
        """
        score = scores[self.piece]
        alpha, beta = np.zeros(len(self.depth)), np.zeros(len(self.depth))
        for k in range(1, len(self.columns) - 1):
            nodes = slice(self.columns[k], self.columns[k + 1])
            edges, segments = self._slice(self.arrive, nodes)
            alpha[nodes] = _log_sum_exp(alpha[self.start[edges]] + score[edges], segments)
        backward = score[self.by_start]
        to = self.end[self.by_start]
        for k in range(len(self.columns) - 3, -1, -1):
            # The words that continue are the first of the column, as many as the next column has.
            continuing = self.columns[k + 2] - self.columns[k + 1]
            nodes = slice(self.columns[k], self.columns[k] + continuing)
            edges, segments = self._slice(self.leave, nodes)
            beta[nodes] = _log_sum_exp(backward[edges] + beta[to[edges]], segments)
        word = self.word[self.end]
        posterior = np.exp(alpha[self.start] + score + beta[self.end] - alpha[self.last][word])
        return np.bincount(self.piece, weights=posterior * counts[word], minlength=len(scores))

    def best(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pieces of the best segmentations of all words, and the word of each: Viterbi."""
        score = scores[self.piece]
        best = np.zeros(len(self.depth))
        for k in range(1, len(self.columns) - 1):
            nodes = slice(self.columns[k], self.columns[k + 1])
            edges, segments = self._slice(self.arrive, nodes)
            best[nodes] = np.maximum.reduceat(best[self.start[edges]] + score[edges], segments)
        good = np.flatnonzero(best[self.start] + score == best[self.end])
        chosen = np.zeros(len(self.depth), dtype=np.int64)
        chosen[self.end[good[::-1]]] = good[::-1]  # the first edge is written last
        nodes = self.last
        pieces, words = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        while len(nodes := nodes[self.depth[nodes] > 0]):
            edges = chosen[nodes]
            pieces.append(self.piece[edges])
            words.append(self.word[nodes])
            nodes = self.start[edges]
        return np.concatenate(pieces), np.concatenate(words)

    def stretches(self, word: np.ndarray, offset: np.ndarray, sizes: np.ndarray) -> Lattices:
        """The lattices of substrings of the words (sizes descending), each without the edge that
        spans all of it."""
        owner, step = _ranges(np.zeros_like(sizes), sizes)
        nodes = self.columns[offset[owner] + step] + word[owner]
        of, edges = _ranges(self.leave[nodes], self.leave[nodes + 1])
        edges = self.by_start[edges]
        owner, step = owner[of], step[of]
        length = self.depth[self.end[edges]] - self.depth[self.start[edges]]
        kept = (step + length <= sizes[owner]) & (length < sizes[owner])
        return Lattices(sizes, owner[kept], step[kept], length[kept], self.piece[edges[kept]])

    @staticmethod
    def _slice(pointers: np.ndarray, nodes: slice) -> tuple[slice, np.ndarray]:
        """The edges of adjacent nodes, and the index among them where those of each node start."""
        first = pointers[nodes]
        return slice(first[0], pointers[nodes.stop]), first - first[0]


def _ranges(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """first[i], ..., last[i] - 1 for each i, concatenated; and the i of each."""
    sizes = last - first
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes - first, sizes)


def _log_sum_exp(logs: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """The log of the sum of exp over each segment; no segment is empty."""
    top = np.maximum.reduceat(logs, segments)
    sizes = np.diff(segments, append=len(logs))
    return top + np.log(np.add.reduceat(np.exp(logs - np.repeat(top, sizes)), segments))
