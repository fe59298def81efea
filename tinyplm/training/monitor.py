"""Monitoring: outliers in the loss and the gradient norm, and lack of improvement in validation."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

FIELDS = ("loss", "gradient_norm")  # of a step's log record
WINDOW = 200  # preceding steps a step is compared with
START = 100  # steps before anything is reported
FACTOR = {"loss": 6.0, "gradient_norm": 10.0}  # deviations above the median


class Outlier(NamedTuple):
    """A value that stands out."""

    field: str
    value: float
    threshold: float


class Monitor:
    """Reports x > threshold, computed from the last 200 steps (at least 100),

        threshold = median + factor * max(1.4826 * median(|x_i - median|), median / 100),

    with factor 6 for the loss and 10 for the gradient norm, whose noise has a longer tail.  1.4826
    times the median absolute deviation estimates the standard deviation of normal noise; a few
    outliers move neither it nor the median (Rousseeuw & Croux 1993).  The hundredth stops a nearly
    constant loss from having a threshold barely above itself.  Only large values are reported, so
    the initial fall of the loss is not; of consecutive outliers only the first is.

    False alarms at 128 tokens a step, which is noisy: 2500 steps of a small GPT-2, used to choose
    the factors, and then 2000 of a small LLaMA with another seed gave none for the loss and 4 each
    for the gradient norm, up to 1.7 times the threshold.

    The state is a function of the last 201 records of the log, so `replay` restores it exactly on
    resume.
    """

    def __init__(self) -> None:
        self._values: dict[str, deque[float]] = {field: deque(maxlen=WINDOW) for field in FIELDS}
        self._above = dict.fromkeys(FIELDS, False)

    def observe(self, record: dict[str, Any]) -> list[Outlier]:
        """Take in the record of a step; returns its outliers."""
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
        """Take in the records of a log without reporting outliers again."""
        for record in deque(
            (r for r in records if all(field in r for field in FIELDS)), maxlen=WINDOW + 1
        ):
            self.observe(record)


def threshold(values: Iterable[float], factor: float) -> float:
    """median + factor * max(1.4826 * median absolute deviation, median / 100)."""
    values = np.asarray(values if isinstance(values, list) else list(values))
    median = np.median(values)
    deviation = 1.4826 * np.median(np.abs(values - median))
    return float(median + factor * max(deviation, abs(median) / 100))


def improves(loss: float, best: float | None, least: float) -> bool:
    """Whether a validation loss is below the best one by at least `least`."""
    return best is None or (loss < best and loss <= best - least)
