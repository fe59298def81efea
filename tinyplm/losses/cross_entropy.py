"""Cross-entropy over a vocabulary, from logits, and from hidden states in chunks of tokens."""

from __future__ import annotations

from numbers import Real

from ..arguments import check_number
from ..backend import array_module, at_least_float32, is_host
from ..core import Product
from ..shapes import check_array, expects


@expects("logits (..., V), targets (...) integers, weights (...) numbers or None; 0 <= smoothing < 1, whole ignore_index")
def cross_entropy(logits, *, targets, weights=None, total=None, smoothing=0.0, ignore_index=-100):
    """loss = sum_i w_i nll_i / total,   nll_i = (1 - e) (-log p_i[t_i]) + e mean_v(-log p_i[v]),   p = softmax(logits).

    logits (..., V), targets (...) integers in [0, V) or ignore_index, weights (...) or None = 1, smoothing e in [0, 1)
    (Szegedy et al. 2016, sec. 7) -> a scalar in at least float32, 0-dimensional.  Keeps the logits and their log-sum-exp.
    `total` is a number > 0, the sum of weights over the whole step, so that shards, micro-batches and ranks add up to one
    batch; None takes the sum of the weights that count here (and at least makes 0 of nothing).
    dlogits_i = dloss (w_i / total) (p_i - (1 - e) onehot(t_i) - e / V), and exactly 0 where the target is ignored.
    ValueError on targets or weights of another shape, and on targets that are not integers or (on the host) out of range.
    """
    xp = array_module(logits)
    V = logits.shape[-1]
    rows = logits.reshape(-1, V)
    w, t, denominator = _weights(logits, V, targets, weights, total, ignore_index)
    loss, exp_sum, top = _exponentials(at_least_float32(rows) + 0, t, w, smoothing)  # + 0: a copy
    lse = xp.log(exp_sum) + top

    def backward(dloss):
        p = xp.exp(at_least_float32(rows) - lse)
        d = _rows_gradient(p, t, w * (dloss / denominator), smoothing)
        return d.reshape(logits.shape).astype(logits.dtype, copy=False)

    return loss / denominator, backward


@expects("x (..., D), W (D, V), b (V,) or None, targets (...) integers, weights (...) numbers or None; 0 <= "
         "smoothing < 1, whole ignore_index, whole chunk >= 1, flag grad, flag factors")  # fmt: skip
def vocabulary_cross_entropy(x, W, b=None, *, targets, weights=None, total=None, smoothing=0.0, ignore_index=-100,
                             chunk=1024, grad=True, factors=False):  # fmt: skip
    """cross_entropy(x W + b, ...) without ever holding all logits: tokens are taken `chunk` at a time.

    x (..., D), W (D, V), b (V,) or None -> a scalar.  Logits (chunk, V) live only while their chunk is worked on.
    With dlogits as in cross_entropy at dloss = 1:   dx = dloss dlogits W^T,   dW = dloss x^T dlogits,   db = dloss sum dlogits.
    They need the same logits, so they are formed in the same pass (grad=True) and kept; backward only scales them by dloss.
    In float16, also 1 / total waits for the backward, so that the loss scale in dloss finds the gradients before they have
    vanished; dW and db are summed in at least float32.
    grad=False skips all that; backward is then None.
    factors=True: all tokens are one chunk, and dW comes as core.Product(x, dlogits), which is smaller where there are fewer
    tokens than D.
    """
    xp = array_module(x)
    rows = x.reshape(-1, x.shape[-1])
    w, t, denominator = _weights(x, W.shape[1], targets, weights, total, ignore_index)
    late = denominator if x.dtype == "float16" else 1.0
    early = w if x.dtype == "float16" else w / denominator
    chunk = max(chunk, rows.shape[0]) if factors else chunk
    dx = xp.empty(rows.shape, dtype=rows.dtype) if grad else None
    dWT = xp.zeros(W.shape[::-1], dtype=at_least_float32(W[:0]).dtype) if grad and not factors else None
    db = xp.zeros(b.shape, dtype=at_least_float32(b[:0]).dtype) if grad and b is not None else None
    loss = 0
    for start in range(0, max(rows.shape[0], 1), chunk):  # one of no tokens, where there are none: a shard without a target
        part = slice(start, start + chunk)
        logits = at_least_float32(rows[part] @ W)
        if b is not None:
            logits += b
        part_loss, exp_sum, _ = _exponentials(logits, t[part], w[part], smoothing)
        loss = part_loss + loss
        if grad:
            logits /= exp_sum  # now p
            d = _rows_gradient(logits, t[part], early[part], smoothing)
            xp.matmul(d.astype(rows.dtype, copy=False), W.T, out=dx[part])
            if factors:
                dlogits = d  # of the only chunk
            elif start == 0:
                xp.matmul(d.T, at_least_float32(rows[part]), out=dWT)
            else:
                dWT += d.T @ at_least_float32(rows[part])
            if db is not None:
                db += d.sum(axis=0)

    def backward(dloss):
        def scaled(a, dtype):
            if isinstance(dloss, Real) and dloss == 1 and isinstance(late, Real) and late == 1:
                return a.astype(dtype, copy=False)  # the usual case in training, and dW is as large as the head
            return (at_least_float32(a) * (dloss / late)).astype(dtype, copy=False)

        dW = Product(at_least_float32(rows), scaled(dlogits, dlogits.dtype)) if factors else scaled(dWT, W.dtype).T
        return scaled(dx, x.dtype).reshape(x.shape), dW, None if db is None else scaled(db, b.dtype)

    return loss / denominator, backward if grad else None


def _weights(x, V, targets, weights, total, ignore_index):
    """For each position of x (..., n): the weight (0 where ignored), the target (0 where ignored); and the denominator."""
    xp = array_module(x)
    t = targets.reshape(-1)
    counts = t != ignore_index
    if is_host(t):  # on a GPU this check would wait for the device
        wrong = counts & ((t < 0) | (t >= V))
        if wrong.any():
            raise ValueError(f"cross_entropy: target {int(t[wrong][0])} is out of range: expected 0 to {V - 1}, "
                             f"or {ignore_index} for ignored")  # fmt: skip
    w, denominator = counted_weights(x, counts, None if weights is None else weights.reshape(-1), total)
    return w, xp.where(counts, t, 0), denominator


def counted_weights(x, counts, weights, total):
    """Of each place the weight, 0 where `counts` is False, in at least float32 as x has it; and what the sum is divided by."""
    xp = array_module(x)
    _check_total(total)
    dtype = at_least_float32(x[:0]).dtype
    w = counts.astype(dtype) if weights is None else xp.where(counts, weights, 0).astype(dtype)
    if total is not None:
        return w, float(total) if isinstance(total, Real) else total  # NumPy's float64 and int64 would promote float32
    denominator = w.sum()
    return w, xp.where(denominator == 0, 1, denominator).astype(dtype)


def _check_total(total):
    """ValueError unless it is None, a number > 0, or a 0-dimensional array, of which only the host's is read."""
    if total is None:
        return
    if not isinstance(total, Real):
        check_array("total", total, "() numbers")
        if not is_host(total):
            return
        total = float(total)
    check_number("total", total, above=0)


def _exponentials(logits, t, w, smoothing):
    """sum_i w_i nll_i, and each row's sum of exp(logits - top) and top, the row's maximum, both (N, 1).

    In place on logits (at least float32, owned by the caller), which become exp(logits - top).
    With s = logits - top:   -log p[v] = log sum exp(s) - s[v].
    """
    xp = array_module(logits)
    top = logits.max(axis=-1, keepdims=True)
    logits -= top
    expected = xp.take_along_axis(logits, t[:, None], axis=-1)
    if smoothing:
        expected = (1 - smoothing) * expected + smoothing * logits.mean(axis=-1, keepdims=True)
    xp.exp(logits, out=logits)
    total = logits.sum(axis=-1, keepdims=True)
    return (w * (xp.log(total) - expected)[:, 0]).sum(), total, top


def _rows_gradient(p, t, w, smoothing):
    """w_i (p_i - (1 - e) onehot(t_i) - e / V), in place on p, which the caller owns."""
    xp = array_module(p)
    if smoothing:
        p -= smoothing / p.shape[-1]
    p[xp.arange(p.shape[0]), t] -= 1 - smoothing
    p *= w[:, None]
    return p
