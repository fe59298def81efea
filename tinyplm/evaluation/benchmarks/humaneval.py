"""HumanEval from JSON lines: functions completed, and run only if asked.     Chen et al. 2021

task_id, prompt, entry_point, test.  Without --run-code the completions are only stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .code import passes
from .tables import by_line
from .task import Sample, Task, text


def _record(where: str, record: Mapping[str, Any]) -> Sample:
    prompt, test, name = text(where, record, "prompt", "test", "entry_point")
    check = f"{test}\ncheck({name})"
    return Sample((prompt,), (check,), 0, (), {"prompt": prompt, "check": check})


def _measure(sample: Sample, answer: str) -> Mapping[str, Any]:
    program = f"{sample.facts['prompt']}{answer}\n{sample.facts['check']}\n"
    return {"pass@1,create_test": float(passes(program))}


TASKS = (
    Task(
        "humaneval",
        "generate_until",
        by_line(_record),
        _measure,
        until=("\nclass", "\ndef", "\n#", "\nif", "\nprint"),
        most=1024,
        runs_code=True,
    ),
)
