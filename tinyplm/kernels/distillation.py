"""Distillation over a vocabulary in chunks of tokens."""

from __future__ import annotations

from typing import Any

from ..backend import array_module, at_least_float32, is_host
from ..core import Array, Backward
from ..layers.activation import capped
from ..losses.distillation import distillation
from ..losses.targets import counted_weights
from ..shapes import expects


@expects(
    "x (..., D), W (D, V), b (V,) or None, teacher_x (..., D2), teacher_W (D2, V), "
    "teacher_b (V,) or None, weights (...) numbers or None; "
    "cap > 0 or None, teacher_cap > 0 or None, temperature > 0, 0 < beta < 1, whole chunk >= 1, "
    "flag grad"
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
    chunk: int = 1024,
    grad: bool = True,
) -> tuple[Array, Backward | None]:
    """losses.distillation.vocabulary_distillation, `chunk` tokens at a time.

    With the plain form, forward and backward take 1.4 times the memory (2048 tokens, D 256,
    V 16384).

    Both models' logits (chunk, V) live only while their chunk is worked on.  The gradients need the
    same logits, so they are formed in the same pass, and multiplied by dloss / total in the
    backward.
    grad=False: backward is None.   On the host, tokens of weight 0 are left out.
    """
    xp = array_module(x)
    rows, teacher_rows = x.reshape(-1, x.shape[-1]), teacher_x.reshape(-1, teacher_x.shape[-1])
    w = None if weights is None else weights.reshape(-1)
    w, total = counted_weights(rows[:, 0], None, w, total)
    places = w.nonzero()[0] if is_host(w) else xp.arange(w.shape[0])
    dx: Any = xp.zeros(rows.shape, dtype=w.dtype) if grad else None
    dWT: Any = xp.zeros(W.shape[::-1], dtype=w.dtype) if grad else None
    db = xp.zeros(b.shape, dtype=w.dtype) if grad and b is not None else None
    loss = w.sum() * 0
    for start in range(0, places.shape[0], chunk):
        some = places[start : start + chunk]
        z = at_least_float32(rows[some] @ W)
        teacher_z = at_least_float32(teacher_rows[some] @ teacher_W)
        z = z if b is None else z + b
        teacher_z = teacher_z if teacher_b is None else teacher_z + teacher_b
        z, cap_back = capped(z, cap)
        teacher_z, _ = capped(teacher_z, teacher_cap)
        part, part_back = distillation(
            z,
            teacher_logits=teacher_z.astype(w.dtype, copy=False),
            temperature=temperature,
            divergence=divergence,
            beta=beta,
            weights=w[some],
            total=1,
        )
        loss = loss + part
        if grad:
            dz = cap_back(part_back(1.0))
            dx[some] = dz @ W.T
            dWT += dz.T @ rows[some]
            if db is not None:
                db += dz.sum(axis=0)

    def backward(dloss: Any) -> tuple[Array, Array, Array | None]:
        scale = dloss / total
        dW = (dWT * scale).astype(W.dtype, copy=False).T
        dx_scaled = (dx * scale).reshape(x.shape).astype(x.dtype, copy=False)
        return dx_scaled, dW, None if b is None else (db * scale).astype(b.dtype, copy=False)

    return loss / total, backward if grad else None
