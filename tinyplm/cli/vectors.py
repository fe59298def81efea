"""Write golden vectors: inputs, outputs and every gradient, for code in any language to read.

tinyplm vectors --out vectors --component rmsnorm
"""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, metavar="DIR", help="The folder to write into.")
    parser.add_argument(
        "--component",
        action="append",
        metavar="NAME",
        help="A component to write; may be repeated.  By default all of them.",
    )
    parser.add_argument(
        "--family",
        action="append",
        metavar="NAME",
        help="A family of models to write; may be repeated.  By default all of them.",
    )
    parser.add_argument(
        "--dtype",
        action="append",
        metavar="DTYPE",
        help="A dtype to write; may be repeated.  By default all of them.",
    )


def run(options: argparse.Namespace) -> int:
    from ..checks import vectors

    path = vectors.write(
        options.out,
        components=options.component,
        families=options.family,
        dtypes=options.dtype,
    )
    print(path)
    return 0
