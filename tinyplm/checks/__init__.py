"""Checks of anybody's code against tinyplm: traces of models, and the laws of single components.

tracing.py   traces: every named intermediate of a model's calls, its value and its gradient
modules.py   the hub's module for each name of a trace
files.py     traces in files
torch_tracing.py   traces of PyTorch models, by hooks
comparing.py where two traces differ first; matching.py: a PyTorch model's trace under our names
explained.py how large a difference rounding explains; comparison.py: the result, a table
explaining.py, alternatives/   which known alternative makes a difference vanish
case.py      a case is one call; the sizes it is made from; an entry of the table
cases/       the table: {name: entry}, an implementation, how to draw a case for it, what it is
checking.py  check: anybody's callable, as a table of laws; check_test: the same as a test
callables/   the kinds of callables: ours, pairs, torch, JAX, C
binding.py   which argument of a callable is which of ours
measures.py  how far its values and gradients may be from ours
trials.py    its laws, row by row;  masks.py: cases with other masks;  result.py: the table
laws.py      the gradient against differences, linearity, dtypes, read-only inputs, checkpointing
rounding.py  what rounding explains: bounds from a count of operations
vectors/     golden vectors: files of inputs, outputs and gradients, with a tolerance for each array

    from tinyplm.checks import COMPONENTS, draw_sizes, laws

    entry = COMPONENTS["rmsnorm"]
    case = entry.make(draw_sizes(0))                       # the same arrays for the same seed
    y, backward = laws.call(entry.f, case, "cpu")
    laws.check_laws(entry.f, case, "cpu", np.random.default_rng(0))    # raises LawError

The laws take any function that follows the contract `y, backward = f(...)`.

    from tinyplm.checks import compare, trace, trace_torch

    with trace() as ours:
        loss, backward = model.loss(input_ids=ids, targets={"logits": targets})
        backward(1.0)
    theirs = trace_torch(module, {"input_ids": ids}, backward=lambda out: loss_of(out.logits))
    print(compare(ours, theirs).table())
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .tracing import Call, Record, Trace, trace

if TYPE_CHECKING:
    from . import vectors
    from .callables import CFunction, Jax, Pair, Torch
    from .case import Case, Entry, Sizes, draw_sizes
    from .cases import COMPONENTS
    from .checking import check, check_test
    from .comparing import compare
    from .comparison import Comparison, Difference, Explanation
    from .files import read_trace, save_trace
    from .laws import LawError, check_laws
    from .result import Result, Row
    from .torch_tracing import trace_torch

__all__ = [
    "CFunction",
    "COMPONENTS",
    "Call",
    "Case",
    "Comparison",
    "Difference",
    "Entry",
    "Explanation",
    "Jax",
    "LawError",
    "Pair",
    "Record",
    "Result",
    "Row",
    "Sizes",
    "Torch",
    "Trace",
    "check",
    "check_laws",
    "check_test",
    "compare",
    "draw_sizes",
    "read_trace",
    "save_trace",
    "trace",
    "trace_torch",
    "vectors",
]

# Imported when first asked for: the table of components imports most of the package.
_MODULES = {
    "case": ("Case", "Entry", "Sizes", "draw_sizes"),
    "callables": ("CFunction", "Jax", "Pair", "Torch"),
    "cases": ("COMPONENTS",),
    "checking": ("check", "check_test"),
    "comparing": ("compare",),
    "comparison": ("Comparison", "Difference", "Explanation"),
    "files": ("read_trace", "save_trace"),
    "laws": ("LawError", "check_laws"),
    "result": ("Result", "Row"),
    "torch_tracing": ("trace_torch",),
}
_LATER = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "vectors":
        return importlib.import_module(".vectors", __name__)
    if name not in _LATER:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
