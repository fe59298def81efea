"""How far values and gradients may be from ours: what the dtype explains, times a stated factor.

One unit of an array is the larger of
- the error of our own component in float32 against float64, for arguments and dy that are changed
  by one rounding (the largest of four random changes), scaled from the eps of float32 to that of
  the dtype.  It contains what the formula's conditioning explains (Higham 2002, sec. 1.5: backward
  error) and what our way to compute it loses by cancellation;
- one rounding of the largest number around it: of the value, or of the gradients and dy.
The bound is FACTOR * sqrt(n) units, where n counts the terms of the longest sum that the shapes
allow: independent errors grow with the square root of their number (Higham & Mary 2019).  In
float16 and bfloat16 n is at most 4: sums of such numbers are taken in float32, but a kernel may
round a few intermediate results, such as the factors of a norm.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..core import flatten, tree_map
from ..hub.tensors import round_to_bfloat16, widened
from . import laws
from .case import Case, Entry

FACTOR = 4.0
DTYPES = ("float64", "float32", "float16", "bfloat16")
CHANGES = 4
EPS_32 = float(np.finfo("float32").eps)


def eps_of(dtype: str) -> float:
    return 2.0**-7 if dtype == "bfloat16" else float(np.finfo(dtype).eps)


def array_dtype(dtype: str) -> str:
    """The dtype of the arrays that hold numbers of this one."""
    return "float32" if dtype == "bfloat16" else dtype


def rounded(value: Any, dtype: str) -> Any:
    """A tree or a keyword's value with its float arrays rounded to this dtype; others as copies."""

    def to(a: Any) -> Any:
        if not isinstance(a, np.ndarray):
            return a
        if a.dtype.kind != "f":
            return a.copy()
        if dtype == "bfloat16":
            return widened(round_to_bfloat16(a.astype(np.float32)))
        return a.astype(dtype)

    return tree_map(to, value) if isinstance(value, (dict, list, np.ndarray)) else value


def case_in(case: Case, dtype: str) -> Case:
    kwargs = {name: rounded(value, dtype) for name, value in case.kwargs.items()}
    return Case([rounded(a, dtype) for a in case.args], kwargs)


@dataclasses.dataclass
class Expected:
    """What one case must give: ours in float64, and what each number may be off by."""

    y: Any
    dy: Any  # in the dtype
    value: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    bounds: dict[str, float]  # of values and gradients, by their row
    scales: dict[str, float]
    dtypes: dict[str, np.dtype]  # of our own results in this dtype


def values_of(y: Any) -> dict[str, Any]:
    """{row: array} of a value, which may be a tree."""
    return {f"value {path}".rstrip(): np.asarray(a) for path, a in flatten(y).items()}


def gradients_of(names: list[str], grads: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, g in zip(names, grads):
        found |= {f"gradient of {path}": a for path, a in flatten(g, name).items()}
    return found


def ours(entry: Entry, names: list[str], case: Case, dy: Any) -> tuple[dict, dict, Any]:
    """(values, gradients, y) of our own component."""
    y, backward = entry.f(*case.args, **case.kwargs)
    count = len(case.args)
    return values_of(y), gradients_of(names, laws.gradients(backward, dy, count)), y


def expected(
    entry: Entry, names: list[str], case: Case, dtype: str, rng: np.random.Generator
) -> Expected:
    """For a case whose numbers are of this dtype already (case_in)."""
    exact = case_in(case, "float64")
    y, _ = entry.f(*exact.args, **exact.kwargs)
    dy = tree_map(lambda a: rounded(np.asarray(a), dtype), laws.random_like(y, rng))
    dy64 = rounded(dy, "float64")
    value, gradients, y = ours(entry, names, exact, dy64)
    values = {**value, **gradients}

    near = [np.abs(a).max(initial=0.0) for x in exact.args for a in laws.leaves(x)]
    value_scale = max([min(1.0, max(near)), *(np.abs(a).max(initial=0.0) for a in value.values())])
    slopes = [np.abs(a).max(initial=0.0) for a in [*gradients.values(), *laws.leaves(dy64)]]
    scales = {row: float(value_scale if row in value else max(slopes)) for row in values}

    eps = eps_of(dtype)
    units = {row: eps * scales[row] for row in values}

    for _ in range(CHANGES):

        def changed(a: Any) -> Any:
            small = a * (1 + EPS_32 * rng.uniform(-1, 1, np.shape(a)))
            return np.asarray(small, "float32")

        single = case_in(exact, "float32")
        single.args = [tree_map(changed, a) for a in exact.args]
        moved = ours(entry, names, single, tree_map(changed, dy64))
        for row, a in {**moved[0], **moved[1]}.items():
            gap = float(np.nan_to_num(np.abs(a - values[row]).max(initial=0.0)))
            units[row] = max(units[row], gap * eps / EPS_32)
    dtypes = {}
    if dtype != "bfloat16":
        same = ours(entry, names, case, rounded(dy, dtype))
        dtypes = {row: a.dtype for row, a in {**same[0], **same[1]}.items()}
    bounds = {row: factor(case, dtype) * unit for row, unit in units.items()}
    return Expected(y, dy, value, gradients, bounds, scales, dtypes)


def factor(case: Case, dtype: str) -> float:
    """FACTOR * sqrt(n), n the most terms of a sum over the rows or the columns of an argument."""
    shapes = [a.shape or (1,) for x in case.args for a in laws.leaves(x)]
    n = max([1, *(max(int(np.prod(s[:-1])), s[-1]) for s in shapes)])
    n = min(n, 4) if dtype in ("float16", "bfloat16") else n
    return float(FACTOR * n**0.5)


def distance(found: Any, wanted: np.ndarray) -> tuple[float, str]:
    """(largest difference, what is wrong if it is infinite)."""
    if found is None:
        return np.inf, "there is none"
    found = np.asarray(found)
    if found.shape != wanted.shape:
        return np.inf, f"shape {found.shape} instead of {wanted.shape}"
    if not np.isfinite(found).all():
        return np.inf, "not finite"
    return float(np.abs(found.astype(np.float64) - wanted).max(initial=0.0)), ""
