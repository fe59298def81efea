"""Language modelling as an auxiliary objective beside a task's own."""

from __future__ import annotations

from typing import Any

from ..core import Array, Backward
from ..shapes import expects
from .cross_entropy import cross_entropy


@expects(
    "class_logits (B, C), lm_logits (..., V), labels (B,) integers, targets (...) integers; "
    "weight >= 0"
)
def with_language_model(
    class_logits: Array,
    lm_logits: Array,
    *,
    labels: Array,
    targets: Array,
    weight: float = 0.5,
    total: Any = None,
    lm_total: Any = None,
) -> tuple[Array, Backward]:
    """loss = task + weight lm, two cross-entropies.                  Radford et al. 2018, eq. 5

    task: of class_logits (B, C) with labels (B,); lm: of lm_logits (B, T, V) with targets (B, T),
    which line up with the logits, -100 = ignored; total and lm_total: of the whole step, as in
    cross_entropy -> a scalar in at least float32.
    dclass_logits and dlm_logits are cross_entropy's gradients at dloss and at weight dloss.
    """
    task, task_back = cross_entropy(class_logits, targets=labels, total=total)
    lm, lm_back = cross_entropy(lm_logits, targets=targets, total=lm_total)

    def backward(dloss: Any) -> tuple[Array, Array]:
        return task_back(dloss), lm_back(weight * dloss)

    return task + weight * lm, backward
