"""Multiple choice: a text with several continuations, one of them right.

Devlin et al. 2019, sec. 4.4, for encoders; Radford et al. 2018, sec. 3.3, for decoders.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from ...arguments import known_arguments, listed, mismatch
from ...evaluation import metrics
from ...models.model import Model, check_model
from .samples import Samples, check_task, checked_texts, encode, label_number


@dataclasses.dataclass(frozen=True)
class Choices(Samples):
    """Texts with `count` continuations each.  targets: {"logits": the number of the right one}."""

    def predictions(self, outputs: dict[str, Any]) -> np.ndarray:
        """(N,) numbers of choices."""
        return outputs["logits"].argmax(axis=-1)

    @property
    def measures(self) -> tuple[str, ...]:
        return ("accuracy",)

    def score(self, outputs: dict[str, Any]) -> dict[str, float]:
        return {"accuracy": metrics.accuracy(self.predictions(outputs), self.targets["logits"])}


@known_arguments
def multiple_choice(
    model: Model,
    texts: Sequence[str],
    choices: Sequence[Sequence[str]],
    labels: Sequence[int] | None = None,
    *,
    questions: Sequence[str] | None = None,
    max_length: int | None = None,
) -> Choices:
    """Texts with equally many choices each, for a model with task "multiple_choice".

    labels: the number of the right choice of each text; None: for prediction only.
    questions: one after each text, never truncated (Radford et al. 2018, sec. 3.3).
    max_length: tokens of text and choice together; the longer of the two is truncated first.
    """
    check_model("model", model)
    check_task(model, "multiple_choice")
    texts = checked_texts("texts", texts)
    choices = [
        checked_texts(f"choices[{n}]", some)
        for n, some in enumerate(listed("choices", choices, "a list for each text"))
    ]
    count = len(choices[0]) if choices else 0
    counts = sorted({len(some) for some in choices})
    if len(choices) != len(texts) or len(counts) != 1 or count < 2:
        expected = f"two or more for each of {len(texts)} texts, as many for all"
        raise mismatch("choices", expected, f"{counts} for {len(choices)}")
    targets = {}
    if labels is not None:
        names = [str(n) for n in range(count)]
        labels = listed("labels", labels, "the number of the right choice of each text")
        numbers = [label_number(label, names, f"text {i}") for i, label in enumerate(labels)]
        if len(numbers) != len(texts):
            raise mismatch("labels", f"one for each of {len(texts)} texts", len(numbers))
        targets = {"logits": numbers}
    if questions is not None:
        questions = checked_texts("questions", questions, len(texts))
    repeated = [text for text in texts for _ in range(count)]
    kept = None if questions is None else [text for text in questions for _ in range(count)]
    every = list(chain.from_iterable(choices))
    options: dict[str, Any] = {"kept": kept, "count": count, "max_length": max_length}
    encodings, facts = encode(model, repeated, every, **options)
    return Choices(encodings, targets, **facts)
