"""Fine-tuning with language modelling beside the task."""

import numpy as np

from reference.losses.cross_entropy import cross_entropy


def with_language_model(
    class_logits: np.ndarray,
    lm_logits: np.ndarray,
    *,
    labels: np.ndarray,
    targets: np.ndarray,
    weight: float = 0.5,
) -> float:
    """L = L_task + weight L_LM, each a mean: over the samples, and over the tokens that count.     Radford et al. 2018, eq. 5"""
    return cross_entropy(class_logits, targets=labels) + weight * cross_entropy(
        lm_logits, targets=targets
    )
