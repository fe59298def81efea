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
import importlib.util
import sys
from pathlib import Path
from typing import Any

from ..arguments import shown
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
    f = found(options.callable)
    made = getattr(f, "check", None)  # by check_test
    if made is None and options.like is None:
        raise ValueError("--like: expected the name of a component, got none")
    result = made(**settings) if callable(made) else check(f, **settings)
    print(result)
    return 0 if result.passed else 1


def found(text: str) -> Any:
    """The object that FILE.py:NAME names."""
    path, colon, name = text.rpartition(":")
    if not (colon and path.endswith(".py") and name):
        raise ValueError(f"FILE.py:NAME: expected a file and a name in it, got {shown(text)}")
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"{path}: expected a file, got none (no such file)")
    # the file may have the name of a library
    spec = importlib.util.spec_from_file_location(f"checked_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.resolve().parent))  # it may import its neighbours
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: expected a file that can be imported, got {said}") from error
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            names = [n for n in vars(module) if not n.startswith("_")]
            raise ValueError(f"{path}: expected one of {', '.join(names)}, got {shown(name)}")
        value = getattr(value, part)
    return value
