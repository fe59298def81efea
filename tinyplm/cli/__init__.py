"""The command `tinyplm`.  Each command is a module with `add(parser)` and `run(options)`.

    tinyplm check FILE.py:NAME --like rmsnorm

run returns the exit status: 0 passed or equal, 1 failed or different.  Bad input, a ValueError or
an OSError, is one line on stderr and status 2.  A new command is a module and a row in COMMANDS.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from . import check, compare, vectors

# {command: its module}; the first sentence of the module's docstring is the command's help
COMMANDS: dict[str, Any] = {"check": check, "compare": compare, "vectors": vectors}


class Parser(argparse.ArgumentParser):
    """Refuses bad options with one line and status 2."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message.removeprefix('argument ')}\n")


def parser() -> Parser:
    made = Parser(
        prog="tinyplm",
        description="The reference implementation of pre-trained language models in plain NumPy.",
    )
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        text = module.__doc__
        added = commands.add_parser(name, help=text.splitlines()[0], description=text)
        module.add(added)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    try:
        options = parser().parse_args(arguments)
    except SystemExit as stop:  # after the help, or an error
        return int(stop.code or 0)
    try:
        return int(COMMANDS[options.command].run(options))
    except BrokenPipeError:  # such as `tinyplm check --list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError) as error:
        print(f"tinyplm: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
