"""Results as lm-evaluation-harness writes them, so that tables of both can be joined.

results.json         "results": {task: {"alias", "acc,none", "acc_stderr,none", ...}}, "configs",
                     "versions", "n-shot", "n-samples", "config", "date", and ours under "tinyplm"
samples_TASK.jsonl   a line a sample: "doc_id", "arguments", "resps", "target", measures
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...files import replaced, write_json
from .exams import subject
from .running import Asked, Outcome
from .task import Task


def results_of(
    outcomes: Sequence[Outcome], *, config: Mapping[str, Any], about: Mapping[str, Any], date: float
) -> dict[str, Any]:
    """The contents of results.json.   config: settings of the run; about: versions; date: seconds
    since 1970."""
    tasks = {name_of(outcome): outcome for outcome in outcomes}
    return {
        "results": {name: {"alias": name, **one.results} for name, one in tasks.items()},
        "group_subtasks": {name: [] for name in tasks},
        "configs": {name: _config(one) for name, one in tasks.items()},
        "versions": {name: one.task.version for name, one in tasks.items()},
        "n-shot": {name: one.shots for name, one in tasks.items()},
        "n-samples": {
            name: {"original": one.original, "effective": len(one.asked)}
            for name, one in tasks.items()
        },
        "config": dict(config),
        "date": date,
        "tinyplm": dict(about),
    }


def name_of(outcome: Outcome) -> str:
    """The name of a task in results; an exam's has its subject: "mmlu_college_law"."""
    return name_for(outcome.task, outcome.path)


def name_for(task: Task, path: str) -> str:
    """The same, before there is an outcome."""
    return f"{task.name}_{subject(path)}" if task.first else task.name


def _config(outcome: Outcome) -> dict[str, Any]:
    task = outcome.task
    facts: dict[str, Any] = {
        "task": name_of(outcome),
        "dataset_path": outcome.path,
        "output_type": task.kind,
        "target_delimiter": task.delimiter,
        "fewshot_delimiter": "\n\n",
        "num_fewshot": outcome.shots,
        "metadata": {"version": task.version},
    }
    if task.kind == "generate_until":
        facts["generation_kwargs"] = {"until": list(task.until), "do_sample": False}
    return facts


def write_results(folder: Path, contents: Mapping[str, Any], outcomes: Sequence[Outcome]) -> None:
    """results.json and the samples of each task; files are replaced whole, results last."""
    folder.mkdir(parents=True, exist_ok=True)
    for outcome in outcomes:
        lines = (json.dumps(_line(one), ensure_ascii=False) for one in outcome.asked)
        with replaced(folder / f"samples_{name_of(outcome)}.jsonl") as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    write_json(folder / "results.json", _finite(contents))


def _line(one: Asked) -> dict[str, Any]:
    facts = {
        "doc_id": one.number,
        "doc_hash": one.hash,
        "arguments": {"contexts": list(one.contexts), "choices": list(one.sample.choices)},
        "resps": one.answer,
        "target": list(one.sample.answers) or one.sample.gold,
    }
    return _finite({**facts, **one.measures})


def _finite(value: Any) -> Any:
    """With text for numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """The lines of a table: task, version, filter, shots, metric, value, standard error."""
    lines: list[tuple[str, ...]] = [
        ("task", "version", "filter", "shots", "metric", "value", "stderr")
    ]
    for one in outcomes:
        for key, value in one.results.items():
            metric, _, way = key.partition(",")
            if metric.endswith("_stderr"):
                continue
            error = one.results[f"{metric}_stderr,{way}"]
            cells = (f"{value:.4f}", error if isinstance(error, str) else f"{error:.4f}")
            about = (name_of(one), f"{one.task.version:g}", way, str(one.shots))
            lines.append((*about, metric, *cells))
    return lines
