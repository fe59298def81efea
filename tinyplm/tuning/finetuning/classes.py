"""Texts with one label, several labels or a number each, for a model with a score head."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence, Set
from typing import Any

import numpy as np

from ...arguments import check_flag, is_number, known_arguments, listed, mismatch, shown
from ...evaluation import metrics
from ...models.model import Model, check_model
from .samples import Samples, check_task, checked_texts, encode, label_names, label_number


@dataclasses.dataclass(frozen=True)
class Classes(Samples):
    """Texts with one class each.  targets: {"logits": class numbers}."""

    def predictions(self, outputs: dict[str, Any]) -> np.ndarray:
        """(N,) class numbers."""
        return outputs["logits"].argmax(axis=-1)

    @property
    def measures(self) -> tuple[str, ...]:
        return "accuracy", "f1", "matthews"

    def score(self, outputs: dict[str, Any]) -> dict[str, float]:
        found, labels = self.predictions(outputs), self.targets["logits"]
        C = outputs["logits"].shape[-1]
        average = "binary" if C == 2 else "macro"
        f1 = metrics.precision_recall_f1(found, labels, average=average, classes=C).f1
        matthews = metrics.matthews_correlation(found, labels)
        return {"accuracy": metrics.accuracy(found, labels), "f1": f1, "matthews": matthews}


@dataclasses.dataclass(frozen=True)
class LabelSets(Samples):
    """Texts with any number of labels each.  targets: {"logits": rows (C,) of 0.0 and 1.0}."""

    def predictions(self, outputs: dict[str, Any]) -> np.ndarray:
        """(N, C) of 0 and 1: 1 where the probability is above one half."""
        return (outputs["logits"] > 0).astype(np.int64)

    @property
    def measures(self) -> tuple[str, ...]:
        return "micro f1", "macro f1", "accuracy"

    def score(self, outputs: dict[str, Any]) -> dict[str, float]:
        found, labels = self.predictions(outputs), np.array(self.targets["logits"], dtype=np.int64)
        averages = {
            f"{average} f1": metrics.precision_recall_f1(found, labels, average=average).f1
            for average in ("micro", "macro")
        }
        return {**averages, "accuracy": metrics.accuracy(found, labels)}


@dataclasses.dataclass(frozen=True)
class Numbers(Samples):
    """Texts with a number each.  targets: {"logits": rows (1,)}."""

    def predictions(self, outputs: dict[str, Any]) -> np.ndarray:
        """(N,) numbers."""
        return outputs["logits"][:, 0]

    @property
    def measures(self) -> tuple[str, ...]:
        return "pearson", "spearman"

    def score(self, outputs: dict[str, Any]) -> dict[str, float]:
        found, labels = self.predictions(outputs), np.array(self.targets["logits"])[:, 0]
        return {
            "pearson": metrics.pearson_correlation(found, labels),
            "spearman": metrics.spearman_correlation(found, labels),
        }


@known_arguments
def classification(
    model: Model,
    texts: Sequence[str],
    labels: Sequence[Any] | None = None,
    *,
    pairs: Sequence[str] | None = None,
    both_orders: bool = False,
    max_length: int | None = None,
) -> Samples:
    """Texts, or pairs of texts, with labels, for a model with task "sequence_classification".

    labels, depending on the model's config.problem_type (inferred as in transformers if it is
    None):
        single_label_classification   one per text: its number, or its name in id2label -> Classes
        multi_label_classification    a list per text, possibly empty                   -> LabelSets
        regression                    a number per text (inferred if num_labels is 1)   -> Numbers
    None: for prediction only. max_length: total tokens; the longer text of a pair is truncated
    first.  Default: the model's longest sequence.
    both_orders: a decoder reads each pair in both orders and adds up its two representations, for
    labels that do not depend on the order (Radford et al. 2018, sec. 3.3: similarity).
    """
    check_model("model", model)
    check_task(model, "sequence_classification")
    check_flag("both_orders", both_orders)
    texts = checked_texts("texts", texts)
    pairs = None if pairs is None else checked_texts("pairs", pairs, len(texts))
    kind, targets = _targets(model, labels, len(texts))
    count = None
    if both_orders:
        if pairs is None or not hasattr(model.config, "SCORED"):
            raise mismatch("both_orders", "False without pairs, or for an encoder", "True")
        orders = [pair for a, b in zip(texts, pairs) for pair in ((a, b), (b, a))]
        count, texts, pairs = 2, [a for a, _ in orders], [b for _, b in orders]
    encodings, facts = encode(model, texts, pairs, count=count, max_length=max_length)
    return kind(encodings, {} if labels is None else {"logits": targets}, **facts)


def _targets(model: Model, labels: Sequence[Any] | None, count: int) -> tuple[type[Samples], list]:
    """The kind of samples and their targets."""
    config, names = model.config, label_names(model.config)
    if labels is not None:
        labels = labels.tolist() if hasattr(labels, "tolist") else labels
        labels = listed("labels", labels, "a list with a label for each text")
        if len(labels) != count:
            raise ValueError(f"labels: expected one for each of {count} texts, got {len(labels)}")
    problem = config.problem_type
    if problem is None:
        first = labels[0] if labels else ""
        several = isinstance(first, (Sequence, Set, np.ndarray)) and not isinstance(first, str)
        problem = f"{'multi' if several else 'single'}_label_classification"
        problem = "regression" if config.num_labels == 1 else problem
    if problem == "regression":
        if config.num_labels != 1:
            raise ValueError(f"model: expected one label for regression, got {config.num_labels}")
        return Numbers, [[_number(value, f"text {i}")] for i, value in enumerate(labels or ())]
    if problem == "single_label_classification":
        numbered = enumerate(labels or ())
        return Classes, [label_number(label, names, f"text {i}") for i, label in numbered]
    rows = []
    for i, row in enumerate(labels or ()):
        row = listed(f"text {i}", row, "a list of labels")
        present = {label_number(label, names, f"text {i}") for label in row}
        rows.append([float(k in present) for k in range(len(names))])
    return LabelSets, rows


def _number(value: Any, where: str) -> float:
    if not is_number(value):
        raise ValueError(f"{where}: expected a finite number as label, got {shown(value, 60)}")
    return float(value)
