"""Checks of components: cases to call them with, and the laws that every one of them obeys.

case.py      a case is one call; the sizes it is made from; an entry of the table
cases/       the table: {name: entry}, an implementation, how to draw a case for it, what it is
laws.py      the gradient against differences, linearity, dtypes, read-only inputs, checkpointing
rounding.py  what rounding explains: bounds from a count of operations

    from tinyplm.checks import COMPONENTS, draw_sizes, laws

    entry = COMPONENTS["rmsnorm"]
    case = entry.make(draw_sizes(0))                       # the same arrays for the same seed
    y, backward = laws.call(entry.f, case, "cpu")
    laws.check_laws(entry.f, case, "cpu", np.random.default_rng(0))    # raises LawError

The laws take any function that follows the contract `y, backward = f(...)`.
"""

from __future__ import annotations

from .case import Case, Entry, Sizes, draw_sizes
from .cases import COMPONENTS
from .laws import LawError, check_laws

__all__ = ["COMPONENTS", "Case", "Entry", "LawError", "Sizes", "check_laws", "draw_sizes"]
