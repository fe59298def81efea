"""Compare two traces, or two files of arrays: where do they differ first, by how much, and why?

tinyplm compare mine.safetensors theirs.safetensors
tinyplm compare mine.safetensors theirs.safetensors --model folder
"""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    for name in ("a", "b"):
        parser.add_argument(
            name,
            metavar=name.upper(),
            help="A file: a trace from tinyplm.checks.save_trace, or .safetensors or .npz arrays.",
        )
    parser.add_argument(
        "--model",
        metavar="FOLDER",
        help="The folder of the very model that A is a trace of: the first difference is then "
        "explained by known alternatives. Default: no explanation.",
    )
    parser.add_argument(
        "--dtype",
        metavar="NAME",
        help="The dtype whose rounding may explain a difference. Default: that of the arrays.",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="Compare only the names that both have, instead of refusing missing ones.",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="Print every array, not only those that differ.",
    )


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
