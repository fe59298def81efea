"""Fine-tuning with an auxiliary language-modelling loss."""

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
    """L = L_task + weight L_LM: the mean over samples, and the mean over tokens with a target.

    Radford et al. 2018, eq. 5.
    """
    return cross_entropy(class_logits, targets=labels) + weight * cross_entropy(
        lm_logits, targets=targets
    )
