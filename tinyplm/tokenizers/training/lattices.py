"""The segmentation lattices of many words, computed on together.

A word of n characters has n + 1 nodes; an edge for each piece that stands in it leads from the node before the piece to the
one behind (unigram.py).  All nodes of depth k, those with k characters before them in their words, are a column:

    depth     0   1   2   3   4           Words are ordered by length, the longest first.  So the words that have a node of
    l o w e r o---o---o---o---o---        depth k are the first ones, and node `word` of column k has the number
    l o w     o---o---o---o               columns[k] + word, without gaps.

What a node needs from the edges that arrive comes from columns before its own: a sweep over the columns, with all words done
at once in each, is forward, backward or Viterbi for all of them.  Edges are sorted by the node where they end, so that those
of a column are one slice, and those of a node one segment of it (reduceat).  Each node has an edge from the one before, since
an unknown character counts as a piece.
"""

from __future__ import annotations

import numpy as np


class Lattices:
    def __init__(
        self,
        lengths: np.ndarray,
        word: np.ndarray,
        offset: np.ndarray,
        length: np.ndarray,
        piece: np.ndarray,
    ):
        """lengths: of the words, descending.  For each edge: its word, where in it the piece stands, its length, the piece."""
        deepest = int(lengths[0]) if len(lengths) else 0
        sizes = np.searchsorted(-lengths, -np.arange(deepest + 1), side="right")
        self.columns = np.concatenate([[0], np.cumsum(sizes)])
        self.depth = np.repeat(np.arange(deepest + 1), sizes)  # of each node
        self.word = np.arange(len(self.depth)) - self.columns[self.depth]
        self.last = self.columns[lengths] + np.arange(len(lengths))  # the last node of each word
        start, end = self.columns[offset] + word, self.columns[offset + length] + word
        order = np.argsort(
            end * len(self.depth) + start
        )  # of the edges of a node, the one that begins first comes first
        self.start, self.end, self.piece = (a[order].astype(np.int32) for a in (start, end, piece))
        self.by_start = np.argsort(self.start, kind="stable").astype(np.int32)
        self._index()

    def _index(self) -> None:
        """Edges self.arrive[i] to self.arrive[i + 1] - 1 end at node i; likewise self.leave, for the order by start."""
        nodes = np.arange(len(self.depth) + 1)
        self.arrive = np.searchsorted(self.end, nodes)
        self.leave = np.searchsorted(self.start[self.by_start], nodes)

    def renumber(self, numbers: np.ndarray) -> None:
        """numbers[old] = new number of a piece, or -1: its edges are taken out."""
        piece = numbers[self.piece]
        kept = piece >= 0
        place = np.cumsum(kept) - 1  # of an edge among those kept
        self.by_start = place[self.by_start[kept[self.by_start]]].astype(np.int32)
        self.start, self.end, self.piece = (
            self.start[kept],
            self.end[kept],
            piece[kept].astype(np.int32),
        )
        self._index()

    def expected(self, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Expected occurrences of each piece, with scores its log probabilities and counts how often each word occurs.

        The posterior probability of an edge from s to e with piece x is  exp(alpha(s) + log p(x) + beta(e) - log P(word)).
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
            # the words that go on from here are the first of the column, as many as the next column has
            nodes = slice(
                self.columns[k], self.columns[k] + self.columns[k + 2] - self.columns[k + 1]
            )
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
        chosen[self.end[good[::-1]]] = good[::-1]  # the last one written is the first edge
        nodes, pieces, words = self.last, [], []
        while len(nodes := nodes[self.depth[nodes] > 0]):
            edges = chosen[nodes]
            pieces.append(self.piece[edges])
            words.append(self.word[nodes])
            nodes = self.start[edges]
        nothing = np.zeros(0, dtype=np.int64)
        return np.concatenate([nothing, *pieces]), np.concatenate([nothing, *words])

    def stretches(self, word: np.ndarray, offset: np.ndarray, sizes: np.ndarray) -> Lattices:
        """The lattices of some stretches of the words (sizes descending), each without the edge that spans it as a whole."""
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
        """The edges of some neighbouring nodes, and where in them each node's begin."""
        first = pointers[nodes]
        return slice(first[0], pointers[nodes.stop]), first - first[0]


def _ranges(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """first[i], ..., last[i] - 1 for each i, one after the other, and with each its i."""
    sizes = last - first
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes - first, sizes)


def _log_sum_exp(logs: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """log of the sum of exp over each segment; none is empty."""
    top = np.maximum.reduceat(logs, segments)
    sizes = np.diff(segments, append=len(logs))
    return top + np.log(np.add.reduceat(np.exp(logs - np.repeat(top, sizes)), segments))
