"""Mixtures of tasks: which task each sample comes from (T5: Raffel et al. 2020, sec. 3.5.2).

    proportional   rate of task m proportional to min(n_m, K): n_m examples, an artificial limit K
    temperature    these rates to the power 1 / T, rescaled to sum 1; T = 1 is proportional
    equal          T = infinity            (all by data/mixing.py: mixture_rates)

A mixture is a pipeline over pipelines: the i-th sample of the mixture that falls to a task is the
task's own sample i, so each task goes through its data in its own shuffled epochs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..arguments import MOST, check_key, check_whole, is_number, wrong
from ..core import IGNORED
from ..data.mixing import mixture_rates
from ..random import fold
from ..random import key as run_key
from .draws import Draws
from .inputs import Batch, check_samples

__all__ = ["Mixture", "mixture_rates"]

BLOCK = 4096  # samples whose tasks are drawn together


class Mixture:
    """Samples of several pipelines, each drawn from one of them by its rate.

    tasks: name -> pipeline with batch(first, count) -> (inputs, targets), two dicts of arrays; the
    names of the arrays are the same in all. rates: name -> weight (mixture_rates). Rows of
    different lengths are padded at the end to the longest of the batch: ids with pad_id, targets
    with -100, anything else with 0.
    Finding sample n counts the draws of all samples before it, once.
    ValueError for a task without samples, or with other arrays than the first.
    """

    def __init__(
        self, tasks: Mapping[str, Any], rates: Mapping[str, float], *, pad_id: int, seed: int
    ) -> None:
        check_whole("pad_id", pad_id, 0, MOST)
        check_key("seed", seed)
        if not isinstance(tasks, Mapping) or not tasks:
            raise wrong("tasks", "a dict from names to pipelines", tasks)
        self.tasks, self.pad_id, self._key = dict(tasks), pad_id, run_key(seed)
        self.rates = _rates(rates, self.tasks)
        names = {name: _names(name, task) for name, task in self.tasks.items()}
        first = next(iter(names))
        for name in names:
            if names[name] != names[first]:
                expected = f"the arrays of {first!r:.60}: {', '.join(map(', '.join, names[first]))}"
                raise wrong(f"tasks: {name!r:.60}", expected, names[name])
        self.length: int = max(getattr(task, "length", 0) for task in self.tasks.values())
        self._limits = np.cumsum(list(self.rates.values()))
        self._before = [np.zeros(len(self.tasks), np.int64)]  # draws of each task before a block

    def batch(self, first: int, count: int) -> Batch:
        """Samples first ... first + count - 1: (inputs, targets)."""
        drawn, numbers = self.drawn(first, count)
        parts, rows = [], []
        for t, task in enumerate(self.tasks.values()):
            places = np.flatnonzero(drawn == t)
            if len(places):  # consecutive samples of this task
                parts.append(task.batch(int(numbers[places[0]]), len(places)))
                rows.append(places)
        fill = {"input_ids": self.pad_id, "decoder_input_ids": self.pad_id}
        inputs = {
            name: _joined(name, [part[0][name] for part in parts], rows, fill.get(name, 0))
            for name in parts[0][0]
        }
        targets = {
            name: _joined(name, [part[1][name] for part in parts], rows, IGNORED)
            for name in parts[0][1]
        }
        return inputs, targets

    def drawn(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """For samples first ... first + count - 1: the task, by position in `tasks`, and its sample
        number, both (count,) int64."""
        check_samples(first, count)
        start, end = first // BLOCK, (first + count - 1) // BLOCK
        while len(self._before) <= end:
            counts = np.bincount(self._block(len(self._before) - 1), minlength=len(self.tasks))
            self._before.append(self._before[-1] + counts)
        drawn = np.concatenate([self._block(block) for block in range(start, end + 1)])
        numbers = np.empty(len(drawn), np.int64)
        for t, before in enumerate(self._before[start]):
            places = drawn == t
            numbers[places] = before + np.arange(places.sum())
        here = slice(first - start * BLOCK, first - start * BLOCK + count)
        return drawn[here], numbers[here]

    def _block(self, block: int) -> np.ndarray:
        points = Draws(fold(self._key, block)).uniforms(BLOCK) * self._limits[-1]
        return np.minimum(np.searchsorted(self._limits, points, side="right"), len(self.tasks) - 1)


def _rates(rates: Any, tasks: Mapping[str, Any]) -> dict[str, float]:
    """The rates in the order of the tasks."""
    if not isinstance(rates, Mapping) or rates.keys() != tasks.keys():
        raise wrong("rates", f"a dict of rates of {', '.join(map(str, tasks))}", rates)
    for name, rate in rates.items():
        if not is_number(rate) or rate <= 0:
            raise wrong(f"rates: {name!r:.60}", "a finite number > 0", rate)
    return {name: float(rates[name]) for name in tasks}


def _names(name: str, task: Any) -> tuple[tuple[str, ...], ...]:
    """The names of a pipeline's inputs and targets, from its first sample."""
    where = f"tasks: {name!r:.60}"
    expected = "a pipeline: batch(first, count) -> (inputs, targets), dicts of arrays"
    if not callable(getattr(task, "batch", None)):
        raise wrong(where, expected, task)
    sample = task.batch(0, 1)
    if not isinstance(sample, tuple) or len(sample) != 2:
        raise wrong(where, expected, sample)
    for part in sample:
        arrays = isinstance(part, dict) and all(isinstance(a, np.ndarray) for a in part.values())
        if not arrays or any(len(a) != 1 for a in part.values()):
            raise wrong(where, expected, part)
    return tuple(tuple(sorted(part)) for part in sample)


def _joined(name: str, arrays: list, rows: list, fill: int) -> np.ndarray:
    """The rows of all arrays in the order of the batch, padded along axis 1."""
    shapes = {array.shape[2:] for array in arrays}
    wide = [array.shape[1] for array in arrays if array.ndim > 1]
    if len(shapes) > 1 or len(wide) not in (0, len(arrays)):
        raise wrong("tasks", f"{name} of equal shapes but for the length", sorted(shapes))
    width = (max(wide),) if wide else ()
    count = sum(map(len, rows))
    joined = np.full((count, *width, *arrays[0].shape[2:]), fill, arrays[0].dtype)
    for array, places in zip(arrays, rows):
        if wide:
            joined[places, : array.shape[1]] = array
        else:
            joined[places] = array
    return joined
