"""check: anybody's callable against our component of a name, and against the laws."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..arguments import check_key, is_several, is_whole, shown, wrong
from ..core import flatten
from .binding import Arguments, Bound, Keywords, Names
from .callables import adapt
from .case import Case, Entry, draw_sizes
from .cases import COMPONENTS
from .masks import has_rows, with_padding
from .measures import DTYPES
from .result import Result, Row
from .trials import Trials

CASES = 8
DRAWS = 40  # draws for each case that is wanted, since a callable may not take all of them
MOST = 1000

Cases = int | Sequence[Case | Mapping[str, Any]]


def check(
    f: Any,
    like: str,
    *,
    cases: Cases = CASES,
    dtypes: Sequence[str] | str | None = None,
    kind: str | None = None,
    arguments: Arguments = None,
    keywords: Keywords = None,
    fixed: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Result:
    """Compares f with our component `like` and puts it through the laws; str(result) is a table.

    f is one of: a function `y, backward = f(...)`; a pair (forward, backward); a subclass of
    torch.autograd.Function, a torch module or function; a JAX function; a callables.CFunction.
    It gets our positional arguments in order (trees as dicts and lists; None where a case has
    none) and our keyword arguments by name, all as NumPy arrays, tensors or JAX arrays.

    cases      how many to draw, or a list of cases: Case, or {argument: shape, or keyword: value}
    dtypes     of "float64", "float32", "float16", "bfloat16"; by default those of its kind
    kind       "ours", "torch" or "jax" for a plain function; by default ours
    arguments  {parameter of f: our name}, or our names in the order of f; "p.W" is an entry of a
               tree, "W.T" a matrix transposed
    keywords   {our keyword: f's keyword, or a function of the value}, or a function from the dict
               of ours to the dict of f's: for what is not a number or an array, above all
    fixed      {our name: value} that f has built in: every case has this value, and f gets none
    seed       of the drawn cases, directions and cotangents

    Only cases that f can take are drawn: an argument of ours that it lacks must be None there, or
    have its default.  ValueError for bad input, which includes an f that raises, or returns
    another number of gradients than it has arguments of ours.
    """
    entry = component(like)
    check_key("seed", seed)
    adapter = adapt(f, kind)
    bound = Bound(adapter, entry, arguments, keywords, fixed)
    names = _dtypes(dtypes, adapter.dtypes)
    chosen, left = _cases(bound, cases, seed)
    notes = [f"not taken, so every case is without: {', '.join(sorted(left))}"] if left else []
    trials = Trials(bound, chosen, seed)
    with np.errstate(all="ignore"):
        rows, more = _rows(trials, names, _with_masks(bound, chosen, seed, cases))
    return Result(adapter.name, like, len(chosen), rows, notes + more)


def check_test(f: Any, like: str, **settings: Any) -> Callable[[], None]:
    """A test for pytest or unittest: test_mine = check_test(mine, like="rmsnorm").

    The settings are those of `check`.  On failure the message is the table.
    """

    def test() -> None:
        result = check(f, like, **settings)
        if not result.passed:
            raise AssertionError(f"\n{result}")

    test.__doc__ = f"{getattr(f, '__name__', 'f')} obeys the laws of {like}."
    test.check = lambda **more: check(  # type: ignore[attr-defined]
        f, more.pop("like", None) or like, **{**settings, **more}
    )
    return test


def component(name: str) -> Entry:
    """The entry of this name; ValueError with the nearest name for another."""
    if isinstance(name, str) and name in COMPONENTS:
        return COMPONENTS[name]
    near = difflib.get_close_matches(str(name), COMPONENTS, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ValueError(
        f"like: expected a component, as `tinyplm check --list` shows, got {shown(name)}{hint}"
    )


def listing(name: str | None = None) -> str:
    """Every component with what it is, and its arguments: positional ones; keywords.  Of one
    component also its equation and its shapes."""
    if name is not None:
        entry = component(name)
        text = inspect.getdoc(entry.f) or ""
        return f"{name}: {entry.text}\n    {Names(entry)}\n\n{text}".rstrip()
    lines = []
    for name, entry in COMPONENTS.items():
        lines += [f"{name}: {entry.text}", f"    {Names(entry)}"]
    return "\n".join(lines)


def _rows(trials: Trials, dtypes: list[str], with_masks: list[Case]) -> tuple[list[Row], list[str]]:
    main = dtypes[0]
    rows: list[Row] = []
    for dtype in dtypes:
        rows += trials.against_ours(dtype)
    wrong_shape = ("shape", "there is none")
    if any(row.law.startswith("value") and row.note.startswith(wrong_shape) for row in rows):
        return rows, ["not tried: the other laws, since the value has another shape"]
    notes = []
    if main == "float64" and all(math.isfinite(row.error) for row in rows):
        rows.append(trials.own_derivative())
    elif main == "float64":
        notes.append("not tried without all gradients: gradient of its own value")
    rows += [trials.linear(main), trials.repeatable(main), *trials.untouched(main)]
    missing = []
    found = {
        "rows with nothing to attend to": trials.nothing_to_see(
            with_masks or [case for case in trials.cases if has_rows(case)], main
        ),
        "padding without influence": trials.padding(with_masks, main),
        **{f"finite for large values, {dtype}": trials.large(dtype) for dtype in dtypes},
    }
    for law, row in found.items():
        if row is None:
            missing.append(law)
        else:
            rows.append(row)
    if missing:
        notes.append(f"not tried, without a case for it: {'; '.join(missing)}")
    return rows, notes


def _dtypes(given: Any, own: tuple[str, ...]) -> list[str]:
    if given is None:
        return list(own)
    names = [given] if isinstance(given, str) else given
    if not is_several(names) or not all(isinstance(n, str) and n in DTYPES for n in names):
        raise wrong("dtypes", f"some of {', '.join(DTYPES)}", given)
    names = [name for name in DTYPES if name in names]
    if not names:
        raise wrong("dtypes", f"some of {', '.join(DTYPES)}", given)
    return names


def _cases(bound: Bound, cases: Any, seed: int) -> tuple[list[Case], set[str]]:
    """The cases, and the names of arguments that kept others from being drawn."""
    if not is_whole(cases):
        if not is_several(cases) or not len(cases):
            raise wrong("cases", f"an integer from 1 to {MOST}, or a list of cases", cases)
        given = [bound.prepared(_given(bound, c, (seed, i))) for i, c in enumerate(cases)]
        for i, case in enumerate(given):
            try:
                bound.entry.f(*case.args, **case.kwargs)
            except Exception as error:
                said = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise ValueError(
                    f"cases: expected arguments that our component takes, got case {i}: {said}"
                ) from error
            if missing := bound.left_out(case):
                raise ValueError(
                    f"cases: expected cases without what f does not take, got {missing[0]} in "
                    f"case {i} (fixed={{{missing[0]!r}: ...}} says that f has it built in)"
                )
        return given, set()
    if not 1 <= cases <= MOST:
        raise wrong("cases", f"an integer from 1 to {MOST}, or a list of cases", cases)
    found: list[Case] = []
    left: set[str] = set()
    for i in range(DRAWS * cases):
        case = bound.prepared(bound.entry.make(draw_sizes((seed, i))))
        missing = bound.left_out(case)
        left.update(missing)
        if not missing:
            found.append(case)
        if len(found) == cases:
            return found, left
    if not found:
        raise ValueError(
            f"cases: expected one that f can take, got none in {DRAWS * cases}: "
            f"f has no parameter for {', '.join(sorted(left))}"
        )
    return found, left


def _with_masks(bound: Bound, chosen: list[Case], seed: int, cases: Any) -> list[Case]:
    """Up to four cases with a mask or targets that can hide something, chosen or drawn further."""
    found = [case for case in chosen if with_padding(case)]
    if is_whole(cases):
        for i in range(DRAWS):
            if len(found) >= 4:
                break
            case = bound.prepared(bound.entry.make(draw_sizes((seed, 1, i))))
            if with_padding(case) and not bound.left_out(case):
                found.append(case)
    return found[:4]


def _given(bound: Bound, case: Any, seed: tuple[int, int]) -> Case:
    """A case of the caller: itself, or made from shapes and values."""
    if isinstance(case, Case):
        return case
    names = bound.names
    known = [*names.positional, *names.keywords]
    if not isinstance(case, Mapping) or not all(name in known for name in case):
        raise wrong("cases", f"Case, or dicts {{name: shape or value}} with {names}", case)
    rng = np.random.default_rng(seed)

    def made(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: made(branch) for name, branch in value.items()}
        if isinstance(value, list):
            return [made(branch) for branch in value]
        if isinstance(value, tuple) and all(is_whole(n) and n > 0 for n in value):
            return rng.normal(size=value)
        if value is None or isinstance(value, np.ndarray):
            return value
        raise wrong("cases", "shapes (tuples), arrays or trees of them as arguments", value)

    args = [made(case.get(name)) for name in names.positional]
    if not any(flatten(a) for a in args):
        raise wrong("cases", "at least one shape in each case", dict(case))
    return Case(args, {name: value for name, value in case.items() if name in names.keywords})
