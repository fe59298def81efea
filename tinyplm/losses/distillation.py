"""Distillation on logits: a student learns a teacher's whole distributions.                                Hinton et al. 2015"""

from __future__ import annotations

from ..backend import array_module, at_least_float32, is_host
from ..shapes import expects
from .cross_entropy import counted_weights


@expects("logits (..., V), teacher_logits (..., V), weights (...) numbers or None; temperature > 0, flag reverse")
def distillation(logits, *, teacher_logits, temperature=1.0, reverse=False, weights=None, total=None):
    """loss = T^2 sum_i w_i KL_i / total,   KL = sum_v p (log p - log q),   q = softmax(z / T), p = softmax(teacher z / T).

    logits z, teacher_logits (..., V), weights (...) or None = 1 -> a scalar in at least float32; `total` as in cross_entropy.
    forward, KL(p || q): the student must cover all that the teacher does.  reverse, sum_v q (log q - log p) = KL(q || p): it may
    leave out what it cannot hold (Gu et al. 2024, sec. 2).  From dq_v/dz_u = q_v (1[u = v] - q_u) / T:

        forward   dz = dloss T (w / total) (q - p)          reverse   dz = dloss T (w / total) q (log q - log p - KL)

    The gradient of KL falls as 1/T^2 for large T (one 1/T is in dz, another in q - p); the factor T^2 keeps its weight beside
    another loss the same at any temperature (Hinton et al. 2015, sec. 2.1).
    ValueError for logits of different shapes: another vocabulary cannot be learned from in this way.
    """
    V = logits.shape[-1]
    w, denominator = _weights(logits[..., 0], weights, total)
    rows, teacher = (at_least_float32(a.reshape(-1, V)) for a in (logits, teacher_logits))
    loss, gradient = _divergence(rows, teacher, w.reshape(-1), temperature, reverse)

    def backward(dloss):
        return (gradient * (dloss / denominator)).reshape(logits.shape).astype(logits.dtype, copy=False)

    return loss / denominator, backward


@expects("x (..., D), W (D, V), b (V,) or None, teacher_x (..., D2), teacher_W (D2, V), teacher_b (V,) or None, "
         "weights (...) numbers or None; temperature > 0, flag reverse, whole chunk >= 1, flag grad")  # fmt: skip
def vocabulary_distillation(x, W, b=None, *, teacher_x, teacher_W, teacher_b=None, temperature=1.0, reverse=False, weights=None,
                            total=None, chunk=1024, grad=True):  # fmt: skip
    """distillation(x W + b, teacher_x teacher_W + teacher_b) without ever holding all logits: `chunk` tokens at a time.

    x (..., D), W (D, V), b (V,) or None, teacher_x (..., D2), teacher_W (D2, V) -> a scalar.  The gradients need the same logits,
    so they are formed in the same pass (grad=True) and only scaled in the backward: with dz of `distillation`, dx = dz W^T,
    dW = x^T dz, db = sum dz.  Nothing of the teacher has a gradient.
    On the host, tokens of weight 0 are left out.  grad=False: backward is None.
    """
    xp = array_module(x)
    w, denominator = _weights(x[..., 0], weights, total)
    w, rows, teacher_rows = w.reshape(-1), x.reshape(-1, x.shape[-1]), teacher_x.reshape(-1, teacher_x.shape[-1])
    places = w.nonzero()[0] if is_host(w) else xp.arange(w.shape[0])
    dtype = w.dtype
    dx = xp.zeros(rows.shape, dtype=dtype) if grad else None
    dWT = xp.zeros(W.shape[::-1], dtype=dtype) if grad else None
    db = xp.zeros(b.shape, dtype=dtype) if grad and b is not None else None
    loss = w.sum() * 0
    for start in range(0, places.shape[0], chunk):
        some = places[start : start + chunk]
        logits, teacher_logits = at_least_float32(rows[some] @ W), at_least_float32(teacher_rows[some] @ teacher_W)
        logits = logits if b is None else logits + b
        teacher_logits = teacher_logits if teacher_b is None else teacher_logits + teacher_b
        part, dz = _divergence(logits, teacher_logits.astype(dtype, copy=False), w[some], temperature, reverse)
        loss = loss + part
        if grad:
            dx[some] = dz @ W.T
            dWT += dz.T @ rows[some]
            if db is not None:
                db += dz.sum(axis=0)

    def backward(dloss):
        scale = dloss / denominator
        dW = (dWT * scale).astype(W.dtype, copy=False).T
        return (dx * scale).reshape(x.shape).astype(x.dtype, copy=False), dW, None if db is None else (db * scale).astype(b.dtype)

    return loss / denominator, backward if grad else None


def _divergence(z, teacher_z, w, T, reverse):
    """T^2 sum w KL, and its gradient by the student's logits z (N, V)."""
    xp = array_module(z)
    log_q, log_p = _log_softmax(z / T), _log_softmax(teacher_z / T)
    if reverse:
        q, difference = xp.exp(log_q), log_q - log_p
        kl = (q * difference).sum(axis=-1, keepdims=True)
        gradient = q * (difference - kl)
    else:
        p = xp.exp(log_p)
        kl = (p * (log_p - log_q)).sum(axis=-1, keepdims=True)
        gradient = xp.exp(log_q) - p
    return T * T * (w * kl[:, 0]).sum(), gradient * (T * w)[:, None]


def _log_softmax(s):
    xp = array_module(s)
    s = s - s.max(axis=-1, keepdims=True)
    return s - xp.log(xp.exp(s).sum(axis=-1, keepdims=True))


def _weights(like, weights, total):
    return counted_weights(like, array_module(like).ones(like.shape, dtype=bool), weights, total)
