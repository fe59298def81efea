"""Writing files so that, whenever the machine stops, a path holds the old file or the whole new one; and reading
untrusted files: regular files of limited size, as UTF-8 text and JSON without repeated keys."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from .arguments import shown


@contextmanager
def replaced(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary name beside `path` to write to; flushed to disk and renamed to `path` at the end, removed on an error.
    ValueError where a folder, a pipe or a device has that name.

    The file gets the permissions that the process gives to new files, whatever a library that writes it may choose."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path):
            if (
                path.exists() and not path.is_file()
            ):  # a rename would put a file in place of a device
                raise ValueError(
                    f"{named(path)}: expected the name of a file, got {_kind(path.stat().st_mode)}"
                )
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
    """An OSError from inside says which file it is about: a full disk, for one, does not.  NumPy's has no number either."""
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


def write_json(path: str | os.PathLike, contents: Any) -> None:
    """JSON written under a temporary name, flushed to disk, then renamed."""
    with replaced(path) as temporary:
        temporary.write_text(
            json.dumps(contents, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )


_held: set[tuple[int, str]] = set()  # (thread, folder)


@contextmanager
def sole_writer(folder: str | os.PathLike) -> Iterator[None]:
    """Inside, no other process or thread can be in `sole_writer` of this folder; ValueError if one is.

    A missing folder is made, and removed at the end if it is still empty.  The lock is the system's and ends with the process,
    however that ends; nothing is left behind.  The thread that has it may enter again.  Without locks in the
    file system nothing is locked.
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
        f"{named(folder)}: another process is writing into this folder: wait for it, or give another folder"
    )
    try:
        import fcntl
    except ImportError:  # Windows: a file that disappears with the process
        try:
            descriptor = os.open(
                folder / ".lock", os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_TEMPORARY
            )
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


# --------------------------------------------------------------------------------------------------------- reading

LARGEST_TEXT = 1 << 30  # bytes of a text file or vocabulary that is read whole
LARGEST_JSON = 1 << 29  # a tokenizer.json of 250,000 entries has 2^25
LARGEST_SETTINGS = 1 << 25  # of a config.json, an index of shards and the like
DEEPEST_JSON = 100  # levels of nesting
LONGEST_INTEGER = 40  # digits; the hub writes int(1e30) as "no limit"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # an escape of half a character; most are in pairs


def read_bytes(path: str | os.PathLike, *, largest: int = LARGEST_TEXT) -> bytes:
    """The contents of a regular file of at most `largest` bytes.

    ValueError that names the file for anything else: what is missing or not readable, and pipes, devices and folders, from which
    a read might never return.
    """
    name = named(path)
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise ValueError(f"{name}: expected a file of at most {largest:,} bytes, got {size:,}")
        try:
            return file.read(size)
        except OSError as error:
            raise ValueError(f"{name}: cannot be read ({error.strerror or error})") from None


def exists(path: Path) -> bool:
    """path.exists(); ValueError that names it where it cannot be known."""
    try:
        return path.exists()
    except OSError as error:
        raise ValueError(f"{named(path)}: cannot be read ({error.strerror or error})") from None


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """A regular file, open to read bytes; ValueError that names it for anything else, without waiting for a pipe's other end."""
    name = named(path)
    flags = (getattr(os, flag, 0) for flag in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY"))
    try:
        descriptor = os.open(path, os.O_RDONLY | sum(flags))
    except FileNotFoundError:
        raise ValueError(f"{name}: no such file") from None
    except OSError as error:
        raise ValueError(f"{name}: cannot be read ({error.strerror or error})") from None
    except ValueError:  # a NUL or half a character in the name
        raise ValueError(f"{name}: not the name of a file") from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise ValueError(f"{name}: expected a regular file, got {_kind(mode)}")
    return open(descriptor, "rb")


def check_links(folder: str | os.PathLike, names: Iterable[str]) -> None:
    """ValueError for a file of `folder` that is a link to a place outside of it, from where `save` would copy what is there.

    The folder itself may be reached through links.  In the cache of the hub the files of models--NAME/snapshots/REVISION are
    links into models--NAME/blobs: these are let through.
    """
    home = Path(os.path.realpath(folder))
    allowed = [
        home,
        *(
            place.parents[1] / "blobs"
            for place in (home, *home.parents)
            if place.parent.name == "snapshots" and place.parents[1].name.startswith("models--")
        ),
    ]
    for name in names:
        try:
            target = Path(os.path.realpath(home / name))
        except ValueError:  # a NUL or half a character in the name
            raise ValueError(f"{named(Path(folder) / name)}: not the name of a file") from None
        if not any(target == place or place in target.parents for place in allowed):
            raise ValueError(
                f"{named(Path(folder) / name)}: a link out of the folder, to {named(target)}; "
                "copy the file, or link the folder as a whole"
            )


def read_text(path: str | os.PathLike, *, largest: int = LARGEST_TEXT) -> str:
    """The same as UTF-8 text, without a byte-order mark; ValueError that names the file if it is not UTF-8."""
    try:
        return read_bytes(path, largest=largest).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{named(path)}: expected UTF-8 text, got {error.object[error.start : error.start + 4]!r} "
            f"at byte {error.start}"
        ) from None


def read_json(path: str | os.PathLike, *, largest: int = LARGEST_JSON) -> Any:
    """The value in a JSON file, by the rules of `parse_json`; ValueError that names the file."""
    return parse_json(read_text(path, largest=largest), named(path))


def parse_json(text: str, name: str, *, constants: bool = True) -> Any:
    """The value of a JSON text.

    ValueError, beginning with `name`, for what is not valid, repeats a key in one object, nests more than DEEPEST_JSON levels,
    has an integer of more than LONGEST_INTEGER digits, or a text with a lone surrogate, which no file could hold as UTF-8.
    constants: NaN and Infinity are numbers, as Python writes them.
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
            raise ValueError(
                f"an integer of {len(digits)} digits, expected at most {LONGEST_INTEGER}"
            )
        return int(digits)

    def constant(word: str) -> float:
        if constants:
            return float(word)
        raise ValueError(f"{word} is not valid in JSON")

    try:
        value = json.loads(
            text, object_pairs_hook=without_repeats, parse_int=integer, parse_constant=constant
        )
    except RecursionError:
        raise ValueError(
            f"{name}: not valid JSON: nested more than {DEEPEST_JSON} levels deep"
        ) from None
    except ValueError as error:  # of JSON, and ours
        raise ValueError(f"{name}: not valid JSON: {error}") from None
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            around = error.object[max(error.start - 20, 0) : error.start + 20]
            raise ValueError(
                f"{name}: not valid JSON: a lone surrogate in {shown(around)}"
            ) from None
        except RecursionError:  # reported below
            pass
    level, depth = [value], 0
    while level:
        if depth == DEEPEST_JSON:
            raise ValueError(f"{name}: not valid JSON: nested more than {DEEPEST_JSON} levels deep")
        inside = (
            item.values() if isinstance(item, dict) else item
            for item in level
            if isinstance(item, (dict, list))
        )
        level = [part for items in inside for part in items if isinstance(part, (dict, list))]
        depth += 1
    return value


def named(path: str | os.PathLike, longest: int = 200) -> str:
    """A path, or another name from a file, as messages give it: printable, on one line, and not longer than `longest`."""
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
