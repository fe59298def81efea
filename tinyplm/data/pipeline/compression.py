"""Files of bytes, plain or compressed: .gz, and .zst with the extra `data`."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ...arguments import mismatch
from ...files import open_regular, printable

COMPRESSIONS = ("none", "gz", "zst")
CHUNK = 1024  # bytes of a .zst at a time; 4 of them may stand for 128 KiB
BUFFER = 1 << 18


class Broken(ValueError):
    """A compressed file that ends too early, or is damaged; what came before was whole."""


def compression(path: str | os.PathLike) -> str:
    """One of COMPRESSIONS, by the end of the name."""
    suffix = Path(path).suffix.lower()
    return suffix[1:] if suffix in (".gz", ".zst") else "none"


def zstandard() -> Any:
    """The library; ValueError that names the extra without it."""
    try:
        import zstandard
    except ImportError:
        wanted = "the extra `data` for .zst files (pip install 'tinyplm[data]')"
        raise mismatch("zstandard", wanted, "no such library") from None
    return zstandard


@contextmanager
def opened(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """The file's bytes, decompressed; reading raises Broken where they are not whole."""
    kind = compression(path)
    with open_regular(path) as file:
        if kind == "none":
            yield file
        else:
            raw = _Gz(file) if kind == "gz" else _Zst(file)
            yield io.BufferedReader(raw, BUFFER)


class _Gz(io.RawIOBase):
    def __init__(self, file: BinaryIO) -> None:
        self.file = gzip.GzipFile(fileobj=file)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.file.read1(len(buffer))
        except EOFError:
            raise Broken("the end of the compressed data is missing") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise Broken(f"the compressed data are damaged ({error})") from None
        buffer[: len(data)] = data
        return len(data)


class _Zst(io.RawIOBase):
    """Frame by frame; the library's own reader does not tell an early end from a proper one."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.library = file, zstandard()
        self.frame: Any = None
        self.rest, self.ready = b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.ready:
            data = self.rest or self.file.read(CHUNK)
            self.rest = b""
            if not data:
                if self.frame is not None:
                    raise Broken("the end of the compressed data is missing")
                return 0
            if self.frame is None:
                self.frame = self.library.ZstdDecompressor().decompressobj()
            try:
                self.ready = memoryview(self.frame.decompress(data))
            except self.library.ZstdError as error:
                raise Broken(f"the compressed data are damaged ({error})") from None
            if self.frame.eof:
                self.rest, self.frame = self.frame.unused_data, None
        count = min(len(buffer), len(self.ready))
        buffer[:count] = self.ready[:count]
        self.ready = self.ready[count:]
        return count


@contextmanager
def written(path: Path, kind: str) -> Iterator[BinaryIO]:
    """A file to write to, whose bytes depend on what is written alone: no name and no time."""
    with open(path, "wb") as file:
        if kind == "none":
            yield file
        elif kind == "gz":
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
                yield packed  # type: ignore[misc]
        else:
            with zstandard().ZstdCompressor().stream_writer(file, closefd=False) as packed:
                yield packed


def check_readable(path: str | os.PathLike) -> None:
    """ValueError unless it is a regular file that this process can read and decompress."""
    if compression(path) == "zst":
        try:
            zstandard()
        except ValueError as error:
            raise ValueError(f"{printable(path)}: {error}") from None
    open_regular(path).close()
