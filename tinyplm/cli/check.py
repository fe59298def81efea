"""Check your own function, with its gradients, against a component of tinyplm.

    tinyplm check mine.py:rmsnorm --like rmsnorm

mine.py is imported, and its `rmsnorm` may be: a function `y, backward = f(...)`, a pair (forward,
backward), a torch.autograd.Function, a torch module, a JAX function, a tinyplm.checks.CFunction, or
a test made by tinyplm.checks.check_test, which brings its own settings.

    tinyplm check --list
    tinyplm check --list --like rmsnorm
"""

from __future__ import annotations

import argparse
from typing import Any

from ..imported import imported
from .parser import Parser, one_of, whole


def add(parser: Parser) -> None:
    parser.option(
        "callable",
        None,
        "The file, and the name in it.",
        nargs="?",
        metavar="FILE.py:NAME",
        shown="none, with --list",
    )
    parser.option("--like", None, "The component to compare it with.", metavar="NAME", shown="none")
    dtypes = "A dtype to check in: float64, float32, float16 or bfloat16; may be repeated."
    both = "float64 and float32, or the dtype of the C function"
    parser.option("--dtype", None, dtypes, action="append", metavar="DTYPE", shown=both)
    parser.option("--cases", None, "The number of cases to draw.", whole(1, 1000), shown="8")
    parser.option("--seed", None, "The seed of the cases.", whole(), shown="0")
    kind = "What a plain function takes: ours (NumPy arrays), torch or jax."
    parser.option("--kind", None, kind, one_of("ours", "torch", "jax"), shown="ours")
    parser.flag(
        "--list",
        "Print every component with its arguments, and stop.  With --like one of them, with its "
        "equation and its shapes.",
    )


def run(options: argparse.Namespace) -> int:
    from ..checks.checking import check, listing

    if options.list:
        print(listing(options.like))
        return 0
    if options.callable is None:
        raise ValueError("FILE.py:NAME: expected a function to check, or --list, got nothing")
    settings: dict[str, Any] = {
        "like": options.like,
        "dtypes": options.dtype,
        "cases": options.cases,
        "seed": options.seed,
        "kind": options.kind,
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    f = imported(options.callable)
    made = getattr(f, "check", None)  # by check_test
    if made is None and options.like is None:
        raise ValueError("--like: expected the name of a component, got none")
    result = made(**settings) if callable(made) else check(f, **settings)
    print(result)
    return 0 if result.passed else 1
