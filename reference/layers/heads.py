"""From the hidden state to one logit for each token of the vocabulary."""

import numpy as np

from reference.layers.linear import linear


def tied_head(x: np.ndarray, table: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """logits[..., n] = sum_d x[..., d] table[n, d] + b[n].   Press & Wolf 2017; Vaswani et al. 2017, sec. 3.4

    x (..., D), table (V, D) the embedding table, b (V,) or None -> logits (..., V).
    """
    x = np.asarray(x, dtype=np.float64)
    table = np.asarray(table, dtype=np.float64)
    vocabulary, width = table.shape
    if x.shape[-1] != width:
        raise ValueError(f"x has width {x.shape[-1]}, but the table has {width}")
    logits = np.zeros(x.shape[:-1] + (vocabulary,))
    for row in np.ndindex(x.shape[:-1]):
        for n in range(vocabulary):
            total = 0.0
            for d in range(width):
                total += x[row + (d,)] * table[n, d]
            if b is not None:
                total += b[n]
            logits[row + (n,)] = total
    return logits


def untied_head(x: np.ndarray, W: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """logits[..., n] = sum_d x[..., d] W[d, n] + b[n]: as tied_head, with a matrix of its own.

    x (..., D), W (D, V), b (V,) or None -> logits (..., V).
    """
    return linear(x, W, b)
