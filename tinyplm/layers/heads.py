"""Heads that turn hidden states into logits over the vocabulary."""

from __future__ import annotations

from .linear import linear


def untied_head(x, W, b=None):
    """logits = x W + b with a matrix of its own.   x (..., D), W (D, V), b (V,) or None -> (..., V).   As `linear`."""
    return linear(x, W, b)


def tied_head(x, table, b=None):
    """logits = x table^T + b, with the embedding table as output matrix.                            Press & Wolf 2017

    x (..., D), table (V, D), b (V,) or None -> (..., V).   dx = dlogits table,   dtable = dlogits^T x;
    the table's other gradient, from the look-up, is added by whoever uses it twice.
    """
    logits, back = linear(x, table.T, b)

    def backward(dlogits):
        dx, dW, db = back(dlogits)
        return dx, dW.T, db

    return logits, backward
