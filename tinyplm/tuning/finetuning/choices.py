"""Multiple choice: a text with several continuations, one of them right.

Devlin et al. 2019, sec. 4.4
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from ...arguments import known_arguments, listed
from ...evaluation import metrics
from ...models.model import Model, check_model
from .samples import Indices, Samples, check_task, checked_texts, encode, label_number


@dataclasses.dataclass(frozen=True)
class Choices(Samples):
    """Texts with `count` continuations each.  targets: {"logits": the number of the right one}.

    encodings: the choices of a text are consecutive.
    """

    count: int = 2

    def __len__(self) -> int:
        return len(self.encodings) // self.count

    @property
    def lengths(self) -> np.ndarray:
        return super().lengths.reshape(-1, self.count).max(axis=1)

    def batch(self, numbers: Indices) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """(inputs, targets) of some samples: input_ids ... (B, count, T), T the longest of them."""
        rows = (np.asarray(numbers)[:, None] * self.count + np.arange(self.count)).reshape(-1)
        inputs = self._inputs(rows)
        inputs = {name: a.reshape(len(numbers), self.count, -1) for name, a in inputs.items()}
        return inputs, {
            name: self._targets(name, numbers, inputs["attention_mask"]) for name in self.targets
        }

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
    max_length: int | None = None,
) -> Choices:
    """Texts with equally many choices each, for a model with task "multiple_choice".

    labels: the number of the right choice of each text; None: for prediction only.
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
    if (
        not texts
        or len(choices) != len(texts)
        or count < 2
        or any(len(some) != count for some in choices)
    ):
        raise ValueError(
            f"choices: expected two or more for each of {len(texts)} texts, as many for all, got "
            f"{sorted({len(some) for some in choices})} for {len(choices)}"
        )
    names = [str(n) for n in range(count)]
    labels = (
        None
        if labels is None
        else listed("labels", labels, "the number of the right choice of each text")
    )
    numbers = (
        []
        if labels is None
        else [label_number(label, names, f"text {i}") for i, label in enumerate(labels)]
    )
    if labels is not None and len(numbers) != len(texts):
        raise ValueError(f"labels: expected one for each of {len(texts)} texts, got {len(numbers)}")
    repeated = list(chain.from_iterable([text] * count for text in texts))
    encodings, facts = encode(
        model, repeated, list(chain.from_iterable(choices)), max_length=max_length
    )
    return Choices(encodings, {} if labels is None else {"logits": numbers}, **facts, count=count)
