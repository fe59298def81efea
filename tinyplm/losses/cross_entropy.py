"""Cross-entropy over a vocabulary, from logits or from hidden states."""

from __future__ import annotations

from typing import Any

from ..backend import array_module
from ..core import IGNORED, Array, Backward, in_float32
from ..layers.activation import capped
from ..layers.linear import linear
from ..layers.softmax import log_softmax
from ..shapes import expects
from .targets import checked_targets, chosen, counted_weights, onehot


@expects(
    "logits (..., V), targets (...) integers, weights (...) numbers or None; "
    "0 <= smoothing < 1, whole ignore_index"
)
@in_float32
def cross_entropy(
    logits: Array,
    *,
    targets: Array,
    weights: Array | None = None,
    total: Any = None,
    smoothing: float = 0.0,
    ignore_index: int = IGNORED,
) -> tuple[Array, Backward]:
    """loss = sum_i w_i nll_i / total,   nll_i = -(1 - e) log p_i[t_i] - e mean_v(log p_i[v]).

    p = softmax(logits).   logits (..., V), targets t (...) integers in [0, V) or ignore_index,
    weights w (...) or None = 1, smoothing e in [0, 1) (Szegedy et al. 2016, sec. 7)
    -> a scalar in at least float32.   Keeps log p and w.
    total is a number > 0, the sum of weights over the whole step, so that shards, micro-batches and
    ranks add up to one batch; None takes the sum of the weights that count here, or 1 if it is 0.
    dlogits_i = dloss (w_i / total) (p_i - (1 - e) onehot(t_i) - e / V), and exactly 0 where the
    target is ignored.
    ValueError on targets or weights of another shape, and on targets that are not integers or (on
    the host) out of range.
    """
    xp, V, e = array_module(logits), logits.shape[-1], smoothing
    t, counts = checked_targets("cross_entropy", targets, V, ignore_index)
    w, total = counted_weights(logits, counts, weights, total)
    log_p, _ = log_softmax(logits)
    nll = -chosen(log_p, t)
    if e:  # with e = 0 a logit of -inf, which has p = 0, adds nothing
        nll = (1 - e) * nll - e * log_p.mean(axis=-1)

    def backward(dloss: Any) -> Array:
        p = xp.exp(log_p)
        return (w * (dloss / total))[..., None] * (p - (1 - e) * onehot(t, V) - e / V)

    return (w * nll).sum() / total, backward


@expects(
    "x (..., D), W (D, V), b (V,) or None, targets (...) integers, weights (...) numbers or None; "
    "0 <= smoothing < 1, cap > 0 or None, whole ignore_index"
)
def vocabulary_cross_entropy(
    x: Array,
    W: Array,
    b: Array | None = None,
    *,
    targets: Array,
    weights: Array | None = None,
    total: Any = None,
    smoothing: float = 0.0,
    cap: float | None = None,
    ignore_index: int = IGNORED,
) -> tuple[Array, Backward]:
    """loss = cross_entropy(soft_cap(z)),   z = x W + b; without a cap, of z itself.

    x (..., D), W (D, V), b (V,) or None -> a scalar.
    dz is dlogits of `cross_entropy` taken back through soft_cap;   dx = dz W^T,   dW = x^T dz,
    db = sum dz.
    """
    z, z_back = linear(x, W, b)
    logits, cap_back = capped(z, cap)
    loss, loss_back = cross_entropy(
        logits,
        targets=targets,
        weights=weights,
        total=total,
        smoothing=smoothing,
        ignore_index=ignore_index,
    )

    def backward(dloss: Any) -> tuple[Array, Array, Array | None]:
        return z_back(cap_back(loss_back(dloss)))

    return loss, backward
