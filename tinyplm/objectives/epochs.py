"""Samples by number, over epochs that are planned one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..random import fold
from ..random import key as run_key
from .draws import Draws
from .inputs import check_samples
from .masked import masking_epoch


class Samples:
    """The samples of all epochs by number. plan: key -> the samples of an epoch.

    Epochs differ in length, so finding sample n makes the plans of all earlier epochs once and
    keeps their lengths.
    """

    def __init__(self, plan: Callable[[int], list], seed: int, copies: int | None) -> None:
        self._plan, self._key, self._copies = plan, run_key(seed), copies
        self.ends = [0]  # samples before epoch 0, 1, ...
        self._kept: list[Any] = []
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def get(self, first: int, count: int) -> list[tuple[Any, int]]:
        """Samples first ... first + count - 1, each with its key."""
        check_samples(first, count)
        return [self._sample(n) for n in range(first, first + count)]

    def _sample(self, n: int) -> tuple[Any, int]:
        while n >= self.ends[-1]:
            self._open(len(self.ends) - 1)
            self.ends.append(self.ends[-1] + len(self._kept))
        epoch = int(np.searchsorted(self.ends, n, side="right")) - 1
        self._open(epoch)
        number = int(self._order[n - self.ends[epoch]])
        return self._kept[number], fold(self._key, masking_epoch(epoch, self._copies), 1, number)

    def _open(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._kept = self._plan(fold(self._key, masking_epoch(epoch, self._copies), 0))
            self._order = Draws(fold(self._key, epoch, 2)).order(len(self._kept))
            self._epoch = epoch
