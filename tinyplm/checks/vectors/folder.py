"""Writing a folder of vectors: files of arrays, and the manifest that explains each of them."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ...arguments import check_path, listed, wrong
from ...files import LARGEST_JSON, exists, naming, printable, read_json, replaced, sync_folder
from ...hub.tensors import write_safetensors
from . import measure, tokenization
from .draws import DTYPES, EPSILON
from .subject import equation, implementation, sources
from .subjects import FAMILIES, names, subject

MANIFEST = "manifest.json"
WHAT = "golden vectors of tinyplm"
FORMAT = 1
ABOUT = {
    "tensors": "CASE/DTYPE/ARRAY in the entry's file; DTYPE is any for what all dtypes share",
    "roles": {
        "argument": "an input that has a gradient",
        "keyword": "an input that has none",
        "output": "computed in float64 from the inputs as they are stored",
        "cotangent": "the gradient of some scalar with respect to the output, for the backward",
        "gradient": "of the same scalar with respect to an argument, computed in float64",
        "intermediate": "a named value inside a model, computed in float64",
        "intermediate_gradient": "of the same scalar with respect to an intermediate",
    },
    "values": {
        "array": "{'array': NAME}: the array CASE/DTYPE/NAME",
        "component": "{'component': NAME, 'keywords': {...}}: a function, and its keywords",
        "tuple": "{'tuple': [...]}: a sequence",
    },
    "tolerance": "the largest absolute difference from the stored array that rounding explains: "
    "max(factor * error, roundings / 2 * (e * largest + f * largest_cotangent) + terms / 2 * f * "
    "largest_of_kind); error: of tinyplm's own run in float32 (for float64 and float32) or float16 "
    "(for float16 and bfloat16) from float64, times the ratio of the epsilons; e: the dtype's "
    "epsilon; f: the same, at most that of float32; largest: the largest absolute value of the "
    "array; largest_cotangent: 0 for what is no gradient; largest_of_kind: of all arrays of "
    "the case with its role. 0: exactly equal",
    "tokenizers": "a JSON file each: training, the tokenizer.json that came of it, and for each "
    "text ids, tokens, offsets in characters, ids with special tokens, and the ids decoded: exact",
    "repeatable": "Inputs and cotangents are bit-identical on every machine. Outputs and gradients "
    "come from NumPy and its BLAS: they have the same bits in two runs on one machine, and may "
    "differ in the last bits on another processor, by less than the tolerance for float64.",
}


def write(
    out: str | os.PathLike,
    *,
    components: Iterable[str] | None = None,
    families: Iterable[str] | None = None,
    dtypes: Iterable[str] | None = None,
) -> Path:
    """Write golden vectors into the folder `out`, which is returned.

    components, families: names; with neither everything is written, with one of them only that.
    dtypes: some of DTYPES, by default all.
    ValueError, before any work, for an unknown name, and for an existing folder unless it is empty
    or one of ours, which is replaced.  Everything is written under a temporary name and renamed at
    the end.
    """
    chosen = _chosen(components, families)
    kinds = DTYPES if dtypes is None else known("dtypes", dtypes, DTYPES)
    check_path("out", out)
    folder = Path(os.path.realpath(out))
    check_replaceable(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    with naming(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
    try:
        entries = {name: _entry(name, temporary, tuple(kinds)) for name in chosen}
        text = indented(manifest(entries, kinds)) + "\n"
        with replaced(temporary / MANIFEST) as file:
            file.write_text(text, encoding="utf-8")
        with naming(folder):
            _move(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Path(out)


def manifest(entries: dict[str, Any], dtypes: Iterable[str]) -> dict[str, Any]:
    """The contents of manifest.json."""
    import tinyplm

    return {
        "what": WHAT,
        "format": FORMAT,
        "tinyplm": tinyplm.__version__,
        "numpy": np.__version__,
        "dtypes": {d: {"epsilon": EPSILON[d]} for d in dtypes},
        "factor": measure.FACTOR,
        "terms": measure.TERMS,
        "about": ABOUT,
        "entries": {name: entries[name] for name in sorted(entries)},
    }


def indented(value: Any, depth: int = 6, margin: str = "") -> str:
    """JSON with one line for each part down to a depth: an array's record is one line."""
    if not depth or not isinstance(value, (dict, list)) or not value:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    inner = margin + " "
    if isinstance(value, list):
        parts = [indented(part, depth - 1, inner) for part in value]
    else:
        parts = [
            f"{json.dumps(key)}: {indented(part, depth - 1, inner)}" for key, part in value.items()
        ]
    opening, closing = "[]" if isinstance(value, list) else "{}"
    return f"{opening}\n{inner}" + f",\n{inner}".join(parts) + f"\n{margin}{closing}"


def _chosen(components: Any, families: Any) -> list[str]:
    """The names of the entries, in order."""
    both = components is None and families is None
    some = names() if both else known("components", components or [], names())
    models = sorted(FAMILIES) if both else known("families", families or [], sorted(FAMILIES))
    return sorted({*some, *models})


def known(what: str, given: Any, choices: Iterable[str]) -> list[str]:
    """The given names in the order of the choices; ValueError for another, with the nearest."""
    choices = list(choices)
    given = listed(what, given, "a list of names")
    for name in given:
        if name not in choices:
            near = difflib.get_close_matches(str(name), choices, n=3, cutoff=0.5)
            some = near or choices[:20]
            more = ", ..." if not near and len(choices) > 20 else ""
            expected = f"{'names such as' if near or more else 'some of'} {', '.join(some)}{more}"
            raise wrong(what, expected, name)
    return [name for name in choices if name in given]


def check_replaceable(folder: Path) -> None:
    """ValueError unless there is no such folder, or an empty one, or one of vectors alone."""
    if not exists(folder):
        return
    if not folder.is_dir():
        raise wrong("out", "a folder", str(folder))
    held = [path for path in sorted(folder.rglob("*")) if not path.is_dir()]
    if not held:
        return
    expected = "an empty folder, or one of golden vectors, which is replaced"
    if folder / MANIFEST not in held:
        raise ValueError(f"{printable(folder)}: expected {expected}, got one with {held[0].name}")
    known = {folder / MANIFEST}
    for entry in read_manifest(folder)["entries"].values():
        known.add(folder / entry["file"])
    if others := [path for path in held if path not in known]:
        raise ValueError(f"{printable(folder)}: expected {expected}, got one with {others[0].name}")


def read_manifest(folder: str | os.PathLike) -> dict[str, Any]:
    """The manifest of a folder of vectors; ValueError for any other folder, or another format."""
    path = Path(folder) / MANIFEST
    found = read_json(path, largest=LARGEST_JSON)
    if not isinstance(found, dict) or found.get("what") != WHAT:
        raise ValueError(f"{printable(path)}: expected a manifest of {WHAT}, got another file")
    if found.get("format") != FORMAT:
        raise wrong(f"{printable(path)}: format", str(FORMAT), found.get("format"))
    entries = found.get("entries")
    if not isinstance(entries, dict) or not all(
        isinstance(e, dict) and isinstance(e.get("file"), str) for e in entries.values()
    ):
        raise wrong(f"{printable(path)}: entries", "objects with a file", entries)
    return found


def _entry(name: str, folder: Path, dtypes: tuple[str, ...]) -> dict[str, Any]:
    """Write the file of an entry; its part of the manifest."""
    if name in tokenization.NAMES:
        return _tokenizer(name, folder)
    s = subject(name)
    place = "families" if s.kind == "family" else "components"
    file = f"{place}/{s.name}.safetensors"
    (folder / place).mkdir(exist_ok=True)
    cases: list[dict[str, Any]] = []
    tensors: dict[str, np.ndarray] = {}
    stored: dict[str, str] = {}
    for made in s.cases():
        try:
            record, arrays, kinds = measure.measured(s, made, dtypes)
        except ValueError as error:
            raise ValueError(f"{s.name}: {made.name}: {error}") from error
        cases.append(record)
        tensors |= arrays
        stored |= kinds
    write_safetensors(folder / file, tensors, stored)
    return {
        "kind": s.kind,
        "text": s.text,
        "implementation": implementation(s.f),
        "equation": equation(s.f),
        "sources": sources(s.f),
        "file": file,
        "sha256": sha256(folder / file),
        "bytes": (folder / file).stat().st_size,
        "dtypes": [d for d in dtypes if d in s.dtypes],
        "roundings": s.roundings,
        "cases": cases,
    }


def _tokenizer(name: str, folder: Path) -> dict[str, Any]:
    file = f"tokenizers/{name}.json"
    (folder / "tokenizers").mkdir(exist_ok=True)
    count = tokenization.write_file(name, folder / file)
    return {
        "kind": "tokenizer",
        "text": f"{tokenization.NAMES[name]}, trained, and the ids of {count} texts",
        "file": file,
        "sha256": sha256(folder / file),
        "bytes": (folder / file).stat().st_size,
    }


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _move(temporary: Path, folder: Path) -> None:
    """Rename the finished folder to its place, where an earlier one may be."""
    earlier = temporary.with_name(f"{temporary.name}.old")
    if held := folder.exists():
        os.replace(folder, earlier)
    try:
        os.replace(temporary, folder)
    except OSError:
        if held:
            os.replace(earlier, folder)
        raise
    sync_folder(folder.parent)
    shutil.rmtree(earlier, ignore_errors=True)
