"""Weights on disk: safetensors in and out, and the renaming between parameter trees and hub names.

A family's NAMES is a list of `Rename`s.  It works on any tree of the family's structure, so gradients can be had under hub
names as well.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .core import Tree, flatten, unflatten
from .files import replaced


class Operation(NamedTuple):
    """An invertible map between the arrays of some tree paths and one hub tensor."""

    to_hub: Any  # list of arrays -> array
    to_tree: Any  # (array, list of shapes) -> list of arrays
    hub_shape: Any  # list of shapes -> shape


def concatenate(axis: int) -> Operation:
    """Several arrays of the tree stand one after the other in one hub tensor, along `axis`."""

    def to_tree(tensor: np.ndarray, shapes: list[tuple]) -> list[np.ndarray]:
        return np.split(tensor, np.cumsum([shape[axis] for shape in shapes])[:-1], axis=axis)

    def hub_shape(shapes: list[tuple]) -> tuple:
        width = sum(shape[axis] for shape in shapes)
        return (*shapes[0][:axis], width, *shapes[0][axis + 1 :])

    return Operation(lambda arrays: np.concatenate(arrays, axis=axis), to_tree, hub_shape)


_OPERATIONS = {
    "copy": Operation(lambda a: a[0], lambda tensor, _: [tensor], lambda shapes: shapes[0]),
    "transpose": Operation(lambda a: a[0].T, lambda tensor, _: [tensor.T], lambda shapes: shapes[0][::-1]),
}


class Rename:
    """hub tensor `hub` = operation(tree leaves at `paths`); "{i}" in both stands for the number of a layer."""

    def __init__(self, hub: str, *paths: str, operation: str | Operation = "copy") -> None:
        self.hub, self.paths = hub, paths
        self.operation = _OPERATIONS[operation] if isinstance(operation, str) else operation


def weight_and_bias(hub: str, weight: str, bias: str) -> list[Rename]:
    """The two tensors of one hub module, copied."""
    return [Rename(f"{hub}.weight", weight), Rename(f"{hub}.bias", bias)]


def expand(names: list[Rename], leaves: Mapping[str, Any]) -> Iterator[tuple[str, list[str], Operation]]:
    """(hub name, tree paths, operation) for every Rename and layer that the leaves have."""
    for rename in names:
        for i in _layers(rename.paths[0], leaves):
            yield rename.hub.replace("{i}", i), [path.replace("{i}", i) for path in rename.paths], rename.operation


def _layers(path: str, leaves: Mapping[str, Any]) -> list[str]:
    if "{i}" not in path:
        return [""] if path in leaves else []
    numbers = []
    while path.replace("{i}", str(len(numbers))) in leaves:
        numbers.append(str(len(numbers)))
    return numbers


def to_hub(tree: Tree, names: list[Rename]) -> dict[str, np.ndarray]:
    """A tree (parameters or gradients, on the host) under hub names.  Arrays may be views."""
    leaves = flatten(tree)
    return {hub: op.to_hub([leaves[path] for path in paths]) for hub, paths, op in expand(names, leaves)}


def to_tree(tensors: Mapping[str, np.ndarray], names: list[Rename], shapes: Tree, *, where: str, dtype: Any = None) -> Tree:
    """The tree of `shapes` from hub tensors: contiguous arrays that own their memory.

    dtype None: the widest among the tensors, for all.
    ValueError naming every tensor that is missing, extra, of another shape or not floating-point.  `where` says in the message
    what was read.
    """
    wanted = flatten(shapes)
    expected = {hub: (paths, op, op.hub_shape([wanted[p] for p in paths])) for hub, paths, op in expand(names, wanted)}
    problems = []
    if missing := [hub for hub in expected if hub not in tensors]:
        problems.append(f"missing tensors: {_some(missing)}")
    if extra := [name for name in tensors if name not in expected]:
        problems.append(f"extra tensors: {_some(extra)}")
    for hub, (_, _, shape) in expected.items():
        if hub in tensors and tuple(tensors[hub].shape) != tuple(shape):
            problems.append(f"{hub} has shape {tuple(tensors[hub].shape)}, expected {tuple(shape)}")
        elif hub in tensors and tensors[hub].dtype.kind != "f":
            problems.append(f"{hub} has dtype {tensors[hub].dtype}, expected a floating-point dtype")
    if problems:
        raise ValueError(f"{where}: {_some(problems, '; ')}")
    dtype = np.result_type(*(tensors[hub].dtype for hub in expected)) if dtype is None else dtype
    leaves = {}
    for hub, (paths, op, _) in expected.items():
        parts = op.to_tree(tensors[hub], [wanted[path] for path in paths])
        for path, part in zip(paths, parts):
            leaves[path] = np.array(part, dtype=dtype, order="C")  # a copy: never an alias of the file or of a sibling
    return unflatten(leaves, shapes)


def _some(items: list[str], separator: str = ", ", limit: int = 8) -> str:
    more = f"{separator}and {len(items) - limit} more" if len(items) > limit else ""
    return separator.join(items[:limit]) + more


# ------------------------------------------------------------------------------------------------- safetensors files

_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "I16": np.int16,
           "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64}  # fmt: skip
_NAMES_OF_DTYPES = {np.dtype(dtype).name: name for name, dtype in _DTYPES.items()}
_LIBRARY_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
                  "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "U16": "uint16", "U32": "uint32",
                  "U64": "uint64"}  # fmt: skip


def read_safetensors(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """({name: array}, {name: dtype in the file}); arrays are memory-mapped where their dtype is NumPy's.

    bfloat16, which NumPy lacks, becomes float32: its 16 bits are the upper half of a float32.
    The library checks the header and the size first: a truncated or damaged file is a ValueError that names it.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        with safe_open(path, framework="np"):
            pass
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a complete safetensors file ({error})") from None
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    raw = np.memmap(path, dtype=np.uint8, mode="r")[8 + size :]
    arrays, dtypes = {}, {}
    for name, entry in header.items():
        dtypes[name] = entry["dtype"]
        start, end = entry["data_offsets"]
        if entry["dtype"] == "BF16":
            upper = raw[start:end].view(np.uint16).astype(np.uint32)
            array = (upper << 16).view(np.float32)
        elif entry["dtype"] in _DTYPES:
            array = raw[start:end].view(_DTYPES[entry["dtype"]])
        else:
            raise ValueError(f"{path}: tensor {name} has dtype {entry['dtype']}, expected BF16 or one of {sorted(_DTYPES)}")
        arrays[name] = array.reshape(entry["shape"])
    return arrays, dtypes


def round_to_bfloat16(x: np.ndarray) -> np.ndarray:
    """The bfloat16 bits (uint16) of float32 x, rounded to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    rounded = (bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16
    return np.where(np.isnan(x), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def write_safetensors(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], dtypes: Mapping[str, str] | None = None) -> None:
    """Write {name: array} under a temporary name, flushed to disk, then renamed.

    dtypes: {name: "F32", "BF16", ...} for what the file is to hold; by default each array's own dtype.
    ValueError, before anything is written, for a finite value too large for that dtype.
    """
    from safetensors import TensorSpec, serialize_file

    entries, alive = {}, []  # the writer is given addresses, so the arrays must stay alive until it is done
    for name, array in arrays.items():
        dtype = (dtypes or {}).get(name) or _NAMES_OF_DTYPES[array.dtype.name]
        # the writer takes memory as it lies, so every array is made contiguous first
        with np.errstate(over="ignore"):  # found just below
            data = round_to_bfloat16(array) if dtype == "BF16" else np.ascontiguousarray(array, dtype=_DTYPES[dtype])
        infinite = (data & 0x7FFF) == 0x7F80 if dtype == "BF16" else np.isinf(data)
        if (overflow := infinite & np.isfinite(array)).any():
            raise ValueError(f"{path}: tensor {name} holds {array[overflow][0]:.4g}, which is too large for {dtype}")
        alive.append(data)
        entries[name] = TensorSpec(dtype=_LIBRARY_NAMES[dtype], shape=list(array.shape), data_ptr=data.ctypes.data,
                                   data_len=data.nbytes)  # fmt: skip
    with replaced(path) as temporary:
        serialize_file(entries, temporary, {"format": "pt"})


def main_dtype(arrays: Mapping[str, np.ndarray], dtypes: Mapping[str, str] | None) -> str:
    """The name of the dtype in which most of the numbers are written, as config.json calls it ("float32", "bfloat16")."""
    sizes: dict[str, int] = {}
    for name, array in arrays.items():
        dtype = (dtypes or {}).get(name) or _NAMES_OF_DTYPES[array.dtype.name]
        sizes[dtype] = sizes.get(dtype, 0) + array.size
    return _LIBRARY_NAMES[max(sizes, key=sizes.get)]


def write_json(path: str | os.PathLike, contents: Any) -> None:
    """JSON written under a temporary name, flushed to disk, then renamed."""
    with replaced(path) as temporary:
        temporary.write_text(json.dumps(contents, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike) -> Any:
    """ValueError naming the file when it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None


def count_parameters(shapes: Tree) -> int:
    """How many numbers a tree of shapes holds; shared parameters stand in it once."""
    return sum(math.prod(shape) for shape in flatten(shapes).values())


def strip_ignored(names: list[str], patterns: tuple[str, ...]) -> list[str]:
    """The tensor names that match none of a family's IGNORED patterns."""
    return [name for name in names if not any(re.search(pattern, name) for pattern in patterns)]
