"""Documents of a file, one at a time: text, JSON lines, a JSON array, HTML.

Each reader yields (name, document or None, counts): None with the reason where something could not
be read, which is then named, and the rest goes on.  No line and no document is held that is longer
than `longest` bytes.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

from ...arguments import mismatch
from ..corpus import SEPARATOR
from .compression import Broken, opened
from .step import Counts, Document

Read = tuple[str, Document | None, Counts]
LONGEST = 1 << 23  # bytes of a document
SKIPPED = 1 << 16  # bytes at a time of a line that is too long
_SEPARATOR = SEPARATOR.encode()
_BETWEEN = re.compile(r"[\s,]*")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class Part(NamedTuple):
    """Bytes start to end of a file; whole documents."""

    path: str
    kind: str  # a key of READERS
    start: int
    end: int | None  # None: the end of the file
    line: int  # the number of its first line, from 1


def read(part: Part, *, field: str = "text", longest: int = LONGEST) -> Iterator[Read]:
    """The documents of a part.  field: of JSON, the name of the text, nested as in "a.b"."""
    try:
        with opened(part.path) as stream:
            if part.start:
                stream.seek(part.start)
            yield from READERS[part.kind](stream, part, field, longest)
    except Broken as error:
        yield part.path, None, {str(error): 1}


# ---- lines


def bounded_lines(
    stream: BinaryIO, longest: int, size: int | None = None
) -> Iterator[tuple[bytes | None, int]]:
    """(line, its bytes) of the next `size` bytes; None for a line of more than `longest` bytes."""
    left = size
    while left is None or left > 0:
        line = stream.readline(longest + 1)
        if not line:
            return
        length = len(line)
        whole: bytes | None = line
        if length > longest and not line.endswith(b"\n"):
            whole = None
            while line and not line.endswith(b"\n"):
                line = stream.readline(SKIPPED)
                length += len(line)
        if left is not None:
            left -= length
        yield whole, length


def _lines(stream: BinaryIO, part: Part, longest: int) -> Iterator[tuple[int, bytes | None]]:
    size = None if part.end is None else part.end - part.start
    for number, (line, _) in enumerate(bounded_lines(stream, longest, size), part.line):
        yield number, line


def decoded(data: bytes) -> tuple[str, Counts]:
    """As UTF-8; what is not is replaced by U+FFFD and counted."""
    try:
        return data.decode("utf-8-sig"), {}
    except UnicodeDecodeError:
        text = data.decode("utf-8-sig", "replace")
        return text, {"characters replaced, which were not UTF-8": text.count("\ufffd")}


def too_long(what: str, longest: int) -> Counts:
    return {f"{what} of more than {longest:,} bytes": 1}


# ---- readers


def text_documents(stream: BinaryIO, part: Part, field: str, longest: int) -> Iterator[Read]:
    """Documents between lines of SEPARATOR; one that is too long is cut into pieces."""
    held: list[bytes] = []
    size, first, cut = 0, part.line, False

    def document() -> Iterator[Read]:
        text, counts = decoded(b"".join(held))
        text = text.replace("\r\n", "\n").strip("\n")
        if cut:
            counts = {**counts, f"pieces of documents of more than {longest:,} bytes": 1}
        if text.strip():
            name = f"{part.path}:{first}"
            yield name, Document(text, name), counts

    for number, line in _lines(stream, part, longest):
        if line is None:
            yield f"{part.path}:{number}", None, too_long("a line", longest)
            continue
        if line.strip() == _SEPARATOR:
            yield from document()
            held, size, first, cut = [], 0, number + 1, False
            continue
        if size + len(line) > longest:
            cut = True
            yield from document()
            held, size, first = [], 0, number
        held.append(line)
        size += len(line)
    yield from document()


def json_line_documents(stream: BinaryIO, part: Part, field: str, longest: int) -> Iterator[Read]:
    for number, line in _lines(stream, part, longest):
        name = f"{part.path}:{number}"
        if line is None:
            yield name, None, too_long("a line", longest)
        elif line.strip():
            text, counts = decoded(line)
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                yield name, None, {"a line that is not JSON": 1}
            else:
                yield of_json(value, name, field, counts)


def json_array_documents(stream: Any, part: Part, field: str, longest: int) -> Iterator[Read]:
    """The elements of [ ... ], one at a time."""
    decode = json.JSONDecoder().raw_decode
    characters = codecs.getincrementaldecoder("utf-8-sig")("replace")
    buffer, place, number, ended = "", 0, -1, False  # of the element; -1: before the bracket
    while True:
        place = _BETWEEN.match(buffer, place).end()  # type: ignore[union-attr]
        if number < 0 and place < len(buffer):
            if buffer[place] != "[":
                yield part.path, None, {"a .json file that is not an array": 1}
                return
            place, number = place + 1, 0
            continue
        if buffer.startswith("]", place):
            return
        name = f"{part.path}[{number}]"
        try:
            value, end = decode(buffer, place)
        except (ValueError, RecursionError):
            value, end = None, place
        if end > place and (end < len(buffer) or isinstance(value, dict)):  # a number might go on
            yield of_json(value, name, field, {})
            place, number = end, number + 1
            continue
        if len(buffer) - place > longest:
            yield name, None, too_long("what follows is no element, or one", longest)
            return
        if ended:
            yield name, None, {"the array ends early, or is no JSON from here": 1}
            return
        # as much again as there is, so that a long element is not tried often
        more = stream.read1(max(BLOCK, len(buffer) - place))
        ended = not more
        buffer, place = buffer[place:] + characters.decode(more, ended), 0


def html_document(stream: BinaryIO, part: Part, field: str, longest: int) -> Iterator[Read]:
    """The main text of a page."""
    tree, extract, guess = html_library()
    data = stream.read(longest + 1)
    if len(data) > longest:
        yield part.path, None, too_long("a page", longest)
        return
    encoding = guess(data, from_html_meta=True) or "utf-8"
    text = extract(tree.parse_from_bytes(data, encoding, "replace"), main_content=True)
    if text.strip():
        yield part.path, Document(text, part.path), {}
    else:
        yield part.path, None, {"a page without text": 1}


def html_library() -> tuple[Any, Callable, Callable]:
    """The parser, extraction and guess of the encoding of resiliparse."""
    try:
        from resiliparse.extract.html2text import extract_plain_text
        from resiliparse.parse.encoding import detect_encoding
        from resiliparse.parse.html import HTMLTree
    except ImportError:
        wanted = "the extra `data` for HTML (pip install 'tinyplm[data]')"
        raise mismatch("resiliparse", wanted, "no such library") from None
    return HTMLTree, extract_plain_text, detect_encoding


BLOCK = 1 << 16
READERS: dict[str, Callable[[BinaryIO, Part, str, int], Iterator[Read]]] = {
    "text": text_documents,
    "jsonl": json_line_documents,
    "json": json_array_documents,
    "html": html_document,
}


# ---- fields


def of_json(value: Any, name: str, field: str, counts: Counts) -> Read:
    """The document of an object; the text is taken out of it, and the rest are its fields."""
    *path, last = field.split(".")
    inside = value
    for key in path:
        inside = inside.get(key) if isinstance(inside, dict) else None
    if not isinstance(inside, dict) or last not in inside:
        return name, None, {f"no field {field}": 1}
    text = inside.pop(last)
    if not isinstance(text, str):
        return name, None, {f"a field {field} that is no text": 1}
    if not text.strip():
        return name, None, {"no text": 1}
    if _SURROGATE.search(text):
        text, found = _SURROGATE.subn("\ufffd", text)
        counts = {**counts, "characters replaced, which were half a pair": found}
    return name, Document(text, name, value), counts
