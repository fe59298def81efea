"""The laws of `check`, each a function that returns a row or None where it does not apply.

They run a Bound callable on cases of a component, beside our own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ..core import flatten, tree_map
from . import laws
from .binding import Bound, copied
from .case import Case
from .masks import changed, emptied, wanted, with_padding
from .measures import (
    Expected,
    array_dtype,
    case_in,
    distance,
    eps_of,
    expected,
    factor,
    gradients_of,
    ours,
    values_of,
)
from .result import Row

# factors of large arguments, of which the first that ours can take is used; 30: the product of two
# such arguments is a number of float16
LARGE = (1e4, 1e3, 100.0, 30.0)


class Worst:
    """The case that is nearest to its bound, of one row."""

    def __init__(self) -> None:
        self.error, self.bound, self.note, self.ratio = 0.0, 0.0, "", -1.0

    def add(self, error: float, bound: float, note: str) -> None:
        error = error if error == error else math.inf
        ratio = error / bound if bound else (math.inf if error else 0.0)
        if ratio > self.ratio:
            self.error, self.bound, self.note, self.ratio = error, bound, note, ratio

    def row(self, law: str, dtype: str) -> Row:
        return Row(law, dtype, self.error, self.bound, self.error <= self.bound, self.note)


class Trials:
    """Our component, a callable bound to it, and the cases in which both run."""

    def __init__(self, bound: Bound, cases: list[Case], seed: int) -> None:
        self.bound, self.cases, self.seed = bound, cases, seed
        self.entry, self.names = bound.entry, bound.names.positional
        self.known: dict[tuple[int, str], Expected] = {}

    def rng(self, law: int | tuple[int, int]) -> np.random.Generator:
        return np.random.default_rng([self.seed, *np.atleast_1d(law)])

    def expected(self, number: int, case: Case, dtype: str) -> Expected:
        """Ours for one of the cases, computed once."""
        if (number, dtype) not in self.known:
            rng = self.rng(number)
            self.known[number, dtype] = expected(self.entry, self.names, case, dtype, rng)
        return self.known[number, dtype]

    def theirs(self, case: Case, dy: Any, dtype: str) -> tuple[dict, dict | None]:
        """(values, gradients) of the callable, called with copies; no gradients where the value has
        another shape than dy."""
        y, backward = self.bound.call(copied(case.args), copied(case.kwargs), dtype)
        values = values_of(y)
        if {n: a.shape for n, a in values.items()} != {
            n: np.shape(a) for n, a in values_of(dy).items()
        }:
            return values, None
        return values, gradients_of(self.names, backward(copied(dy)))

    # --------------------------------------------------------------------------- against our own

    def against_ours(self, dtype: str) -> list[Row]:
        """Values, and the gradient of each argument."""
        worst: dict[str, Worst] = {}
        types: list[str] = []
        for number, case in enumerate(self.cases):
            small = case_in(case, dtype)
            want = self.expected(number, small, dtype)
            self._compare(worst, small, want, dtype, self._where(number, case), types)
        rows = [found.row(row, dtype) for row, found in worst.items()]
        if dtype != "bfloat16":
            wrong = sorted(set(types))
            note = "; ".join(wrong)
            rows.append(Row("dtypes", dtype, float(len(wrong)), 0.0, not wrong, note))
        return rows

    def _compare(
        self,
        worst: dict[str, Worst],
        case: Case,
        want: Expected,
        dtype: str,
        where: str,
        types: list[str],
    ) -> None:
        values, grads = self.theirs(case, want.dy, dtype)
        found = {**values, **(grads or {})}
        gradients = {} if grads is None else want.gradients
        for row, exact in {**want.value, **gradients}.items():
            error, note = distance(found.get(row), exact)
            scale = want.scales[row] or 1.0
            said = f"{note}, {where}" if note else where
            worst.setdefault(row, Worst()).add(error / scale, want.bounds[row] / scale, said)
            kind = want.dtypes.get(row)
            if found.get(row) is not None and kind is not None and found[row].dtype != kind:
                types.append(f"{row} is {found[row].dtype}, expected {kind}")
        for row in found.keys() - {*want.value, *want.gradients}:
            worst.setdefault(row, Worst()).add(math.inf, 0.0, "where ours has none")

    def own_derivative(self) -> Row:
        """The gradient is that of the callable's own value, which may differ from ours.

        A central difference is off by more where the curvature is large: four times the error of
        our own component, with the same direction and cotangent, is allowed.
        """
        worst = Worst()
        for number, case in enumerate(self.cases):
            small, where = case_in(case, "float64"), self._where(number, case)
            own, found = [], []
            try:
                own = laws.directional_derivative(self.entry.f, small, "cpu", self.rng(number))
                found = laws.directional_derivative(self.bound, small, "cpu", self.rng(number))
            except laws.LawError as error:
                worst.add(math.inf, laws.DIFFERENCE, f"{error}, {where}")
            for (i, ours_off), (_, theirs_off) in zip(own, found):
                limit = max(laws.DIFFERENCE, 4 * ours_off)
                worst.add(theirs_off, limit, f"of {self.names[i]}, {where}")
        return worst.row("gradient of its own value", "float64")

    # --------------------------------------------------------------------- laws of the backward

    def linear(self, dtype: str) -> Row:
        """backward(2 a - 3 b) = 2 backward(a) - 3 backward(b), to the rounding of all three."""
        worst = Worst()
        for number, case, y, backward in self._calls(dtype):
            want = self.expected(number, case, dtype)
            a, b = (self._cotangent(y, self.rng((number, i)), dtype) for i in range(2))
            both = tree_map(lambda p, q: np.asarray(2 * p - 3 * q), a, b)
            ga, gb, gab = (gradients_of(self.names, backward(copied(dy))) for dy in (a, b, both))
            sizes = [max(_largest(d) for d in laws.leaves(dy)) for dy in (both, a, b, want.dy)]
            times = (sizes[0] + 2 * sizes[1] + 3 * sizes[2]) / sizes[3]  # want is for another dy
            for row, r in gab.items():
                if r is not None and row in want.scales:
                    scale = times * want.scales[row] or 1.0
                    error = _largest(r - (2 * ga[row] - 3 * gb[row])) / scale
                    bound = times * want.bounds[row] / scale
                    worst.add(error, bound, f"{row}, {self._where(number, case)}")
        return worst.row("linear in dy", dtype)

    def repeatable(self, dtype: str) -> Row:
        """backward gives the same bits again, after another call of the function."""
        worst = Worst()
        for number, case, y, backward in self._calls(dtype):
            rng = self.rng(number)
            dy = self._cotangent(y, rng, dtype)
            first = [g.copy() for g in _leaves(backward(copied(dy)))]
            args = [tree_map(lambda a: np.asarray(a * a.dtype.type(0.5)), a) for a in case.args]
            other, back = self.bound.call(args, copied(case.kwargs), dtype)
            back(self._cotangent(other, rng, dtype))
            for p, q in zip(first, _leaves(backward(copied(dy)))):
                worst.add(_largest(p - q), 0.0, self._where(number, case))
        return worst.row("repeatable", dtype)

    def untouched(self, dtype: str) -> list[Row]:
        """Inputs and dy have the same bits afterwards."""
        inputs, cotangents = Worst(), Worst()
        for number, case in enumerate(self.cases):
            small = case_in(case, dtype)
            args, kwargs = copied(small.args), copied(small.kwargs)
            y, backward = self.bound.call(args, kwargs, dtype)
            dy = self._cotangent(y, self.rng(number), dtype)
            given = copied(dy)
            backward(given)
            cotangents.add(_moved(dy, given), 0.0, self._where(number, case))
            for name, before, after in [
                *zip(self.names, small.args, args),
                *((name, small.kwargs[name], kwargs[name]) for name in kwargs),
            ]:
                inputs.add(
                    _moved(before, after), 0.0, f"{name} changes, {self._where(number, case)}"
                )
        return [inputs.row("inputs untouched", dtype), cotangents.row("dy untouched", dtype)]

    # -------------------------------------------------------------------------- masks and limits

    def nothing_to_see(self, cases: list[Case], dtype: str) -> Row | None:
        """Rows that the mask leaves nothing, and targets that are all ignored, are as ours."""
        worst: dict[str, Worst] = {}
        for number, case in enumerate(cases):
            small = case_in(emptied(case), dtype)
            want = expected(self.entry, self.names, small, dtype, self.rng(number))
            self._compare(worst, small, want, dtype, self._where(number, case), [])
        if not worst:
            return None
        law, found = max(worst.items(), key=lambda item: item[1].ratio)
        found.note = f"{law}: {found.note}"
        return found.row("rows with nothing to attend to", dtype)

    def padding(self, cases: list[Case], dtype: str) -> Row | None:
        """What the mask hides, or an ignored target, may be any number, and its gradient is 0.

        To rounding: under a causal mask one key may be left, whose query has no influence either.
        """
        worst = Worst()
        for number, case in enumerate(cases):
            rng = self.rng(number)
            small = case_in(with_padding(case) or case, dtype)
            if (hidden := self._hidden(small, rng)) is None:
                continue
            other = Case(_where(hidden, small.args, rng, dtype), small.kwargs)
            y, backward = self.bound.call(copied(small.args), copied(small.kwargs), dtype)
            again, _ = self.bound.call(copied(other.args), copied(other.kwargs), dtype)
            where = self._where(number, case)
            limit = factor(small, dtype) * eps_of(dtype)
            size = max([laws.SMALLEST, *(_largest(a) for a in laws.leaves(y))])
            worst.add(_moved(y, again) / size, limit, f"the value changes, {where}")
            dy = self._cotangent(y, rng, dtype)
            grads = backward(copied(dy))
            size = max([laws.SMALLEST, *(_largest(a) for a in _leaves([*grads, dy]))])
            for name, mask, g in zip(self.names, hidden, grads):
                for m, a in zip(laws.leaves(mask), laws.leaves(g)):
                    if a is not None and np.shape(a) == m.shape and m.any():
                        worst.add(_largest(a[m]) / size, limit, f"gradient of {name}, {where}")
        return worst.row("padding without influence", dtype) if worst.ratio >= 0 else None

    def _hidden(self, case: Case, rng: np.random.Generator) -> list[Any] | None:
        """Trees of booleans, True for numbers that have influence only without the mask."""
        y, _ = self.entry.f(*case.args, **case.kwargs)
        dy = laws.random_like(y, rng)
        masked, full = (
            _gradients(self.entry.f, c, dy) for c in (case, changed(case, np.ones_like, wanted))
        )
        if masked is None or full is None:
            return None
        hidden = [
            None if m is None else tree_map(lambda a, b: (a == 0) & (b != 0), m, f)
            for m, f in zip(masked, full)
        ]
        if not any(m.any() for tree in hidden for m in laws.leaves(tree)):
            return None
        other = Case(_where(hidden, case.args, rng, str(_dtype(case))), case.kwargs)
        again, _ = self.entry.f(*other.args, **other.kwargs)
        return hidden if _moved(y, again) == 0 else None

    def large(self, dtype: str) -> Row | None:
        """Finite where ours is, for arguments that overflow a naive exponential."""
        worst = Worst()
        for number, case in enumerate(self.cases):
            for times in LARGE[-1:] if dtype == "float16" else LARGE:
                big = case_in(Case([_times(a, times) for a in case.args], case.kwargs), dtype)
                with np.errstate(all="ignore"):
                    dy = self._cotangent(self.entry.f(*big.args, **big.kwargs)[0],
                                         self.rng(number), dtype)  # fmt: skip
                    value, grads, _ = ours(self.entry, self.names, big, dy)
                if all(np.isfinite(a).all() for a in [*value.values(), *grads.values()]):
                    break
            else:
                continue
            values, slopes = self.theirs(big, dy, dtype)
            found = {**values, **(slopes or {})}
            bad = [
                row for row, a in found.items()
                if a is not None and not np.isfinite(a).all()
            ]  # fmt: skip
            where = self._where(number, case)
            note = f"{bad[0]} of arguments times {times:g}, {where}" if bad else ""
            worst.add(float(len(bad)), 0.0, note)
        return worst.row("finite for large values", dtype) if worst.ratio >= 0 else None

    # --------------------------------------------------------------------------------------- help

    def _where(self, number: int, case: Case) -> str:
        return f"case {number}: {described(case, self.names)}"

    def _calls(self, dtype: str) -> Iterator[tuple[int, Case, Any, Callable]]:
        for number, case in enumerate(self.cases):
            small = case_in(case, dtype)
            y, backward = self.bound.call(copied(small.args), copied(small.kwargs), dtype)
            yield number, small, y, backward

    def _cotangent(self, y: Any, rng: np.random.Generator, dtype: str) -> Any:
        kind = array_dtype(dtype)
        return tree_map(lambda a: np.asarray(rng.normal(size=np.shape(a))).astype(kind), y)


def described(case: Case, names: Iterable[str]) -> str:
    """A case's arrays with their shapes, its numbers and texts, and the names of its functions."""
    given = [flatten(x, name) for name, x in zip(names, case.args)]
    arrays = [f"{path} {a.shape}" for tree in given for path, a in tree.items()]
    arrays += [f"{n} {v.shape}" for n, v in case.kwargs.items() if isinstance(v, np.ndarray)]
    numbers = [
        f"{n}={v!r}" for n, v in case.kwargs.items() if isinstance(v, (bool, int, float, str))
    ]
    functions = [f"{n}={_function(v)}" for n, v in case.kwargs.items() if callable(v)]
    return ", ".join([*arrays, *numbers, *functions])


def _function(f: Any) -> str:
    """The name of a function; of a partial, that of its function."""
    while isinstance(f, functools.partial):
        f = f.func
    return getattr(f, "__name__", type(f).__name__)


def _gradients(f: Callable, case: Case, dy: Any) -> list[Any] | None:
    try:
        _, backward = f(*case.args, **case.kwargs)
        return laws.gradients(backward, dy, len(case.args))
    except (ValueError, IndexError):  # a case that makes no sense without its mask
        return None


def _where(hidden: list[Any], args: list[Any], rng: np.random.Generator, dtype: str) -> list[Any]:
    """args with other, larger numbers where hidden."""

    def other(m: np.ndarray, a: np.ndarray) -> np.ndarray:
        return np.where(m, 1e4 * rng.normal(size=a.shape), a).astype(a.dtype)

    return [a if a is None else tree_map(other, m, a) for m, a in zip(hidden, args)]


def _dtype(case: Case) -> np.dtype:
    return next(a.dtype for x in case.args for a in laws.leaves(x))


def _leaves(grads: list[Any]) -> list[np.ndarray]:
    return [np.asarray(a) for g in grads for a in laws.leaves(g) if a is not None]


def _largest(a: np.ndarray) -> float:
    """The largest absolute value; infinity for NaN."""
    if not np.size(a):
        return 0.0
    largest = float(np.abs(np.asarray(a, np.float64)).max())
    return largest if largest == largest else math.inf


def _moved(a: Any, b: Any) -> float:
    """The largest difference of two trees; equal bits have none, NaN included."""
    pairs = zip(laws.leaves(a), laws.leaves(b))
    gaps = [
        0.0 if np.array_equal(x, y, equal_nan=np.asarray(x).dtype.kind == "f")
        else _largest(np.asarray(x, np.float64) - np.asarray(y, np.float64)) or math.inf
        for x, y in pairs if isinstance(x, (np.ndarray, np.generic))
    ]  # fmt: skip
    return max(gaps, default=0.0)


def _times(value: Any, factor: float) -> Any:
    return tree_map(lambda a: a * factor, value)
