"""How large a difference rounding explains, for each record of a trace.

With a model it is measured: the call is run once more in another precision, and the error of the
coarser run, scaled to the dtype of the comparison, is what a correct run may err by.  Another
kernel or another order of sums errs by the same size and not by the same number, so TIMES that
error is allowed, and never less than TIMES roundings of the largest number.

Without a model it is the estimate `typical_rounding`, for as many successive sums as there are
records before this one, each over the widest row so far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .files import parameter_gradients
from .rounding import typical_rounding
from .tracing import Call

TIMES = 10.0  # as in rounding.rounding
EPSILONS = {"bfloat16": 2.0**-7}
LARGEST = "float64"  # of a run to compare with

Kind = str  # "value", "gradient" or "parameter"
Allowed = Callable[[Kind, str], float]


def epsilon(dtype: str) -> float:
    """The distance from 1 to the next larger number."""
    return EPSILONS.get(dtype) or float(np.finfo(dtype).eps)


def arrays(call: Call) -> dict[tuple[Kind, str], np.ndarray]:
    """All values and gradients."""
    found = {("value", name): record.value for name, record in call.items()}
    found |= {("gradient", n): r.gradient for n, r in call.items() if r.gradient is not None}
    return found | {("parameter", n): a for n, a in parameter_gradients(call).items()}


def allowances(
    ours: Call, dtype: Callable[[Kind, str], str], rows: Callable[[str, Any], Any]
) -> Allowed:
    """The difference that rounding explains in each array of `ours`.

    dtype: (kind, name) -> the dtype of the comparison.
    rows: (name, array) -> which of its rows count.
    """
    known = arrays(ours)
    sizes = {key: largest(np.where(rows(key[1], a), a, 0)) for key, a in known.items()}
    measured = own_errors(ours, known, rows) if ours.again is not None else None
    guess = _estimates(ours)

    def allowed(kind: Kind, name: str) -> float:
        key, eps = (kind, name), epsilon(dtype(kind, name))
        if measured is None or key not in measured:
            return guess(name, kind) * eps * sizes[key]
        return TIMES * eps * max(measured[key], sizes[key])

    return allowed


def own_errors(
    ours: Call, known: Mapping[tuple[Kind, str], np.ndarray], rows: Callable[[str, Any], Any]
) -> dict[tuple[Kind, str], float]:
    """The largest error of each array, in units of the epsilon of the dtype that it is in."""
    assert ours.again is not None
    own = next(iter(ours.values())).value.dtype.name
    coarse, other = ("float32", "float32") if own == LARGEST else (own, LARGEST)
    found, eps = arrays(ours.again(other)), epsilon(coarse)
    errors = {}
    for key, a in known.items():
        if key in found and found[key].shape == a.shape:
            d = np.abs(a.astype(LARGEST) - found[key].astype(LARGEST))
            errors[key] = largest(np.where(rows(key[1], a), d, 0)) / eps
    return errors


def largest(a: np.ndarray) -> float:
    """The largest magnitude among the finite numbers, 0 without any."""
    magnitudes = np.abs(a[np.isfinite(a)])
    return float(magnitudes.max()) if magnitudes.size else 0.0


def _estimates(ours: Call) -> Callable[[str, Kind], float]:
    """name -> the relative error, in epsilons: see the module's text."""
    counts, sums, width = {}, 0, 1
    for name, record in ours.items():
        width = max([width, *record.value.shape[-1:]])
        sums += width
        counts[name] = sums

    def estimate(name: str, kind: Kind) -> float:
        terms = counts.get(name, sums) if kind == "value" else 3 * sums - counts.get(name, 0)
        return typical_rounding(terms, dtype=LARGEST) / epsilon(LARGEST)

    return estimate
