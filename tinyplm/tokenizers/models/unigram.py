"""The unigram model: cut a word into the pieces with the greatest product of probabilities.

                                                                              Kudo 2018, section 3.2

Each piece x has a probability p(x), and the pieces of a segmentation are independent:  log P(x_1
... x_m) = sum_i log p(x_i).  The segmentations of a word form a lattice: one node between each two
characters, and one edge for each piece of the vocabulary that occurs between two nodes.  A path
from the first node to the last is a segmentation.  Each of the following is one pass over the nodes
from left to right, with another operation at each node:

    encode           the best path             max over the incoming edges    Viterbi 1967
    nbest            the n best paths          the n largest
    log_likelihood   log of the sum of all     log sum exp                     Baum et al. 1970
    sample           one path, by P(x)^alpha   log sum exp; then backward, one edge drawn per node

Characters that are not pieces are unknown.  Each of them is an edge too, with the score min_x log
p(x) - 10, so there always is a path.  Adjacent unknown characters become one unknown token; or,
with byte_fallback, the tokens <0x00> ... <0xFF> of their UTF-8, if all of these exist.

Ties go to the piece that starts first, as in the library `tokenizers` and in SentencePiece.  Log
probabilities are added from left to right in 64 bits, as in the former; a model read from a
SentencePiece file adds in 32 bits, as the latter (`single`).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from heapq import nlargest
from operator import itemgetter
from typing import Any

from ...arguments import shown, wrong
from ...random import generator
from ..component import Component, only_known
from ..vocabulary import byte_ids

UNKNOWN_PENALTY = 10.0
LARGEST_SCORE = 1e30  # leaves room for the sum of many in 32 bits

Node = tuple[
    float, dict[str, Any]
]  # of the trie: the score, -inf where no piece ends; children by character


@dataclass(frozen=True)
class Unigram(Component):
    """pieces: (piece, log probability), the index is the id.

    Two fields are our own extensions, for models of SentencePiece.  hidden: pieces that no text is
    encoded to, whatever its spelling.  single: log probabilities are added in 32 bits, which
    decides between almost equal segmentations.
    """

    unk_id: int | None
    pieces: Sequence[tuple[str, float]] = field(repr=False)
    byte_fallback: bool = False
    hidden: frozenset[str] = frozenset()
    single: bool = False

    def __post_init__(self) -> None:
        for entry in self.pieces:
            if (
                not isinstance(entry, (tuple, list))
                or len(entry) != 2
                or not isinstance(entry[0], str)
            ):
                raise wrong("vocab", "pairs of a piece and its score", entry)
            piece, score = entry
            # NaN fails this comparison, too.
            if not isinstance(score, (int, float)) or not abs(score) <= LARGEST_SCORE:
                raise wrong(
                    f"score of {shown(piece)}", f"a number of at most {LARGEST_SCORE:g}", score
                )
        pieces = tuple((piece, float(score)) for piece, score in self.pieces)
        object.__setattr__(self, "pieces", pieces)
        if self.unk_id is not None and not 0 <= self.unk_id < len(self.pieces):
            raise wrong("unk_id", f"an id from 0 to {len(self.pieces) - 1}", self.unk_id)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> Unigram:
        known = {"type", "unk_id", "vocab", "byte_fallback", "hidden", "single"}
        only_known(content, known, f"{where} Unigram")
        fields = {"unk_id": None} | {name: content[name] for name in known & content.keys()}
        pieces, hidden = fields.pop("vocab", None), fields.pop("hidden", [])
        if not isinstance(hidden, list) or not all(isinstance(piece, str) for piece in hidden):
            raise wrong(f"{where} Unigram: hidden", "a list of pieces", hidden)
        if not isinstance(pieces, list):
            raise wrong(f"{where} Unigram: vocab", "a list of [piece, score]", pieces)
        for entry in pieces:
            if not isinstance(entry, list) or len(entry) != 2 or type(entry[1]) not in (float, int):
                raise wrong(f"{where} Unigram: vocab", "a list of [piece, score]", entry)
        return super().from_json(fields | {"pieces": pieces, "hidden": frozenset(hidden)}, where)

    def to_json(self) -> dict[str, Any]:
        content = {
            "type": "Unigram",
            "unk_id": self.unk_id,
            "vocab": [list(piece) for piece in self.pieces],
            "byte_fallback": self.byte_fallback,
        }
        ours = {"hidden": sorted(self.hidden), "single": self.single}
        return content | {name: value for name, value in ours.items() if value}

    @cached_property
    def vocab(self) -> dict[str, int]:
        """piece -> id; the last id if a piece is listed twice."""
        return {piece: id for id, (piece, _) in enumerate(self.pieces)}

    def without(self, tokens: Iterable[str]) -> Unigram:
        """See Model.without."""
        return replace(self, hidden=self.hidden | (self.vocab.keys() & {*tokens}))

    @cached_property
    def _known(self) -> dict[str, int]:
        if not self.hidden:
            return self.vocab
        return {piece: id for piece, id in self.vocab.items() if piece not in self.hidden}

    @cached_property
    def _unknown(self) -> Node:
        """The trie's node after an unknown character."""
        score = min((score for _, score in self.pieces), default=0.0) - UNKNOWN_PENALTY
        return array("f" if self.single else "d", [score])[0], {}

    @cached_property
    def _trie(self) -> dict[str, Any]:
        """The children of the root; a node is a list [score, children], see Node.

        A character that starts pieces but is not a piece itself has the score of an unknown one.
        """
        root: list[Any] = [-math.inf, {}]
        for piece, score in self.pieces:
            if piece in self.hidden:
                continue
            node = root
            for char in piece:
                node = node[1].setdefault(char, [-math.inf, {}])
            node[0] = score
        for node in root[1].values():
            node[0] = self._unknown[0] if node[0] == -math.inf else node[0]
        return root[1]

    def encode(self, word: str) -> list[int]:
        """The ids of the best segmentation.  ValueError for unknown characters without unk_id."""
        return self._ids(word, self._best(word))

    def encode_spans(self, word: str) -> list[tuple[int, int, int]]:
        """(id, start, end) of each token.  The bytes of unknown characters all have the span of
        these characters."""
        return self._tokens(word, self._best(word))

    def nbest(self, word: str, n: int) -> list[tuple[list[int], float]]:
        """The n most probable segmentations, or all if there are fewer: (ids, log probability),
        best first."""
        if n < 1:
            raise wrong("n", "an integer >= 1", n)
        # The n best paths to each node: (score, previous node, index of the path there).
        paths: list[list[tuple[float, int, int]]] = [[(0.0, 0, 0)]]
        for edges in self._edges(word):
            found = (
                (path[0] + score, start, k)
                for start, score in edges
                for k, path in enumerate(paths[start])
            )
            paths.append(nlargest(n, found, key=itemgetter(0)))  # the first of equals
        results = []
        for score, place, k in paths[-1]:
            cuts, end = [len(word)], len(word)
            while end:
                cuts.append(place)
                end, (_, place, k) = place, paths[place][k]
            results.append((self._ids(word, cuts[::-1]), score))
        return results

    def log_likelihood(self, word: str) -> float:
        """log P(word): the sum is over all segmentations."""
        return self._forward(self._edges(word), 1.0)[-1]

    def sample(self, word: str, key: int, alpha: float = 1.0) -> list[int]:
        """The ids of a segmentation x drawn with probability proportional to P(x)^alpha.

        Kudo 2018, section 3.3.  alpha = 0: all are equally probable; a greater alpha favours the
        best ones.  The draw is exact (forward filtering, backward sampling): the forward pass sums
        over the paths to each node; then, from the last node backward, an edge is drawn in
        proportion to the paths that end with it.  key: see tinyplm.random.
        """
        if not 0 <= alpha < math.inf:
            raise wrong("alpha", "a finite number >= 0", alpha)
        edges = self._edges(word)
        forward = self._forward(edges, alpha)
        random = generator(key)
        cuts = [len(word)]
        while cuts[-1]:
            here, threshold = cuts[-1], random.random()
            for start, score in edges[here - 1]:
                threshold -= math.exp(forward[start] + alpha * score - forward[here])
                if threshold < 0:
                    break
            cuts.append(start)  # the last one, if rounding leaves a remainder
        return self._ids(word, cuts[::-1])

    def _best(self, word: str) -> list[int]:
        """The cuts of the best segmentation, including 0 and len(word): Viterbi.

        From each node the trie is followed as far as it matches the word: linear in the length of
        the word.
        """
        n = len(word)
        first, unknown = self._trie.get, self._unknown
        best: Any = [-math.inf] * (n + 1)
        best, before = array("f", best) if self.single else best, [0] * (n + 1)
        best[0] = 0.0
        for start, char in enumerate(word):
            here, end = best[start], start + 1
            score, children = first(char, unknown)
            if (total := here + score) > (old := best[end]):
                best[end] = total
                if best[end] > old:  # rounded to 32 bits, it may be equal
                    before[end] = start
            while end < n and (node := children.get(word[end])) is not None:
                end += 1
                score, children = node
                if (total := here + score) > (old := best[end]):
                    best[end] = total
                    if best[end] > old:
                        before[end] = start
        cuts = [n]
        while n:
            n = before[n]
            cuts.append(n)
        return cuts[::-1]

    def _edges(self, word: str) -> list[list[tuple[int, float]]]:
        """For each character, the edges that end after it: (start, score), by increasing start."""
        n = len(word)
        edges: list[list[tuple[int, float]]] = [[] for _ in word]
        for start, char in enumerate(word):
            end = start
            node: Any = self._trie.get(char, self._unknown)
            while node is not None:
                score, children = node
                if score != -math.inf:
                    edges[end].append((start, score))
                end += 1
                node = children.get(word[end]) if end < n else None
        return edges

    @staticmethod
    def _forward(edges: list[list[tuple[int, float]]], alpha: float) -> list[float]:
        """For each node, the log of the sum of P(path)^alpha over the paths to it."""
        forward = [0.0]
        for arriving in edges:
            logs = [forward[start] + alpha * score for start, score in arriving]
            top = max(logs)
            forward.append(top + math.log(sum([math.exp(log - top) for log in logs])))
        return forward

    def _ids(self, word: str, cuts: list[int]) -> list[int]:
        ids: Any = [self._known.get(word[start:end]) for start, end in zip(cuts, cuts[1:])]
        if None in ids or self.unk_id in ids:
            return [id for id, _, _ in self._tokens(word, cuts)]
        return ids

    def _tokens(self, word: str, cuts: list[int]) -> list[tuple[int, int, int]]:
        """(id, start, end); adjacent unknown characters form one token, or the bytes of all of
        them."""
        unk_id = self.unk_id
        joined: list[list[int]] = []
        unknown_before = False
        for start, end in zip(cuts, cuts[1:]):
            unknown = self._known.get(word[start:end], unk_id) == unk_id
            if unknown and unknown_before:
                joined[-1][1] = end
            else:
                joined.append([start, end])
            unknown_before = unknown
        tokens: list[tuple[int, int, int]] = []
        for start, end in joined:
            text = word[start:end]
            # Adjacent unknown characters may form a piece together.
            if (id := self._known.get(text)) is not None:
                tokens.append((id, start, end))
            elif self.byte_fallback and (ids := byte_ids(self.vocab, text)):
                tokens += [(id, start, end) for id in ids]
            elif unk_id is not None:
                tokens.append((unk_id, start, end))
            else:
                raise wrong("text", "characters of the vocabulary, which has no unk_id", text)
        return tokens
