"""InfoNCE: of all candidates, which one belongs to the anchor?  A cross-entropy whose classes are the batch itself.

Every candidate is a negative of every anchor, so a batch is one computation: shards first join their vectors, then call this.
Shapes: B anchors, N candidates, D width.  For cosine similarity bring both to length 1 before (layers.pooling.l2_normalise).
"""

from __future__ import annotations

from ..backend import array_module, at_least_float32
from ..shapes import expects
from .cross_entropy import cross_entropy


@expects("a (B, D), b (N, D), targets (B,) integers, weights (B,) numbers or None; temperature > 0")
def info_nce(a, b, *, targets, temperature=1.0, weights=None, total=None):
    """loss = sum_i w_i nll_i / total,   nll_i = -log(exp(s_i,t_i) / sum_j exp(s_ij)),   s = a b^T / temperature.

    van den Oord et al. 2018, eq. 4, with exp(s) for the density ratio: the positive is one of the N terms of the denominator.
    a (B, D), b (N, D): the positives, and whatever else shall be told apart from them (hard negatives are just more rows);
    targets (B,) the row of b that is the positive, or -100 for an anchor that does not count; weights, total as in
    cross_entropy -> a scalar.  Keeps a, b and s.
    ds = gradient of the cross-entropy;   da = ds b / temperature,   db = ds^T a / temperature.
    ValueError when the shapes do not fit, for a temperature that is not above 0, and as cross_entropy.
    """
    similarity, similarity_back = _similarity(a, b, temperature)
    loss, loss_back = cross_entropy(similarity, targets=targets, weights=weights, total=total)

    def backward(dloss):
        return similarity_back(loss_back(dloss))

    return loss, backward


@expects("a (B, D), b (B, D), weights (B,) numbers or None; temperature > 0")
def symmetric_info_nce(a, b, *, temperature=1.0, weights=None, total=None):
    """loss = (info_nce(a, b) + info_nce(b, a)) / 2, where a_i and b_i belong together.        Radford et al. 2021, fig. 3

    a (B, D), b (B, D), weights (B,) of the pairs -> a scalar.  Keeps a, b and s, which serves both directions: the rows of s
    are the choices of a, its columns those of b, so ds is half the sum of both gradients;  da and db from ds as in info_nce.
    ValueError when the shapes are not equal, and as info_nce.
    """
    targets = array_module(a).arange(a.shape[0])
    similarity, similarity_back = _similarity(a, b, temperature)
    there, there_back = cross_entropy(similarity, targets=targets, weights=weights, total=total)
    back, back_back = cross_entropy(similarity.T, targets=targets, weights=weights, total=total)

    def backward(dloss):
        return similarity_back((there_back(dloss) + back_back(dloss).T) / 2)

    return (there + back) / 2, backward


def _similarity(a, b, temperature):
    """s = a b^T / temperature (B, N), in at least float32;   da = ds b / temperature,   db = ds^T a / temperature."""
    temperature = float(temperature)  # NumPy's float64 would promote float32
    anchors, candidates = at_least_float32(a), at_least_float32(b)

    def backward(ds):
        ds = ds / temperature
        return (ds @ candidates).astype(a.dtype, copy=False), (ds.T @ anchors).astype(b.dtype, copy=False)

    return anchors @ candidates.T / temperature, backward
