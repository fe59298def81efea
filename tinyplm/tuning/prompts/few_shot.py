"""Prompts with examples: zero, one or a few solved samples in front of the question.                  Brown et al. 2020, sec. 2

Nothing is trained: the model is to go on as the examples do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ... import random
from .instructions import fields, fill


@dataclasses.dataclass(frozen=True)
class FewShot:
    """question     how a sample is asked, with {fields}, up to where the answer begins: "Review: {text}\\nSentiment:"
    answer       how its answer follows, with {fields}: " {label}"
    examples     solved samples to choose from
    instruction  what stands in front of all, once
    separator    between samples
    balance      a field, such as "label", of whose values the chosen examples have equally many, as far as that goes
    """

    question: str
    answer: str
    examples: Sequence[Mapping[str, Any]] = ()
    instruction: str = ""
    separator: str = "\n\n"
    balance: str | None = None

    def __post_init__(self) -> None:
        for number, example in enumerate(self.examples):
            for text in (self.question, self.answer):
                fill(text, example, f"example {number}")
            if self.balance is not None and self.balance not in example:
                raise ValueError(f"example {number} has no {self.balance!r} to balance by")
        fields(self.question), fields(self.answer)

    def prompt(self, sample: Mapping[str, Any], shots: int, *, key: int = 0, fits: Callable[[str], bool] | None = None) -> str:
        """The prompt for a sample with `shots` examples that the key chooses; the sample itself is never among them.

        fits(text): whether a prompt is short enough; examples are left out from the front until it is (`count` says how many it
        has).  ValueError for more shots than there are examples, or a prompt that does not fit without any.
        """
        return self.parts(sample, shots, key=key, fits=fits)[0]

    def count(self, sample: Mapping[str, Any], shots: int, *, key: int = 0, fits: Callable[[str], bool] | None = None) -> int:
        """How many examples the prompt has."""
        return self.parts(sample, shots, key=key, fits=fits)[1]

    def parts(self, sample: Mapping[str, Any], shots: int, *, key: int = 0, fits: Callable[[str], bool] | None = None
              ) -> tuple[str, int]:  # fmt: skip
        """(prompt, number of its examples)."""
        asked = fill(self.question, sample, "sample")
        chosen = self.choose(asked, shots, key=key)
        while True:
            solved = [fill(self.question, e) + fill(self.answer, e) for e in chosen]
            text = self.separator.join([*filter(None, [self.instruction]), *solved, asked])
            if fits is None or fits(text):
                return text, len(chosen)
            if not chosen:
                raise ValueError(f"the prompt does not fit even without examples: {text!r:.60}")
            chosen = chosen[1:]

    def choose(self, asked: str, shots: int, *, key: int = 0) -> list[Mapping[str, Any]]:
        """The examples, in a random order; none asks the same question."""
        others = [e for e in self.examples if fill(self.question, e) != asked]
        if not 0 <= shots <= len(others):
            raise ValueError(f"expected 0 to {len(others)} shots, as many as there are other examples, got {shots}")
        order = [others[n] for n in random.generator(random.fold(random.key(key), 1)).permutation(len(others))]
        if self.balance is None:
            return order[:shots]
        groups: dict[Any, list] = {}
        for example in order:
            groups.setdefault(example[self.balance], []).append(example)
        turns = [e for turn in range(len(order)) for group in groups.values() for e in group[turn : turn + 1]][:shots]
        return [turns[n] for n in random.generator(random.fold(random.key(key), 2)).permutation(len(turns))]
