"""Write golden vectors: inputs, outputs and every gradient, for code in any language to read.

tinyplm vectors --out vectors --component rmsnorm
"""

from __future__ import annotations

import argparse
from typing import Any

from .parser import Parser


def add(parser: Parser) -> None:
    option = parser.option
    option("--out", None, "The folder to write into.", needed=True, metavar="DIR")
    every: dict[str, Any] = {"action": "append", "shown": "all of them"}
    option("--component", None, "A component to write; may be repeated.", metavar="NAME", **every)
    text = "A family of models to write; may be repeated."
    option("--family", None, text, metavar="NAME", **every)
    option("--dtype", None, "A dtype to write; may be repeated.", metavar="DTYPE", **every)


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
