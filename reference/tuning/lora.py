"""LoRA: W + (alpha / r) A B, element by element (Hu et al. 2022, eq. 3)."""

from reference.scalar import number, numbers, zeros


def lora(theta: dict, *, base: dict, alpha: float) -> dict:
    """base {path: W (I, J)}, theta {path: {"A" (I, r), "B" (r, J)}} -> {path: W + (alpha / r) A B}.

    A path missing from theta keeps its W.
    """
    merged = {}
    for path, W in base.items():
        if path not in theta:
            merged[path] = numbers(W).copy()
            continue
        A, B = theta[path]["A"], theta[path]["B"]
        merged[path] = zeros(W.shape, like=(W, A, B))
        rank = A.shape[1]
        for i in range(W.shape[0]):
            for j in range(W.shape[1]):
                AB = sum(number(A[i, k]) * number(B[k, j]) for k in range(rank))
                merged[path][i, j] = number(W[i, j]) + alpha / rank * AB
    return merged
