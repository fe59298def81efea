"""Squared error for numbers, and binary cross-entropy for labels that do not exclude one another."""

from __future__ import annotations

from ..backend import array_module, at_least_float32, is_host
from ..shapes import expects
from .cross_entropy import counted_weights


@expects("y (...), targets (...) numbers, weights (...) numbers or None")
def mean_squared_error(y, *, targets, weights=None, total=None):
    """loss = sum_i w_i (y_i - t_i)^2 / total.

    y (...), targets (...) numbers or NaN = ignored (every number may be a target, -100 too), weights (...) or None = 1
    -> a scalar in at least float32.  `total` as in cross_entropy: None takes the sum of the weights that count.  Keeps y - t.
    dy = dloss 2 (w / total) (y - t), exactly 0 where the target is ignored.   ValueError for other shapes.
    """
    xp = array_module(y)
    counts = targets == targets  # NaN alone is not equal to itself
    w, denominator = counted_weights(y, counts, weights, total)
    error = at_least_float32(y) - xp.where(counts, targets, 0).astype(w.dtype)
    loss = (w * error * error).sum()

    def backward(dloss):
        return (2 * w * error * (dloss / denominator)).astype(y.dtype, copy=False)

    return loss / denominator, backward


@expects("logits (...), targets (...) numbers, weights (...) numbers or None; ignore_index")
def binary_cross_entropy(logits, *, targets, weights=None, total=None, ignore_index=-100):
    """loss = sum_i w_i nll_i / total,   nll = -t log p - (1 - t) log(1 - p),   p = sigmoid(z).

    Computed as nll = max(z, 0) - t z + log(1 + exp(-|z|)): no exponential that overflows, no logarithm of a rounded 0.
    logits z (...), targets t (...) in [0, 1] or ignore_index, of any dtype, weights (...) or None = 1 -> a scalar in at least
    float32.  `total` as in cross_entropy.  Keeps z and t.
    dz = dloss (w / total) (p - t), exactly 0 where the target is ignored.
    ValueError for other shapes, and (on the host) for targets out of range.
    """
    xp = array_module(logits)
    counts = targets != ignore_index
    if is_host(targets):  # on a GPU this check would wait for the device
        wrong = counts & ~((targets >= 0) & (targets <= 1))
        if wrong.any():
            raise ValueError(f"binary_cross_entropy: target {targets[wrong].flat[0]} is out of range: expected 0 to 1, "
                             f"or {ignore_index} for ignored")  # fmt: skip
    w, denominator = counted_weights(logits, counts, weights, total)
    z, t = at_least_float32(logits), xp.where(counts, targets, 0).astype(w.dtype)
    loss = (w * (xp.maximum(z, 0) - t * z + xp.log1p(xp.exp(-xp.abs(z))))).sum()

    def backward(dloss):
        small = xp.exp(-xp.abs(z))
        p = xp.where(z >= 0, 1, small) / (1 + small)
        return (w * (p - t) * (dloss / denominator)).astype(logits.dtype, copy=False)

    return loss / denominator, backward
