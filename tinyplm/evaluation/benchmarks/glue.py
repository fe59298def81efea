"""GLUE's tasks from its TSV files (Wang et al. 2018): cola, sst2, mrpc, qqp, mnli, qnli, rte, wnli.

STS-B is a regression, which is not asked by the likelihood of answers: `tinyplm finetune` does it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .measures import by_choice, f1_total, mcc_total
from .tables import some, tab_separated
from .task import Sample, Task, choice_of, text

TRUTH = ("True", "Neither", "False")
SHARED = " True or False?\nAnswer:"


def _mnli(premise: str, hypothesis: str) -> str:
    hypothesis = hypothesis.strip()
    dot = "" if hypothesis.endswith(".") else "."
    return f"{premise}\nQuestion: {hypothesis}{dot} True, False or Neither?\nAnswer:"


def _task(
    name: str,
    prompt: Callable[..., str],
    columns: tuple[str, ...],
    label: tuple[str, tuple[str, ...]],
    choices: tuple[str, ...],
    *,
    more: Mapping[str, Callable] | None = None,
    names: tuple[str, ...] | None = None,
    version: float = 1.0,
) -> Task:
    """label: (column, its values in the order of the choices)."""

    def read(path: str) -> list[Sample]:
        def samples() -> list[Sample]:
            needed = (*columns, label[0])
            rows = tab_separated(path, needed, names)
            return [
                Sample(
                    (prompt(*text(where, row, *columns)),), choices, choice_of(where, row, *label)
                )
                for where, row in rows
            ]

        return some(path, samples())

    totals = dict(more or {})
    return Task(name, "multiple_choice", read, by_choice(*totals), totals, version)


NO_YES, BITS = ("no", "yes"), ("0", "1")

TASKS = (
    _task(
        "cola",
        "{}\nQuestion: Does this sentence make sense?\nAnswer:".format,
        ("sentence",),
        ("label", BITS),
        NO_YES,
        more={"mcc": mcc_total},
        names=("source", "label", "author", "sentence"),
    ),
    _task(
        "sst2",
        "{}\nQuestion: Is this sentence positive or negative?\nAnswer:".format,
        ("sentence",),
        ("label", BITS),
        ("negative", "positive"),
    ),
    _task(
        "mrpc",
        "Sentence 1: {}\nSentence 2: {}\n"
        "Question: Do both sentences mean the same thing?\nAnswer:".format,
        ("#1 String", "#2 String"),
        ("Quality", BITS),
        NO_YES,
        more={"f1": f1_total},
    ),
    _task(
        "qqp",
        "Question 1: {}\nQuestion 2: {}\n"
        "Question: Do both questions ask the same thing?\nAnswer:".format,
        ("question1", "question2"),
        ("is_duplicate", BITS),
        NO_YES,
        more={"f1": f1_total},
        version=2.0,
    ),
    _task(
        "mnli",
        _mnli,
        ("sentence1", "sentence2"),
        ("gold_label", ("entailment", "neutral", "contradiction")),
        TRUTH,
    ),
    _task(
        "qnli",
        "{}\n{}\nQuestion: Does this response answer the question?\nAnswer:".format,
        ("question", "sentence"),
        ("label", ("entailment", "not_entailment")),
        ("yes", "no"),
    ),
    _task(
        "rte",
        ("{}\nQuestion: {}" + SHARED).format,
        ("sentence1", "sentence2"),
        ("label", ("entailment", "not_entailment")),
        ("True", "False"),
    ),
    _task(
        "wnli",
        ("{}\nQuestion: {}" + SHARED).format,
        ("sentence1", "sentence2"),
        ("label", BITS),
        ("False", "True"),
        version=2.0,
    ),
)
