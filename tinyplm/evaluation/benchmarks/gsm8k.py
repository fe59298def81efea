"""GSM8K from JSON lines: question, and answer with "#### 18" at its end.      Cobbe et al. 2021"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .tables import by_line
from .task import Sample, Task, text

INVALID = "[invalid]"  # no number was found
STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")


def strict_number(answer: str) -> str:
    """The first number after "#### "."""
    found = STRICT.search(answer)
    return found[1].strip() if found else INVALID


def flexible_number(answer: str) -> str:
    """The last number, in whatever form."""
    found = [match[0] for match in FLEXIBLE.finditer(answer)]
    return found[-1].strip() if found else INVALID


def plain_number(answer: str) -> str:
    """Without commas, dollars, what stands before "#### ", and a dot at the end; lower case."""
    for pattern in (r",", r"\$", r"(?s).*#### ", r"\.$"):
        answer = re.sub(pattern, "", answer)
    return answer.lower()


def _record(where: str, record: Mapping[str, Any]) -> Sample:
    question, answer = text(where, record, "question", "answer")
    return Sample((f"Question: {question}\nAnswer:",), (answer,), 0, (answer,))


def _measure(sample: Sample, answer: str) -> Mapping[str, Any]:
    gold = plain_number(sample.answers[0])
    ways = {"strict-match": strict_number, "flexible-extract": flexible_number}
    return {
        f"exact_match,{name}": float(plain_number(number(answer)) == gold)
        for name, number in ways.items()
    }


TASKS = (
    Task(
        "gsm8k",
        "generate_until",
        by_line(_record),
        _measure,
        version=3.0,
        until=("Question:", "</s>", "<|im_end|>"),
    ),
)
