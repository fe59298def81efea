"""Metrics for classifiers and regressions, as pure functions of (predictions, labels).

Shares range from 0 to 1. A ratio 0 / 0 is 0, as is the correlation with a constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..arguments import as_array, check_choice, check_whole, wrong

Values = Sequence[Any] | np.ndarray


class Scores(NamedTuple):
    """Precision, recall and F1."""

    precision: float
    recall: float
    f1: float


def scores(true_positives: int, predicted: int, labelled: int) -> Scores:
    """precision = tp / predicted, recall = tp / labelled, f1 = 2 tp / (predicted + labelled)."""
    check_whole("predicted", predicted)
    check_whole("labelled", labelled)
    check_whole("true_positives", true_positives, 0, min(predicted, labelled))
    return Scores(
        _ratio(true_positives, predicted),
        _ratio(true_positives, labelled),
        _ratio(2 * true_positives, predicted + labelled),
    )


def accuracy(predictions: Values, labels: Values) -> float:
    """The share of samples with the right class; a multi-label row (C,) must match entirely."""
    p, t = _classes(predictions, labels, None)
    return float((p == t).reshape(len(p), -1).all(axis=1).mean())


def precision_recall_f1(
    predictions: Values,
    labels: Values,
    *,
    average: str = "binary",
    classes: int | None = None,
    positive: int = 1,
) -> Scores:
    """Precision, recall and F1 of class numbers (N,) or of multi-label rows of 0 and 1 (N, C).

    average  "binary": of the class `positive` alone, for classes 0 and 1
             "micro":  of the counts summed over classes; for class numbers, all three are accuracy
             "macro":  the mean over classes (so f1 is the mean of F1s, not the F1 of means)
    classes  the number of classes C, counting classes that never occur, with 0; None: those that
             occur, or all columns
    """
    check_choice("average", average, ("binary", "micro", "macro"))
    check_whole("positive", positive, 0, 1)
    p, t = _classes(predictions, labels, classes)
    if average == "binary":
        if p.ndim == 2 or max(p.max(), t.max()) > 1:
            worst = p.shape if p.ndim == 2 else int(max(p.max(), t.max()))
            expected = "expected macro or micro for more than the classes 0 and 1"
            raise ValueError(f"average: {expected}, got 'binary' with {worst}")
        return scores(*_counts(p == positive, t == positive))
    if p.ndim == 1:
        kinds = np.arange(classes) if classes is not None else np.unique([p, t])
        p, t = p[:, None] == kinds, t[:, None] == kinds
    counts = [_counts(*column) for column in zip(p.T == 1, t.T == 1)]
    if average == "micro":
        return scores(*(sum(numbers) for numbers in zip(*counts)))
    columns = zip(*(scores(*numbers) for numbers in counts))
    return Scores(*(sum(values) / len(counts) for values in columns))


def confusion(predictions: Values, labels: Values, classes: int | None = None) -> np.ndarray:
    """(C, C) int64: [t, p] counts class t predicted as p. classes None: C is the largest + 1."""
    p, t = _classes(predictions, labels, classes)
    if p.ndim != 1:
        raise wrong("predictions", "class numbers (N,)", p)
    C = int(max(p.max(), t.max())) + 1 if classes is None else classes
    return np.bincount(t * C + p, minlength=C * C).reshape(C, C)


def matthews_correlation(predictions: Values, labels: Values) -> float:
    """(c s - sum_k p_k t_k) / sqrt((s^2 - sum_k p_k^2) (s^2 - sum_k t_k^2)).         Gorodkin 2004

    s samples, c of them right; p_k predicted as class k, t_k of class k. The range is -1 to 1. For
    two classes this is the coefficient of Matthews 1975,
    (tp tn - fp fn) / sqrt((tp + fp) (tp + fn) (tn + fp) (tn + fn)).
    """
    matrix = confusion(predictions, labels).tolist()  # Python integers: the products overflow int64
    right, samples = sum(row[k] for k, row in enumerate(matrix)), sum(map(sum, matrix))
    t, p = [sum(row) for row in matrix], [sum(column) for column in zip(*matrix)]
    spread = (samples**2 - sum(n * n for n in p)) * (samples**2 - sum(n * n for n in t))
    return _ratio(right * samples - sum(a * b for a, b in zip(p, t)), spread**0.5)


def pearson_correlation(predictions: Values, labels: Values) -> float:
    """sum (x - mx) (y - my) / sqrt(sum (x - mx)^2 sum (y - my)^2), from -1 to 1."""
    x, y = (_centred(values) for values in _numbers(predictions, labels))
    return float(np.clip(_ratio(float(x @ y), float((x @ x) ** 0.5 * (y @ y) ** 0.5)), -1, 1))


def spearman_correlation(predictions: Values, labels: Values) -> float:
    """Pearson's correlation of the ranks; equal values share their mean rank.      Spearman 1904"""
    x, y = _numbers(predictions, labels)
    return pearson_correlation(ranks(x), ranks(y))


def ranks(values: Values) -> np.ndarray:
    """1 for the smallest value, N for the largest; equal values share their mean rank."""
    values = _array("values", values)
    if values.ndim != 1 or values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise wrong("values", "finite numbers (N,)", values)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + 1 + last) / 2)[inverse]


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def _counts(p: np.ndarray, t: np.ndarray) -> tuple[int, int, int]:
    """(true positives, predicted, labelled) of two boolean arrays."""
    return int((p & t).sum()), int(p.sum()), int(t.sum())


def _centred(values: np.ndarray) -> np.ndarray:
    """values - mean, scaled so that no square overflows or vanishes; exactly 0 if all are equal."""
    if values.min() == values.max():
        return np.zeros_like(values)
    values = values / np.abs(values).max()
    values = values - values.mean()
    return values / np.abs(values).max()


def _numbers(predictions: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = _array("predictions", predictions), _array("labels", labels)
    same_length(x, y)
    for name, values in (("predictions", x), ("labels", y)):
        if values.ndim != 1 or values.dtype.kind not in "iuf" or not np.isfinite(values).all():
            raise wrong(name, "finite numbers (N,)", values)
    return x.astype(np.float64), y.astype(np.float64)


def _classes(predictions: Any, labels: Any, classes: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Both as checked arrays of integers: class numbers (N,) or multi-label rows (N, C)."""
    p, t = _array("predictions", predictions), _array("labels", labels)
    check_whole("classes", classes, 1, 2**15, or_none=True)
    same_length(p, t)
    for name, values in (("predictions", p), ("labels", t)):
        right = values.ndim in (1, 2) and values.shape == p.shape and 0 not in values.shape
        if not right or values.dtype.kind not in "iub":
            raise wrong(name, "integers (N,) or 0 and 1 (N, C), the same for both", values)
        if values.ndim == 2 and classes not in (None, values.shape[1]):
            raise wrong(name, f"{classes} columns, one per class", values)
        last = 1 if values.ndim == 2 else np.inf if classes is None else classes - 1
        if values.min() < 0 or values.max() > last:
            given = int(values.min() if values.min() < 0 else values.max())
            limit = ">= 0" if last == np.inf else f"from 0 to {last}"
            raise ValueError(f"{name}: expected class numbers {limit}, got {given}")
    return p.astype(np.int64), t.astype(np.int64)


def _array(name: str, values: Any) -> np.ndarray:
    return as_array(name, values, "numbers (N,)", "biuf", range(64))


def same_length(predictions: Values, labels: Values) -> None:
    """ValueError unless there is one label per prediction, and at least one."""
    p, t = np.shape(predictions), np.shape(labels)
    if not p or not t or p[0] != t[0]:
        raise ValueError(f"labels: expected one per prediction, got {t} for predictions {p}")
    if t[0] == 0:
        raise ValueError("labels: expected at least one, got none")
