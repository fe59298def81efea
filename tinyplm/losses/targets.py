"""What losses share: which places count, and what their sum is divided by."""

from __future__ import annotations

from numbers import Real
from typing import Any

from ..arguments import check_number, wrong
from ..backend import array_module, is_host
from ..core import Array
from ..shapes import check_array


def checked_targets(name: str, targets: Array, V: int, ignore_index: int) -> tuple[Array, Array]:
    """(t, counts): each target, 0 where it is ignored, and whether it counts.

    ValueError on a target out of range; on the host only, since on a GPU the check would wait for
    the device.
    """
    counts = targets != ignore_index
    if is_host(targets):
        bad = targets[counts & ((targets < 0) | (targets >= V))]
        if bad.size:
            expected = f"integers from 0 to {V - 1}, or {ignore_index} for ignored"
            raise wrong(f"{name}: targets", expected, int(bad.flat[0]))
    return array_module(targets).where(counts, targets, 0), counts


def counted_weights(
    x: Array, counts: Array | None, weights: Array | None, total: Any
) -> tuple[Array, Any]:
    """(w, total): each place's weight, 0 where it does not count, and what the sum is divided by.

    x: gives w its dtype (at least float32), and its shape if counts is None.
    counts: booleans, None = all places count; weights: None = 1.
    total None: the sum of w, or 1 if that is 0.
    """
    xp, dtype = array_module(x), "float32" if x.dtype == "float16" else x.dtype
    check_total(total)
    if counts is None:
        counts = xp.ones(x.shape, dtype=bool)
    w = counts.astype(dtype) if weights is None else xp.where(counts, weights, 0).astype(dtype)
    if total is not None:  # NumPy's float64 and int64 would promote float32
        return w, float(total) if isinstance(total, Real) else total
    total = w.sum()
    return w, xp.where(total == 0, 1, total).astype(dtype)


def check_total(total: Any) -> None:
    """ValueError unless it is None, a number > 0, or a 0-d array (read on the host only)."""
    if total is None:
        return
    if not isinstance(total, Real):
        check_array("total", total, "() numbers")
        if not is_host(total):
            return
        total = float(total)
    check_number("total", total, above=0)


def chosen(a: Array, t: Array) -> Array:
    """a (..., V), t (...) -> (...): the entry of each row at its target."""
    return array_module(a).take_along_axis(a, t[..., None], axis=-1)[..., 0]


def onehot(t: Array, V: int) -> Array:
    """t (...) -> (..., V) booleans, True at the target."""
    return array_module(t).arange(V) == t[..., None]
