"""Tables of texts: CSV and TSV with a header row."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator

from ..arguments import mismatch, shown
from ..files import LARGEST_LINES, printable, read_bytes

csv.field_size_limit(1 << 30)  # a text may be longer than 131,072 characters, the default

TABLES = {".csv": ",", ".tsv": "\t"}  # by the file's suffix


def table_rows(path: str | os.PathLike, delimiter: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows as {name in the header: text}, each with "file, line n", where it begins.

    Texts in quotes may contain delimiters, doubled quotes and line breaks.  Blank lines are left
    out.  ValueError naming file and line for invalid UTF-8 or quotes, a header with an empty or a
    repeated name, and a row with more or fewer texts than the header.
    """
    lines = csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        where = f"{printable(path)}, line {lines.line_num + 1}"
        try:
            row = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            raise mismatch(where, "a row of a table", f"an error ({error})") from None
        if not row:
            continue
        if header is None:
            header = [name.strip() for name in row]
            if not all(header) or len(set(header)) < len(header):
                expected = "a header row of different names"
                raise mismatch(where, expected, shown(row, 60))
            yield where, dict.fromkeys(header, "")
        elif len(row) != len(header):
            given = f"{len(row)}: {shown(row, 60)}"
            raise mismatch(where, f"{len(header)} texts, as in the header", given)
        else:
            yield where, dict(zip(header, row))


def _text(path: str | os.PathLike) -> str:
    data = read_bytes(path, largest=LARGEST_LINES)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        given = shown(data[error.start : error.start + 40].decode("utf-8", "replace"))
        raise mismatch(f"{printable(path)}, line {line}", "valid UTF-8", given) from None
