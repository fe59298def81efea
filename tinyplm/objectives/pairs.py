"""Batches of positive pairs for InfoNCE: an anchor and a text that matches it.

The other pairs of a batch are the negatives. Two pairs with the same anchor must therefore not meet
in one batch: each would treat the other's positive as a negative.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from ..arguments import MOST, check_several, check_whole, mismatch, wrong
from ..random import fold
from ..random import key as run_key
from .draws import Draws
from .inputs import Layout, Row, check_pairs, check_samples, check_setup, pad


class PositivePairs:
    """The samples of a contrastive training run: sample n depends on (pairs, settings, seed, n).

    pairs: (anchor, positive), both lists of ids without special tokens. groups: a label for each
    pair; anchors with equal labels count as the same. None: the anchor's ids. Samples
    k size ... (k + 1) size - 1 never contain two anchors of one group, so steps of `size` samples
    (or shards of such a step, joined before the loss) are safe.

    Each epoch shuffles the groups and deals their pairs, group by group, to the batches in turn.
    The m pairs of a group are consecutive, so they go to m different batches, if there are that
    many. Each pair occurs at most once per epoch. An incomplete last batch is dropped, as is the
    surplus of a group larger than the number of batches; both differ from epoch to epoch.
    ValueError if there are too few groups for a batch.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
        size: int,
        *,
        layout: Layout,
        length: int,
        seed: int,
        groups: Sequence[Hashable] | None = None,
    ) -> None:
        pairs = check_pairs(pairs)
        check_setup(layout, seed)
        check_whole("size", size, 2, MOST)
        if groups is not None:
            check_several("groups", groups, "groups, one per pair")
            groups = list(groups)
            if not all(isinstance(group, Hashable) for group in groups):
                raise wrong("groups", "hashable values such as integers or strings", groups)
        self.room = layout.room(length, pair=False)
        self.groups = [tuple(anchor) for anchor, _ in pairs] if groups is None else groups
        if len(self.groups) != len(pairs):
            raise ValueError(f"groups: expected {len(pairs)}, one per pair, got {len(self.groups)}")
        members: dict[Hashable, list[int]] = {}
        for number, group in enumerate(self.groups):
            members.setdefault(group, []).append(number)
        self._members = [np.array(numbers) for numbers in members.values()]
        counts = [len(numbers) for numbers in self._members]
        batches = len(pairs) // size
        while batches and sum(min(m, batches) for m in counts) < batches * size:
            batches -= 1
        if not batches:
            expected = f"{size} or more different anchors for a batch"
            raise mismatch("pairs", expected, f"{len(counts)} in {len(pairs)} pairs")
        self.batches_per_epoch = batches
        self.pairs, self.size, self.layout, self.length = pairs, size, layout, length
        self._key = run_key(seed)
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def order(self, epoch: int) -> np.ndarray:
        """The pair numbers of an epoch, batch by batch: (batches_per_epoch * size,) int64."""
        check_whole("epoch", epoch)
        if epoch != self._epoch:
            draws, batches = Draws(fold(self._key, epoch)), self.batches_per_epoch
            groups = [self._members[g] for g in draws.order(len(self._members))]
            dealt = [numbers[draws.order(len(numbers))][:batches] for numbers in groups]
            table = np.concatenate(dealt)[: batches * self.size].reshape(self.size, batches)
            self._epoch, self._order = epoch, table.T.reshape(-1)
        return self._order

    def numbers(self, first: int, count: int) -> list[int]:
        """The pair numbers of samples first ... first + count - 1."""
        check_samples(first, count)
        per_epoch = self.batches_per_epoch * self.size
        return [int(self.order(n // per_epoch)[n % per_epoch]) for n in range(first, first + count)]

    def batch(self, first: int, count: int) -> tuple[dict[str, Row], np.ndarray]:
        """({"anchor": arrays (count, T), "positive": likewise}, targets = 0 ... count - 1).

        Long texts are truncated at the end.
        """
        numbers = self.numbers(first, count)
        sides = {}
        for side, name in enumerate(("anchor", "positive")):
            texts = [np.asarray(self.pairs[n][side])[: self.room] for n in numbers]
            rows = [self.layout.single(text) for text in texts]
            sides[name] = pad(rows, self.length, {"input_ids": self.layout.pad_id})
        return sides, np.arange(count)
