"""A benchmark from its file to its numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ...arguments import check_key, check_whole, mismatch
from ..requests.asking import Asker, Likelihood
from ..requests.cache import digest
from .measures import mean, standard_error
from .shots import SEED, prompts
from .task import Sample, Task


@dataclasses.dataclass(frozen=True)
class Asked:
    """A sample with its contexts as the model reads them, its answer and measures."""

    number: int
    sample: Sample
    contexts: tuple[str, ...]
    answer: Any
    measures: Mapping[str, Any]

    @property
    def hash(self) -> str:
        """Of what was asked."""
        return digest(self.contexts, self.sample.choices, self.sample.gold, self.sample.answers)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a task gave: {"acc,none": 0.5, "acc_stderr,none": 0.1, ...} and the samples.

    original: samples in the file, of which `limit` may have left some out
    """

    task: Task
    path: str
    shots: int
    results: dict[str, float | str]
    asked: list[Asked]
    original: int


def evaluate_task(
    ask: Asker,
    task: Task,
    path: str,
    *,
    shots: int = 0,
    examples: str | None = None,
    limit: int | None = None,
    seed: int = SEED,
    mutual: bool = False,
    most: int | None = None,
    run_code: bool = False,
) -> Outcome:
    """Ask the model all samples of a file, or the first `limit`, and measure its answers.

    shots     solved examples before each question, from the file `examples` (else from `path`)
    mutual    measure acc_mutual_info too, which asks each choice without its context
    most      tokens of a generated answer; None: the task's
    run_code  run generated programs (see code.passes); without it they have no measure
    """
    check_whole("shots", shots)
    check_whole("limit", limit, 1, or_none=True)
    check_key("seed", seed)
    if shots and task.kind == "loglikelihood_rolling":
        raise mismatch("shots", f"0 for {task.name}, which has no questions", shots)
    samples = task.read(path)
    others = task.read(examples) if examples is not None and shots else None
    about: Any = {"examples": others, "description": task.description(path), "seed": seed}
    contexts = list(prompts(task, samples, shots, **about))[:limit]
    original, samples = len(samples), samples[:limit]
    answers = _answers(ask, task, samples, contexts, mutual, most or task.most)
    judged = run_code or not task.runs_code
    asked = [
        Asked(n, s, c, a, task.measure(s, a) if judged else {})
        for n, (s, c, a) in enumerate(zip(samples, contexts, answers))
    ]
    results = totals(task, [one.measures for one in asked])
    return Outcome(task, path, shots, results, asked, original)


def totals(task: Task, measures: Sequence[Mapping[str, Any]]) -> dict[str, float | str]:
    """{"acc,none": mean, "acc_stderr,none": its standard error or "N/A"}, for each name.

    A name may have its filter: "exact_match,strict-match".
    """
    found: dict[str, float | str] = {}
    for full in measures[0] if measures else ():
        name, _, way = full.partition(",")
        values, total = [one[full] for one in measures], task.totals.get(full)
        found[f"{name},{way or 'none'}"] = (total or mean)(values)
        error = standard_error(values) if total is None else None
        found[f"{name}_stderr,{way or 'none'}"] = "N/A" if error is None else error
    return found


def _answers(
    ask: Asker,
    task: Task,
    samples: Sequence[Sample],
    contexts: Sequence[tuple[str, ...]],
    mutual: bool,
    most: int,
) -> list[Any]:
    if task.kind == "loglikelihood_rolling":
        return ask.loglikelihood_rolling([sample.choices[0] for sample in samples])
    if task.kind == "loglikelihood":
        pairs = [(c[0], task.delimiter + s.choices[0]) for c, s in zip(contexts, samples)]
        return ask.loglikelihood(pairs)
    if task.kind == "generate_until":
        first = [c[0] for c in contexts]
        said = ask.generate_until(first, until=task.until, most=most)
        if not task.no_answer:
            return said
        return list(zip(said, ask.loglikelihood([(c, task.no_answer) for c in first])))
    return _choices(ask, task, samples, contexts, mutual)


def _choices(
    ask: Asker,
    task: Task,
    samples: Sequence[Sample],
    contexts: Sequence[tuple[str, ...]],
    mutual: bool,
) -> list[tuple[list[Likelihood], list[Likelihood] | None]]:
    """(likelihoods of a sample's choices, those without context or None)."""
    pairs, alone = [], []
    for sample, given in zip(samples, contexts):
        choices = [task.delimiter + choice for choice in sample.choices]
        pairs += [(c, choice) for c in given for choice in choices]
        if mutual:  # for WinoGrande, of the filled context
            alone += [("", c) for c in (sample.contexts if len(given) > 1 else choices)]
    found, without = iter(ask.loglikelihood(pairs)), iter(ask.loglikelihood(alone))
    answers = []
    for sample, given in zip(samples, contexts):
        count = len(given) * len(sample.choices)
        own = [next(found) for _ in range(count)]
        answers.append((own, [next(without) for _ in range(count)] if mutual else None))
    return answers
