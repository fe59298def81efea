"""Monitors: steps whose loss or gradient norm stands out from those before, and validation that no longer improves."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

FIELDS = ("loss", "gradient_norm")  # of a step's record in the log
WINDOW = 200  # steps before that a step is compared with
START = 100  # steps that must have gone by before anything is reported
FACTOR = {"loss": 6.0, "gradient_norm": 10.0}  # deviations above the median


class Outlier(NamedTuple):
    """One value that stands out."""

    field: str
    value: float
    threshold: float


class Monitor:
    """Reports a value x > threshold, with, over the last 200 steps before it (at least 100),

        threshold = median + factor * max(1.4826 * median(|x_i - median|), median / 100),

    factor 6 for the loss and 10 for the gradient norm, whose noise has a longer tail.  1.4826 times the median absolute deviation
    estimates the standard deviation of normal noise, and neither it nor the median is moved by a few outliers (Rousseeuw & Croux
    1993).  The hundredth keeps a loss that hardly moves from having a threshold of nearly its own size.  Only what is too
    large is reported, so the fall at the start of a run is none; of steps in a row that are above their thresholds, the first.

    False alarms, with 128 tokens a step, which is noisy: 2500 steps of a small GPT-2, on which the factors were chosen, and then
    2000 of a small LLaMA with another seed gave none of the loss and 4 each of the gradient norm, up to 1.7 times the threshold.

    What it knows is a function of the last 201 records of the log, so `replay` puts a resumed run exactly where it was.
    """

    def __init__(self) -> None:
        self._values = {field: deque(maxlen=WINDOW) for field in FIELDS}
        self._above = dict.fromkeys(FIELDS, False)

    def observe(self, record: dict[str, Any]) -> list[Outlier]:
        """Take in one step's record; the outliers in it."""
        found = []
        for field in FIELDS:
            value, before = record[field], self._values[field]
            limit = threshold(before, FACTOR[field]) if len(before) >= START else np.inf
            above = value > limit
            if above and not self._above[field]:
                found.append(Outlier(field, value, limit))
            self._above[field] = above
            before.append(value)
        return found

    def replay(self, records: Iterable[dict[str, Any]]) -> None:
        """Take in the steps of a log without reporting them again."""
        for record in deque((r for r in records if all(field in r for field in FIELDS)), maxlen=WINDOW + 1):
            self.observe(record)


def threshold(values: Iterable[float], factor: float) -> float:
    """median + factor * max(1.4826 * median absolute deviation, median / 100)."""
    values = np.asarray(values if isinstance(values, list) else list(values))
    median = np.median(values)
    deviation = 1.4826 * np.median(np.abs(values - median))
    return float(median + factor * max(deviation, abs(median) / 100))


def improves(loss: float, best: float | None, least: float) -> bool:
    """Whether a validation loss is below the best one so far by at least `least`."""
    return best is None or (loss < best and loss <= best - least)
