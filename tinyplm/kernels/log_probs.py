"""Log-probabilities over a vocabulary in chunks of tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..backend import array_module, at_least_float32, is_host
from ..core import IGNORED, Array, Backward
from ..layers.activation import capped
from ..losses.targets import checked_targets, chosen
from ..shapes import expects


@expects(
    "x (..., D), W (D, V), b (V,) or None, targets (...) integers; "
    "temperature > 0, cap > 0 or None, whole ignore_index, whole chunk >= 1, flag entropy, "
    "flag grad"
)
def vocabulary_log_probs(
    x: Array,
    W: Array,
    b: Array | None = None,
    *,
    targets: Array,
    temperature: float = 1.0,
    cap: float | None = None,
    ignore_index: int = IGNORED,
    chunk: int = 1024,
    entropy: bool = True,
    grad: bool = True,
) -> tuple[dict[str, Array], Backward | None]:
    """losses.log_probs.vocabulary_log_probs, `chunk` of the counted tokens at a time.

    With the plain form, forward and backward take 2.8 times the memory
    (2048 tokens, D 256, V 16384), and twice as long where half of the tokens count.  Where all
    count, the plain form takes a quarter less time, since logits are formed once.

    The gradients dl and dH are not known before the backward (a preference loss needs all tokens of
    two answers), so each chunk's logits are formed again there; a single chunk's log p is kept.
    entropy=False leaves out that output, grad=False the backward, which is then None.
    On the host, tokens that do not count are left out of all products.
    """
    xp = array_module(x)
    rows = x.reshape(-1, x.shape[-1])
    t, counts = checked_targets("log_probs", targets.reshape(-1), W.shape[1], ignore_index)
    # on a GPU nonzero would wait for the device
    places = counts.nonzero()[0] if is_host(t) else xp.arange(t.shape[0])
    starts = range(0, places.shape[0], chunk)

    def distribution(start: int) -> tuple[Array, Array, Array, Array, Callable]:
        some = places[start : start + chunk]
        s = at_least_float32(rows[some] @ W)
        if b is not None:
            s += b
        y, cap_back = capped(s, cap)
        s = xp.divide(y, temperature, out=s)  # keeps y where there is a cap
        return some, *log_softmax_and_entropy(s, t[some]), cap_back

    names = ("log_probs", "entropy") if entropy else ("log_probs",)
    dtype = "float32" if x.dtype == "float16" else x.dtype
    outputs = {name: xp.zeros(t.shape, dtype=dtype) for name in names}
    kept = []
    for start in starts:
        some, log_p, log_pt, H, cap_back = distribution(start)
        for name, a in zip(names, (log_pt, H)):
            outputs[name][some] = xp.where(counts[some], a, 0)
        if grad and len(starts) == 1:
            kept.append((some, log_p, log_pt, H, cap_back))
    outputs = {name: a.reshape(targets.shape) for name, a in outputs.items()}

    def backward(doutputs: dict[str, Array]) -> tuple[Array, Array, Array | None]:
        dl, dH = (counting(counts, doutputs.get(name)) for name in ("log_probs", "entropy"))
        dx = xp.zeros(rows.shape, dtype=rows.dtype)
        dWT = xp.zeros(W.shape[::-1], dtype=dtype)
        db: Any = None if b is None else xp.zeros(b.shape, dtype=dtype)
        for start in starts:
            some, log_p, _, H, cap_back = kept[0] if kept else distribution(start)
            log_p = log_p + 0 if kept else log_p  # a copy, since it is written into
            dl_some, dH_some = (None if d is None else d[some] for d in (dl, dH))
            d = rows_gradient(log_p, t[some], H, dl_some, dH_some)
            d /= temperature
            d = cap_back(d)
            dx[some] = d.astype(rows.dtype, copy=False) @ W.T
            dWT += d.T @ at_least_float32(rows[some])
            if db is not None:
                db += d.sum(axis=0)
        dW = dWT.astype(W.dtype, copy=False).T
        return dx.reshape(x.shape), dW, None if b is None else db.astype(b.dtype, copy=False)

    return outputs, backward if grad else None


def log_softmax_and_entropy(s: Array, t: Array) -> tuple[Array, Array, Array]:
    """log softmax(s) in place of s (N, V), that of the targets (N,), and the entropy (N,)."""
    xp = array_module(s)
    s -= s.max(axis=-1, keepdims=True)
    p = xp.exp(s)
    total = p.sum(axis=-1, keepdims=True)
    s -= xp.log(total)
    p /= total
    p *= s
    return s, chosen(s, t), -p.sum(axis=-1)


def counting(counts: Array, d: Array | None) -> Array | None:
    """A gradient of an output as (N,), exactly 0 where nothing counts."""
    return None if d is None else array_module(d).where(counts, d.reshape(-1), 0)


def rows_gradient(log_p: Array, t: Array, H: Array, dl: Array | None, dH: Array | None) -> Array:
    """dl (onehot(t) - p) - dH p (log p + H), (N, V); log_p is overwritten."""
    xp = array_module(log_p)
    p = xp.exp(log_p)
    if dH is None:
        p *= 0 if dl is None else -dl[:, None]
    else:
        log_p += H[:, None]
        log_p *= -dH[:, None]
        if dl is not None:
            log_p -= dl[:, None]
        p *= log_p
    if dl is not None:
        p[xp.arange(t.shape[0]), t] += dl
    return p
