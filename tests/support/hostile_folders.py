"""Hostile and damaged folders, made by systematic damage: model folders here, training runs in hostile_runs.py.

A damage is a name and a function that changes an intact folder.  Whatever it does, loading returns a correct result, or raises
a one-line ValueError or MemoryError that names the folder, quickly and with little memory.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import tinyplm
from tinyplm.hub import tensors as tensor_files
from tinyplm.sentence_encoder import SentenceEncoder

Damage = tuple[str, Callable[[Path], Any]]

SECONDS = 2  # of CPU time in this process, which does not depend on the machine's load
LONGEST = 600  # characters in a message

# Replacements for each value of a JSON file in turn; ONCE only for the first few, since the outcome is the same for all.
REPLACEMENTS = {
    "null": "null", "true": "true", "zero": "0", "minus one": "-1", "half": "0.5", "10^6": "1000000", "10^12": "1000000000000",
    "10^38": "1" + "0" * 38, "1e400": "1e400", "NaN": "NaN", "text": '"x"', "escapes": r'"\u001b[31m\n\ud800"',
    "long": '"' + "m" * 10_000 + '"', "list": "[1, [2]]", "object": '{"a": {"b": 1}}',
}  # fmt: skip
ONCE = {"10^5000": "1" + "0" * 5000, "deep": "[" * 5000 + "]" * 5000, "megabyte": '"' + "m" * 1_000_000 + '"'}
SOME = ("null", "10^12", "1e400", "text", "list", "object")


@contextmanager
def within_reason(folder: Path, *others: type[Exception]) -> Iterator[None]:
    """AssertionError for an error that is not a ValueError, a MemoryError or one of `others`, for a message that is not one line
    or does not name the folder, and for taking too long; a call that blocks is interrupted."""

    def stop(number: int, frame: object) -> None:
        raise AssertionError("it blocks")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 120)  # a loaded machine may stall for a while
    start = time.process_time()
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    except (ValueError, MemoryError, *others) as error:
        message = str(error)
        assert message.isprintable() and 0 < len(message) < LONGEST, f"{len(message)} characters: {message[:1000]!r}"
        assert str(folder) in message, f"which file? {message}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    seconds = time.process_time() - start
    assert seconds < SECONDS, f"{seconds:.1f} s"


def try_model(folder: Path) -> None:
    """Load it and use it: a model that loads must compute, and hold the numbers in its file."""
    with within_reason(folder):
        model = tinyplm.load(folder)
        assert all(np.isfinite(a).all() for a in tinyplm.core.flatten(model.params).values())
        model([[1, 2, 3]], grad=False)


def try_sentences(folder: Path) -> None:
    with within_reason(folder):
        assert np.isfinite(SentenceEncoder.load(folder).encode(["cat"])).all()


# ------------------------------------------------------------------------------------------------------------ JSON


def json_places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of every value inside a JSON value, and of the value itself."""
    yield path
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from json_places(item, (*path, key))


def replace_json(file: Path, path: tuple, text: str) -> None:
    """Replace a value by JSON text."""
    content, mark = json.loads(file.read_text()), "@" * 20
    if path:
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = mark
    else:
        content = mark
    file.write_text(json.dumps(content).replace(f'"{mark}"', text))


def json_damages(folder: Path, name: str, replacements: Iterable[str] = REPLACEMENTS,
                 within: tuple = ()) -> Iterator[Damage]:  # fmt: skip
    """Each value in a JSON file, or in the part of it at `within`, replaced by each of the replacements."""
    places = [path for path in json_places(json.loads((folder / name).read_text())) if path[: len(within)] == within]
    for number, path in enumerate(places):
        for kind in (*replacements, *(ONCE if number < 3 else ())):
            text = (REPLACEMENTS | ONCE)[kind]
            yield f"{name} {'.'.join(map(str, path))} = {kind}", lambda f, p=path, t=text: replace_json(f / name, p, t)


def text_damages(name: str) -> Iterator[Damage]:
    """A text file in other encodings, truncated, and with a duplicate key."""
    for kind, change in {
        "empty": lambda b: b"", "a byte": lambda b: b"\xff", "UTF-16": lambda b: b.decode().encode("utf-16"),
        "nulls": lambda b: bytes(len(b)),
        "BOM": lambda b: b"\xef\xbb\xbf" + b, "half": lambda b: b[: len(b) // 2], "doubled": lambda b: b + b,
        "a key twice": lambda b: b.rstrip()[:-1] + b', "a": 1, "a": 2}', "40,000 brackets": lambda b: b"[" * 40_000,
    }.items():  # fmt: skip
        yield f"{name}: {kind}", lambda f, c=change: (f / name).write_bytes(c((f / name).read_bytes()))


# ------------------------------------------------------------------------------------------------------------ any file


def kind_damages(name: str) -> Iterator[Damage]:
    """Something else in place of a file."""

    def instead(make: Callable[[Path], Any]) -> Callable[[Path], None]:
        def change(folder: Path) -> None:
            (folder / name).unlink(missing_ok=True)
            make(folder / name)

        return change

    def out_of(path: Path) -> None:
        secret = path.parent.with_name("secret")
        secret.write_text("{}")
        path.symlink_to(secret)

    for kind, make in {
        "missing": lambda p: None, "a pipe": os.mkfifo, "a folder": Path.mkdir, "/dev/zero": lambda p: p.symlink_to("/dev/zero"),
        "a loop": lambda p: p.symlink_to(p.name), "a dangling link": lambda p: p.symlink_to("gone"), "a link out": out_of,
    }.items():  # fmt: skip
        yield f"{name}: {kind}", instead(make)


def byte_damages(name: str, size: int, count: int) -> Iterator[Damage]:
    """A file truncated, or with one bit flipped, at places spread over the whole file, densely at its start."""

    def cut(place: int) -> Callable[[Path], int]:
        return lambda f: (f / name).write_bytes((f / name).read_bytes()[:place])

    def flip(place: int) -> Callable[[Path], int]:
        def change(folder: Path) -> None:
            data = bytearray((folder / name).read_bytes())
            data[place] ^= 1 << (place % 8)
            (folder / name).write_bytes(data)

        return change

    places = sorted({*range(min(size, 12)), *(size * n // count for n in range(count)), size - 1})
    for place in places:
        yield f"{name}: cut off at {place}", cut(place)
        yield f"{name}: a bit flipped at {place}", flip(place)


# ------------------------------------------------------------------------------------------------------- safetensors


def read_header(file: Path) -> tuple[dict[str, Any], bytes]:
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write_header(file: Path, header: Any, body: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + body)


def header_damages(name: str) -> Iterator[Damage]:
    """Headers of safetensors files that do not describe their bytes."""

    def changed(change: Callable[[dict, list[str]], Any]) -> Callable[[Path], None]:
        def damage(folder: Path) -> None:
            header, body = read_header(folder / name)
            header = change(header, [key for key in header if key != "__metadata__"]) or header
            write_header(folder / name, header, body)

        return damage

    def entry(**new: Any) -> Callable[[dict, list[str]], None]:
        return lambda header, names: header[names[1]].update(new)

    def swapped(header: dict, names: list[str]) -> None:
        a, b = header[names[0]], header[names[1]]
        a["data_offsets"], b["data_offsets"] = b["data_offsets"], a["data_offsets"]

    def renamed(new: str) -> Callable[[dict, list[str]], None]:
        return lambda header, names: header.update({new: header.pop(names[1])})

    for kind, value in {
        "beyond": [0, 10**12], "10^30": [0, 10**30], "negative": [-4, 0], "backwards": [8, 0], "three": [0, 1, 2], "text": "0",
        "fractions": [0.5, 8.5], "null": None, "true": [True, True], "the first's": [0, 24], "none": [0, 0],
    }.items():  # fmt: skip
        yield f"data_offsets: {kind}", changed(entry(data_offsets=value))
    for kind, value in {
        "huge": [2**62, 2**62], "10^30": [10**30], "negative": [-1], "a number": 6, "null": None, "text": ["6"], "nested": [[6]],
        "true": [True], "many": [1] * 1000, "none": [], "zero": [0], "zero and huge": [0, 2**62],
    }.items():  # fmt: skip
        yield f"shape: {kind}", changed(entry(shape=value))
    for value in ("F8_E4M3", "I64", "bool", "", "F32\n\x1b[31m", "d" * 10**6, None, 5, ["F32"]):
        yield f"dtype: {value!r:.20}", changed(entry(dtype=value))
    for value in ("x\ny\x1b[31m", "n" * 10**6, "", "\ud800", "../x", "h.-1.ln_1.weight", "h.999999999999.ln_1.weight"):
        yield f"name: {value!r:.30}", changed(renamed(value))
    for kind, change in {
        "an entry that is a list": lambda h, names: h.update({names[0]: []}), "swapped offsets": swapped,
        "no tensors": lambda h, names: {"__metadata__": {}}, "a list": lambda h, names: b"[]", "null": lambda h, names: b"null",
        "20,000 more names": lambda h, names: h.update({f"n{i}": h[names[0]] for i in range(20_000)}),
        "a name twice": lambda h, names: json.dumps(h).encode()[:-1] + b', "x": 1, "x": 1}',
        "deep": lambda h, names: b"[" * 10**5, "not UTF-8": lambda h, names: b'{"\xff": 1}',
        "a key more": lambda h, names: h[names[0]].update(x=1),
    }.items():  # fmt: skip
        yield f"header: {kind}", changed(change)
    for length in (0, 1, 2**31, 2**63, 2**64 - 1):
        yield (
            f"header of {length} bytes",
            lambda f, n=length: (f / name).write_bytes(struct.pack("<Q", n) + (f / name).read_bytes()[8:]),
        )
    yield "a byte more", lambda f: (f / name).write_bytes((f / name).read_bytes() + b"x")


def tensor_damages() -> Iterator[Damage]:
    """Intact files that hold other tensors."""

    def changed(change: Callable[[dict[str, np.ndarray]], Any]) -> Callable[[Path], None]:
        def damage(folder: Path) -> None:
            file = folder / tensor_files.SINGLE
            tensors = {name: np.array(a) for name, a in tensor_files.read_safetensors(file)[0].items()}
            change(tensors)
            tensor_files.write_safetensors(file, tensors)

        return damage

    def each(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict[str, np.ndarray]], None]:
        return lambda tensors: tensors.update({name: function(a) for name, a in tensors.items()})

    for kind, change in {
        "NaN": lambda t: t[min(t)].fill(np.nan), "infinity": lambda t: t[max(t)].fill(-np.inf), "none": dict.clear,
        "one": lambda t: [t.pop(name) for name in list(t)[1:]], "integers": each(lambda a: a.astype(np.int32)),
        "booleans": each(lambda a: a > 0), "all empty": each(lambda a: a[:0]), "flat": each(lambda a: a.reshape(-1)),
        "halves": each(lambda a: a.astype(np.float16)), "doubles": each(lambda a: a.astype(np.float64)),
        "one axis more": each(lambda a: a[None]), "numbers": each(lambda a: a.reshape(-1)[0].reshape(())),
    }.items():  # fmt: skip
        yield f"tensors: {kind}", changed(change)


def index_damages() -> Iterator[Damage]:
    """Indexes of shards that point elsewhere."""
    places = ("../secret", "/etc/passwd", "", ".", "..", "a/b", "a\\b", "C:x", "config.json", "gone",
              "x\n\x1b[2J", "n" * 10**6, "\0", "\ud800", tensor_files.INDEX, None, 5, [], {})  # fmt: skip

    def changed(change: Callable[[dict], Any]) -> Callable[[Path], None]:
        def damage(folder: Path) -> None:
            index = json.loads((folder / tensor_files.INDEX).read_text())
            change(index["weight_map"])
            (folder / tensor_files.INDEX).write_text(json.dumps(index))

        return damage

    for place in places:
        yield f"index: one in {place!r:.20}", changed(lambda m, p=place: m.update({min(m): p}))
        yield f"index: all in {place!r:.20}", changed(lambda m, p=place: m.update(dict.fromkeys(m, p)))
    yield "index: in another shard", changed(lambda m: m.update({min(m): m[max(m)]}))
    yield "index: 20,000 more", changed(lambda m: m.update({f"n{i}": m[max(m)] for i in range(20_000)}))
    yield "index: another tensor", changed(lambda m: m.update({"x\ny": m[max(m)]}))
