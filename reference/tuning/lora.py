"""LoRA: W + (alpha / r) A B, element by element (Hu et al. 2022, eq. 3)."""

import numpy as np


def lora(theta: dict, *, base: dict, alpha: float) -> dict:
    """base {path: W (I, J)}, theta {path: {"A" (I, r), "B" (r, J)}} -> {path: W + (alpha / r) A B}.

    A path missing from theta keeps its W.
    """
    merged = {}
    for path, W in base.items():
        merged[path] = np.array(W, dtype=np.float64)
        if path not in theta:
            continue
        A, B = theta[path]["A"], theta[path]["B"]
        rank = A.shape[1]
        for i in range(W.shape[0]):
            for j in range(W.shape[1]):
                AB = sum(float(A[i, k]) * float(B[k, j]) for k in range(rank))
                merged[path][i, j] += alpha / rank * AB
    return merged
