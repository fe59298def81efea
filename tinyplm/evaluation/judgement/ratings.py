"""What the judges said: tables with the columns judge, item and one for each criterion.

The page downloads such a table; sheet.csv is one as soon as it is filled in.  A cell is left, same
or right, or empty where nothing was said.  Other columns are ignored.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ...arguments import check_path, is_several, mismatch, shown
from ...data.tables import TABLES, table_rows
from .sheet import CHOICES, Sheet


class Rating(NamedTuple):
    """One judge's choice for one item and criterion."""

    judge: str
    item: int
    criterion: str
    choice: str


def read_ratings(sheet: Sheet, paths: Iterable[str | os.PathLike]) -> list[Rating]:
    """The ratings in all files.

    A judge without a name is called as the file.  ValueError naming file and line for a choice or
    an item that the sheet does not have, and for a second choice of the same judge.
    """
    if not is_several(paths):
        raise mismatch("paths", "files", shown(paths))
    numbers = {item.number for item in sheet.items}
    found: dict[tuple[str, int, str], Rating] = {}
    for path in paths:
        check_path("path", path)
        rows = table_rows(path, TABLES.get(Path(os.fsdecode(path)).suffix.lower(), ","))
        header = next(rows, None)
        if header is None or not {"item", *sheet.criteria} <= header[1].keys():
            where, names = header if header else (os.fsdecode(path), {})
            expected = f"the columns item, {', '.join(sheet.criteria)}"
            raise mismatch(where, expected, ", ".join(names) or "none")
        for where, row in rows:
            judge = row.get("judge", "").strip() or Path(os.fsdecode(path)).stem
            item = row["item"].strip()
            if not item.isdecimal() or int(item) not in numbers:
                raise mismatch(f"{where}: item", f"1 to {len(numbers)}", shown(item))
            for criterion in sheet.criteria:
                choice = row[criterion].strip().lower()
                if not choice:
                    continue
                if choice not in CHOICES:
                    expected = f"{', '.join(CHOICES)}, or nothing"
                    raise mismatch(f"{where}: {criterion}", expected, shown(choice))
                place = (judge, int(item), criterion)
                if place in found:
                    said = f"a second of {judge} for item {item}"
                    raise mismatch(f"{where}: {criterion}", "one choice", said)
                found[place] = Rating(judge, int(item), criterion, choice)
    if not found:
        raise mismatch("ratings", "one or more choices", "none")
    return list(found.values())
