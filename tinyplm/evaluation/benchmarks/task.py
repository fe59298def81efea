"""The common form of a benchmark: samples, how they are asked, what is measured.

A task is asked as lm-evaluation-harness asks it (EleutherAI, lm_eval/tasks, release 0.4.13):
prompts and metrics are its YAML files'; readers take the
files as the benchmarks' authors publish them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...arguments import mismatch, shown

KINDS = ("multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until")


@dataclasses.dataclass(frozen=True)
class Sample:
    """A question.

    contexts  the text before the answer; for multiple choice either one, or one for each choice
              (WinoGrande fills the blank in the context)
    choices   answers to choose from; else the one that a solved example shows
    gold      number of the right choice
    answers   all that are accepted, for generated text
    facts     what the metrics need besides
    """

    contexts: tuple[str, ...]
    choices: tuple[str, ...]
    gold: int = 0
    answers: tuple[str, ...] = ()
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def solved(self, delimiter: str = " ") -> str:
        """The sample with its answer, for a few-shot prompt."""
        context = self.contexts[self.gold if len(self.contexts) > 1 else 0]
        return context + delimiter + self.choices[self.gold if len(self.choices) > 1 else 0]


Measure = Callable[[Sample, Any], Mapping[str, Any]]
Total = Callable[[Sequence[Any]], float]


@dataclasses.dataclass(frozen=True)
class Task:
    """A benchmark.

    read         path -> samples; ValueError naming file and line for a bad one
    measure      (sample, what the model answered) -> {name: value of the sample}
    totals       how the values of a name become one number, where it is not the mean
    delimiter    between question and choice; solved examples always have a space
    first        examples are the first ones of the file; else drawn
    description  path -> text before everything
    until, most  end a generated text; most: tokens
    filters      names of the ways in which a generated answer is read, "name,filter" in results
    """

    name: str
    kind: str
    read: Callable[[str], list[Sample]]
    measure: Measure
    totals: Mapping[str, Total] = dataclasses.field(default_factory=dict)
    version: float = 1.0
    delimiter: str = " "
    first: bool = False
    description: Callable[[str], str] = lambda path: ""
    until: tuple[str, ...] = ("\n\n",)
    most: int = 256
    no_answer: str = ""  # its likelihood is asked too (SQuAD 2)
    runs_code: bool = False


def choice_of(where: str, record: Mapping[str, Any], name: str, labels: Sequence[Any]) -> int:
    """The number of a record's label among these; ValueError for another."""
    value = field(where, record, name)
    for number, label in enumerate(labels):
        if value == label and isinstance(value, bool) == isinstance(label, bool):
            return number
    expected = f"{name} to be one of {', '.join(map(str, labels))}"
    raise mismatch(where, expected, shown(value, 40))


def field(where: str, record: Mapping[str, Any], name: str, kind: type = object) -> Any:
    """A field of a record, "passage.text" within another; ValueError if it lacks or is none."""
    value: Any = record
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            has = ", ".join(map(str, value)) if isinstance(value, Mapping) else shown(value, 40)
            raise mismatch(where, f"a field {name!r}", f"{has[:100] or 'no fields'}")
        value = value[part]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        names = {str: "text", list: "a list", int: "an integer", Mapping: "an object"}
        raise mismatch(where, f"{name} to be {names.get(kind, kind)}", shown(value, 40))
    return value


def text(where: str, record: Mapping[str, Any], *names: str) -> list[str]:
    """Fields that are texts and not empty."""
    found = [field(where, record, name, str) for name in names]
    for name, value in zip(names, found):
        if not value.strip():
            raise mismatch(where, f"{name} to be a text with words", shown(value, 40))
    return found


def several(where: str, record: Mapping[str, Any], name: str, least: int = 1) -> list[str]:
    """A field that is a list of texts, none of them empty."""
    values = field(where, record, name, list)
    if len(values) < least or not all(isinstance(v, str) and v.strip() for v in values):
        raise mismatch(where, f"{name} to be {least} texts or more", shown(values, 40))
    return values


def among(where: str, number: int, choices: Sequence[str]) -> int:
    """The number of the right choice; ValueError unless there is one of it."""
    if not 0 <= number < len(choices):
        raise mismatch(where, f"a label from 0 to {len(choices) - 1}", number)
    return number
