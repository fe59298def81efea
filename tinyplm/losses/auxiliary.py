"""Language modelling as an auxiliary objective beside a task's own."""

from __future__ import annotations

from ..shapes import expects
from .cross_entropy import cross_entropy


@expects("class_logits (B, C), lm_logits (..., V), labels (B,) integers, targets (...) integers; weight >= 0")
def with_language_model(class_logits, lm_logits, *, labels, targets, weight=0.5, total=None, lm_total=None):
    """L = L_task + weight L_LM, both means of cross-entropies.                                      Radford et al. 2018, eq. 5

    class_logits (B, C) with labels (B,); lm_logits (B, T, V) with targets (B, T), in line with the logits, -100 = ignored.
    total and lm_total: of the whole step, as in cross_entropy -> a scalar in at least float32.
    dclass_logits is cross_entropy's gradient at dL, dlm_logits cross_entropy's at weight dL.
    """
    task, task_back = cross_entropy(class_logits, targets=labels, total=total)
    lm, lm_back = cross_entropy(lm_logits, targets=targets, total=lm_total)
    return task + weight * lm, lambda dloss: (task_back(dloss), lm_back(weight * dloss))
