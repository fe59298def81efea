"""Distillation on logits: a student learns a teacher's whole distributions.   Hinton et al. 2015"""

from __future__ import annotations

from typing import Any

from ..backend import array_module, at_least_float32
from ..core import Array, Backward, in_float32
from ..layers.activation import capped
from ..layers.linear import linear
from ..layers.softmax import log_softmax
from ..shapes import expects
from .targets import counted_weights


@expects(
    "logits (..., V), teacher_logits (..., V), weights (...) numbers or None; "
    "temperature > 0, flag reverse"
)
@in_float32
def distillation(
    logits: Array,
    *,
    teacher_logits: Array,
    temperature: float = 1.0,
    reverse: bool = False,
    weights: Array | None = None,
    total: Any = None,
) -> tuple[Array, Backward]:
    """loss = T^2 sum_i w_i KL_i / total,   q = softmax(z / T),   p = softmax(teacher_logits / T).

    logits z, teacher_logits (..., V), weights w (...) or None = 1, T = temperature -> a scalar in
    at least float32; total as in cross_entropy.   Keeps dKL = T dKL/dz (..., V).
    forward   KL(p || q) = sum_v p (log p - log q): the student must cover what the teacher does.
    reverse   KL(q || p) = sum_v q (log q - log p): the student may leave out what it cannot hold
              (Gu et al. 2024, sec. 2).
    With dq_v/dz_u = q_v (1[u = v] - q_u) / T:

        dz = dloss T (w / total) dKL,   dKL = q - p   forward,
                                        dKL = q (log q - log p - KL)   reverse.

    The gradient of KL falls as 1/T^2 for large T (one 1/T is in dz, another in q - p); the factor
    T^2 keeps its weight beside another loss the same at any temperature
    (Hinton et al. 2015, sec. 2.1).
    ValueError for logits of different shapes: distributions over another vocabulary do not compare.
    """
    xp, T = array_module(logits), temperature
    w, total = counted_weights(logits[..., 0], None, weights, total)
    log_q, _ = log_softmax(logits / T)
    log_p, _ = log_softmax(at_least_float32(teacher_logits) / T)
    p, q = xp.exp(log_p), xp.exp(log_q)
    if reverse:
        KL = (q * (log_q - log_p)).sum(axis=-1)
        dKL = q * (log_q - log_p - KL[..., None])
    else:
        KL = (p * (log_p - log_q)).sum(axis=-1)
        dKL = q - p

    def backward(dloss: Any) -> Array:
        return (w * (dloss * T / total))[..., None] * dKL

    return T * T * (w * KL).sum() / total, backward


@expects(
    "x (..., D), W (D, V), b (V,) or None, teacher_x (..., D2), teacher_W (D2, V), "
    "teacher_b (V,) or None, weights (...) numbers or None; "
    "cap > 0 or None, teacher_cap > 0 or None, temperature > 0, flag reverse"
)
def vocabulary_distillation(
    x: Array,
    W: Array,
    b: Array | None = None,
    *,
    teacher_x: Array,
    teacher_W: Array,
    teacher_b: Array | None = None,
    cap: float | None = None,
    teacher_cap: float | None = None,
    temperature: float = 1.0,
    reverse: bool = False,
    weights: Array | None = None,
    total: Any = None,
) -> tuple[Array, Backward]:
    """loss = distillation(x W + b, teacher_x teacher_W + teacher_b); x W + b is z.

    x (..., D), W (D, V), b (V,) or None, teacher_x (..., D2), teacher_W (D2, V) -> a scalar.
    Where a model has a cap, soft_cap(z) takes the place of its z.
    dz is that of `distillation`, taken back through soft_cap;   dx = dz W^T,   dW = x^T dz,
    db = sum dz; none for the teacher.
    """
    z, z_back = linear(x, W, b)
    logits, cap_back = capped(z, cap)
    teacher_logits, _ = capped(linear(teacher_x, teacher_W, teacher_b)[0], teacher_cap)
    loss, loss_back = distillation(
        logits,
        teacher_logits=teacher_logits,
        temperature=temperature,
        reverse=reverse,
        weights=weights,
        total=total,
    )

    def backward(dloss: Any) -> tuple[Array, Array, Array | None]:
        return z_back(cap_back(loss_back(dloss)))

    return loss, backward
