"""Compare two traces, or two files of arrays: where do they differ first, by how much, and why?

tinyplm compare mine.safetensors theirs.safetensors
tinyplm compare mine.safetensors theirs.safetensors --model folder
"""

from __future__ import annotations

import argparse

from .parser import Parser


def add(parser: Parser) -> None:
    text = "A file: a trace from tinyplm.checks.save_trace, or .safetensors or .npz arrays."
    for name in ("a", "b"):
        parser.option(name, None, text, needed=True, metavar=name.upper())
    text = "The folder of the very model that A is a trace of: the first difference is then "
    text += "explained by known alternatives."
    parser.option("--model", None, text, metavar="FOLDER", shown="no explanation")
    text = "The dtype whose rounding may explain a difference."
    parser.option("--dtype", None, text, metavar="NAME", shown="that of the arrays")
    text = "Compare only the names that both have, instead of refusing missing ones."
    parser.flag("--partial", text)
    parser.flag("--all", "Print every array, not only those that differ.")


def run(options: argparse.Namespace) -> int:
    from ..checks import compare

    model = None
    if options.model is not None:
        from ..hub import load

        model = load(options.model)
    result = compare(
        options.a, options.b, model=model, dtype=options.dtype, partial=options.partial
    )
    print(result.table(all=options.all))
    return 0 if result.equal else 1
