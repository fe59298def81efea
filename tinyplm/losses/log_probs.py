"""Log-probabilities of given tokens, and the entropy of the distribution that each was drawn from."""

from __future__ import annotations

from ..backend import array_module, at_least_float32, is_host
from ..shapes import expects


@expects("logits (..., V), targets (...) integers; temperature > 0, whole ignore_index")
def log_probs(logits, *, targets, temperature=1.0, ignore_index=-100):
    """{"log_probs": l, "entropy": H},   l_i = log p_i[t_i],   H_i = -sum_v p_i[v] log p_i[v],   p = softmax(logits / tau).

    logits (..., V), targets (...) integers in [0, V), or ignore_index, where both are exactly 0; tau = temperature > 0
    -> two arrays (...) in at least float32.  Keeps log p.  With s = logits / tau, from dl_i/ds_v = onehot(t_i)_v - p_v and
    dH_i/ds_v = -p_v (log p_v + H_i):

        dlogits = (dl (onehot(t) - p) - dH p (log p + H)) / tau.

    ValueError on targets of another shape, that are not integers or (on the host) out of range, and on tau <= 0.
    """
    xp = array_module(logits)
    t, counts = _checked(logits.shape[-1], targets, ignore_index)
    rows = at_least_float32(logits.reshape(-1, logits.shape[-1])) / temperature
    log_p, chosen, H = _distribution(rows, t)
    outputs = {name: xp.where(counts, a, 0).reshape(targets.shape) for name, a in (("log_probs", chosen), ("entropy", H))}

    def backward(doutputs):
        dl, dH = (_where(counts, doutputs.get(name)) for name in ("log_probs", "entropy"))
        d = _rows_gradient(log_p + 0, t, H, dl, dH)  # + 0: a copy
        d /= temperature
        return d.reshape(logits.shape).astype(logits.dtype, copy=False)

    return outputs, backward


@expects("x (..., D), W (D, V), b (V,) or None, targets (...) integers; temperature > 0, whole ignore_index, whole "
         "chunk >= 1, flag entropy, flag grad")  # fmt: skip
def vocabulary_log_probs(x, W, b=None, *, targets, temperature=1.0, ignore_index=-100, chunk=1024, entropy=True, grad=True):
    """log_probs(x W + b, ...) without ever holding all logits: of the tokens that count, `chunk` are taken at a time.

    x (..., D), W (D, V), b (V,) or None.  entropy=False leaves that output out, and grad=False the backward.
    What the gradient is multiplied with is not known before the backward (a preference loss needs all tokens of two answers),
    so each chunk's logits are formed again there; if there is one chunk only, its log p is kept.
    dx = dlogits W^T,  dW = x^T dlogits,  db = sum of dlogits, with dlogits of `log_probs`.
    On the host, tokens that do not count are left out of all products.
    """
    xp = array_module(x)
    V = W.shape[1]
    t, counts = _checked(V, targets, ignore_index)
    rows = x.reshape(-1, x.shape[-1])
    places = counts.nonzero()[0] if is_host(t) else xp.arange(t.shape[0])  # on a GPU nonzero would wait for the device
    starts = range(0, places.shape[0], chunk)

    def distribution(start):
        some = places[start : start + chunk]
        s = at_least_float32(rows[some] @ W)
        if b is not None:
            s += b
        s /= temperature
        return some, *_distribution(s, t[some])

    names = ("log_probs", "entropy") if entropy else ("log_probs",)
    dtype = at_least_float32(x[:0]).dtype
    outputs = {name: xp.zeros(t.shape, dtype=dtype) for name in names}
    kept = []
    for start in starts:
        some, log_p, chosen, H = distribution(start)
        for name, a in zip(names, (chosen, H)):
            outputs[name][some] = xp.where(counts[some], a, 0)
        if grad and len(starts) == 1:
            kept.append((some, log_p, chosen, H))
    outputs = {name: a.reshape(targets.shape) for name, a in outputs.items()}

    def backward(doutputs):
        dl, dH = (_where(counts, doutputs.get(name)) for name in ("log_probs", "entropy"))
        dx = xp.zeros(rows.shape, dtype=rows.dtype)
        dWT = xp.zeros(W.shape[::-1], dtype=at_least_float32(W[:0]).dtype)
        db = None if b is None else xp.zeros(b.shape, dtype=at_least_float32(b[:0]).dtype)
        for start in starts:
            some, log_p, _, H = kept[0] if kept else distribution(start)
            d = _rows_gradient(
                log_p + 0 if kept else log_p, t[some], H, dl if dl is None else dl[some], dH if dH is None else dH[some]
            )
            d /= temperature
            dx[some] = d.astype(rows.dtype, copy=False) @ W.T
            dWT += d.T @ at_least_float32(rows[some])
            if db is not None:
                db += d.sum(axis=0)
        return dx.reshape(x.shape), dWT.astype(W.dtype, copy=False).T, None if db is None else db.astype(b.dtype, copy=False)

    return outputs, backward if grad else None


def _checked(V, targets, ignore_index):
    """Of each place the target (0 where ignored), and whether it counts."""
    xp = array_module(targets)
    t = targets.reshape(-1)
    counts = t != ignore_index
    if is_host(t):
        wrong = counts & ((t < 0) | (t >= V))
        if wrong.any():
            raise ValueError(f"log_probs: target {int(t[wrong][0])} is out of range: expected 0 to {V - 1}, "
                             f"or {ignore_index} for ignored")  # fmt: skip
    return xp.where(counts, t, 0), counts


def _distribution(s, t):
    """log softmax(s), in place on s (N, V), that of the targets (N,), and the entropy (N,)."""
    xp = array_module(s)
    s -= s.max(axis=-1, keepdims=True)
    p = xp.exp(s)
    total = p.sum(axis=-1, keepdims=True)
    s -= xp.log(total)
    p /= total
    p *= s
    return s, xp.take_along_axis(s, t[:, None], axis=-1)[:, 0], -p.sum(axis=-1)


def _where(counts, d):
    """A gradient of an output as rows, exactly 0 where nothing counts."""
    return None if d is None else array_module(d).where(counts, d.reshape(-1), 0)


def _rows_gradient(log_p, t, H, dl, dH):
    """dl (onehot(t) - p) - dH p (log p + H), rows (N, V); log_p is the caller's to lose."""
    xp = array_module(log_p)
    N = t.shape[0]
    p = xp.exp(log_p)
    if dH is None:
        d = p
        d *= 0 if dl is None else -dl[:, None]
    else:
        log_p += H[:, None]
        log_p *= -dH[:, None]
        if dl is not None:
            log_p -= dl[:, None]
        p *= log_p
        d = p
    if dl is not None:
        d[xp.arange(N), t] += dl
    return d
