"""Instruction tuning: tasks described in words, each in several phrasings.          Wei et al. 2022 (FLAN), sec. 2.1 and app. G

One wording a task would be learned as that task's name; many wordings teach a model to read them.
"""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Mapping, Sequence
from typing import Any

from ... import random
from ...arguments import check_list, check_text, shown, wrong


@dataclasses.dataclass(frozen=True)
class Task:
    """A task with its phrasings: texts with {fields} that a sample fills in; `answer` is the answer's.

        Task("addition", ["{a} + {b} = ?", "What is the sum of {a} and {b}?"], answer="{sum}")

    ValueError for no phrasing, one that stands twice, or braces that do not match.
    """

    name: str
    phrasings: Sequence[str]
    answer: str

    def __post_init__(self) -> None:
        check_list("phrasings", self.phrasings, "a list of texts")
        if not self.phrasings or len(set(self.phrasings)) != len(self.phrasings):
            raise ValueError(
                f"task {self.name}: expected different phrasings, at least one, got {shown(list(self.phrasings), 80)}"
            )
        for text in (*self.phrasings, self.answer):
            fields(text)

    def messages(self, sample: Mapping[str, Any], *, key: int) -> list[dict[str, str]]:
        """The user's message in one of the phrasings, which the key chooses, and the assistant's answer."""
        phrasing = self.phrasings[random.fold(random.key(key), 0) % len(self.phrasings)]
        return [{"role": "user", "content": fill(phrasing, sample, self.name)},
                {"role": "assistant", "content": fill(self.answer, sample, self.name)}]  # fmt: skip


def instruction_messages(record: Mapping[str, Any]) -> list[dict[str, str]]:
    """A record of the kind "instruction" (see tuning.records) as messages; an input stands under the instruction."""
    if not isinstance(record, Mapping) or not all(isinstance(record.get(n), str) for n in ("instruction", "output")):
        raise wrong("record", "a dict with texts 'instruction' and 'output'", record)
    asked = "\n\n".join(filter(None, (record["instruction"], record.get("input", ""))))
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": record["output"]}]


def fields(text: str) -> list[str]:
    """The names in braces, in their order; ValueError for braces that do not match, and for anything but a plain name in them."""
    check_text("template", text)
    try:
        names = [(name, form, turn) for _, name, form, turn in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise ValueError(f"template {text!r:.60}: {error}; a brace itself is written {{{{ or }}}}") from None
    for name, form, turn in names:
        if not name.isidentifier() or form or turn:
            raise ValueError(f"template {text!r:.60}: expected plain names in braces, got {name!r}")
    return [name for name, _, _ in names]


def fill(text: str, sample: Mapping[str, Any], name: str = "template") -> str:
    """The text with the sample's values in place of the {fields}; ValueError naming a field that the sample has not."""
    if not isinstance(sample, Mapping):
        raise wrong(name, "a dict with a value for each field", sample)
    missing = [field for field in fields(text) if field not in sample]
    if missing:
        raise ValueError(
            f"{name}: {text!r:.60} asks for {missing[0]!r}, the sample has {', '.join(map(repr, sample)) or 'nothing'}"
        )
    return text.format_map({field: str(value) for field, value in sample.items()})
