"""Where two traces differ first, in the forward and in the backward, and why."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..arguments import check_choice, check_flag, check_path, known_arguments, shown, wrong
from ..models.model import check_model
from .comparison import Comparison, Difference
from .explained import Allowed, allowances, epsilon, largest
from .explaining import explanation, not_reproduced
from .files import check_trace, model_type, parameter_gradients, read_trace
from .matching import in_our_names, real_rows
from .modules import modules
from .torch_tracing import check_names, renamed
from .tracing import Call, Record, Trace

DTYPES = ("float64", "float32", "float16", "bfloat16")


@known_arguments
def compare(
    a: Any,
    b: Any,
    *,
    model: Any = None,
    names: Any = None,
    dtype: str | None = None,
    partial: bool = False,
    explain: bool = True,
) -> Comparison:
    """Compare two traces of one call: every value and every gradient.

    a, b     traces of `trace` or `trace_torch`, dicts {name: array}, or files: of save_trace, or
             safetensors or npz with our paths as names.  One should be ours, with its model
    model    of the trace that is ours, where that comes from a file: needed to match a PyTorch
             model's trace, and to explain
    names    see trace_torch; replaces those given there
    dtype    in which the coarser of the two was computed, if its arrays do not say: "bfloat16"
    partial  compare what both have.  Otherwise an array that only one has is an error, except
             beside a PyTorch model, whose hooks do not see everything
    explain  at the first place that differs, try the known alternatives

    A ratio is a difference over what rounding explains (see explained.py); above 1 it is a
    difference.  ValueError for traces of different models, missing arrays, other shapes, NaN.
    """
    for name, flag in (("partial", partial), ("explain", explain)):
        check_flag(f"compare: {name}", flag)
    check_choice("compare: dtype", dtype, DTYPES, or_none=True)
    check_names(names)
    if model is not None:
        check_model("compare: model", model)
    first, second = _trace("a", a), _trace("b", b)
    swapped = first.model is None and second.model is not None
    ours, theirs = (second, first) if swapped else (first, second)
    sides = ("b", "a") if swapped else ("a", "b")  # what ours and theirs are called
    model = ours.model if model is None else model
    _check_models(first, second, model)
    places: dict[str, str] = {}
    if theirs.source == "torch" and ours.source != "torch":
        if names is not None:
            theirs = _with_names(theirs, names)
        if model is None:
            raise ValueError(
                "compare: expected the model of our trace beside a PyTorch model's (a trace that "
                "is not from a file, or model=...), got none"
            )
        full = theirs
        theirs, places = in_our_names(ours, model, full, sides[1])
        theirs.gradients = _by_our_names(full, ours, model)
        partial = True
        if not theirs.records.keys() - {"loss"}:
            raise ValueError(
                f"compare: {sides[1]}: expected modules with the hub's names, such as "
                f"{_example(model)}, got {shown(list(full))} (names=... maps them)"
            )
    missing = _missing(ours, theirs)
    if missing and not partial:
        side, name = missing[0]
        given, other = sides if side == "ours" else sides[::-1]
        raise ValueError(
            f"compare: {given}: expected {name}, as in {other}, got none "
            "(partial=True, or --partial, compares what both have)"
        )
    rows = _rows(ours, theirs, dtype, sides)
    lacking = [name for side, name in missing if side == "theirs"]
    made = Comparison(rows, lacking, places, ours=ours, theirs=theirs)
    if explain and model is not None and not made.equal:
        made.tried, made.explanation = True, explanation(made, model)
        other = "" if made.explanation or ours.model is not None else not_reproduced(made, model)
        if other:
            made.unlike = f"the model does not reproduce trace {sides[0].upper()}: {other}"
    return made


def _trace(name: str, given: Any) -> Call:
    """A trace from what compare takes."""
    if isinstance(given, (str, os.PathLike)):
        check_path(f"compare: {name}", given)
        try:
            given = read_trace(given)
        except ValueError as error:
            raise ValueError(f"compare: {name}: {error}") from None
    elif isinstance(given, Mapping) and not isinstance(given, Call):
        given = _of_arrays(f"compare: {name}", given)
    if isinstance(given, Trace):
        given = given.last
    check_trace(f"compare: {name}", given)
    return given


def _of_arrays(where: str, arrays: Mapping) -> Call:
    call = Call(None, "arrays")
    for name, a in arrays.items():
        if not isinstance(name, str) or not isinstance(a, np.ndarray):
            raise wrong(where, "a trace, a path, or a dict of NumPy arrays by name", {name: a})
        call.records[name] = Record(a)
    return call


def _with_names(theirs: Call, names: Any) -> Call:
    """The trace of a PyTorch model with these names in place of its own."""
    rules, other = check_names(names), Call(None, "torch")
    other.__dict__.update(theirs.__dict__)
    other.names = names if isinstance(names, Mapping) else None
    other.records = {renamed(n, rules): r for n, r in theirs.records.items()}
    other.gradients = {renamed(n, rules): d for n, d in (theirs.gradients or {}).items()} or None
    return other


def _check_models(a: Call, b: Call, model: Any) -> None:
    types = [kind for kind in (model_type(a), model_type(b)) if kind]
    if model is not None:
        types.append(model.config.MODEL_TYPE)
    if len(set(types)) > 1:
        raise ValueError(
            f"compare: expected traces of the same model, got {' and '.join(dict.fromkeys(types))}"
        )


def _by_our_names(theirs: Call, ours: Call, model: Any) -> dict[str, np.ndarray] | None:
    """Their parameters' gradients by the names of ours."""
    prefix, tied = model.family.PREFIX, model.family.TIED
    given = theirs.gradients or {}
    known = {n: n for n in parameter_gradients(ours)}
    known = {n.removeprefix(prefix): n for n in known} | known
    copies = {copy: known[n] for copy, n in tied.items() if n in known and copy not in known}
    found = {copies[n]: d for n, d in given.items() if n in copies}
    return found | {known[n]: d for n, d in given.items() if n in known} or None


def _example(model: Any) -> str:
    return next(iter(modules(model).values()))


def _missing(ours: Call, theirs: Call) -> list[tuple[str, str]]:
    """(side that lacks it, name) of records and of parameters' gradients."""
    lacking = [("theirs", name) for name in ours if name not in theirs.records]
    lacking += [("ours", name) for name in theirs if name not in ours.records]
    mine, other = parameter_gradients(ours), parameter_gradients(theirs)
    if mine and other:
        lacking += [("theirs", f"the gradient of {name}") for name in mine if name not in other]
        lacking += [("ours", f"the gradient of {name}") for name in other if name not in mine]
    return lacking


def _rows(ours: Call, theirs: Call, dtype: str | None, sides: tuple[str, str]) -> list[Difference]:
    """All comparisons: values in the order of the forward, gradients in that of the backward."""
    inputs = {**theirs.inputs, **ours.inputs}

    def real(name: str, a: np.ndarray) -> np.ndarray:
        return real_rows(name, a, inputs)

    common = [name for name in ours if name in theirs.records]
    if not common:
        raise ValueError(
            f"compare: expected traces of the same model, got {shown(list(ours))} "
            f"and {shown(list(theirs))}"
        )
    for name in common:
        _check(name, ours[name].value, theirs[name].value, real, sides)
    coarser = (lambda kind, name: dtype) if dtype is not None else _coarsest(ours, theirs, common)
    allowed = allowances(ours, coarser, real)
    rows = [_row("forward", n, ours[n].value, theirs[n].value, allowed, real) for n in common]
    for name in ours.backward:
        d = theirs[name].gradient if name in theirs.records else None
        if d is not None and (own := ours[name].gradient) is not None:
            _check(name, own, d, real, sides, "the gradient of ")
            rows.append(_row("backward", name, own, d, allowed, real))
    mine, other = parameter_gradients(ours), parameter_gradients(theirs)
    for name, own in mine.items():
        if name in other:
            _check(name, own, other[name], _all, sides, "the gradient of ")
            rows.append(_row("parameter", name, own, other[name], allowed, _all))
    return rows


def _coarsest(ours: Call, theirs: Call, common: list[str]) -> Callable[[str, str], str]:
    """The coarsest dtype of either side before a value; of all values for a gradient."""
    known, so_far = {}, "float64"
    for name in common:
        found = [call.dtypes.get(name) or call[name].value.dtype.name for call in (ours, theirs)]
        so_far = known[name] = max(so_far, *found, key=epsilon)
    return lambda kind, name: known[name] if kind == "value" else so_far


def _all(name: str, a: np.ndarray) -> np.ndarray:
    return np.ones((1,) * a.ndim, dtype=bool)


def _check(
    name: str,
    ours: np.ndarray,
    theirs: np.ndarray,
    real: Any,
    sides: tuple[str, str],
    what: str = "",
) -> None:
    """ValueError for arrays that cannot be compared."""
    for side, given in zip(sides, (ours, theirs)):
        if given.dtype.kind != "f":
            raise wrong(f"compare: {side}: {what}{name}", "floating-point numbers", given)
    if ours.shape != theirs.shape:
        a, b = sides
        raise wrong(f"compare: {b}: {what}{name}", f"shape {ours.shape}, as in {a}", theirs)
    for side, given in zip(sides, (ours, theirs)):
        if np.isnan(np.where(real(name, given), given, 0)).any():
            raise ValueError(f"compare: {side}: {what}{name}: expected numbers, got NaN")


KINDS = {"forward": "value", "backward": "gradient", "parameter": "parameter"}


def _row(
    kind: str, name: str, ours: np.ndarray, theirs: np.ndarray, allowed: Allowed, real: Any
) -> Difference:
    with np.errstate(invalid="ignore", over="ignore"):
        d = np.abs(ours.astype("float64") - theirs.astype("float64"))
    d = np.where(real(name, ours) & (ours != theirs), d, 0)  # an infinity equals itself
    difference, most = float(d.max()) if d.size else 0.0, allowed(KINDS[kind], name)
    size = largest(np.where(real(name, ours), ours, 0))
    ratio = difference / most if most else float("inf") if difference else 0.0
    relative = difference / size if size else float("inf") if difference else 0.0
    return Difference(kind, name, ours.shape, difference, relative, ratio, most)
