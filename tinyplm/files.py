"""Atomic writing (a path holds the old file or the whole new one, even after a crash), and reading
of untrusted files: regular files of limited size, as UTF-8 text and JSON without repeated keys."""

from __future__ import annotations

import codecs
import errno
import json
import os
import re
import stat
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from .arguments import mismatch, shown


@contextmanager
def replaced(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary name beside `path` to write to; at the end flushed and renamed to `path`.

    Removed on an error. The file gets the permissions of new files in this process, whatever the
    writing library sets. ValueError if a folder, pipe or device has the name `path`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path):
            if path.exists() and not path.is_file():  # renaming would replace a device
                raise mismatch(printable(path), "the name of a file", _kind(path.stat().st_mode))
            temporary.touch()
            permissions = stat.S_IMODE(temporary.stat().st_mode)
            yield temporary
            flush(temporary)
            if stat.S_IMODE(temporary.stat().st_mode) != permissions:
                temporary.chmod(permissions)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Add the file's name to an OSError that lacks it, such as a full disk; and NumPy's errno."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        if error.errno is None:
            raise OSError(errno.EIO, str(error), str(path)) from error
        error.filename = str(path)
        raise


def flush(path: Path) -> None:
    """Flush a file's contents to disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename survives a crash.

    No effect where folders cannot be opened (Windows).
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | os.PathLike, contents: Any) -> None:
    """Write JSON under a temporary name, flush it to disk and rename it."""
    text = json.dumps(contents, indent=2, ensure_ascii=False) + "\n"
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


_held: set[tuple[int, str]] = set()  # (thread, folder)


@contextmanager
def sole_writer(folder: str | os.PathLike) -> Iterator[None]:
    """Exclude other processes and threads from this folder; ValueError if one holds it.

    A missing folder is created, and removed at the end if still empty. The lock is the operating
    system's: it ends with the process, and nothing is left behind. The thread that holds it may
    enter again. On file systems without locks nothing is locked.
    """
    folder = Path(os.path.realpath(folder))
    holder = (threading.get_ident(), str(folder))
    if holder in _held:
        yield
        return
    new = not folder.exists()
    if new:
        with naming(folder):
            folder.mkdir(parents=True, exist_ok=True)
            sync_folder(folder.parent)
    busy = ValueError(
        f"{printable(folder)}: expected no other writer, got another process that is writing into "
        "this folder (wait for it, or use another folder)"
    )
    try:
        import fcntl
    except ImportError:  # Windows: a file that disappears with the process
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_TEMPORARY", 0)
        try:
            descriptor = os.open(folder / ".lock", flags)
        except OSError:
            raise busy from None
    else:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise busy from None
        except OSError:  # no locks here
            pass
    _held.add(holder)
    try:
        yield
    finally:
        if new:
            with suppress(OSError):  # not empty
                folder.rmdir()
        _held.discard(holder)
        os.close(descriptor)


# ---- reading

LARGEST_TEXT = 1 << 30  # bytes of a text file or vocabulary; it is read whole
LARGEST_LINES = 1 << 34  # bytes of a file with one sample a line
LARGEST_JSON = 1 << 29  # bytes; a tokenizer.json of 250,000 entries has 2^25
LARGEST_SETTINGS = 1 << 25  # bytes of a config.json, an index of shards and the like
DEEPEST_JSON = 100  # levels of nesting
LONGEST_INTEGER = 40  # digits; the hub writes int(1e30) for "no limit"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # an escaped surrogate, usually one of a pair


def read_bytes(path: str | os.PathLike, *, largest: int = LARGEST_TEXT) -> bytes:
    """The contents of a regular file of at most `largest` bytes.

    ValueError naming the file if it is missing or unreadable, or a pipe, device or folder, from
    which a read might never return.
    """
    name = printable(path)
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise ValueError(f"{name}: expected a file of at most {largest:,} bytes, got {size:,}")
        try:
            return file.read(size)
        except OSError as error:
            raise _unreadable(name, error) from None


def exists(path: Path) -> bool:
    """path.exists(); ValueError naming it if that cannot be determined."""
    try:
        return path.exists()
    except OSError as error:
        raise _unreadable(printable(path), error) from None


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """A regular file, opened to read bytes; ValueError naming anything else, without blocking."""
    name = printable(path)
    flags = (getattr(os, flag, 0) for flag in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY"))
    try:
        descriptor = os.open(path, os.O_RDONLY | sum(flags))
    except FileNotFoundError:
        raise ValueError(f"{name}: expected a file, got none (no such file)") from None
    except OSError as error:
        raise _unreadable(name, error) from None
    except ValueError:  # a NUL or lone surrogate in the name
        raise ValueError(f"{name}: expected the name of a file, got an invalid name") from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise ValueError(f"{name}: expected a regular file, got {_kind(mode)}")
    return open(descriptor, "rb")


def _unreadable(name: str, error: OSError) -> ValueError:
    return ValueError(f"{name}: expected a readable file, got an error ({error.strerror or error})")


def check_links(folder: str | os.PathLike, names: Iterable[str]) -> None:
    """ValueError for a file of `folder` that links to a place outside it, which `save` would copy.

    The folder itself may be reached through links. In the cache of the hub, files in
    models--NAME/snapshots/REVISION are links into models--NAME/blobs; these are allowed.
    """
    home = Path(os.path.realpath(folder))
    allowed = [home]
    for place in (home, *home.parents):
        if place.parent.name == "snapshots" and place.parents[1].name.startswith("models--"):
            allowed.append(place.parents[1] / "blobs")
    for name in names:
        file = printable(Path(folder) / name)
        try:
            target = Path(os.path.realpath(home / name))
        except ValueError:  # a NUL or lone surrogate in the name
            raise ValueError(f"{file}: expected the name of a file, got an invalid name") from None
        if not any(target == place or place in target.parents for place in allowed):
            expected = "a file in the folder (or a link to the folder as a whole)"
            raise mismatch(file, expected, f"a link to {printable(target)}")


def read_text(path: str | os.PathLike, *, largest: int = LARGEST_TEXT) -> str:
    """The contents as UTF-8 text without byte-order mark; ValueError naming the file otherwise."""
    try:
        return read_bytes(path, largest=largest).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        bad = error.object[error.start : error.start + 4]
        given = f"{bad!r} at byte {error.start}"
        raise ValueError(f"{printable(path)}: expected UTF-8 text, got {given}") from None


def read_json(path: str | os.PathLike, *, largest: int = LARGEST_JSON) -> Any:
    """The value in a JSON file, with the rules of `parse_json`; ValueError naming the file."""
    return parse_json(read_text(path, largest=largest), printable(path))


def parse_json(text: str, name: str, *, constants: bool = True) -> Any:
    """The value of a JSON text.

    ValueError, beginning with `name`, if it is invalid, repeats a key in one object, nests more
    than DEEPEST_JSON levels, or has an integer of more than LONGEST_INTEGER digits or a lone
    surrogate, which UTF-8 cannot encode. constants: accept NaN and Infinity, which Python writes.
    """

    def invalid(problem: Any) -> ValueError:
        return ValueError(f"{name}: expected valid JSON, got {problem}")

    nested = f"nesting of more than {DEEPEST_JSON} levels"

    def without_repeats(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) < len(items):
            twice, count = Counter(key for key, _ in items).most_common(1)[0]
            raise ValueError(f"the key {shown(twice)} {count} times in one object")
        return result

    def integer(digits: str) -> int:
        if len(digits) > LONGEST_INTEGER:
            raise ValueError(f"an integer of {len(digits)} digits (at most {LONGEST_INTEGER})")
        return int(digits)

    def constant(word: str) -> float:
        if constants:
            return float(word)
        raise ValueError(word)

    try:
        value = json.loads(
            text, object_pairs_hook=without_repeats, parse_int=integer, parse_constant=constant
        )
    except RecursionError:
        raise invalid(nested) from None
    except json.JSONDecodeError as error:
        raise invalid(f"an error ({error})") from None
    except ValueError as error:  # from the functions above
        raise invalid(error) from None
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            around = error.object[max(error.start - 20, 0) : error.start + 20]
            raise invalid(f"a lone surrogate in {shown(around)}") from None
        except RecursionError:  # reported below
            pass
    level, depth = [value], 0
    while level:
        if depth == DEEPEST_JSON:
            raise invalid(nested)
        containers = [item for item in level if isinstance(item, (dict, list))]
        inside = (item.values() if isinstance(item, dict) else item for item in containers)
        level = [part for parts in inside for part in parts if isinstance(part, (dict, list))]
        depth += 1
    return value


def json_lines(path: str | os.PathLike) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects in a file of JSON lines, each with "file, line n" for messages.

    ValueError naming file and line for invalid UTF-8 or JSON, a repeated key, NaN, or anything but
    an object. Blank lines and an initial byte-order mark are allowed.
    """
    for where, line in text_lines(path):
        try:
            value = parse_json(line, where, constants=False)
        except ValueError as error:
            raise ValueError(f"{error}: {shown(line[:200], 60)}") from None
        if not isinstance(value, dict):
            raise mismatch(where, "an object", shown(value, 60))
        yield where, value


def text_lines(path: str | os.PathLike) -> Iterator[tuple[str, str]]:
    """The lines of a UTF-8 file that are not blank, each with "file, line n" for messages.

    A line ends with a line feed; a carriage return before it is kept. An initial byte-order mark is
    allowed. ValueError naming file and line for invalid UTF-8.
    """
    lines = read_bytes(path, largest=LARGEST_LINES).removeprefix(codecs.BOM_UTF8).split(b"\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{printable(path)}, line {number}"
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                given = f"{shown(line[:60].decode('utf-8', 'replace'))} ({error})"
                raise mismatch(where, "valid UTF-8", given) from None
            yield where, text


def printable(path: str | os.PathLike, longest: int = 200) -> str:
    """A path, or another name from a file, for messages: one printable line, at most `longest`."""
    text = str(path)
    if text.isprintable() and len(text) <= longest:
        return text
    return shown(text, longest)


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((kind for test, kind in kinds if test(mode)), "something else")
