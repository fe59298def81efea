"""SQuAD 1.1 and 2.0 from their JSON files (Rajpurkar et al. 2016, 2018), answers generated.

Scores are percentages, as the official scripts report them.  The prompt is that of
lm-evaluation-harness's squadv2, for both; it has no task for SQuAD 1.1 in this form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ...arguments import mismatch, shown
from ...files import printable
from ..spans import answer_f1, exact_match
from .measures import mean
from .tables import some, whole_json
from .task import Sample, Task, field, text

NONE = "unanswerable"


def _read(path: str) -> list[Sample]:
    whole, samples = whole_json(path), []
    where = printable(path)
    if not isinstance(whole, Mapping):
        raise mismatch(where, "an object with data", shown(whole, 40))
    for article in field(where, whole, "data", list):
        (title,) = text(where, article, "title")
        for paragraph in field(where, article, "paragraphs", list):
            (context,) = text(where, paragraph, "context")
            for asked in field(where, paragraph, "qas", list):
                samples.append(_sample(where, title, context, asked))
    return some(path, samples)


def _sample(where: str, title: str, context: str, asked: Mapping[str, Any]) -> Sample:
    if isinstance(asked, Mapping) and isinstance(asked.get("id"), str):
        where = f"{where}, id {asked['id'][:40]}"
    (question,) = text(where, asked, "question")
    given = field(where, asked, "answers", list)
    answers = tuple(text(where, answer, "text")[0] for answer in given)
    if not answers and asked.get("is_impossible") is not True:
        raise mismatch(where, "an answer, or is_impossible", "neither")
    parts = f"Title: {title}", f"Background: {context}", f"Question: {question}", "Answer:"
    shown_answer = f" {answers[0] if answers else NONE}"  # after another space, as there
    return Sample(("\n\n".join(parts),), (shown_answer,), 0, answers)


def _measure_1(sample: Sample, answer: str) -> Mapping[str, Any]:
    right = exact_match(answer, sample.answers), answer_f1(answer, sample.answers)
    return dict(zip(("exact_match", "f1"), right))


def _measure_2(sample: Sample, answer: Any) -> Mapping[str, Any]:
    """Each metric needs all samples: (exact or F1, whether it has answers, answered, p(none))."""
    said, none = answer
    kept = (bool(sample.answers), bool(said), math.exp(none.log_prob))
    exact = (exact_match(said, sample.answers), *kept)
    f1 = (answer_f1(said, sample.answers), *kept)
    return {name: f1 if name.endswith("f1") else exact for name in TOTALS}


def _percent(rows: Iterable[Any], of: bool | None = None) -> float:
    """The mean score of all, or of those with or without answers; 0 if there are none."""
    chosen = [score for score, has, *_ in rows if of is None or has == of]
    return 100 * mean(chosen) if chosen else 0.0


def _best(rows: Sequence[Any]) -> float:
    """The mean with the best threshold on p(none), above which nothing is answered.

    evaluate-v2.0.py, find_best_thresh: answers are admitted in order of p(none).
    """
    score = best = float(sum(not has for _, has, *_ in rows))
    for right, has, said, _ in sorted(rows, key=lambda row: row[3]):
        score += right if has else -float(said)
        best = max(best, score)
    return 100 * best / len(rows)


TOTALS: dict[str, Callable[[Sequence[Any]], float]] = {
    "exact": _percent,
    "f1": _percent,
    "HasAns_exact": partial(_percent, of=True),
    "HasAns_f1": partial(_percent, of=True),
    "NoAns_exact": partial(_percent, of=False),
    "NoAns_f1": partial(_percent, of=False),
    "best_exact": _best,
    "best_f1": _best,
}


def _percent_1(values: Sequence[float]) -> float:
    return 100 * mean(values)


TASKS = (
    Task(
        "squad",
        "generate_until",
        _read,
        _measure_1,
        {"exact_match": _percent_1, "f1": _percent_1},
        until=("\n",),
    ),
    Task(
        "squadv2",
        "generate_until",
        _read,
        _measure_2,
        TOTALS,
        3.0,
        until=("\n",),
        no_answer=f" {NONE}",
    ),
)
