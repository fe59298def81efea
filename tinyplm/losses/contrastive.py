"""InfoNCE: which candidate belongs to the anchor?  A cross-entropy whose classes are the batch.

Every candidate is a negative of every anchor, so a batch is one computation: shards first join
their vectors, then call this.   Shapes: B anchors, N candidates, D width.
For cosine similarity, bring both to length 1 first (layers.pooling.l2_normalise).
"""

from __future__ import annotations

from typing import Any

from ..backend import array_module
from ..core import Array, Backward, in_float32
from ..shapes import expects
from .cross_entropy import cross_entropy


@expects("a (B, D), b (N, D), targets (B,) integers, weights (B,) numbers or None; temperature > 0")
@in_float32
def info_nce(
    a: Array,
    b: Array,
    *,
    targets: Array,
    temperature: float = 1.0,
    weights: Array | None = None,
    total: Any = None,
) -> tuple[Array, Backward]:
    """loss = sum_i w_i nll_i / total,   nll_i = -log softmax(s_i)[t_i],   s = a b^T / tau.

    van den Oord et al. 2018, eq. 4, with exp(s) for the density ratio: the positive is one of the N
    terms of the denominator.
    anchors a (B, D), candidates b (N, D): the positives, and what they are to be told apart from
    (hard negatives are further rows); targets t (B,): which row of b is the positive, or -100 for
    an anchor that does not count; weights w (B,) and total as in cross_entropy; tau = temperature
    -> a scalar.   Keeps a, b and log softmax(s).
    ds = dloss (w / total) (softmax(s) - onehot(t)), as in cross_entropy;   da = ds b / tau,
    db = ds^T a / tau.
    """
    s, s_back = similarity(a, b, temperature)
    loss, loss_back = cross_entropy(s, targets=targets, weights=weights, total=total)

    def backward(dloss: Any) -> tuple[Array, Array]:
        return s_back(loss_back(dloss))

    return loss, backward


@expects("a (B, D), b (B, D), weights (B,) numbers or None; temperature > 0")
@in_float32
def symmetric_info_nce(
    a: Array,
    b: Array,
    *,
    temperature: float = 1.0,
    weights: Array | None = None,
    total: Any = None,
) -> tuple[Array, Backward]:
    """loss = (info_nce(a, b) + info_nce(b, a)) / 2, where a_i and b_i belong together.

    Radford et al. 2021, fig. 3.   a, b (B, D), weights (B,) of the pairs -> a scalar.
    One s = a b^T / tau serves both directions: its rows are the choices of a, its columns those of
    b, so ds is half the sum of both gradients;   da and db from ds as in info_nce.
    """
    targets = array_module(a).arange(a.shape[0])
    s, s_back = similarity(a, b, temperature)
    of_a, of_a_back = cross_entropy(s, targets=targets, weights=weights, total=total)
    of_b, of_b_back = cross_entropy(s.T, targets=targets, weights=weights, total=total)

    def backward(dloss: Any) -> tuple[Array, Array]:
        return s_back((of_a_back(dloss) + of_b_back(dloss).T) / 2)

    return (of_a + of_b) / 2, backward


def similarity(a: Array, b: Array, temperature: float) -> tuple[Array, Backward]:
    """s = a b^T / temperature (B, N);   da = ds b / temperature,   db = ds^T a / temperature."""
    temperature = float(temperature)  # NumPy's float64 would promote float32

    def backward(ds: Array) -> tuple[Array, Array]:
        return ds @ b / temperature, ds.T @ a / temperature

    return a @ b.T / temperature, backward
