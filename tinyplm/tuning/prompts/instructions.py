"""Instruction tuning: tasks described in words, each in several phrasings.

With one wording per task a model learns the wording as the task's name; with many it learns to read
instructions.                                          Wei et al. 2022 (FLAN), sec. 2.1, app. G
"""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Mapping, Sequence
from typing import Any

from ... import random
from ...arguments import check_list, check_text, mismatch, shown, wrong


@dataclasses.dataclass(frozen=True)
class Task:
    """A task in several phrasings, templates with {fields}, and the template of its answer.

        Task("addition", ["{a} + {b} = ?", "What is the sum of {a} and {b}?"], answer="{sum}")

    ValueError without phrasings, for a repeated one, or for unbalanced braces.
    """

    name: str
    phrasings: Sequence[str]
    answer: str

    def __post_init__(self) -> None:
        check_list("phrasings", self.phrasings, "a list of texts")
        check_text("name", self.name)
        for text in self.phrasings:
            fields(text, "phrasings")
        fields(self.answer, "answer")
        if len(self.phrasings) == 0 or len(set(self.phrasings)) != len(self.phrasings):
            expected = f"one or more different texts for task {shown(self.name)}"
            raise wrong("phrasings", expected, list(self.phrasings))

    def messages(self, sample: Mapping[str, Any], *, key: int) -> list[dict[str, str]]:
        """The user's message, in a phrasing chosen by the key, and the assistant's answer."""
        phrasing = self.phrasings[random.fold(random.key(key), 0) % len(self.phrasings)]
        return [
            {"role": "user", "content": fill(phrasing, sample, self.name)},
            {"role": "assistant", "content": fill(self.answer, sample, self.name)},
        ]


def instruction_messages(record: Mapping[str, Any]) -> list[dict[str, str]]:
    """A record of kind "instruction" as messages; its input follows the instruction."""
    texts = ("instruction", "output")
    right = isinstance(record, Mapping) and all(isinstance(record.get(n), str) for n in texts)
    if not right:
        raise wrong("record", "a dict with texts 'instruction' and 'output'", record)
    asked = "\n\n".join(filter(None, (record["instruction"], record.get("input", ""))))
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": record["output"]}]


def fields(text: str, name: str = "template") -> list[str]:
    """The names in braces, in order; ValueError, which calls the text `name`, for others.

    All must be plain names in balanced braces.
    """
    check_text(name, text)
    try:
        parts = [part[1:] for part in string.Formatter().parse(text) if part[1] is not None]
    except ValueError as error:
        raise mismatch(
            name, "fields in braces ({{ and }} for braces themselves)", f"{text!r:.60}: {error}"
        ) from None
    for field, form, turn in parts:
        if not str(field).isidentifier() or form or turn:
            raise mismatch(name, "plain names in braces", f"{field!r:.60} in {text!r:.60}")
    return [str(field) for field, _, _ in parts]


def fill(text: str, sample: Mapping[str, Any], name: str = "template") -> str:
    """The text with its {fields} filled from the sample; ValueError naming a missing field."""
    if not isinstance(sample, Mapping):
        raise wrong(name, "a dict with a value for each field", sample)
    missing = [field for field in fields(text) if field not in sample]
    if missing:
        expected = f"a sample with {missing[0]!r} for {text!r:.60}"
        raise mismatch(name, expected, ", ".join(map(repr, sample)) or "no fields")
    return text.format_map({field: str(value) for field, value in sample.items()})
