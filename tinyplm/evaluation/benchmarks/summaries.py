"""CNN/DailyMail and XSum from JSON lines, summaries generated and measured by ROUGE.

Fields: article and highlights (See et al. 2017); document and summary (Narayan et al. 2018).
ROUGE is ours, without a stemmer; lm-evaluation-harness stems, so its values are a little higher.
It has no task for XSum; the prompt is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..rouge import rouge_l, rouge_n
from ..spans import single_spaces
from .tables import by_line
from .task import Sample, Task, text

ROUGE: dict[str, Callable] = {
    "rouge1": rouge_n,
    "rouge2": partial(rouge_n, n=2),
    "rougeL": rouge_l,
}


def _reader(document: str, summary: str) -> Callable[[str], list[Sample]]:
    def record(where: str, record: Mapping[str, Any]) -> Sample:
        article, short = text(where, record, document, summary)
        prompt = f"Summarize the following article:\n\n{article}\n\nSummary:"
        return Sample((prompt,), (short,), 0, (short,))

    return by_line(record)


def _measure(sample: Sample, answer: str) -> Mapping[str, Any]:
    said, references = single_spaces(answer), [single_spaces(one) for one in sample.answers]
    return {name: rouge(said, references).f1 for name, rouge in ROUGE.items()}


TASKS = (
    Task("cnn_dailymail", "generate_until", _reader("article", "highlights"), _measure, most=128),
    Task("xsum", "generate_until", _reader("document", "summary"), _measure, most=128),
)
