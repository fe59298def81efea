"""A benchmark's table: printed row by row as Markdown, and written as JSON for compare.py."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
from pathlib import Path

import numpy as np


def add_option(parser: argparse.ArgumentParser, script: str) -> None:
    """Add --json FILE; the default is the script's path with the suffix .json."""
    default = Path(script).with_suffix(".json")
    parser.add_argument(
        "--json", type=Path, default=default, help="where to write the table (default: %(default)s)"
    )


def machine() -> dict[str, str | int | None]:
    """The hardware and software that the times depend on."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", info.read_text()) if info.exists() else None
    return {
        "processor": found.group(1) if found else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


class Table:
    """columns: {heading: format of its values}; `label` is the heading of the row labels.

    file: the JSON file, or None.  It is rewritten after each row, so an interrupted run keeps its
    rows.
    """

    def __init__(
        self,
        label: str,
        columns: dict[str, str],
        *,
        file: Path | None,
        note: str = "",
        width: int = 36,
    ) -> None:
        self.columns, self.file, self.width = columns, file, max(width, len(label))
        date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        self.content = {
            "date": date,
            "machine": machine(),
            "note": note,
            "label": label,
            "columns": columns,
            "rows": {},
        }
        print(f"{note}\n" if note else "", end="")
        self._print(label, list(columns))
        self._print("-" * self.width, ["-" * (len(heading) - 1) + ":" for heading in columns])

    def _print(self, label: str, cells: list[str]) -> None:
        widths = (max(len(heading), 7) for heading in self.columns)
        cells = [
            f"{cell:{'->' if cell[:1] == '-' and cell[-1] == ':' else '>'}{n}}"
            for cell, n in zip(cells, widths)
        ]
        print("| " + " | ".join([f"{label:<{self.width}}", *cells]) + " |", flush=True)

    def row(self, label: str, *values: float | None) -> None:
        """Add a row: one value per column, None for an empty cell."""
        values = [None if value is None else float(value) for value in values]
        self._print(
            label,
            [
                "-" if v is None else format(v, form)
                for v, form in zip(values, self.columns.values(), strict=True)
            ],
        )
        self.content["rows"][label] = dict(zip(self.columns, values))
        if self.file is not None:
            self.file.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")
