"""Law 2b (DESIGN.md, "Laws"): each gradient equals the exact derivative of the formula from the paper.

The scalar loops of reference/ run on dual numbers (reference/dual.py) and give the derivative of the formula along a direction,
exact but for rounding.  It shares no line with the backward pass it is compared with.

    python -m tests.exact_gradients            prints the table of all components
    python -m tests.exact_gradients --write    writes it to docs/gradients.md
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reference.dual import Dual
from tests import laws
from tests.components import COMPONENTS
from tests.laws import Case
from tests.support.running_error import Bounded
from tinyplm.backend import to_host
from tinyplm.checks import draw_sizes
from tinyplm.checks.rounding import EPS
from tinyplm.core import tree_map

EXACT = 1e-12
TABLE = Path(__file__).parents[1] / "docs" / "gradients.md"
TABLE_DRAWS = 100


class Comparison(NamedTuple):
    """One gradient g of a positional argument and a direction d."""

    argument: int
    error: float  # |exact derivative - <g, d>|
    size: float  # sum of |g_i d_i|
    rounding: float  # a bound on the derivative's rounding error; 0 where the error is small enough without it

    @property
    def relative(self) -> float:
        return self.error / (self.size + 1e-300)

    @property
    def holds(self) -> bool:
        return self.error <= EXACT * self.size + self.rounding


def _along(x: Any, d: Any, number: type[Dual]) -> Any:
    """x + d eps, for trees of arrays."""
    return tree_map(lambda a, b: np.vectorize(number, otypes=[object])(a.astype(object), b.astype(object)), x, d)


def _dual_numbers(c: Any, y: Any) -> list[tuple[float, Dual]]:
    """(cotangent, number) for the numbers of y that depend on the argument."""
    pairs = zip(laws.leaves(c), laws.leaves(y), strict=True)
    flat = [pair for a, b in pairs for pair in zip(np.ravel(a).tolist(), np.ravel(b).tolist(), strict=True)]
    return [(a, number) for a, number in flat if isinstance(number, Dual)]


def along_argument(reference: Callable, case: Case, i: int, d: Any) -> Any:
    """The reference's value, in dual numbers, as argument i moves along d."""
    args = [*case.args[:i], _along(case.args[i], d, Dual), *case.args[i + 1 :]]
    return reference(*args, **{**case.kwargs, **case.reference_kwargs})


def exact_derivative(reference: Callable, case: Case, i: int, d: Any, c: Any) -> float:
    """<c, derivative of the reference's formula as argument i moves along d>."""
    return sum(a * number.derivative for a, number in _dual_numbers(c, along_argument(reference, case, i, d)))


def rounding_bound(reference: Callable, case: Case, i: int, d: Any, c: Any) -> float:
    """A bound on the rounding error of exact_derivative: every argument carries one, and argument i moves along d."""
    still = [None if x is None else tree_map(np.zeros_like, x) for x in case.args]
    still[i] = d
    args = [None if x is None else _along(x, move, Bounded) for x, move in zip(case.args, still, strict=True)]
    y = reference(*args, **{**case.kwargs, **case.reference_kwargs})
    return EPS * sum(abs(a) * number.derivative_error for a, number in _dual_numbers(c, y))


def compare(f: Callable, reference: Callable, case: Case, rng: np.random.Generator) -> list[Comparison]:
    """2b. <c, derivative of the reference along d> = <gradient, d>, for each positional argument separately.

    The error is relative to the sum of |g_i d_i|.  Where a gradient cancels to less than 1e-12 of its terms, nothing remains to
    compare with but the rounding of those terms, so a bound on that, computed along with the derivative, is allowed too.
    """
    y, backward = laws.call(f, case, "cpu")
    c = laws.random_like(y, rng)
    found = []
    for i, (x, g) in enumerate(zip(case.args, laws.gradients(backward, c, len(case.args)), strict=True)):
        if x is None:
            continue
        d = laws.random_like(x, rng)
        error = abs(exact_derivative(reference, case, i, d, c) - laws.dot(g, d))
        size = sum(float(np.sum(np.abs(a * b))) for a, b in zip(laws.leaves(g), laws.leaves(d), strict=True))
        rounding = 0.0 if error <= EXACT * size else rounding_bound(reference, case, i, d, c)
        found.append(Comparison(i, error, size, rounding))
    return found


def draw(name: str, seed: int) -> tuple[Callable, Callable, Case, np.random.Generator]:
    """(component, reference, case, randomness for directions): the same for the same seed."""
    component = COMPONENTS[name]
    case = component.make(draw_sizes(seed))
    return case.kernel or component.f, component.reference, case, np.random.default_rng(seed)


# ----------------------------------------------------------------------------------------------------- the table in docs/


class Row(NamedTuple):
    """The largest relative errors of a component over all draws."""

    value: float  # against the reference
    differences: float  # law 2
    dual: float  # law 2b, where the gradient does not cancel
    cancelled: int  # gradients that cancel: their error is within the bound on rounding, but not within EXACT of what remains
    gradients: int


def measured(name: str, draws: int) -> Row:
    value = differences = dual = 0.0
    cancelled = count = 0
    for seed in range(draws):
        f, reference, case, rng = draw(name, seed)
        y = to_host(laws.call(f, case, "cpu")[0])
        expected = np.asarray(reference(*case.args, **{**case.kwargs, **case.reference_kwargs}))
        value = max(value, laws.relative_error(y, expected))
        differences = max([differences, *(error for _, error in laws.directional_derivative(f, case, "cpu", rng))])
        for comparison in compare(f, reference, case, rng):
            assert comparison.holds, f"{name}, draw {seed}: {comparison}"
            count += 1
            if comparison.relative <= EXACT:
                dual = max(dual, comparison.relative)
            else:
                cancelled += 1
    return Row(value, differences, dual, cancelled, count)


_NAME = r"(?:van den )?[A-Z][A-Za-z]+"
_PLACE = r", (?:appendix [A-Z]|(?:(?:eq|sec|fig|alg)\.|table) (?:\d[\d.]*\d|\d)(?: and \d+)?)"
_CITATION = re.compile(
    rf"(?:{_NAME}, )*{_NAME}(?: et al\.| & {_NAME}| team)? (?:19|20)\d\d[a-z]?(?: \(\w+\))?(?P<place>{_PLACE})?"
)


def source(name: str) -> str:
    """What the docstring of the formula cites, or else that of the component: places in papers if it names any."""
    for f in (COMPONENTS[name].reference, COMPONENTS[name].f):
        found = list(_CITATION.finditer(" ".join((f.__doc__ or "").split())))
        if found:
            places = [match[0] for match in found if match["place"]]
            return "; ".join(places or [match[0] for match in found])
    return ""


def table(draws: int) -> str:
    lines = []
    for name in COMPONENTS:
        row = measured(name, draws)
        errors = " | ".join(f"{error:.1e}" if error else "0" for error in (row.value, row.differences, row.dual))
        lines.append(f"| {name} | {source(name)} | {errors} | {row.cancelled} of {row.gradients} |")
    return "\n".join(lines)


PAGE = """# Gradients, checked

Every component has its formula from the paper in `reference/`, as a loop over scalars, and is compared with
it in float64, over {draws} random cases each:

- **value**: the component against the formula; largest difference over the largest value.
- **differences**: <gradient, d> against (f(x + h d) - f(x - h d)) / 2h, with a random direction d and a random
  cotangent. The truncation error is h² = 1e-10 times the third derivative, which is large where a norm divides by a
  small standard deviation.
- **dual numbers**: <gradient, d> against the exact derivative of the formula: its loop runs on dual numbers
  a + b eps with eps² = 0, which carry the derivative along (`reference/dual.py`). They must agree to {exact:.0e}.
- **cancel**: gradients that cancel, to zero or to a small part of their terms (a softmax over one key, a
  saturated tanh). What remains is rounding. It is compared with a bound on the rounding of those terms
  (`tests/support/running_error.py`) and left out of the column before.

Errors of gradients are divided by the sum of |g_i d_i|. No component and no argument is exempt. The numbers are
the largest errors found; they vary a little with the processor. `python -m tests.exact_gradients --write` writes
this page, and `tests/test_exact_gradients.py` runs the comparison by dual numbers on every component.

| component | source | value | differences | dual numbers | cancel |
|---|---|---|---|---|---|
{rows}
"""


def main(arguments: list[str]) -> None:
    page = PAGE.format(draws=TABLE_DRAWS, exact=EXACT, rows=table(TABLE_DRAWS))
    if "--write" in arguments:
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text(page, encoding="utf-8")
    else:
        print(page)


if __name__ == "__main__":
    main(sys.argv[1:])
