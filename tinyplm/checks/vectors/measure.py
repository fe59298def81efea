"""The arrays of a case in each dtype, and the tolerance of each: what rounding explains.

Inputs are rounded to the dtype, and everything else is computed from them in float64.  The
tolerance of an array, the largest absolute difference allowed, is

    max(FACTOR * error,
        roundings / 2 * (e * largest + f * largest cotangent) + TERMS / 2 * f * largest of its kind)

with e the dtype's epsilon and f the same, but at most float32's.

error is that of our own run of the same case in float32 or float16, compared with float64, times
the ratio of the epsilons: for float64, where nothing more precise runs, it is that of float32, and
for bfloat16, which NumPy lacks, that of float16.  A backward is run for several multiples of the
cotangents, so that it rounds differently each time.

The other terms hold where that run is exact by luck: some roundings of the array's largest value in
the dtype; in at least float32 as many of the largest cotangent, if the array is a gradient, and
sums of TERMS terms as large as the largest value of all gradients (or all outputs).  A gradient
that is zero in exact arithmetic, such as that of a key's bias or of a saturated softmax, consists
of such roundings alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .draws import EPSILON, Draws, cast, is_float, rounded
from .encoding import decoded, encoded
from .subject import Made, Result, Subject

FACTOR = 8
TERMS = 64
OWN = {
    "float64": "float32",
    "float32": "float32",
    "float16": "float16",
    "bfloat16": "float16",
}  # the dtype of our own run
HALVES = ("float16", "bfloat16")
MULTIPLES = (1.0, 1.375, 0.8125)  # of the cotangents


def called(subject: Subject, case: dict[str, Any], arrays: dict[str, Any], dtype: str) -> Result:
    """The run of an encoded case, its floating-point inputs cast to a dtype of NumPy."""
    inputs = {
        name: a if name.endswith(subject.wide or ("\0",)) else cast(a, dtype)
        for name, a in arrays.items()
    }
    arguments = {name: decoded(spec, inputs) for name, spec in case["arguments"].items()}
    return subject.run(arguments, decoded(case["keywords"], inputs))


def pulled(result: Result, cotangents: dict[str, Any], multiple: float = 1.0) -> dict[str, Any]:
    """The gradients of a run for the multiple of the cotangents, each in its output's dtype."""
    if result.backward is None:
        return {}
    given = {n: (c * multiple).astype(result.outputs[n].dtype) for n, c in cotangents.items()}
    return result.backward({n: c if c.ndim else c[()] for n, c in given.items()})


def measured(
    subject: Subject, made: Made, dtypes: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, str]]:
    """(record of the case for the manifest, {tensor: array}, {tensor: dtype in the file})."""
    # OpenBLAS may set flags for vector lanes that it drops; what is not finite is refused below.
    with np.errstate(all="ignore"):
        return _measured(subject, made, dtypes)


def _measured(
    subject: Subject, made: Made, dtypes: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, str]]:
    inputs: dict[str, np.ndarray] = {}
    arguments = {n: encoded(tree, f"argument.{n}", inputs) for n, tree in made.args.items()}
    keywords = {n: encoded(value, f"keyword.{n}", inputs) for n, value in made.kwargs.items()}
    case = {"arguments": arguments, "keywords": keywords}
    record: dict[str, Any] = {
        "name": made.name, "note": made.note, "difficult": bool(made.note), "sizes": made.sizes,
        **case, "arrays": {},
    }  # fmt: skip
    tensors: dict[str, np.ndarray] = {}
    stored: dict[str, str] = {}
    for dtype in [d for d in dtypes if d in subject.dtypes]:
        given = _inputs(subject, inputs, dtype)
        truth = called(subject, case, given, "float64")
        cotangents = _cotangents(truth, made, dtype)
        results = truth.outputs | pulled(truth, cotangents)
        errors = _errors(subject, case, given, cotangents, dtype)
        for name, a in given.items():
            same = not is_float(a) or name.endswith(subject.wide or ("\0",))
            _store(record, tensors, stored, made.name, name, a, dtype, None, same)
        for name, c in cotangents.items():
            cotangent = name.replace("output", "cotangent", 1)
            _store(record, tensors, stored, made.name, cotangent, c, dtype, None)
        for name, a in results.items():
            if name.startswith("intermediate") and dtype in HALVES:
                continue  # they would be a third of the folder
            a = np.asarray(a)
            allowed = 0.0
            if is_float(a):
                given_to = cotangents if "gradient" in name.partition(".")[0] else {}
                allowed = _tolerance(subject, name, results, given_to, errors[name], dtype)
            _store(record, tensors, stored, made.name, name, a, dtype, allowed)
    return record, tensors, stored


def _inputs(subject: Subject, inputs: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    return {
        name: rounded(a, "float64" if name.endswith(subject.wide or ("\0",)) else dtype)
        if is_float(a)
        else a
        for name, a in inputs.items()
    }


def _cotangents(truth: Result, made: Made, dtype: str) -> dict[str, np.ndarray]:
    """Random ones: constant ones would hide a zero gradient."""
    rng = Draws([29, *made.name.encode()])
    found = {}
    for name in truth.differentiable:
        c = np.asarray(rng.normal(size=np.shape(truth.outputs[name])))
        found[name] = rounded(c + np.copysign(0.125, c), dtype)
    return found


def _errors(
    subject: Subject,
    case: dict[str, Any],
    given: dict[str, np.ndarray],
    cotangents: dict[str, np.ndarray],
    dtype: str,
) -> dict[str, float]:
    """{name: the largest error of our own run, as one in `dtype`}."""
    own = OWN[dtype]
    base = {n: a if n.endswith(subject.wide or ("\0",)) else cast(a, own) for n, a in given.items()}
    low, high = (called(subject, case, base, d) for d in (own, "float64"))
    errors = {name: _error(low.outputs[name], a) for name, a in high.outputs.items()}
    for multiple in MULTIPLES if cotangents else ():
        c = {n: rounded(a.astype(np.float64) * multiple, own) for n, a in cotangents.items()}
        a, b = pulled(low, c), pulled(high, c)
        for name in b:
            errors[name] = max(errors.get(name, 0.0), _error(a[name], b[name]) / multiple)
    return {name: e * EPSILON[dtype] / EPSILON[own] for name, e in errors.items()}


def _error(a: Any, b: Any) -> float:
    if not is_float(np.asarray(b)):
        return 0.0
    a = np.asarray(a, dtype=np.float64)
    if not np.isfinite(a).all():
        raise ValueError("expected a run with finite numbers, got others")
    return float(np.max(np.abs(a - b), initial=0.0))


def _tolerance(
    subject: Subject,
    name: str,
    results: dict[str, Any],
    cotangents: dict[str, Any],
    error: float,
    dtype: str,
) -> float:
    """The formula above; cotangents: those that count, {} for an output."""
    kind = name.partition(".")[0]
    alike = {n: a for n, a in results.items() if n.partition(".")[0] == kind}
    e, f = EPSILON[dtype], min(EPSILON[dtype], EPSILON["float32"])
    floor = subject.roundings / 2 * (e * _largest({name: results[name]}) + f * _largest(cotangents))
    return _rounded_up(max(FACTOR * error, floor + TERMS / 2 * f * _largest(alike)))


def _largest(arrays: dict[str, Any]) -> float:
    """The largest absolute value in floating-point arrays."""
    found = (np.max(np.abs(a), initial=0.0) for a in arrays.values() if is_float(np.asarray(a)))
    return float(max(found, default=0.0))


def _rounded_up(x: float) -> float:
    """To three digits."""
    if x == 0 or not math.isfinite(x):
        return x
    unit = 10.0 ** (math.floor(math.log10(x)) - 2)
    return float(f"{math.ceil(x / unit) * unit:.2e}")


_LETTERS = {"f": "F", "i": "I", "u": "U", "b": "BOOL"}


def _store(
    record: dict[str, Any],
    tensors: dict[str, np.ndarray],
    stored: dict[str, str],
    case: str,
    name: str,
    a: np.ndarray,
    dtype: str,
    tolerance: float | None,
    same: bool = False,
) -> None:
    """An array of the file, and its place in the record.  same: in every dtype."""
    if is_float(a) and not np.isfinite(a).all() and tolerance is not None:
        raise ValueError(f"{case}, {dtype}, {name}: expected finite numbers, got others")
    key = f"{case}/{'any' if same else dtype}/{name}"
    tensors[key] = np.array(a, order="C")  # ascontiguousarray would give a number an axis
    bits = a.dtype.itemsize * 8
    stored[key] = "BOOL" if a.dtype.kind == "b" else f"{_LETTERS[a.dtype.kind]}{bits}"
    if dtype == "bfloat16" and tolerance is None and is_float(a) and not same:
        stored[key] = "BF16"
    entry = record["arrays"].setdefault(
        name, {"role": name.partition(".")[0], "shape": list(a.shape), "tensors": {}}
    )
    entry["tensors"]["any" if same else dtype] = stored[key]
    if tolerance is not None:
        entry.setdefault("tolerance", {})[dtype] = tolerance
