"""Distillation on logits: T^2 times the divergence of the softened distributions.

Hinton et al. 2015.  Jensen-Shannon: Agarwal et al. 2024, eq. 1.
"""

import numpy as np

from reference.layers.activation import soft_cap
from reference.layers.linear import linear
from reference.scalar import exp, log, number


def _log_softmax(scores: list[float]) -> list[float]:
    top = max(scores)
    normaliser = top + log(sum(exp(z - top) for z in scores))
    return [z - normaliser for z in scores]


def _kl(log_p: list[float], log_q: list[float]) -> float:
    return sum(exp(a) * (a - b) for a, b in zip(log_p, log_q))


def distillation(
    logits: np.ndarray,
    *,
    teacher_logits: np.ndarray,
    temperature: float = 1.0,
    divergence: str = "forward",
    beta: float = 0.5,
    weights: np.ndarray | None = None,
    total: float | None = None,
) -> float:
    """T^2 D(P, Q), averaged, of the teacher's P and the student's Q.

    forward: KL(P || Q), reverse: KL(Q || P), jensen-shannon: beta KL(P || M) + (1 - beta) KL(Q ||
    M),  M = beta P + (1 - beta) Q.
    """
    loss, counted = 0.0, 0.0
    for i in np.ndindex(logits.shape[:-1]):
        w = 1.0 if weights is None else float(weights[i])
        student = _log_softmax([number(z) / temperature for z in logits[i]])
        teacher = _log_softmax([number(z) / temperature for z in teacher_logits[i]])
        if divergence == "forward":
            D = _kl(teacher, student)
        elif divergence == "reverse":
            D = _kl(student, teacher)
        else:
            mixed = [log(beta * exp(p) + (1.0 - beta) * exp(q)) for p, q in zip(teacher, student)]
            D = beta * _kl(teacher, mixed) + (1.0 - beta) * _kl(student, mixed)
        loss += w * temperature**2 * D
        counted += w
    if total is None:
        total = counted if counted != 0.0 else 1.0
    return loss / total


def vocabulary_distillation(
    x: np.ndarray,
    W: np.ndarray,
    b: np.ndarray | None = None,
    *,
    teacher_x: np.ndarray,
    teacher_W: np.ndarray,
    teacher_b: np.ndarray | None = None,
    cap: float | None = None,
    teacher_cap: float | None = None,
    chunk: int | None = None,
    **settings,
) -> float:
    """distillation(z, teacher_logits = y),  z = x W + b,  y = teacher_x teacher_W + teacher_b.

    With a cap, cap tanh(z / cap) takes the place of z; with a teacher_cap, likewise for y.
    `chunk` (tokens at a time) affects memory, not the value: it is unused here.
    cap: Gemma team 2024b, sec. 2.
    """
    z, y = linear(x, W, b), linear(teacher_x, teacher_W, teacher_b)
    if cap is not None:
        z = soft_cap(z, cap=cap)
    if teacher_cap is not None:
        y = soft_cap(y, cap=teacher_cap)
    return distillation(z, teacher_logits=y, **settings)
