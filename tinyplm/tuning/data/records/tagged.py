"""Texts with a tag for each word: CoNLL's columns of words and tags."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from ....arguments import mismatch, shown
from ....files import text_lines


def tagged_sentences(path: str | os.PathLike) -> Iterator[tuple[str, dict[str, Any]]]:
    """Records {"tokens", "tags"} of a file with a word and its tag a line, separated by a tab or,
    in a .conll, by spaces; a blank line ends a sentence.  Lines of -DOCSTART- are left out.

    ValueError naming file and line for a line of anything but two columns.
    """
    tab = not str(path).lower().endswith(".conll")
    words: list[str] = []
    tags: list[str] = []
    begin, last = "", 0
    for where, line in text_lines(path):
        number = int(where.rpartition(" ")[2])
        if words and number > last + 1:  # a blank line between
            yield begin, {"tokens": words, "tags": tags}
            words, tags = [], []
        last = number
        columns = line.strip("\r\n").split("\t") if tab else line.split()
        if columns[0].startswith("-DOCSTART-"):
            continue
        if len(columns) != 2 or not all(column.strip() for column in columns):
            expected = f"a word and its tag, separated by {'a tab' if tab else 'a space'}"
            raise mismatch(where, expected, shown(line, 60))
        begin = begin if words else where
        words.append(columns[0].strip())
        tags.append(columns[1].strip())
    if words:
        yield begin, {"tokens": words, "tags": tags}
