"""Hostile and damaged folders of training runs and data, in the form of tests/support/hostile_folders.py."""

from __future__ import annotations

import itertools
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.families.test_gpt2 import tiny
from tests.support import hostile_folders as hostile
from tests.support.survivor import QUICK, TOKENS
from tinyplm.data.packing import open_tokens
from tinyplm.files import write_json
from tinyplm.hub import tensors as tensor_files
from tinyplm.training import folders
from tinyplm.training.checkpoint import SaveError
from tinyplm.training.loop import train
from tinyplm.training.settings import Settings

SETTINGS = Settings(**{**QUICK, "steps": 5, "keep": 9, "evaluate_every": 9, "full_every": 9})
LAST = "step-4"  # of the run to be damaged: an increment on step-1


def make(out: Path, resume: bool = False) -> None:
    """A run of five steps, or the rest of one."""
    model = tiny(dtype="float32")
    train(model, TOKENS, TOKENS[:40], SETTINGS, out=out, resume=resume, progress=False)


def try_run(out: Path) -> None:
    """Resume it."""
    with hostile.within_reason(out, SaveError):
        make(out, resume=True)


def sign(folder: Path) -> None:
    """New checksums, as an attacker would write after changing the files."""
    files = [file for file in folder.iterdir() if file.is_file() and file.name != folders.CHECKSUMS]
    sums = {file.name: {"bytes": file.stat().st_size, "sha256": folders.sha256(file)} for file in files}
    write_json(folder / folders.CHECKSUMS, sums)


def signed(damages: Iterator[hostile.Damage], step: str) -> Iterator[hostile.Damage]:
    """Damage within one checkpoint, with correct checksums afterwards."""
    for name, damage in damages:

        def change(out: Path, damage=damage) -> None:
            damage(out / step)
            sign(out / step)

        yield f"{step}/{name}", change


def pointer_damages() -> Iterator[hostile.Damage]:
    """`latest` and `best` files that do not name a checkpoint."""
    texts = (b"", b"\xff\xfe", b"../../x", b"..", b".", b"/", b"/etc", b"step-99", b"step-" + b"9" * 5000, b"x\n\x1b[2J",
             b"m" * 10**6, b"a\0b", b"step-1/../step-1", "step-\u0661".encode(), b"log.jsonl")  # fmt: skip
    for name in ("latest", "best"):
        for text in texts:
            yield f"{name}: {text!r:.30}", lambda out, n=name, t=text: (out / n).write_bytes(t)
        yield from hostile.kind_damages(name)


def log_damages() -> Iterator[hostile.Damage]:
    """Invalid lines in the log."""
    lines = (b"", b"{", b"[]", b"null", b'{"step": "x"}', b'{"step": null, "loss": 1}', b'{"step": 1e400}', b"[" * 10**5,
             b'{"step": 1, "loss": "x"}', b"\xff", b'{"step": 1, "loss": NaN, "gradient_norm": 1}', b'{"step": 1, "step": 2}',
             b'{"step": ' + b"9" * 5000 + b"}", b'{"step": 1, "gradient_norm": [1], "loss": 2}', b'{"step": -1}', b"x" * 10**6,
             b'{"step": 3}' * 2)  # fmt: skip
    for line in lines:
        for place in (0, 2):

            def change(out: Path, line=line, place=place) -> None:
                kept = (out / "log.jsonl").read_bytes().split(b"\n")
                (out / "log.jsonl").write_bytes(b"\n".join([*kept[:place], line, *kept[place:]]))

            yield f"log, line {place}: {line!r:.40}", change
    yield from hostile.kind_damages("log.jsonl")


def increment_damages() -> Iterator[hostile.Damage]:
    """Blocks that are not blocks of the base."""
    file = f"{LAST}/increment.safetensors"

    def blocks(change) -> hostile.Damage:
        def damage(out: Path) -> None:
            tensors = {name: np.array(a) for name, a in tensor_files.read_safetensors(out / file)[0].items()}
            change(tensors, min(name for name in tensors if name.endswith(":blocks")))
            tensor_files.write_safetensors(out / file, tensors)
            sign(out / LAST)

        return damage

    for kind, change in {
        "beyond": lambda t, n: t.update({n: t[n] + 10**9}), "negative": lambda t, n: t.update({n: t[n] - 5}),
        "floats": lambda t, n: t.update({n: t[n] + 0.5}), "twice": lambda t, n: t.update({n: np.repeat(t[n], 2)}),
        "no data": lambda t, n: t.pop(n.replace(":blocks", ":data")), "no blocks": lambda t, n: t.pop(n),
        "another name": lambda t, n: t.update({"values.x:blocks": t[n], "values.x:data": t[n]}),
        "empty": lambda t, n: t.update({n: t[n][:0]}),
        "flat": lambda t, n: t.update({n: t[n][None]}), "doubles": lambda t, n: t.update({n[:-6] + "data": np.ones(3)}),
    }.items():  # fmt: skip
        yield f"increment: {kind}", blocks(change)


def run_damages(whole: Path) -> Iterator[hostile.Damage]:
    """All damages to a run."""
    yield from pointer_damages()
    yield from log_damages()
    yield from increment_damages()
    for part in ("state", "updates", "increment"):
        yield from signed(hostile.json_damages(whole / LAST, folders.TRAINER, hostile.SOME, within=(part,)), LAST)
    for part in ("data", "environment"):
        yield from signed(hostile.json_damages(whole / LAST, folders.TRAINER, hostile.SOME[:2], within=(part,)), LAST)
    for part in (("settings",), ("settings", "steps"), ("settings", "schedule"), ()):
        yield from signed(itertools.islice(hostile.json_damages(whole / LAST, folders.TRAINER, within=part), 18), LAST)
    yield from signed(hostile.text_damages(folders.TRAINER), LAST)
    for name in (folders.TRAINER, folders.CHECKSUMS, "increment.safetensors"):
        for kind, damage in hostile.kind_damages(name):
            yield kind, lambda out, d=damage: d(out / LAST)
    for kind, damage in hostile.json_damages(whole / LAST, folders.CHECKSUMS, hostile.SOME):
        yield kind, lambda out, d=damage: d(out / LAST)
    for name in ("../../secret", "/etc/passwd", "x\n\x1b[2J", "\0", "n" * 10**6, "..", ""):

        def listed(out: Path, name=name) -> None:
            file = out / LAST / folders.CHECKSUMS
            file.write_text(json.dumps(json.loads(file.read_text()) | {name: {"bytes": 2, "sha256": "x"}}))

        yield f"checksums of {name!r:.20}", listed
    yield from signed(itertools.islice(hostile.header_damages(folders.OPTIMIZER), 0, None, 4), "step-1")
    for name in ("step-" + "9" * 200, "step-\u0661", "step-", "step-01", ".step-9.tmp", "step-1.5"):
        yield f"a folder {name[:20]}", lambda out, n=name: (out / n).mkdir()
    yield "a file step-9", lambda out: (out / "step-9").write_text("x")


# --------------------------------------------------------------------------------------------------------- token files


class Marked:
    """Unpickling it creates a file."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def token_damages(whole: Path) -> Iterator[hostile.Damage]:
    """train.npy: truncated, with other shapes and types, with objects, with invalid headers."""
    data = (whole / "train.npy").read_bytes()
    yield from hostile.byte_damages("train.npy", len(data), 20)
    yield from hostile.kind_damages("train.npy")

    def header(text: bytes, body: bytes = bytes(400)) -> bytes:
        return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body

    def described(shape: str, kind: str = "'<u2'", order: str = "False") -> bytes:
        return header(f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}}}\n".encode())

    for text in (
        b"",
        b"x",
        b"{",
        b"[" * 5000,
        b"__import__('os').mkdir('unpickled')",
        b"{'shape': (1,)}",
        b"\xff" * 100,
        b"9" * 5000,
    ):
        yield f"header {text!r:.20}", lambda f, t=text: (f / "train.npy").write_bytes(header(t))
    for shape in (
        "()",
        "(10**9,)",
        "(1000000000000,)",
        "(-5,)",
        "(1.5,)",
        "('x',)",
        "None",
        "(True,)",
        "(2, 3)",
        "(9" + "9" * 400 + ",)",
        "5",
    ):
        yield f"shape {shape:.20}", lambda f, s=shape: (f / "train.npy").write_bytes(described(s))
    for kind in ("'|O'", "'<f8'", "'>u2'", "'x'", "[('a', '<u2')]", "None", "'<u2,<u2'", "'V99999999999'", "'<U5'"):
        yield f"type {kind}", lambda f, k=kind: (f / "train.npy").write_bytes(described("(20,)", k))
    yield "a pickle", lambda f: (f / "train.npy").write_bytes(pickle.dumps(Marked()))
    yield "pickled objects", lambda f: np.save(f / "train.npy", np.array([Marked()], dtype=object), allow_pickle=True)
    yield "an archive", lambda f: np.savez(f / "x.npz", a=np.ones(3)) or os.replace(f / "x.npz", f / "train.npy")


def try_tokens(folder: Path) -> None:
    with hostile.within_reason(folder):
        assert open_tokens(folder / "train.npy").dtype.kind == "u"
    assert not Path("unpickled").exists()
