"""MMLU, C-Eval and CMMLU: questions with four choices from CSV files, one file a subject.

The subject in the prompt is that of the file's name ("college_law_test.csv").  Solved examples are
the first of the file that is given for them, those of dev/.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from .measures import by_choice
from .subjects import CEVAL, CMMLU
from .tables import comma_separated, some
from .task import Sample, Task, choice_of, text

LETTERS = ("A", "B", "C", "D")


def _reader(
    question: str, answer: str, last: str, names: tuple[str, ...] | None = None
) -> Callable[[str], list[Sample]]:
    """Columns of question and answer, and the prompt's last line."""

    def read(path: str) -> list[Sample]:
        samples = []
        for where, row in comma_separated(path, names):
            asked, *choices = text(where, row, question, *LETTERS)
            lines = (f"{letter}. {choice}\n" for letter, choice in zip(LETTERS, choices))
            prompt = f"{asked.strip()}\n{''.join(lines)}{last}"
            samples.append(Sample((prompt,), LETTERS, choice_of(where, row, answer, LETTERS)))
        return some(path, samples)

    return read


def subject(path: str) -> str:
    """ "college_law" of "college_law_test.csv"."""
    return re.sub(r"_(test|dev|val)$", "", Path(path).stem)


def _mmlu_about(path: str) -> str:
    name = subject(path).replace("_", " ")
    return f"The following are multiple choice questions (with answers) about {name}.\n\n"


def _ceval_about(path: str) -> str:
    name = CEVAL.get(subject(path), subject(path))
    return f"以下是中国关于{name}的单项选择题，请选出其中的正确答案。\n\n"


def _cmmlu_about(path: str) -> str:
    name = CMMLU.get(subject(path), subject(path))
    return f"以下是关于{name}的单项选择题，请直接给出正确答案的选项。\n\n"


MMLU = _reader("question", "answer", "Answer:", ("question", *LETTERS, "answer"))
READ_CEVAL, READ_CMMLU = (
    _reader(f"{initial}uestion", f"{a}nswer", "答案：") for initial, a in (("q", "a"), ("Q", "A"))
)

TASKS = tuple(
    Task(
        name,
        "multiple_choice",
        read,
        by_choice(),
        version=version,
        first=True,
        description=about,
    )
    for name, read, about, version in (
        ("mmlu", MMLU, _mmlu_about, 1.0),
        ("ceval", READ_CEVAL, _ceval_about, 2.0),
        ("cmmlu", READ_CMMLU, _cmmlu_about, 1.0),
    )
)
