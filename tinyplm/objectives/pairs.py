"""Batches of positive pairs for InfoNCE: an anchor and what belongs to it.

The other pairs of a batch are the negatives, so two pairs with the same anchor may not meet in one: each would be told that the
other's positive is wrong.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from ..arguments import MOST, check_several, check_whole, wrong
from ..random import fold
from ..random import key as run_key
from .draws import Draws
from .inputs import Layout, Row, check_pairs, check_samples, check_setup, pad


class PositivePairs:
    """The samples of a contrastive training run: sample n is known from (pairs, settings, seed, n) alone.

    pairs: (anchor, positive), both lists of ids without special tokens.  groups: for each pair what says that two anchors are
    the same; None: the ids themselves.  Samples k size ... (k + 1) size - 1 never have two anchors of one group, so steps of
    `size` samples (or shards of such a step, joined before the loss) are safe.

    Each epoch the groups come in random order, and their pairs, one after the other, are dealt to the batches in turn: a group
    of m pairs has m neighbours in this order, which fall into m batches as long as there are that many.  Each pair comes at most
    once an epoch; left out are the remainder of less than a batch, and of a group larger than the number of batches what is too
    much (other pairs in each epoch).
    ValueError where there are too few groups for a batch.
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
            check_several("groups", groups, "groups, one for each pair")
            groups = list(groups)
            if not all(isinstance(group, Hashable) for group in groups):
                raise wrong(
                    "groups", "values that can be told apart, such as integers or strings", groups
                )
        self.room = layout.room(length, pair=False)
        self.groups = [tuple(anchor) for anchor, _ in pairs] if groups is None else groups
        if len(self.groups) != len(pairs):
            raise ValueError(
                f"{len(self.groups)} groups for {len(pairs)} pairs, expected one for each"
            )
        members: dict[Hashable, list[int]] = {}
        for number, group in enumerate(self.groups):
            members.setdefault(group, []).append(number)
        self._members = [np.array(numbers) for numbers in members.values()]
        counts = [len(numbers) for numbers in self._members]
        self.batches_per_epoch = len(pairs) // size
        while (
            self.batches_per_epoch
            and sum(min(m, self.batches_per_epoch) for m in counts) < self.batches_per_epoch * size
        ):
            self.batches_per_epoch -= 1
        if not self.batches_per_epoch:
            raise ValueError(
                f"{len(pairs)} pairs with {len(counts)} different anchors, expected {size} or more for a batch"
            )
        self.pairs, self.size, self.layout, self.length = pairs, size, layout, length
        self._key = run_key(seed)
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def order(self, epoch: int) -> np.ndarray:
        """The numbers of the pairs of an epoch, batch after batch: (batches_per_epoch * size,) int64."""
        check_whole("epoch", epoch)
        if epoch != self._epoch:
            draws = Draws(fold(self._key, epoch))
            groups = [self._members[g] for g in draws.order(len(self._members))]
            dealt = np.concatenate(
                [numbers[draws.order(len(numbers))][: self.batches_per_epoch] for numbers in groups]
            )
            table = dealt[: self.batches_per_epoch * self.size].reshape(
                self.size, self.batches_per_epoch
            )
            self._epoch, self._order = epoch, table.T.reshape(-1)
        return self._order

    def numbers(self, first: int, count: int) -> list[int]:
        """The pairs of samples first ... first + count - 1."""
        check_samples(first, count)
        per_epoch = self.batches_per_epoch * self.size
        return [int(self.order(n // per_epoch)[n % per_epoch]) for n in range(first, first + count)]

    def batch(self, first: int, count: int) -> tuple[dict[str, Row], np.ndarray]:
        """({"anchor": arrays (count, T), "positive": arrays (count, T)}, targets (count,) = 0 ... count - 1).

        Texts that are too long lose their end.
        """
        numbers = self.numbers(first, count)
        fill = {"input_ids": self.layout.pad_id}
        sides = {
            name: pad(
                [self.layout.single(np.asarray(self.pairs[n][side])[: self.room]) for n in numbers],
                self.length,
                fill,
            )
            for side, name in enumerate(("anchor", "positive"))
        }
        return sides, np.arange(count)
