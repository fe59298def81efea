"""Tokenizer files as damage, mistake or malice could leave them, generated deterministically by rules.

The generators yield (name, files of a folder).  In each kind of tokenizer.json, each value in turn is
replaced by values of the wrong type and by extreme ones; regular expressions and chains that explode are
put wherever they are allowed; vocab.json, merges.txt, vocab.txt and .model files are truncated, get flipped
bits, and get wrong types.

`check(files, folder)` tries everything on such a folder: either it is refused in one line, or all its
results are correct.
"""

from __future__ import annotations

import base64
import copy
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

from reference.tokenizers import charsmap
from tests.support.sentencepiece_files import message, piece, unigram, varint
from tests.support.tokenizer_files import KINDS, byte_level, llama, unigram_json
from tinyplm.tokenizers import Tokenizer

Files = dict[str, bytes]

TEXT = "some text, 12 34 naïve 最新 " + "a" * 40
SECONDS = 2.0
LONGEST_MESSAGE = 600

EXTREMES = [
    *(None, True, False, -1, 0, 10**9, 1 << 70, 10**39, 1.5, float("nan"), float("inf"), 1e308),
    *("", "x", "\ud800", "line\nbreak \x1b[31m", "Ġ", "y" * 30_000),
    *(
        [],
        {},
        [1],
        ["a", 1],
        [[]],
        {"a": 1},
        {"type": "ByteLevel"},
        {"type": [1]},
        {"String": ""},
        {"Regex": "("},
    ),
]

BOMBS = [
    *(
        r"(?:a|aa)+$",
        r"(a+)+$",
        r"(a*)*b",
        r"(\w+\s?)+$",
        r".*.*.*.*.*x",
        r"(?:a{0,50}){0,50}b",
        "a?" * 40 + "a" * 40,
        r"(x+x+)+y",
    ),
    *(
        r"(?:(?:(?:(?:(?:){999}){999}){999}){999}){999}",
        r"(?:a|a|a)*b",
        r"(?=(?:a+)+$)x",
        r"(?:[a-z]+)*\d",
        r"(?:.?){60}c",
    ),
    *(
        "(" * 5000 + ")" * 5000,
        "(?:a" * 49 + ")" * 49,
        "[" * 5000,
        "a{1,99999999999999999999}",
        "\\",
        "(",
        ")",
        "*",
        "a**",
        "(?P<x>a)",
    ),
    *(
        "(?<=a+)b",
        "a|" * 9000,
        "x" * 30_000,
        "\\p{Foo}",
        "[z-a]",
        "[]",
        "(?i)" * 3000,
        "a{2}" * 4000,
        "\ud800",
        "(?!)",
        "^*",
        "$+",
        "|",
    ),
]


def places(value: object, path: tuple = ()) -> Iterator[tuple]:
    """The paths to all values; only the first three in long lists and vocabularies."""
    yield path
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, part in items[:3] if len(items) > 12 else items:
        yield from places(part, (*path, key))


def put(content: dict, path: tuple, value: object) -> dict:
    content = copy.deepcopy(content)
    *before, last = path
    part = content
    for key in before:
        part = part[key]
    part[last] = value
    return content


def written(content: object) -> Files:
    return {"tokenizer.json": json.dumps(content).encode()}


def damaged_values() -> Iterator[tuple[str, Files]]:
    for kind, make in KINDS.items():
        content = make()
        for number, path in enumerate(list(places(content))[1:]):
            for k in range(5):  # the next five for each place
                value = EXTREMES[(number * 5 + k) % len(EXTREMES)]
                yield (
                    f"{kind}: {'/'.join(map(str, path))} = {value!r:.30}",
                    written(put(content, path, value)),
                )


def explosions() -> Iterator[tuple[str, Files]]:
    base, unigram = byte_level(), unigram_json()
    for number, bomb in enumerate(BOMBS):
        pattern = {"Regex": bomb}
        replace = {"type": "Replace", "pattern": pattern, "content": "b"}
        yield (
            f"split {number}",
            written(put(base, ("pre_tokenizer", "pretokenizers", 0, "pattern"), pattern)),
        )
        yield f"normalizer {number}", written(base | {"normalizer": replace})
        yield (
            f"decoder {number}",
            written(base | {"decoder": {"type": "Sequence", "decoders": [{"type": "Fuse"}, replace]}}),
        )
    grow = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    everywhere = {"type": "Replace", "pattern": {"Regex": ""}, "content": "z" * 4000}
    split = {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated"}
    steps = {
        "forty times a -> aa": [grow] * 40,
        "nested": [{"type": "Sequence", "normalizers": [grow, grow]}] * 20,
        "everywhere": [everywhere] * 3,
        "empty": [{"type": "Replace", "pattern": {"String": ""}, "content": "zz"}] * 40,
        "bytes": [{"type": "ByteLevel"}] * 40,
        "prepend": [{"type": "Prepend", "prepend": "w" * 4000}] * 400,
        "prepend much": [{"type": "Prepend", "prepend": "w" * 10**6}],
    }
    for name, chain in steps.items():
        yield (
            f"normalizers {name}",
            written(base | {"normalizer": {"type": "Sequence", "normalizers": chain}}),
        )
        if chain[0]["type"] == "Replace":
            yield (
                f"decoders {name}",
                written(unigram | {"decoder": {"type": "Sequence", "decoders": chain}}),
            )
    levels = [{"type": "ByteLevel", "add_prefix_space": True, "use_regex": False}, split] * 30
    yield (
        "pre-tokenizers",
        written(base | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": levels}}),
    )
    yield (
        "suffix",
        written(
            base
            | {
                "decoder": {
                    "type": "Sequence",
                    "decoders": [{"type": "BPEDecoder", "suffix": ""}] * 40,
                }
            }
        ),
    )
    long = charsmap.build({"a": "b" * 10**5})
    yield (
        "charsmap",
        written(
            base
            | {
                "normalizer": {
                    "type": "Precompiled",
                    "precompiled_charsmap": base64.b64encode(long).decode(),
                }
            }
        ),
    )
    piece = {"Sequence": {"id": "A", "type_id": 0}}
    yield (
        "template",
        written(put(base, ("post_processor", "processors", 1, "single"), [piece] * 10**4)),
    )
    size = len(base["model"]["vocab"])
    for name, contents in {
        "prefixes": ["q" * k for k in range(2, 1500)],
        "many": [f"<{k}>" for k in range(5000)],
    }.items():
        added = [{"id": size + k, "content": content, "special": k % 2 == 0} for k, content in enumerate(contents)]
        yield f"added {name}", written(base | {"added_tokens": added})


def damaged_text() -> Iterator[tuple[str, Files]]:
    """Broken JSON, or broken line-based files."""
    text = json.dumps(llama()).encode()
    broken = (
        b"",
        b"{",
        b"\xff",
        b"[" * 10**5,
        b'{"a":' * 10**5,
        b"1" * 10**4,
        b"null",
        b"[]",
        b'"x"',
        b"\0" * 99,
        b'{"model": {}}',
        b'{"model": {}, "model": {}}',
        text[: len(text) // 2],
        text + b"}",
        text[::-1],
        text.replace(b'"merges"', b'"merges": [], "merges"'),
        text.replace(b'"a"', b'"b"', 1),
        text.replace(b"<unk>", b"\xed\xa0\x80"),
        text.replace(b"false", b"NaN", 1),
    )
    for number, data in enumerate(broken):
        yield f"json {number}", {"tokenizer.json": data}
    vocab, merges = {"<|endoftext|>": 0, "a": 1, "t": 2, "at": 3}, b"#version: 0.2\na t\n"
    good = {"vocab.json": json.dumps(vocab).encode(), "merges.txt": merges}
    for number, value in enumerate(EXTREMES):
        yield f"vocab.json {number}", good | {"vocab.json": json.dumps(value).encode()}
        yield f"id {number}", good | {"vocab.json": json.dumps(vocab | {"at": value}).encode()}
        for key in (
            "eos_token",
            "added_tokens_decoder",
            "add_prefix_space",
            "tokenizer_class",
            "extra_special_tokens",
        ):
            yield (
                f"{key} {number}",
                good | {"tokenizer_config.json": json.dumps({key: value}).encode()},
            )
    lines = (
        b"",
        b"a",
        b"a t t",
        b"\xff\xfe",
        b"a t\n" * 3,
        b"q z",
        b"\0",
        b" ",
        b"a  t",
        b"\n\n\n",
        merges * 2000,
        b"x" * 10**6,
    )
    for number, data in enumerate(lines):
        yield f"merges {number}", good | {"merges.txt": data}
        yield f"vocab.txt {number}", {"vocab.txt": b"[UNK]\n[CLS]\n[SEP]\n[PAD]\n[MASK]\n" + data}


def damaged_models() -> Iterator[tuple[str, Files]]:
    """SentencePiece models: truncated, with flipped bits, with fields of wrong types and extreme values."""
    chars = charsmap.build({"ï": "i"})
    whole = unigram((2, [(3, 1), (35, 0), (40, 0), (41, 1)]), (3, [(2, chars), (3, 1), (4, 1)]))
    numbers = random.Random(0)
    for _ in range(40):
        yield "cut off", {"tokenizer.model": whole[: numbers.randrange(len(whole))]}
    for _ in range(120):
        data = bytearray(whole)
        for _ in range(numbers.choice((1, 1, 3))):
            data[numbers.randrange(len(data))] ^= 1 << numbers.randrange(8)
        yield "flipped", {"tokenizer.model": bytes(data)}
    values = (
        0,
        1 << 63,
        (1 << 64) - 1,
        2.5,
        float("nan"),
        float("inf"),
        "x",
        b"\xff\xff",
        b"",
        [(1, 1)],
    )
    for number, value in enumerate(values):
        for parent, field in (
            (2, 3),
            (2, 24),
            (2, 35),
            (2, 40),
            (2, 41),
            (3, 2),
            (3, 3),
            (3, 4),
            (3, 5),
            (5, 2),
        ):
            yield (
                f"field {parent}.{field} {number}",
                {"tokenizer.model": unigram((parent, [(field, value)]))},
            )
        for field in (1, 2, 3):
            yield (
                f"piece {field} {number}",
                {"tokenizer.model": unigram((1, [(1, "zz"), (field, value)]))},
            )
        yield f"message {number}", {"tokenizer.model": unigram((1, value))}
    yield "group", {"tokenizer.model": unigram() + varint(1 << 3 | 3)}
    yield "endless number", {"tokenizer.model": unigram() + b"\xff" * 99}
    yield "twice", {"tokenizer.model": message(piece("<unk>", kind=2), piece("a"), piece("a"))}
    yield "huge length", {"tokenizer.model": unigram() + varint(1 << 3 | 2) + varint(1 << 62)}


def check(files: Files, folder: Path) -> str:
    """ "refused" or "right"; AssertionError for an internal error, a message that is not one line or
    does not name the file, more than two seconds of CPU time, and inconsistent results."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    begin = time.process_time()
    try:
        outcome = _through(folder)
    finally:
        for file in folder.iterdir():
            file.unlink()
    seconds = time.process_time() - begin
    assert seconds < SECONDS, f"{seconds:.1f} seconds"
    return outcome


def _through(folder: Path) -> str:
    try:
        tokenizer = Tokenizer.load(folder)
    except ValueError as error:
        _one_line(error)
        assert str(folder) in str(error), error
        return "refused"
    try:
        ids = tokenizer.encode(TEXT, add_special_tokens=True)
        encoding = tokenizer.encoding(TEXT, truncation=None)
        texts = tokenizer.decode(ids), tokenizer.decode(ids, skip_special=True)
        batch = tokenizer.batch([TEXT, "a"]) if tokenizer.padding else {}
    except ValueError as error:  # about this text: it has an unknown character, or takes too long
        _one_line(error)
        return "refused"
    assert all(0 <= id < tokenizer.vocab_size for id in ids)
    assert all(0 <= id < tokenizer.vocab_size for id in batch.get("input_ids", [[]])[0])
    if tokenizer.truncation is None:
        assert encoding.ids == ids
    tokenizer.save(folder)
    again = Tokenizer.load(folder)
    assert again.encode(TEXT, add_special_tokens=True) == ids
    assert (again.decode(ids), again.decode(ids, skip_special=True)) == texts
    return "right"


def _one_line(error: Exception) -> None:
    text = str(error)
    assert len(text) < LONGEST_MESSAGE and text.isprintable(), text[:2000]
