"""Distillation on logits: a student learns a teacher's whole distributions.   Hinton et al. 2015

DIVERGENCES: three functions (log_p, log_q, beta) -> (D, dD) of a teacher's p and a student's q over
the last axis; dD = T dD/dz is the gradient for the student's logits, from dq_v/dz_u = q_v (1[u = v]
- q_u) / T.
"""

from __future__ import annotations

import math
from typing import Any

from ..arguments import check_choice
from ..backend import array_module, at_least_float32
from ..core import Array, Backward, in_float32
from ..layers.activation import capped
from ..layers.linear import linear
from ..layers.softmax import log_softmax
from ..shapes import expects
from .targets import counted_weights


def _forward(log_p: Array, log_q: Array, beta: float) -> tuple[Array, Array]:
    """KL(p || q) = sum_v p (log p - log q): the student must cover what the teacher does.

    dD = q - p.
    """
    xp = array_module(log_q)
    p = xp.exp(log_p)
    return (p * (log_p - log_q)).sum(axis=-1), xp.exp(log_q) - p


def _reverse(log_p: Array, log_q: Array, beta: float) -> tuple[Array, Array]:
    """KL(q || p) = sum_v q (log q - log p): the student may leave out what it cannot hold.

    dD = q (log q - log p - D).   Gu et al. 2024, sec. 2.
    """
    q = array_module(log_q).exp(log_q)
    D = (q * (log_q - log_p)).sum(axis=-1)
    return D, q * (log_q - log_p - D[..., None])


def _jensen_shannon(log_p: Array, log_q: Array, beta: float) -> tuple[Array, Array]:
    """beta KL(p || m) + (1 - beta) KL(q || m),   m = beta p + (1 - beta) q.

    dD = (1 - beta) q (log q - log m - KL(q || m)).   Agarwal et al. 2024, eq. 1.
    Bounded, also where one of both is 0.  D / beta tends to the forward divergence for beta -> 0,
    D / (1 - beta) to the reverse one for beta -> 1.
    The terms of m in dD/dq, -beta p (1 - beta) / m - (1 - beta)^2 q / m, add up to the constant
    -(1 - beta), which softmax cancels.
    """
    xp = array_module(log_q)
    log_m = xp.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    q = xp.exp(log_q)
    of_q = (q * (log_q - log_m)).sum(axis=-1)
    of_p = (xp.exp(log_p) * (log_p - log_m)).sum(axis=-1)
    return beta * of_p + (1 - beta) * of_q, (1 - beta) * q * (log_q - log_m - of_q[..., None])


DIVERGENCES = {"forward": _forward, "reverse": _reverse, "jensen-shannon": _jensen_shannon}


@expects(
    "logits (..., V), teacher_logits (..., V), weights (...) numbers or None; "
    "temperature > 0, 0 < beta < 1"
)
@in_float32
def distillation(
    logits: Array,
    *,
    teacher_logits: Array,
    temperature: float = 1.0,
    divergence: str = "forward",
    beta: float = 0.5,
    weights: Array | None = None,
    total: Any = None,
) -> tuple[Array, Backward]:
    """loss = T^2 sum_i w_i D_i / total,   q = softmax(z / T),   p = softmax(teacher_logits / T).

    logits z, teacher_logits (..., V), weights w (...) or None = 1, T = temperature -> a scalar in
    at least float32; total as in cross_entropy.   Keeps dD = T dD/dz (..., V).
    divergence: "forward", D = KL(p || q); "reverse", KL(q || p) (Gu et al. 2024, sec. 2); or
    "jensen-shannon" with beta (Agarwal et al. 2024, eq. 1), see DIVERGENCES.

        dz = dloss T (w / total) dD.

    The gradient of D falls as 1/T^2 for large T (one 1/T is in dz, another in the difference of
    the distributions); the factor T^2 keeps its weight beside another loss the same at any
    temperature (Hinton et al. 2015, sec. 2.1).
    ValueError for logits of different shapes: distributions over another vocabulary do not compare.
    """
    check_choice("distillation: divergence", divergence, DIVERGENCES)
    T = temperature
    w, total = counted_weights(logits[..., 0], None, weights, total)
    log_q, _ = log_softmax(logits / T)
    log_p, _ = log_softmax(at_least_float32(teacher_logits) / T)
    D, dD = DIVERGENCES[divergence](log_p, log_q, beta)

    def backward(dloss: Any) -> Array:
        return (w * (dloss * T / total))[..., None] * dD

    return T * T * (w * D).sum() / total, backward


@expects(
    "x (..., D), W (D, V), b (V,) or None, teacher_x (..., D2), teacher_W (D2, V), "
    "teacher_b (V,) or None, weights (...) numbers or None; "
    "cap > 0 or None, teacher_cap > 0 or None, temperature > 0, 0 < beta < 1"
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
    divergence: str = "forward",
    beta: float = 0.5,
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
        divergence=divergence,
        beta=beta,
        weights=weights,
        total=total,
    )

    def backward(dloss: Any) -> tuple[Array, Array, Array | None]:
        return z_back(cap_back(loss_back(dloss)))

    return loss, backward
