"""Files in which a line is a record, read into dicts with "file, line n" for messages."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ...arguments import mismatch
from ...files import json_lines, printable, read_json, read_text, text_lines
from .task import Sample

Record = Callable[[str, Mapping[str, Any]], Sample]


def by_line(record: Record) -> Callable[[str], list[Sample]]:
    """A reader of JSON lines, one sample each."""
    return lambda path: some(path, [record(where, r) for where, r in json_lines(path)])


def some(path: str, samples: list[Sample]) -> list[Sample]:
    """ValueError for a file without samples."""
    if not samples:
        raise mismatch(printable(path), "at least one sample", "none")
    return samples


def tab_separated(
    path: str, columns: Sequence[str], names: Sequence[str] | None = None
) -> Iterator[tuple[str, dict[str, str]]]:
    """The lines of a TSV file without quoting, as GLUE's are.

    columns  that must be there.  names: of all columns, for a file without a line of names
    """
    for where, line in text_lines(path):
        cells = line.rstrip("\r").split("\t")
        if names is None:
            names = cells
            missing = [name for name in columns if name not in names]
            if missing:
                got = ", ".join(names)[:100]
                raise mismatch(where, f"a first line with the column {missing[0]!r}", got)
            continue
        if len(cells) != len(names):
            raise mismatch(where, f"{len(names)} columns", len(cells))
        yield where, dict(zip(names, cells))


def comma_separated(
    path: str, names: Sequence[str] | None = None
) -> Iterator[tuple[str, dict[str, str]]]:
    """The lines of a CSV file.  names: of all columns, for a file without a line of names."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    while True:
        line = reader.line_num + 1  # a quoted cell may have several lines
        where = f"{printable(path)}, line {line}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise mismatch(where, "comma-separated values", error) from None
        if names is None:
            names = [cell.removeprefix("\ufeff") for cell in cells]
        elif cells and len(cells) != len(names):
            raise mismatch(where, f"{len(names)} columns", len(cells))
        elif cells:
            yield where, dict(zip(names, cells))


def whole_json(path: str) -> Any:
    """A JSON file of up to 4 GB."""
    return read_json(path, largest=2**32)
