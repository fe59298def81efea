"""Records from files and from memory, each checked before anything is computed."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ....arguments import (
    check_choice,
    check_path,
    is_number,
    is_several,
    listed,
    mismatch,
    shown,
    wrong,
)
from ....data.tables import TABLES, table_rows
from ....files import LARGEST_LINES, json_lines, parse_json, printable, read_text, replaced
from .kinds import KINDS, Record, check_record, has_fields, kind_of, needs
from .tagged import tagged_sentences

# the kinds whose records are texts; a table has nothing else
OF_TEXTS = ("instruction", "preference", "feedback", "prompt", "classification", "answering")
Rows = Iterable[tuple[str, Any]]


def read_records(
    path: str | os.PathLike, kind: str | Collection[str] | None = None
) -> list[Record]:
    """The records of a file, all of one kind (see the package).

        read_records("talks.jsonl", "conversation")
        read_records("mine.csv", ("instruction", "conversation"))     # whichever it is
        kind_of(read_records("mine.jsonl")[0])                        # detected

    kind: what is expected, one or several; by default any.  Of several, the kind is the first
    record's, by its fields.
    ValueError naming file and line for invalid UTF-8, JSON or CSV, anything but an object, a
    repeated key, NaN, or an invalid record, and naming the kind that a record of another kind looks
    like.  Blank lines and an initial byte-order mark are allowed.
    """
    kinds = _kinds(kind)
    check_path("path", path)
    suffix = Path(os.fsdecode(path)).suffix.lower()
    if suffix == ".conll" or (suffix == ".tsv" and kinds == ["tagging"]):
        if "tagging" not in kinds:
            raise mismatch(printable(path), f"records of kind {' or '.join(kinds)}", "a .conll")
        return _checked(tagged_sentences(path), ["tagging"], printable(path))
    if suffix not in TABLES:
        rows = _listed(path) if suffix == ".json" else json_lines(path)
        return _checked(rows, kinds, printable(path))
    table = table_rows(path, TABLES[suffix])
    kinds = [kind for kind in kinds if kind in OF_TEXTS]
    if not kinds:
        raise mismatch(printable(path), "JSON lines, since a table has texts only", f"a {suffix}")
    header = next(table, None)
    if header is not None:
        _kind_of_first(header[1], kinds, f"{header[0]}, the header row")
    return _numbered(_checked(table, kinds, printable(path)))


def check_records(
    records: Iterable[Mapping[str, Any]], kind: str | Collection[str] | None = None
) -> list[Record]:
    """The same checks for records in memory; errors name their number, counted from 0."""
    kinds = _kinds(kind)
    name = kinds[0] if len(kinds) == 1 else "record"
    rows = listed("records", records, "a list of records, each a dict")
    return _checked(((f"{name} {n}", row) for n, row in enumerate(rows)), kinds, None)


def write_records(path: str | os.PathLike, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records as JSON lines, atomically.

    ValueError for values that JSON or UTF-8 cannot represent.
    """
    check_path("path", path)
    lines = []
    for number, record in enumerate(listed("records", records, "a list of records, each a dict")):
        if not isinstance(record, Mapping):
            raise wrong(f"record {number}", "a dict", record)
        try:
            lines.append(json.dumps(dict(record), ensure_ascii=False, allow_nan=False) + "\n")
            lines[-1].encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise mismatch(
                f"record {number}", "values that JSON can represent", f"{shown(record)}: {error}"
            ) from None
    with replaced(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def _kinds(kind: Any) -> list[str]:
    """The kinds that are expected."""
    if kind is None:
        return list(KINDS)
    given = [kind] if isinstance(kind, str) or not is_several(kind) else list(kind)
    for one in given or [kind]:
        check_choice("kind", one, KINDS)
    return given


def _checked(rows: Rows, kinds: list[str], path: str | None) -> list[Record]:
    """The records, of the first one's kind; path: of the file, which must not be empty."""
    found: list[Record] = []
    kind = kinds[0] if len(kinds) == 1 else ""
    for where, record in rows:
        kind = kind or _kind_of_first(record, kinds, where)
        found.append(check_record(record, kind, where))
    if path is not None and not found:
        what = f"one {kinds[0]} per line" if len(kinds) == 1 else "one record per line"
        raise ValueError(f"{path}: expected {what}, got no records")
    return found


def _kind_of_first(record: Any, kinds: list[str], where: str) -> str:
    """The kind of the first record; ValueError with what was seen and what each kind needs."""
    if not isinstance(record, Mapping):
        raise ValueError(f"{where}: expected an object, got {shown(record, 60)}")
    fitting = [kind for kind in KINDS if kind in kinds and has_fields(record, kind)]
    if fitting:
        return fitting[0]
    other = kind_of(record)
    got = f"one of kind {needs(other)}" if other else ", ".join(map(repr, record)) or "no fields"
    raise mismatch(where, f"a record of kind {' or '.join(map(needs, kinds))}", got)


def _listed(path: str | os.PathLike) -> Iterator[tuple[str, Any]]:
    """The values of a .json with a list, each with "file, record n", counted from 0."""
    text = read_text(path, largest=LARGEST_LINES).removeprefix("\ufeff")
    value = parse_json(text, printable(path), constants=False)
    if not isinstance(value, list):
        expected = "a list of records (JSON lines have the suffix .jsonl)"
        raise mismatch(printable(path), expected, shown(value, 60))
    for number, record in enumerate(value):
        yield f"{printable(path)}, record {number}", record


def _numbered(records: list[Record]) -> list[Record]:
    """Records of a table; if all labels are texts of whole numbers, or all of numbers, as such."""
    labels = [record["label"] for record in records if "label" in record]
    if not all(isinstance(label, str) for label in labels):  # feedback's are True and False
        return records
    for kind in (int, float):
        try:
            numbers = list(map(kind, labels))
        except ValueError:
            continue
        if labels and all(map(is_number, numbers)):
            return [{**record, "label": n} for record, n in zip(records, numbers)]
    return records
