"""The unigram model: a word is cut into the pieces whose probabilities have the greatest product.       Kudo 2018, section 3.2

Each piece x has a probability p(x), and the pieces of a segmentation are independent:  log P(x_1 ... x_m) = sum_i log p(x_i).
All segmentations of a word form a lattice: a node between each two characters, an edge for each piece of the vocabulary that
stands between two nodes.  A path from the first node to the last is a segmentation, and four questions have the same answer,
one pass over the nodes from left to right, with another sum at each node:

    encode           the best path               max over the edges that end here               Viterbi 1967
    nbest            the n best paths            the n largest
    log_likelihood   log of the sum of all       log sum exp                                    forward, Baum et al. 1970
    sample           one path, by P(x)^alpha     log sum exp; then backwards, at each node one edge drawn by its share

Characters that are no piece are unknown.  One of them is an edge too, with the score min_x log p(x) - 10, so that there always
is a path.  Neighbouring unknown characters become one unknown token; or, with byte_fallback, the tokens <0x00> ... <0xFF> of
their UTF-8, if all of these are there.

Ties go to the piece that begins first, as in the library `tokenizers` and in SentencePiece; log probabilities are added from
left to right in 64 bits, as in the former.  SentencePiece keeps sums in 32 bits; so does a model read from its files (`single`).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from heapq import nlargest
from operator import itemgetter
from typing import Any

from ...arguments import shown
from ...random import generator
from ..component import Component, only_known

UNKNOWN_PENALTY = 10.0
LARGEST_SCORE = 1e30  # with room for the sum of many in 32 bits


@dataclass(frozen=True)
class Unigram(Component):
    unk_id: int | None
    pieces: tuple[tuple[str, float], ...] = field(
        repr=False
    )  # (piece, log probability); the place is the id
    byte_fallback: bool = False
    # Two that only we have in files, for models of SentencePiece: pieces that no text is taken for, whatever it looks like; and
    # that log probabilities are added in 32 bits, which decides between segmentations that are as good as equal.
    hidden: frozenset[str] = frozenset()
    single: bool = False

    def __post_init__(self) -> None:
        for entry in self.pieces:
            if (
                not isinstance(entry, (tuple, list))
                or len(entry) != 2
                or not isinstance(entry[0], str)
            ):
                raise ValueError(
                    f"vocab must be pairs of a piece and its score, and has {shown(entry)}"
                )
            if (
                not isinstance(entry[1], (int, float))
                or not -LARGEST_SCORE <= entry[1] <= LARGEST_SCORE
            ):  # NaN, too
                raise ValueError(
                    f"the score of {shown(entry[0])} must be finite, at most {LARGEST_SCORE:g}, got {shown(entry[1])}"
                )
        object.__setattr__(
            self, "pieces", tuple((piece, float(score)) for piece, score in self.pieces)
        )
        if self.unk_id is not None and not 0 <= self.unk_id < len(self.pieces):
            raise ValueError(
                f"unk_id {shown(self.unk_id)} is not the place of one of {len(self.pieces)} pieces"
            )

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> Unigram:
        only_known(
            content,
            {"type", "unk_id", "vocab", "byte_fallback", "hidden", "single"},
            f"{where} Unigram",
        )
        unk_id, pieces, byte_fallback = (
            content.get("unk_id"),
            content.get("vocab"),
            content.get("byte_fallback", False),
        )
        if unk_id is not None and type(unk_id) is not int:
            raise ValueError(
                f"{where} Unigram: unk_id must be an integer or null, got {shown(unk_id)}"
            )
        if type(byte_fallback) is not bool:
            raise ValueError(
                f"{where} Unigram: byte_fallback must be true or false, got {shown(byte_fallback)}"
            )
        hidden = content.get("hidden", [])
        if not isinstance(hidden, list) or not all(isinstance(piece, str) for piece in hidden):
            raise ValueError(
                f"{where} Unigram: hidden must be a list of pieces, got {shown(hidden)}"
            )
        if type(single := content.get("single", False)) is not bool:
            raise ValueError(f"{where} Unigram: single must be true or false, got {shown(single)}")
        if not isinstance(pieces, list):
            raise ValueError(
                f"{where} Unigram: vocab must be a list of [piece, score], got {shown(pieces)}"
            )
        for entry in pieces:
            if not isinstance(entry, list) or [type(part) for part in entry] not in (
                [str, float],
                [str, int],
            ):
                raise ValueError(
                    f"{where} Unigram: vocab must be a list of [piece, score], and has {shown(entry)}"
                )
        try:
            return cls(unk_id, tuple(map(tuple, pieces)), byte_fallback, frozenset(hidden), single)
        except ValueError as error:
            raise ValueError(f"{where} Unigram: {error}") from None

    def to_json(self) -> dict[str, Any]:
        pieces = [list(piece) for piece in self.pieces]
        content = {
            "type": "Unigram",
            "unk_id": self.unk_id,
            "vocab": pieces,
            "byte_fallback": self.byte_fallback,
        }
        ours = {"hidden": sorted(self.hidden), "single": self.single}
        return content | {name: value for name, value in ours.items() if value}

    @cached_property
    def vocab(self) -> dict[str, int]:
        """Of a piece that is listed twice, the last place counts."""
        return {piece: id for id, (piece, _) in enumerate(self.pieces)}

    def without(self, tokens: Iterable[str]) -> Unigram:
        """The same, but text that looks like one of `tokens` (special ones) is only text."""
        return replace(self, hidden=self.hidden | (self.vocab.keys() & {*tokens}))

    @cached_property
    def _known(self) -> dict[str, int]:
        return (
            {piece: id for piece, id in self.vocab.items() if piece not in self.hidden}
            if self.hidden
            else self.vocab
        )

    @cached_property
    def _unknown(self) -> tuple[float, dict]:
        """The trie's node after an unknown character."""
        score = min((score for _, score in self.pieces), default=0.0) - UNKNOWN_PENALTY
        return array("f" if self.single else "d", [score])[0], {}

    @cached_property
    def _trie(self) -> dict[str, list]:
        """A node is [score, children by character]; the score is -inf where no piece ends.

        A character that begins pieces but is none has the score of an unknown one.
        """
        root: list = [-math.inf, {}]
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
        """The ids of the best segmentation.  ValueError if it has unknown characters and there is no unk_id."""
        return self._ids(word, self._best(word))

    def encode_spans(self, word: str) -> list[tuple[int, int, int]]:
        """(id, start, end): also where it stands in the word.  The bytes of unknown characters all have the span of these."""
        return self._tokens(word, self._best(word))

    def nbest(self, word: str, n: int) -> list[tuple[list[int], float]]:
        """The n most probable segmentations, or all if there are fewer: (ids, log probability), the best first."""
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        # for each node its n best paths: (score, the node before, which of the paths there)
        paths: list[list[tuple[float, int, int]]] = [[(0.0, 0, 0)]]
        for edges in self._edges(word):
            found = (
                (path[0] + score, start, k)
                for start, score in edges
                for k, path in enumerate(paths[start])
            )
            paths.append(nlargest(n, found, key=itemgetter(0)))  # of equal ones the first
        results = []
        for score, place, k in paths[-1]:
            cuts, end = [len(word)], len(word)
            while end:
                cuts.append(place)
                end, (_, place, k) = place, paths[place][k]
            results.append((self._ids(word, cuts[::-1]), score))
        return results

    def log_likelihood(self, word: str) -> float:
        """log P(word), the sum over all segmentations."""
        return self._forward(self._edges(word), 1.0)[-1]

    def sample(self, word: str, key: int, alpha: float = 1.0) -> list[int]:
        """The ids of a segmentation x drawn with a probability proportional to P(x)^alpha.           Kudo 2018, section 3.3

        alpha = 0: all are equally probable; the greater it is, the more often the best one comes.  The draw is exact: the
        forward pass sums over the paths to each node, and from the last node back, the edge into a node is drawn in
        proportion to the paths that end with it (forward filtering, backward sampling).  `key`: tinyplm.random.
        """
        if not 0 <= alpha < math.inf:
            raise ValueError(f"alpha must be finite and not negative, got {alpha}")
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
            cuts.append(start)  # the last one, should rounding leave a rest
        return self._ids(word, cuts[::-1])

    def _best(self, word: str) -> list[int]:
        """Where the best segmentation cuts, 0 and len(word) included: Viterbi.

        From each node the trie is walked as far as the word goes along with it: linear in the length of the word.
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
                if best[end] > old:  # in 32 bits it may be the same
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
        """For each character, the edges that end behind it: (start, score), the earliest start first."""
        n = len(word)
        edges: list[list[tuple[int, float]]] = [[] for _ in word]
        for start, char in enumerate(word):
            end = start
            node = self._trie.get(char, self._unknown)
            while node is not None:
                score, children = node
                if score != -math.inf:
                    edges[end].append((start, score))
                end += 1
                node = children.get(word[end]) if end < n else None
        return edges

    @staticmethod
    def _forward(edges: list[list[tuple[int, float]]], alpha: float) -> list[float]:
        """For each node the log of the sum of P(path)^alpha over the paths to it."""
        forward = [0.0]
        for arriving in edges:
            logs = [forward[start] + alpha * score for start, score in arriving]
            top = max(logs)
            forward.append(top + math.log(sum([math.exp(log - top) for log in logs])))
        return forward

    def _ids(self, word: str, cuts: list[int]) -> list[int]:
        ids = [self._known.get(word[start:end]) for start, end in zip(cuts, cuts[1:])]
        if None in ids or self.unk_id in ids:
            return [id for id, _, _ in self._tokens(word, cuts)]
        return ids

    def _tokens(self, word: str, cuts: list[int]) -> list[tuple[int, int, int]]:
        """(id, start, end); neighbouring unknown characters are one token, or the bytes of all of them."""
        vocab, unk_id = self.vocab, self.unk_id
        joined: list[list[int]] = []
        unknown_before = False
        for start, end in zip(cuts, cuts[1:]):
            unknown = self._known.get(word[start:end], unk_id) == unk_id
            if unknown and unknown_before:
                joined[-1][1] = end
            else:
                joined.append([start, end])
            unknown_before = unknown
        tokens = []
        for start, end in joined:
            text = word[start:end]
            if (
                id := self._known.get(text)
            ) is not None:  # also unknown characters, if together they are a piece
                tokens.append((id, start, end))
                continue
            if self.byte_fallback:
                ids = [vocab.get(f"<0x{byte:02X}>") for byte in text.encode()]
                if None not in ids:
                    tokens += [(id, start, end) for id in ids]
                    continue
            if unk_id is None:
                raise ValueError(
                    f"the characters {shown(text)} are not in the vocabulary, and it has no token for unknown ones"
                )
            tokens.append((unk_id, start, end))
        return tokens
