"""Few-shot prompts: zero or more solved examples before the question.  Brown et al. 2020, sec. 2

Nothing is trained: the model continues the pattern of the examples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ... import random
from ...arguments import check_list, check_text, mismatch, shown, wrong
from .instructions import fields, fill


@dataclasses.dataclass(frozen=True)
class FewShot:
    """question     template of a question, up to the answer: "Review: {text}\\nSentiment:"
    answer       template of an answer: " {label}"
    examples     solved samples to choose from
    instruction  a text before everything
    separator    between samples
    balance      a field, such as "label", whose values should be equally frequent in the examples
    """

    question: str
    answer: str
    examples: Sequence[Mapping[str, Any]] = ()
    instruction: str = ""
    separator: str = "\n\n"
    balance: str | None = None

    def __post_init__(self) -> None:
        fields(self.question, "question"), fields(self.answer, "answer")
        check_text("instruction", self.instruction)
        check_text("separator", self.separator)
        check_text("balance", self.balance, or_none=True)
        check_list("examples", self.examples, "a list of dicts")
        for number, example in enumerate(self.examples):
            for text in (self.question, self.answer):
                fill(text, example, f"example {number}")
            if self.balance is not None and self.balance not in example:
                expected = f"the field of balance, {shown(self.balance)}"
                raise wrong(f"example {number}", expected, list(example))

    def prompt(
        self,
        sample: Mapping[str, Any],
        shots: int,
        *,
        key: int = 0,
        fits: Callable[[str], bool] | None = None,
    ) -> str:
        """The prompt for a sample with `shots` examples chosen by the key, never the sample itself.

        fits(text): whether a prompt is short enough; examples are dropped from the front until it
        is (`count` returns how many remain).  ValueError for more shots than examples, or for a
        prompt that does not fit without any.
        """
        return self.parts(sample, shots, key=key, fits=fits)[0]

    def count(
        self,
        sample: Mapping[str, Any],
        shots: int,
        *,
        key: int = 0,
        fits: Callable[[str], bool] | None = None,
    ) -> int:
        """The number of examples in the prompt."""
        return self.parts(sample, shots, key=key, fits=fits)[1]

    def parts(
        self,
        sample: Mapping[str, Any],
        shots: int,
        *,
        key: int = 0,
        fits: Callable[[str], bool] | None = None,
    ) -> tuple[str, int]:
        """(prompt, number of examples in it)."""
        asked = fill(self.question, sample, "sample")
        chosen = self.choose(asked, shots, key=key)
        while True:
            solved = [fill(self.question, e) + fill(self.answer, e) for e in chosen]
            text = self.separator.join([*filter(None, [self.instruction]), *solved, asked])
            if fits is None or fits(text):
                return text, len(chosen)
            if not chosen:
                raise mismatch("prompt", "one that fits without examples", f"{text!r:.60}")
            chosen = chosen[1:]

    def choose(self, asked: str, shots: int, *, key: int = 0) -> list[Mapping[str, Any]]:
        """The examples in random order, excluding those that ask the same question."""
        others = [e for e in self.examples if fill(self.question, e) != asked]
        if not 0 <= shots <= len(others):
            raise mismatch("shots", f"0 to {len(others)}, the number of other examples", shots)
        order = _shuffled(others, random.fold(random.key(key), 1))
        if self.balance is None:
            return order[:shots]
        groups: dict[Any, list] = {}
        for example in order:
            groups.setdefault(example[self.balance], []).append(example)
        places = [(turn, group) for turn in range(len(order)) for group in groups.values()]
        turns = [example for turn, group in places for example in group[turn : turn + 1]]
        return _shuffled(turns[:shots], random.fold(random.key(key), 2))


def _shuffled(some: list, key: int) -> list:
    return [some[n] for n in random.generator(key).permutation(len(some))]
