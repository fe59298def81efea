"""Squared error for numbers, binary cross-entropy for labels that do not exclude each other."""

from __future__ import annotations

from typing import Any

from ..arguments import wrong
from ..backend import array_module, is_host
from ..core import IGNORED, Array, Backward, in_float32
from ..layers.activation import log_sigmoid
from ..shapes import expects
from .targets import counted_weights


@expects("y (...), targets (...) numbers, weights (...) numbers or None")
@in_float32
def mean_squared_error(
    y: Array, *, targets: Array, weights: Array | None = None, total: Any = None
) -> tuple[Array, Backward]:
    """loss = sum_i w_i (y_i - t_i)^2 / total.

    y (...), targets t (...) numbers, NaN = ignored (-100 may be a target, as any number),
    weights w (...) or None = 1 -> a scalar in at least float32.   total as in cross_entropy: None
    takes the sum of the weights that count.   Keeps y - t.
    dy = dloss 2 (w / total) (y - t), exactly 0 where the target is ignored.
    """
    counts = targets == targets  # only NaN differs from itself
    w, total = counted_weights(y, counts, weights, total)
    error = y - array_module(y).where(counts, targets, 0).astype(w.dtype)

    def backward(dloss: Any) -> Array:
        return 2 * w * error * (dloss / total)

    return (w * error * error).sum() / total, backward


@expects("logits (...), targets (...) numbers, weights (...) numbers or None; ignore_index")
@in_float32
def binary_cross_entropy(
    logits: Array,
    *,
    targets: Array,
    weights: Array | None = None,
    total: Any = None,
    ignore_index: float = IGNORED,
) -> tuple[Array, Backward]:
    """loss = sum_i w_i nll_i / total,   nll = -t log p - (1 - t) log(1 - p),   p = sigmoid(z).

    logits z (...), targets t (...) in [0, 1] or ignore_index, of any dtype, weights w (...) or
    None = 1 -> a scalar in at least float32.   total as in cross_entropy.
    1 - p = sigmoid(-z), so both terms are a log_sigmoid, in which nothing overflows.
    dz = dloss (w / total) (p - t), exactly 0 where the target is ignored;   p - t is computed as
    (1 - t) sigmoid(z) - t sigmoid(-z).
    ValueError (on the host) for targets out of range.
    """
    counts = targets != ignore_index
    check_labels(targets, counts, ignore_index)
    w, total = counted_weights(logits, counts, weights, total)
    t = array_module(logits).where(counts, targets, 0).astype(w.dtype)
    log_p, log_p_back = log_sigmoid(logits)
    log_rest, log_rest_back = log_sigmoid(-logits)

    def backward(dloss: Any) -> Array:
        d = w * (dloss / total)
        return log_rest_back((1 - t) * d) - log_p_back(t * d)

    return -(w * (t * log_p + (1 - t) * log_rest)).sum() / total, backward


def check_labels(targets: Array, counts: Array, ignore_index: float) -> None:
    """ValueError on a target out of range; on a GPU the check would wait for the device."""
    if is_host(targets):
        bad = targets[counts & ~((targets >= 0) & (targets <= 1))]
        if bad.size:
            expected = f"numbers from 0 to 1, or {ignore_index} for ignored"
            raise wrong("binary_cross_entropy: targets", expected, float(bad.flat[0]))
