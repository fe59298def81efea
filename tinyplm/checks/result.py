"""The result of a check: one row a law, as a table."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Row:
    """One law in one dtype.  error and bound are of the case that is nearest to its bound."""

    law: str
    dtype: str
    error: float
    bound: float
    passed: bool
    note: str = ""  # what a failure found, and where


@dataclasses.dataclass(frozen=True)
class Result:
    """What `check` found; `str` gives the table."""

    name: str  # of the callable
    like: str  # of the component
    cases: int
    rows: list[Row]
    notes: list[str]  # what was left out, and why

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)

    def __str__(self) -> str:
        head = ("law", "dtype", "error", "bound")
        cells = [(row.law, row.dtype, _number(row.error), _number(row.bound)) for row in self.rows]
        widths = [max(len(line[i]) for line in [head, *cells]) for i in range(4)]
        failed = sum(not row.passed for row in self.rows)
        lines = [f"{self.name}, checked as {self.like} in {self.cases} cases", _line(head, widths)]
        for row, line in zip(self.rows, cells):
            end = "ok" if row.passed else f"FAILED{f': {row.note}' if row.note else ''}"
            lines.append(f"{_line(line, widths)}  {end}")
        lines += self.notes
        lines.append(f"{failed} of {len(cells)} failed" if failed else f"all {len(cells)} passed")
        return "\n".join(lines)


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    law, dtype, error, bound = cells
    return f"{law:<{widths[0]}}  {dtype:<{widths[1]}}  {error:>{widths[2]}}  {bound:>{widths[3]}}"


def _number(value: float) -> str:
    return f"{value:.1e}" if value and math.isfinite(value) else f"{value:g}"
