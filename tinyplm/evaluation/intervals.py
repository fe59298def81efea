"""How sure a figure is: intervals of shares and of any statistic, and whether two models differ.

share      Wilson's interval: of k successes in n trials, for any k, also 0 and n
statistic  the bootstrap: the statistic of samples drawn with replacement
two models on the same samples: the randomisation test of their paired differences
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import random
from ..arguments import (
    as_array,
    check_function,
    check_key,
    check_number,
    check_whole,
    is_number,
    mismatch,
    shown,
)

EXACT = 12  # pairs; up to here all 2^n signs are tried
MOST_DRAWS = 10**7
LARGEST = 1 << 53
CHUNK = 1 << 22  # numbers in memory at a time


class Interval(NamedTuple):
    """An estimate, and the ends of its interval."""

    estimate: float
    low: float
    high: float


def wilson(successes: float, trials: int, *, confidence: float = 0.95) -> Interval:
    """(p + z^2/2n +- z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n),   p = successes / trials.

    z: the quantile of the normal distribution at (1 + confidence) / 2.      Wilson 1927
    The shares whose own standard error reaches p.  successes may be halves, as of draws; the
    interval is then too wide, not too narrow.  trials 0: (nan, 0, 1).
    """
    check_whole("trials", trials, 0, LARGEST)
    check_number("successes", successes, least=0)
    if successes > trials:
        raise mismatch("trials", f"at least as many as successes, {successes}", str(trials))
    z = quantile_of(confidence)
    if trials == 0:
        return Interval(math.nan, 0.0, 1.0)
    p, n = successes / trials, trials
    middle = p + z**2 / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = ((middle + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    return Interval(p, 0.0 if successes == 0 else low, 1.0 if successes == trials else high)


def quantile_of(confidence: float) -> float:
    """z such that a standard normal number lies within +-z with this probability."""
    check_number("confidence", confidence, above=0, below=1)
    return statistics.NormalDist().inv_cdf((1 + confidence) / 2)


def bootstrap(
    values: Sequence[Any] | np.ndarray,
    statistic: Callable[[np.ndarray], float] | None = None,
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    draws: int = 1000,
    confidence: float = 0.95,
    key: int = 0,
) -> Interval:
    """The percentile interval of statistic(values).            Efron & Tibshirani 1993, sec. 13.3

    values: (N, ...), a row for each sample; statistic: None is the mean of (N,) numbers
    groups: (N,), such as the prompt of each sample; whole groups are drawn, as their samples are
    not independent
    With draws of rows with replacement, the ends are quantiles of the statistic over the draws.
    """
    rows = _rows("values", values)
    check_function("statistic", statistic, or_none=True)
    check_whole("draws", draws, 1, MOST_DRAWS)
    check_key("key", key)
    check_number("confidence", confidence, above=0, below=1)
    if statistic is None and rows.ndim != 1:
        raise mismatch("values", "(N,) numbers, or a statistic", str(rows.shape))
    members = _members(groups, len(rows))
    draw = random.generator(key)
    if statistic is None:
        sums = np.array([rows[some].sum() for some in members]) if groups is not None else rows
        sizes = np.array([len(some) for some in members])
        found = _drawn_means(sums, sizes, draws, draw)
        estimate = float(rows.mean())
    else:
        estimate, found = _number(statistic(rows)), np.empty(draws)
        for i in range(draws):
            chosen = draw.integers(len(members), size=len(members))
            found[i] = _number(statistic(rows[np.concatenate([members[j] for j in chosen])]))
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high))


def _drawn_means(
    sums: np.ndarray, sizes: np.ndarray, draws: int, draw: np.random.Generator
) -> np.ndarray:
    """The mean of each draw: sums of groups over their sizes."""
    means = []
    step = max(1, CHUNK // len(sums))
    for first in range(0, draws, step):
        chosen = draw.integers(len(sums), size=(min(step, draws - first), len(sums)))
        means.append(sums[chosen].sum(axis=1) / sizes[chosen].sum(axis=1))
    return np.concatenate(means)


def _members(groups: Any, count: int) -> list[np.ndarray]:
    if groups is None:
        return list(np.arange(count)[:, None])
    names = as_array("groups", groups, "texts or numbers, one for each sample", "biufU")
    if len(names) != count:
        raise mismatch("groups", f"one for each of the {count} values", str(len(names)))
    order = np.argsort(names, kind="stable")
    _, first = np.unique(names[order], return_index=True)
    return np.split(order, first[1:])


class PairedTest(NamedTuple):
    """The mean difference of two models, its interval, and p: how often chance gives as much."""

    difference: Interval
    p: float
    samples: int


def paired_test(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    draws: int = 10_000,
    confidence: float = 0.95,
    key: int = 0,
) -> PairedTest:
    """Is the mean of first - second, figures of two models on the same samples, other than 0?

    If the models were equal, each difference d_n could as well be -d_n.  With random signs s,

        p = (1 + #{draws with |mean(s d)| >= |mean(d)|}) / (1 + draws)      Fisher 1935, sec. 21
                                                                      Phipson & Smyth 2010, eq. 2
    Up to 12 samples (or groups) all 2^n signs are tried and p is exact: #{...} / 2^n.  For right
    and wrong answers, 1 and 0, this is McNemar's exact test (the sign test).
    groups: samples that belong together, such as those of one prompt, share a sign
    The interval of the difference is bootstrapped.
    """
    a, b = _rows("first", first), _rows("second", second)
    if a.ndim != 1 or a.shape != b.shape:
        raise mismatch("first, second", "(N,) and (N,) numbers", f"{a.shape} and {b.shape}")
    check_whole("draws", draws, 1, MOST_DRAWS)
    check_key("key", key)
    d = a - b
    interval = bootstrap(d, groups=groups, confidence=confidence, key=random.fold(key, 1))
    sums = d if groups is None else np.array([d[some].sum() for some in _members(groups, len(d))])
    n, observed = len(sums), abs(sums.sum())
    # a sum of n terms is exact to n eps of the sum of their sizes: equal sums must count as equal
    observed -= n * np.finfo(np.float64).eps * np.abs(sums).sum()
    if n <= EXACT:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
        p = float(np.mean(np.abs(signs @ sums) >= observed))
    else:
        draw, hits = random.generator(random.fold(key, 2)), 0
        step = max(1, CHUNK // n)
        for begin in range(0, draws, step):
            signs = 1 - 2 * draw.integers(2, size=(min(step, draws - begin), n), dtype=np.int8)
            hits += int((np.abs(signs @ sums) >= observed).sum())
        p = (1 + hits) / (1 + draws)
    return PairedTest(interval, p, len(d))


def _number(value: Any) -> float:
    if not is_number(value):
        raise mismatch("statistic", "a function whose result is a number", shown(value))
    return float(value)


def _rows(name: str, values: Any) -> np.ndarray:
    rows = as_array(name, values, "one or more numbers", "biuf", range(1, 9)).astype(np.float64)
    if not len(rows) or not np.isfinite(rows).all():
        raise mismatch(name, "one or more finite numbers", "none" if not len(rows) else "others")
    return rows
