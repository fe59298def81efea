"""Compare two traces, or two files of arrays: where do they differ first, and by how much?

tinyplm compare mine.safetensors theirs.safetensors
"""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    for name in ("a", "b"):
        parser.add_argument(name, metavar=name.upper(), help="A file, .safetensors or .npz.")


def run(options: argparse.Namespace) -> int:
    from ..checks import compare

    result = compare(options.a, options.b)
    print(result)
    return 0 if result.equal else 1
