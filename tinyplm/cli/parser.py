"""Options of commands and examples: sentences with defaults, checked values, one-line errors."""

from __future__ import annotations

import argparse
import os
import shutil
import textwrap
from collections.abc import Callable
from typing import Any, NoReturn

from ..arguments import check_choice, check_number, check_whole

WORKERS = min(2, os.cpu_count() or 1)


class Paragraphs(argparse.HelpFormatter):
    """Help as wide as the terminal, at most 100 columns; indented lines stay as they are."""

    def __init__(self, prog: str, **settings: Any) -> None:
        width = min(100, shutil.get_terminal_size().columns) - 2
        super().__init__(prog, **{"width": width} | settings)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = []
        for part in text.strip().split("\n\n"):
            kept = any(line.startswith(" ") for line in part.splitlines())
            parts.append(part if kept else textwrap.fill(" ".join(part.split()), width))
        return "\n\n".join(parts)


class Parser(argparse.ArgumentParser):
    """Options with defaults in their help, and errors "--steps: expected ..., got ...".

    doc          the docstring of a script or command; its first line is the description
    defaults     {option: default}      parsers  {option: the function that parses its value}
    several      the options that take a list
    free         the options that may change when a run is resumed, as they do not affect its result
    needed       the options that must be given, on the command line or in a file of settings
    tables       the options that are lists of tables, in a file of settings alone
    """

    def __init__(self, doc: str = "", **settings: Any) -> None:
        settings.setdefault("description", doc.splitlines()[0] if doc else None)
        settings.setdefault("formatter_class", Paragraphs)
        settings |= {"argument_default": argparse.SUPPRESS, "allow_abbrev": False}
        super().__init__(**settings)
        self.defaults: dict[str, Any] = {}
        self.parsers: dict[str, Callable[[str], Any]] = {}
        self.several: set[str] = set()
        self.free: set[str] = set()
        self.needed: set[str] = set()
        self.tables: set[str] = set()
        self.group: Any = self

    def section(self, title: str) -> None:
        """A heading in the help for the options that follow."""
        self.group = self.add_argument_group(title)

    def option(
        self,
        name: str,
        default: Any,
        help: str,
        parse: Callable[[str], Any] = str,
        *,
        shown: str | None = None,
        free: bool = False,
        needed: bool = False,
        **settings: Any,
    ) -> None:
        """shown: describes the default where its value does not."""
        values = default if isinstance(default, (list, tuple)) else [default]
        key = name.lstrip("-").replace("-", "_")
        self.defaults[key], self.parsers[key] = default, parse
        for marked, names in ((free, self.free), (needed, self.needed)):
            names |= {key} if marked else set()
        if settings.get("nargs") in ("+", "*") or settings.get("action") == "append":
            self.several.add(key)
        settings = {"metavar": getattr(parse, "metavar", "TEXT")} | settings
        end = " Required." if needed else f" Default: {shown or ' '.join(map(str, values))}."
        self.group.add_argument(
            name, type=parse, help=f"{help}{end}".replace("%", "%%"), **settings
        )

    def flag(self, name: str, help: str, *, free: bool = False) -> None:
        key = name.lstrip("-").replace("-", "_")
        self.defaults[key] = False
        self.free |= {key} if free else set()
        self.group.add_argument(name, action="store_true", help=help.replace("%", "%%"))

    def table(self, name: str, help: str) -> None:
        """An option of a file of settings that is a list of tables; the help goes to its end."""
        self.defaults[name] = None
        self.tables.add(name)
        self.epilog = f"In the file of settings: {help}"

    def given(self) -> dict[str, Any]:
        """Only the options on the command line."""
        return vars(self.parse_args())

    def options(self) -> argparse.Namespace:
        return argparse.Namespace(**{**self.defaults, **self.given()})

    def error(self, message: str) -> NoReturn:
        raise ValueError(message.removeprefix("argument "))


def _checked(
    convert: Callable[[str], Any], check: Callable, metavar: str, **limits: Any
) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = text  # for the check to refuse
        try:
            check("", value, **limits)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix(": ")) from None
        return value

    parse.metavar = metavar  # type: ignore[attr-defined]
    return parse


def whole(least: int = 0, most: int | None = None) -> Callable[[str], int]:
    return _checked(int, check_whole, "N", least=least, most=most)


def number(**limits: float) -> Callable[[str], float]:
    """limits: as in arguments.check_number."""
    return _checked(float, check_number, "X", **limits)


def one_of(*choices: str) -> Callable[[str], str]:
    return _checked(str, check_choice, "NAME", choices=choices)


POSITIVE = number(above=0.0)
SHARE = number(above=0.0, below=1.0)
