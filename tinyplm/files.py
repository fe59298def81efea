"""Writing files so that, whenever the machine stops, a path holds the old file or the whole new one; and reading files that
come from anywhere: regular ones only, of a limited size, as UTF-8 and JSON that mean one thing."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .arguments import shown


@contextmanager
def replaced(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary name beside `path` to write to; flushed to disk and renamed to `path` at the end, removed on an error."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path):
            yield temporary
            flush(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """An OSError from inside says which file it is about: a full disk, for one, does not."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def flush(path: Path) -> None:
    """Flush a file's contents to disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a crash; where folders cannot be opened (Windows) the
    system has to see to it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --------------------------------------------------------------------------------------------------------- reading

LARGEST_TEXT = 1 << 30  # bytes of a text file or vocabulary that is read whole
LARGEST_JSON = 1 << 29  # a tokenizer.json of 250,000 entries has 2^25
DEEPEST_JSON = 100  # levels of nesting
LONGEST_INTEGER = 40  # digits; the hub writes int(1e30) as "no limit"


def read_bytes(path: str | os.PathLike, *, largest: int = LARGEST_TEXT) -> bytes:
    """The contents of a regular file of at most `largest` bytes.

    ValueError that names the file for anything else: what is missing or not readable, and pipes, devices and folders, from which
    a read might never return.
    """
    name = named(path)
    try:
        descriptor = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )  # a pipe does not block
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{name}: expected a regular file, got {_kind(status.st_mode)}")
            if status.st_size > largest:
                raise ValueError(f"{name}: expected a file of at most {largest:,} bytes, got {status.st_size:,}")
            return file.read(largest)
    except FileNotFoundError:
        raise ValueError(f"{name}: no such file") from None
    except OSError as error:
        raise ValueError(f"{name}: cannot be read ({error.strerror or error})") from None


def read_text(path: str | os.PathLike, *, largest: int = LARGEST_TEXT) -> str:
    """The same as UTF-8 text, a byte-order mark left out; ValueError that names the file if it is not UTF-8."""
    try:
        return read_bytes(path, largest=largest).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{named(path)}: expected UTF-8 text, got {error.object[error.start : error.start + 4]!r} "
                         f"at byte {error.start}") from None  # fmt: skip


def read_json(path: str | os.PathLike, *, largest: int = LARGEST_JSON) -> Any:
    """The value in a JSON file, by the rules of `parse_json`; ValueError that names the file."""
    return parse_json(read_text(path, largest=largest), named(path))


def parse_json(text: str, name: str) -> Any:
    """The value of a JSON text.

    ValueError, beginning with `name`, for what is not valid, repeats a key in one object, nests more than DEEPEST_JSON levels,
    or has an integer of more than LONGEST_INTEGER digits.
    """

    def without_repeats(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) < len(items):
            seen: set[str] = set()
            twice = next(key for key, _ in items if key in seen or seen.add(key))
            raise ValueError(f"the key {shown(twice)} occurs twice in one object")
        return result

    def integer(digits: str) -> int:
        if len(digits) > LONGEST_INTEGER:
            raise ValueError(f"an integer of {len(digits)} digits, expected at most {LONGEST_INTEGER}")
        return int(digits)

    try:
        value = json.loads(text, object_pairs_hook=without_repeats, parse_int=integer)
    except RecursionError:
        raise ValueError(f"{name}: not valid JSON: nested more than {DEEPEST_JSON} levels deep") from None
    except ValueError as error:  # of JSON, and ours
        raise ValueError(f"{name}: not valid JSON: {error}") from None
    level, depth = [value], 0
    while level:
        if depth > DEEPEST_JSON:
            raise ValueError(f"{name}: not valid JSON: nested more than {DEEPEST_JSON} levels deep")
        inside = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list)))
        level = [part for items in inside for part in items if isinstance(part, (dict, list))]
        depth += 1
    return value


def named(path: str | os.PathLike) -> str:
    """A path as messages name it: printable, on one line, and not longer than a screen's width or two."""
    text = str(path)
    if text.isprintable() and len(text) <= 200:
        return text
    return shown(text, 200)


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISCHR, "a device"), (stat.S_ISSOCK, "a socket"))
    return next((kind for test, kind in kinds if test(mode)), "something else")
