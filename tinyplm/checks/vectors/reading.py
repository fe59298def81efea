"""Reading a folder of vectors: against the installed version, and for anybody's arrays."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...arguments import check_choice, shown, wrong
from ...files import printable, read_json
from ...hub.tensors import read_safetensors
from . import measure, tokenization
from .encoding import decoded
from .folder import known, read_manifest, sha256
from .subjects import subject

INPUTS = ("argument", "keyword", "cotangent")


class Difference(NamedTuple):
    """An array that is further from the stored one than its tolerance."""

    entry: str
    case: str
    dtype: str
    array: str
    error: float  # the largest absolute difference; NaN if a number is not finite
    tolerance: float

    def __str__(self) -> str:
        where = f"{self.entry}: {self.case}/{self.dtype}/{self.array}"
        return f"{where}: expected a difference of at most {self.tolerance}, got {self.error:.3g}"


@dataclasses.dataclass
class Vectors:
    """A case in one dtype.  inputs, results: {array: values}, bfloat16 as float32."""

    record: dict[str, Any]  # of the case, as in the manifest
    dtype: str
    inputs: dict[str, np.ndarray]  # arguments, keywords and cotangents
    results: dict[str, np.ndarray]  # outputs, gradients, intermediates

    @property
    def arguments(self) -> dict[str, Any]:
        """The positional arguments by name, in order."""
        return {n: decoded(spec, self.inputs) for n, spec in self.record["arguments"].items()}

    @property
    def keywords(self) -> dict[str, Any]:
        return decoded(self.record["keywords"], self.inputs)

    @property
    def cotangents(self) -> dict[str, np.ndarray]:
        """By the names of their outputs."""
        return {
            name.replace("cotangent", "output", 1): a
            for name, a in self.inputs.items()
            if name.partition(".")[0] == "cotangent"
        }


def read(folder: str | os.PathLike, name: str, *, dtype: str = "float64") -> dict[str, Vectors]:
    """{case: its arrays in a dtype} of an entry.

    ValueError for a name or dtype that the folder does not have, and for a file that is not the one
    of the manifest.
    """
    manifest = read_manifest(folder)
    entry = _entry(manifest, name)
    if entry["kind"] == "tokenizer":
        raise wrong(f"{name}: kind", "an entry with arrays", "a tokenizer")
    check_choice(f"{name}: dtype", dtype, entry["dtypes"])
    tensors = _tensors(Path(folder), entry)
    return {case["name"]: _vectors(case, dtype, tensors) for case in entry["cases"]}


def _entry(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    known("name", [name], manifest["entries"])
    return manifest["entries"][name]


def _checked(folder: Path, entry: dict[str, Any]) -> Path:
    """The file of an entry, if it is the one that the manifest describes."""
    path = folder / entry["file"]
    if not path.is_file():
        raise ValueError(f"{printable(path)}: expected a file, got none")
    if (found := sha256(path)) != entry["sha256"]:
        raise wrong(f"{printable(path)}: SHA-256", entry["sha256"], found)
    return path


def _tensors(folder: Path, entry: dict[str, Any]) -> dict[str, np.ndarray]:
    """All tensors of an entry's file; each must be in the manifest, and each there in the file."""
    path = _checked(folder, entry)
    tensors, stored = read_safetensors(path)
    explained = {
        f"{case['name']}/{dtype}/{name}": (kind, record["shape"])
        for case in entry["cases"]
        for name, record in case["arrays"].items()
        for dtype, kind in record["tensors"].items()
    }
    for name in sorted(tensors.keys() ^ explained.keys()):
        got = "it in one of them" if name in tensors else "it in the manifest alone"
        raise ValueError(f"{printable(path)}: {name}: expected it in file and manifest, got {got}")
    for name, a in tensors.items():
        if explained[name] != (found := (stored[name], list(a.shape))):
            raise wrong(f"{printable(path)}: {name}", str(explained[name]), str(found))
    return tensors


def _vectors(case: dict[str, Any], dtype: str, tensors: dict[str, np.ndarray]) -> Vectors:
    vectors = Vectors(case, dtype, {}, {})
    for name, record in case["arrays"].items():
        key = f"{case['name']}/{'any' if 'any' in record['tensors'] else dtype}/{name}"
        arrays = vectors.inputs if record["role"] in INPUTS else vectors.results
        if key in tensors:
            arrays[name] = tensors[key]
    return vectors


def check_against(
    folder: str | os.PathLike,
    name: str,
    arrays: Mapping[str, Any],
    *,
    dtype: str = "float32",
) -> list[Difference]:
    """Where somebody's arrays, computed in a dtype, differ by more than their tolerances.

    arrays: {"CASE/ARRAY": values}, such as {"drawn-1/output": y, "drawn-1/gradient.x": dx}; as many
    as there are.   ValueError for an unknown name, and for another shape.
    """
    cases = read(folder, name, dtype=dtype)
    expected = {f"{c}/{n}": (v, n) for c, v in cases.items() for n in v.results}
    known(f"{name}: arrays", list(arrays), expected)
    found = []
    for key, a in arrays.items():
        vectors, array = expected[key]
        found += _difference(name, vectors, array, a, dtype)
    return found


def _difference(entry: str, v: Vectors, array: str, a: Any, tolerance: str) -> list[Difference]:
    """[], or the difference of an array; tolerance: the dtype of the one that counts."""
    a, b = np.asarray(a), v.results[array]
    where = f"{entry}: {v.record['name']}/{array}"
    if a.shape != b.shape:
        raise wrong(where, f"shape {b.shape}", f"shape {a.shape}")
    if a.dtype.kind not in "fiub":
        raise wrong(where, "an array of numbers", a)
    allowed = v.record["arrays"][array]["tolerance"][tolerance]
    both = a.astype(np.float64), b.astype(np.float64)
    error = float(np.max(np.abs(both[0] - both[1]), initial=0.0))
    if error <= allowed:  # false for NaN
        return []
    return [Difference(entry, v.record["name"], v.dtype, array, error, allowed)]


def verify(
    folder: str | os.PathLike, *, names: Iterable[str] | None = None
) -> list[Difference | str]:
    """Recompute everything, or the entries of some names, with the installed version.

    [] if all of it holds; otherwise each array that differs by more than float64's tolerance (that
    of its own dtype where the folder has no float64), and each text that a tokenizer encodes
    otherwise.   ValueError for missing and changed files.
    """
    manifest = read_manifest(folder)
    chosen = list(manifest["entries"]) if names is None else names
    found: list[Difference | str] = []
    for name in known("names", chosen, manifest["entries"]):
        entry = manifest["entries"][name]
        if entry["kind"] == "tokenizer":
            path = _checked(Path(folder), entry)
            problems = tokenization.differences(read_json(path), printable(path))
            found += [f"{name}: {problem}" for problem in problems]
            continue
        tensors = _tensors(Path(folder), entry)
        for case in entry["cases"]:
            for dtype in entry["dtypes"]:
                found += _verified(name, _vectors(case, dtype, tensors), entry["dtypes"])
    return found


def _verified(name: str, v: Vectors, dtypes: list[str]) -> list[Difference]:
    with np.errstate(all="ignore"):
        result = measure.called(subject(name), v.record, v.inputs, "float64")
        now = result.outputs | measure.pulled(result, v.cotangents)
    if missing := sorted(now.keys() ^ v.results.keys()):
        where = f"{name}: {v.record['name']}"
        raise ValueError(f"{where}: expected the stored arrays, got others: {shown(missing)}")
    tolerance = "float64" if "float64" in dtypes else v.dtype
    return [d for array, a in now.items() for d in _difference(name, v, array, a, tolerance)]
