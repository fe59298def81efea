"""Answers of a model kept on disk, so that an evaluation resumes where it was killed.

One line of JSON an answer: {"key", "value", "sum"}, appended and flushed.  The key is a hash of the
model's fingerprint and of all that was asked; "sum" is a hash of key and value.  A line that a kill
left incomplete, or that is damaged, does not count, and its answer is computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...arguments import check_path
from ...files import read_bytes, replaced


def digest(*parts: Any) -> str:
    """A hash of values that JSON has."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Cache:
    """cache[key] of the answers in a file, which is created with the first one."""

    def __init__(self, path: str | os.PathLike | None = None) -> None:
        """None: the answers are kept in memory alone."""
        if path is not None:
            check_path("path", path)
        self.path = None if path is None else Path(path)
        self.answers: dict[str, Any] = {}
        self.damaged = 0  # lines
        if self.path is not None and self.path.exists():
            self._read(self.path)

    def __contains__(self, key: object) -> bool:
        return key in self.answers

    def __getitem__(self, key: str) -> Any:
        return self.answers[key]

    def add(self, answers: Mapping[str, Any]) -> None:
        """Append these answers, those of a batch, and flush them to disk."""
        new = {key: value for key, value in answers.items() if key not in self.answers}
        self.answers |= new
        if self.path is None or not new:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab") as file:
            file.write("".join(map(_line, new, new.values())).encode())
            file.flush()
            os.fsync(file.fileno())

    def _read(self, path: Path) -> None:
        lines = read_bytes(path, largest=2**34).split(b"\n")
        for line in filter(None, lines):
            found = _parsed(line)
            if found is None:
                self.damaged += 1
            else:
                self.answers[found[0]] = found[1]
        if self.damaged or lines[-1]:  # what is appended must begin on a line of its own
            with replaced(path) as temporary:
                whole = map(_line, self.answers, self.answers.values())
                temporary.write_text("".join(whole), encoding="utf-8")


def _line(key: str, value: Any) -> str:
    entry = {"key": key, "value": value, "sum": digest(key, value)}
    return json.dumps(entry, ensure_ascii=True) + "\n"


def _parsed(line: bytes) -> Sequence[Any] | None:
    try:
        entry = json.loads(line)
        key, value, expected = entry["key"], entry["value"], entry["sum"]
        return (key, value) if digest(key, value) == expected else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
