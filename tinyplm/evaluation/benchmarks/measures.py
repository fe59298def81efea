"""Metrics of a sample by the likelihood of its choices, and how values become one number."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...arguments import check_list, mismatch
from ..metrics import matthews_correlation, precision_recall_f1
from ..requests.asking import Likelihood
from .task import Sample


def choice_measures(
    likelihoods: Sequence[Likelihood],
    choices: Sequence[str],
    gold: int,
    unconditional: Sequence[Likelihood] | None = None,
) -> dict[str, float]:
    """Whether the choice with the highest score is the right one, 1 or 0, by several scores.

    acc              log p(choice | context)
    acc_norm         per character of the choice            (lm-evaluation-harness's acc_norm)
    acc_bytes        per byte of UTF-8
    acc_tokens       per token                                    Brown et al. 2020, sec. 2.4
    acc_mutual_info  log p(choice | context) - log p(choice)      Brown et al. 2020, sec. 2.4;
                     with the unconditional likelihoods only        Holtzman et al. 2021 (PMI)
    Of equal scores the first counts.  WinoGrande's choices are its contexts: they are what differs.
    """
    check_list("likelihoods", likelihoods, "several Likelihood")
    if len(likelihoods) != len(choices):
        raise mismatch("likelihoods", f"{len(choices)}, one per choice", len(likelihoods))
    log_p = np.array([one.log_prob for one in likelihoods])
    lengths = {
        "acc": np.ones(len(log_p)),
        "acc_norm": np.array([float(len(choice)) for choice in choices]),
        "acc_bytes": np.array([float(len(choice.encode())) for choice in choices]),
        "acc_tokens": np.array([float(one.tokens) for one in likelihoods]),
    }
    found = {name: float((log_p / n).argmax() == gold) for name, n in lengths.items()}
    if unconditional is not None:
        gain = log_p - np.array([one.log_prob for one in unconditional])
        found["acc_mutual_info"] = float(gain.argmax() == gold)
    return found


def by_choice(*more: str) -> Callable[[Sample, Any], Mapping[str, Any]]:
    """measure of a multiple-choice task.  more: names of metrics of (right class, chosen class)."""

    def measure(sample: Sample, answer: Any) -> Mapping[str, Any]:
        conditional, unconditional = answer
        texts = sample.contexts if len(sample.contexts) > 1 else sample.choices
        found: dict[str, Any] = choice_measures(conditional, texts, sample.gold, unconditional)
        chosen = int(np.argmax([one.log_prob for one in conditional]))
        return {**found, **{name: (sample.gold, chosen) for name in more}}

    return measure


def f1_total(pairs: Sequence[tuple[int, int]]) -> float:
    """F1 of class 1."""
    return precision_recall_f1(*_classes(pairs)).f1


def mcc_total(pairs: Sequence[tuple[int, int]]) -> float:
    """Matthews' correlation."""
    return matthews_correlation(*_classes(pairs))


def macro_f1_total(pairs: Sequence[tuple[int, int]]) -> float:
    """The mean of the F1 of classes 0, 1, 2 (CommitmentBank)."""
    return precision_recall_f1(*_classes(pairs), average="macro", classes=3).f1


def _classes(pairs: Sequence[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return [chosen for _, chosen in pairs], [gold for gold, _ in pairs]


def mean(values: Sequence[float]) -> float:
    """The sum by the count."""
    return sum(values) / len(values)


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean: sqrt(sum (x - mean)^2 / (N - 1) / N); None for a single value."""
    N = len(values)
    if N < 2:
        return None
    centre = mean(values)
    return math.sqrt(sum((x - centre) ** 2 for x in values) / (N - 1) / N)


def perplexity_total(log_probs: Sequence[float]) -> float:
    """exp(-mean): of a list of log-likelihoods."""
    return _exp(-mean(log_probs))


def weighted_perplexity_total(pairs: Sequence[tuple[float, int]]) -> float:
    """exp(-sum of log-likelihoods / sum of words or bytes)."""
    return _exp(-sum(log_p for log_p, _ in pairs) / sum(n for _, n in pairs))


def bits_total(pairs: Sequence[tuple[float, int]]) -> float:
    """-sum of log-likelihoods / (ln 2 sum of bytes)."""
    return -sum(log_p for log_p, _ in pairs) / sum(n for _, n in pairs) / math.log(2)


def _exp(x: float) -> float:
    return math.exp(x) if x < 709 else math.inf
