"""Log-probabilities of whole answers from those of their tokens."""

import numpy as np

from reference.scalar import numbers, zeros


def pair_log_probs(x: np.ndarray, *, second: np.ndarray) -> np.ndarray:
    """log p(answer) = sum_t log p(token_t | the tokens before it), for two answers in each sample.

    x (N, ...), second (N, ...) booleans broadcastable to x, True for tokens of the second answer
    -> (N, 2).
    """
    x = numbers(x)
    second = np.broadcast_to(second, x.shape)
    y = zeros((x.shape[0], 2), like=x)
    for i in np.ndindex(x.shape):
        y[i[0], 1 if second[i] else 0] += x[i]
    return y
