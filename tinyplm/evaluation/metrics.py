"""How good the predictions of a classifier or a regression are.  All are pure functions of (predictions, labels), in that order.

Shares are from 0 to 1.  A ratio 0 / 0 is 0 here, as is a correlation with something constant: nothing was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..arguments import as_array, check_choice, check_whole, wrong


class Scores(NamedTuple):
    precision: float
    recall: float
    f1: float


def scores(true_positives: int, predicted: int, labelled: int) -> Scores:
    """precision = tp / predicted,   recall = tp / labelled,   f1 = 2 tp / (predicted + labelled), their harmonic mean."""
    for name, count in (
        ("true_positives", true_positives),
        ("predicted", predicted),
        ("labelled", labelled),
    ):
        check_whole(name, count)
    check_whole("true_positives", true_positives, 0, min(predicted, labelled))
    return Scores(
        _ratio(true_positives, predicted),
        _ratio(true_positives, labelled),
        _ratio(2 * true_positives, predicted + labelled),
    )


def accuracy(predictions: Sequence[int], labels: Sequence[int]) -> float:
    """The share of samples with the right class.  For multi-label rows of 0 and 1, (N, C): all of a row must be right."""
    p, t = _classes(predictions, labels, None)
    return float((p == t).reshape(len(p), -1).all(axis=1).mean())


def precision_recall_f1(
    predictions: Sequence[int],
    labels: Sequence[int],
    *,
    average: str = "binary",
    classes: int | None = None,
    positive: int = 1,
) -> Scores:
    """Precision, recall and F1 of class numbers (N,), or of multi-label rows of 0 and 1, (N, C).

    average  "binary": of the class `positive` alone, for classes 0 and 1.
             "micro":  of the counts added up over the classes.  Of class numbers this is the accuracy, three times.
             "macro":  the mean of the classes' own values (so f1 is the mean of the F1s, not the F1 of the means).
    classes  their number C, to which a class that never occurs belongs, with 0; None: those that occur, or all columns.
    """
    check_choice("average", average, ("binary", "micro", "macro"))
    check_whole("positive", positive, 0, 1)
    p, t = _classes(predictions, labels, classes)
    if average == "binary":
        if p.ndim == 2 or max(p.max(), t.max()) > 1:
            raise ValueError(
                f"binary scores are for classes 0 and 1, got positive = {positive}, predictions of shape {p.shape} "
                f"with {p.max()} as largest and labels with {t.max()}: average by macro or micro"
            )
        return scores(*_counts(p == positive, t == positive))
    if p.ndim == 1:
        kinds = np.arange(classes) if classes is not None else np.unique([p, t])
        p, t = p[:, None] == kinds, t[:, None] == kinds
    counts = [_counts(*column) for column in zip(p.T == 1, t.T == 1)]
    if average == "micro":
        return scores(*(sum(numbers) for numbers in zip(*counts)))
    return Scores(
        *(sum(values) / len(counts) for values in zip(*(scores(*numbers) for numbers in counts)))
    )


def confusion(
    predictions: Sequence[int], labels: Sequence[int], classes: int | None = None
) -> np.ndarray:
    """(C, C) int64: [t, p] is how many samples of class t were taken for class p.  classes None: C is the largest number + 1."""
    p, t = _classes(predictions, labels, classes)
    if p.ndim != 1:
        raise ValueError(f"a confusion matrix is of class numbers (N,), got shape {p.shape}")
    C = int(max(p.max(), t.max())) + 1 if classes is None else classes
    return np.bincount(t * C + p, minlength=C * C).reshape(C, C)


def matthews_correlation(predictions: Sequence[int], labels: Sequence[int]) -> float:
    """(c s - sum_k p_k t_k) / sqrt((s^2 - sum_k p_k^2) (s^2 - sum_k t_k^2)), from -1 to 1.                     Gorodkin 2004

    s samples, c of them right, p_k predicted as class k and t_k of class k.  For two classes it is the correlation of Matthews
    1975, (tp tn - fp fn) / sqrt((tp + fp) (tp + fn) (tn + fp) (tn + fn)).
    """
    matrix = confusion(
        predictions, labels
    ).tolist()  # Python's integers: the products would overflow
    right, samples = sum(row[k] for k, row in enumerate(matrix)), sum(map(sum, matrix))
    t, p = [sum(row) for row in matrix], [sum(column) for column in zip(*matrix)]
    spread = (samples**2 - sum(n * n for n in p)) * (samples**2 - sum(n * n for n in t))
    return _ratio(right * samples - sum(a * b for a, b in zip(p, t)), spread**0.5)


def pearson_correlation(predictions: Sequence[float], labels: Sequence[float]) -> float:
    """sum (x - mx) (y - my) / sqrt(sum (x - mx)^2 sum (y - my)^2), from -1 to 1."""
    x, y = (_centred(values) for values in _numbers(predictions, labels))
    return float(np.clip(_ratio(float(x @ y), float((x @ x) ** 0.5 * (y @ y) ** 0.5)), -1, 1))


def spearman_correlation(predictions: Sequence[float], labels: Sequence[float]) -> float:
    """Pearson's correlation of the ranks, where equal values share the mean of their ranks.                   Spearman 1904"""
    return pearson_correlation(*(ranks(values) for values in _numbers(predictions, labels)))


def ranks(values: Sequence[float]) -> np.ndarray:
    """1 for the smallest, N for the largest; equal ones get the mean of the ranks that they take up."""
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
    """values - mean, divided by the largest of these, so that no square overflows or vanishes; exactly 0 if all are equal."""
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
            raise ValueError(
                f"{name}: expected finite numbers (N,), got {values.dtype} of shape {values.shape}"
            )
    return x.astype(np.float64), y.astype(np.float64)


def _classes(predictions: Any, labels: Any, classes: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays of integers, checked: class numbers (N,), or multi-label rows (N, C)."""
    p, t = _array("predictions", predictions), _array("labels", labels)
    check_whole("classes", classes, 1, 2**15, or_none=True)
    same_length(p, t)
    for name, values in (("predictions", p), ("labels", t)):
        if (
            values.ndim not in (1, 2)
            or values.shape != p.shape
            or 0 in values.shape
            or values.dtype.kind not in "iub"
        ):
            raise ValueError(
                f"{name}: expected integers (N,) or 0 and 1 (N, C), the same for both, got {values.dtype} of shape "
                f"{values.shape}"
            )
        if values.ndim == 2 and classes not in (None, values.shape[1]):
            raise ValueError(f"{name} have {values.shape[1]} columns, expected {classes} classes")
        last = 1 if values.ndim == 2 else np.inf if classes is None else classes - 1
        if values.min() < 0 or values.max() > last:
            wrong = int(values.min() if values.min() < 0 else values.max())
            raise ValueError(
                f"{name}: {wrong} is no class, expected numbers from 0 {'on' if last == np.inf else f'to {last}'}"
            )
    return p.astype(np.int64), t.astype(np.int64)


def _array(name: str, values: Any) -> np.ndarray:
    return as_array(name, values, "numbers (N,)", "biuf", range(64))


def same_length(predictions: Sequence, labels: Sequence) -> None:
    """ValueError unless there is one label a prediction, and at least one."""
    if np.ndim(predictions) == 0 or np.ndim(labels) == 0 or len(predictions) != len(labels):
        raise ValueError(
            f"expected one label for each prediction, got {np.shape(predictions)} and {np.shape(labels)}"
        )
    if len(labels) == 0:
        raise ValueError("there are no samples to measure anything on")
