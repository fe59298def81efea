"""Pairs of texts, a source and its target, from files: translations, summaries, questions.

JSON lines: one object a line, in UTF-8. Two fields are the texts; others are ignored.

    {"de": "Das ist gut.", "en": "That is good."}      read_json_pairs(path, "de", "en")

TSV: one pair a line, in UTF-8, with a single tab between columns. There is no quoting and no
escape: a text has neither tabs nor line breaks, and quotation marks are part of it. The first line
may name the columns. Columns are given by number, from 0, or by name.

    Das ist gut.<tab>That is good.                     read_tsv_pairs(path, 0, 1)

Blank lines are skipped. White space around a text is removed. A line without one of the texts, or
with an empty one, is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from ..arguments import (
    MOST,
    as_ids,
    check_flag,
    check_path,
    check_text,
    check_whole,
    listed,
    mismatch,
    shown,
    wrong,
)
from ..files import json_lines, printable, text_lines

Pairs = list[tuple[str, str]]


def read_json_pairs(
    path: str | os.PathLike, source: str = "source", target: str = "target"
) -> Pairs:
    """The pairs (source, target) in a file of JSON lines; source and target name the fields.

    ValueError naming file, line and field if one is missing, blank or not a text.
    """
    check_path("path", path)
    check_text("source", source)
    check_text("target", target)
    pairs = []
    for where, record in json_lines(path):
        texts = (_field(record, name, where) for name in (source, target))
        pairs.append((next(texts), next(texts)))
    return _some(pairs, path)


def read_tsv_pairs(
    path: str | os.PathLike,
    source: int | str = 0,
    target: int | str = 1,
    *,
    header: bool = False,
) -> Pairs:
    """The pairs (source, target) in a TSV file; source and target are numbers or names of columns.

    header: the first line names the columns; needed for names. ValueError naming file, line and
    column if one is missing or empty.
    """
    check_path("path", path)
    check_flag("header", header)
    for name, column in (("source", source), ("target", target)):
        if isinstance(column, str):
            if not header:
                raise wrong(name, "a number of a column (header=True reads names)", column)
        else:
            check_whole(name, column, 0, MOST)
    pairs = []
    columns: list[int | str] = [source, target]
    for row, (where, line) in enumerate(text_lines(path)):
        cells = [cell.strip() for cell in line.split("\t")]
        if row == 0 and header:
            columns = [_numbered(cells, column, where) for column in columns]
        else:
            texts = (_cell(cells, column, where) for column in columns)
            pairs.append((next(texts), next(texts)))
    return _some(pairs, path)


def encode_pairs(
    pairs: Sequence[tuple[str, str]], encode: Callable[[str], Sequence[int]], *, prefix: str = ""
) -> list[tuple[list[int], list[int]]]:
    """Each pair as ids, for objectives.Seq2SeqPairs.

    encode: text -> ids without special tokens. prefix: the task, put before each source, such as
    "translate German to English: ".
    """
    if not callable(encode):
        raise wrong("encode", "a function of a text", encode)
    check_text("prefix", prefix)
    encoded = []
    for number, pair in enumerate(listed("pairs", pairs, "pairs of texts")):
        right = isinstance(pair, (tuple, list)) and len(pair) == 2
        if not right or not all(isinstance(text, str) for text in pair):
            raise wrong(f"pairs: number {number}", "two texts", pair)
        source, target = (as_ids("encode", encode(text)) for text in (prefix + pair[0], pair[1]))
        encoded.append((source.tolist(), target.tolist()))
    return encoded


def _field(record: dict[str, Any], name: str, where: str) -> str:
    if name not in record:
        got = f"only {', '.join(map(shown, record))}" if record else "an empty object"
        raise mismatch(where, f"a field {shown(name)}", got)
    value = record[name]
    if not isinstance(value, str) or not value.strip():
        raise mismatch(f"{where}: {shown(name)}", "a non-empty text", shown(value, 60))
    return value.strip()


def _cell(cells: list[str], column: Any, where: str) -> str:
    if column >= len(cells):
        raise mismatch(where, f"at least {column + 1} columns, separated by tabs", len(cells))
    if not cells[column]:
        raise mismatch(f"{where}: column {column}", "a non-empty text", "''")
    return cells[column]


def _numbered(names: list[str], column: int | str, where: str) -> int:
    """The number of a column, from the header."""
    if not isinstance(column, str):
        return column
    if names.count(column) != 1:
        got = ", ".join(shown(name, 20) for name in names[:9])
        raise mismatch(where, f"one column {shown(column)}", got)
    return names.index(column)


def _some(pairs: Pairs, path: str | os.PathLike) -> Pairs:
    if not pairs:
        raise mismatch(printable(path), "one pair of texts a line", "none")
    return pairs
