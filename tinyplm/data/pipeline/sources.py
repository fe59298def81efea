"""From what the user names to shards of about equal size: files, folders and patterns.

A shard is cut at the ends of documents by bytes alone, so it is the same for any number of
processes.  A compressed file, a JSON array and a page are never cut.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...arguments import check_path, check_several, mismatch
from ...files import open_regular, printable
from ..corpus import SEPARATOR
from .compression import check_readable, compression
from .readers import Part, bounded_lines, html_library

SHARD = 1 << 24  # bytes
MANIFEST = "manifest.json"  # in the output folder of a run
DOCUMENTS = "documents*"
KINDS = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
}
_BLOCK = 1 << 20


class Source(NamedTuple):
    """A file as it was when it was cut."""

    path: str
    size: int
    digest: str  # of its bytes


def kind_of(path: str | os.PathLike) -> str | None:
    """The kind of file by its name; None if it has no known end."""
    name = Path(path)
    if compression(name) != "none":
        name = name.with_suffix("")
    return KINDS.get(name.suffix.lower())


def files_of(inputs: str | os.PathLike | Sequence[str | os.PathLike]) -> list[str]:
    """The files that paths, folders and patterns name, each checked.

    Of a folder all files whose names end as in KINDS, in the order of their names; of one that the
    pipeline has written, its documents.  ValueError for anything missing, empty or named twice.
    """
    inputs = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs
    check_several("input", inputs, "paths of files or folders")
    found: list[str] = []
    for given in inputs:
        check_path("input", given)
        found += _named(os.fspath(given))
    if not found:
        raise ValueError("input: expected at least one file, folder or pattern, got none")
    if len(set(found)) < len(found):
        twice = next(path for n, path in enumerate(found) if path in found[:n])
        raise mismatch("input", "each file once", f"{printable(twice)} twice")
    for path in found:
        check_readable(path)
        if kind_of(path) == "html":
            html_library()
    return found


def _named(path: str) -> list[str]:
    if os.path.isdir(path):
        files = list(_within(path))
        if not files:
            expected = f"a folder with files that end in {', '.join(KINDS)}"
            raise mismatch(f"input: {printable(path)}", expected, "none")
        return files
    if glob.has_magic(path) and not os.path.exists(path):
        files = sorted(file for file in glob.glob(path, recursive=True) if os.path.isfile(file))
        if not files:
            raise mismatch(f"input: {printable(path)}", "a pattern that some file has", "none")
        return files
    return [path]


def is_corpus(path: str | os.PathLike) -> bool:
    """Whether it is a folder that the pipeline has written."""
    return os.path.isfile(os.path.join(path, MANIFEST))


def _within(folder: str) -> Iterator[str]:
    if is_corpus(folder):
        yield from sorted(map(str, Path(folder).glob(DOCUMENTS)))
        return
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if kind_of(name) and not name.startswith("."):
                yield os.path.join(place, name)


def shards_of(files: Sequence[str], size: int = SHARD) -> tuple[list[Source], list[list[Part]]]:
    """(what the files are, the parts of each shard), in order."""
    sources, shards = [], []
    held: list[Part] = []
    total = 0
    for path in files:
        source, parts = _cut(path, size)
        sources.append(source)
        for part in parts:
            end = source.size if part.end is None else part.end
            held.append(part)
            total += end - part.start
            if total >= size:
                shards.append(held)
                held, total = [], 0
    return sources, [*shards, held] if held else shards


def _cut(path: str, size: int) -> tuple[Source, list[Part]]:
    kind = kind_of(path) or "text"
    with open_regular(path) as file:
        length = os.fstat(file.fileno()).st_size
        digest = hashlib.blake2b(digest_size=16)
        whole = kind in ("json", "html") or compression(path) != "none"
        ends = [] if whole else list(_ends(file, kind, length, size))
        parts, start, line = [], 0, 1
        file.seek(0)
        for end in [*ends, length]:
            number = line
            for block in _blocks(file, end - start):
                digest.update(block)
                line += block.count(b"\n")
            parts.append(Part(path, kind, start, None if whole else end, number))
            start = end
    return Source(path, length, digest.hexdigest()), parts


def _blocks(file: Any, size: int) -> Iterator[bytes]:
    while size > 0 and (block := file.read(min(size, _BLOCK))):
        size -= len(block)
        yield block


def _ends(file: Any, kind: str, length: int, size: int) -> Iterator[int]:
    """The first end of a document after each multiple of `size`."""
    place = size
    while place < length:
        file.seek(place - 1)
        at = place - 1
        for number, (line, count) in enumerate(bounded_lines(file, _BLOCK)):
            at += count
            whole = number > 0 or line == b"\n"  # else it began earlier, or is cut
            if kind == "jsonl" or (whole and line and line.strip() == SEPARATOR.encode()):
                break
        else:
            return
        if at >= length:
            return
        yield at
        place = max(place + size, at + size // 2)
