"""Tensors on disk: safetensors files, single and sharded, in and out, with the bfloat16 that NumPy lacks."""

from __future__ import annotations

import errno
import math
import mmap
import os
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..arguments import is_whole, shown, wrong
from ..files import (
    LARGEST_SETTINGS,
    check_links,
    flush,
    named,
    open_regular,
    parse_json,
    read_json,
    replaced,
    write_json,
)

_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "I16": np.int16,
           "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64}  # fmt: skip
_NAMES_OF_DTYPES = {np.dtype(dtype).name: name for name, dtype in _DTYPES.items()}
_LIBRARY_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
                  "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "U16": "uint16", "U32": "uint32",
                  "U64": "uint64"}  # fmt: skip


SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
BLOCK = 1 << 18  # how many numbers of a file are worked on at a time
MOST_AXES = 32  # of a tensor, as many as NumPy had before version 2


class StoredTensor(NamedTuple):
    """One tensor of a file, which is mapped as a whole; nothing is read until it is asked for."""

    file: mmap.mmap
    offset: int
    shape: tuple[int, ...]
    file_dtype: str  # as the file calls it: "F32", "BF16", ...

    @property
    def dtype(self) -> np.dtype:
        """Of the values: float32 for bfloat16."""
        return np.dtype(np.float32 if self.file_dtype == "BF16" else _DTYPES[self.file_dtype])

    def stored(self) -> np.ndarray:
        """The numbers as they stand in the file, a read-only view of it; the bits of bfloat16 as uint16."""
        dtype = np.uint16 if self.file_dtype == "BF16" else self.dtype
        return np.frombuffer(self.file, dtype, math.prod(self.shape), self.offset).reshape(
            self.shape
        )

    def fill(self, out: np.ndarray, part: np.ndarray, *, finite: bool = False) -> None:
        """Write the values of `part`, a view of stored(), into `out`, of the same shape and any floating-point dtype.

        What is mapped of a file counts as memory in use, so it goes block by block along the file.
        ValueError for a finite value that is too large for out's dtype; finite: also for one that is infinite or not a number.
        """
        axis = int(np.argmax(part.strides)) if part.ndim else 0
        out, part = (np.moveaxis(np.atleast_1d(a), axis, 0) for a in (out, part))
        rows = max(1, BLOCK // max(1, math.prod(part.shape[1:])))
        for start in range(0, len(part), rows):
            block = part[start : start + rows]
            block = widened(block) if self.file_dtype == "BF16" else block
            if finite and not (held := np.isfinite(block)).all():
                raise ValueError(f"the value {block[~held].flat[0]} is not finite")
            with np.errstate(over="ignore"):  # found just below
                out[start : start + rows] = block
            if out.dtype.itemsize < self.dtype.itemsize:
                overflow = np.isinf(out[start : start + rows]) & np.isfinite(block)
                if overflow.any():
                    raise ValueError(
                        f"the value {block[overflow].flat[0]:.4g} is too large for {out.dtype}"
                    )
            self.release()

    def release(self) -> None:
        """Give back the memory of what was read of the file; it is read again where it is looked at again."""
        if hasattr(self.file, "madvise"):  # not on Windows
            self.file.madvise(mmap.MADV_DONTNEED)

    def equals(self, other: StoredTensor) -> bool:
        """Whether both have the same shape and values, bit by bit where their dtypes are the same."""
        if self.shape != other.shape:
            return False
        if self.file_dtype != other.file_dtype:
            return np.array_equal(np.asarray(self), np.asarray(other))
        a, b = (t.stored().reshape(-1).view(np.uint8) for t in (self, other))
        for start in range(0, len(a), BLOCK):
            if not np.array_equal(a[start : start + BLOCK], b[start : start + BLOCK]):
                return False
            self.release()
            other.release()
        return True

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = np.empty(self.shape, dtype=self.dtype)
        self.fill(values, self.stored())
        return values if dtype is None else values.astype(dtype)


def widened(bits: np.ndarray) -> np.ndarray:
    """The float32 values of bfloat16 bits (uint16): they are its upper half."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def open_safetensors(path: str | os.PathLike) -> dict[str, StoredTensor]:
    """{name: tensor} of one file.

    ValueError that names the file for anything but a regular file whose header describes all of its bytes, each once, which the
    library checks: what is truncated, longer, overlapping; and for repeated names and unknown dtypes.
    """
    from safetensors import SafetensorError, safe_open

    where = named(path)
    with open_regular(path) as file:
        try:
            with safe_open(path, framework="np"):
                pass
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{where}: not a complete safetensors file ({named(error)})") from None
        size = int.from_bytes(file.read(8), "little")
        header = parse_json(file.read(size).decode("utf-8"), f"{where}: header")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        dtype, shape, (start, _) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if dtype not in (known := ("BF16", *sorted(_DTYPES))):
            raise ValueError(
                f"{where}: tensor {named(name, 80)}: {wrong('dtype', 'one of ' + ', '.join(known), dtype)}"
            )
        if len(shape) > MOST_AXES:
            raise ValueError(
                f"{where}: tensor {named(name, 80)}: {wrong('shape', f'at most {MOST_AXES} axes', len(shape))}"
            )
        tensors[name] = StoredTensor(mapped, 8 + size + start, tuple(shape), dtype)
    return tensors


def read_safetensors(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """({name: array}, {name: dtype in the file}) of one file; arrays are memory-mapped where their dtype is NumPy's."""
    tensors = open_safetensors(path)
    arrays = {
        name: np.asarray(t) if t.file_dtype == "BF16" else t.stored() for name, t in tensors.items()
    }
    return arrays, {name: t.file_dtype for name, t in tensors.items()}


def open_folder(folder: Path) -> tuple[dict[str, StoredTensor], str]:
    """({name: tensor}, what was read) of a folder with model.safetensors, or with shards and model.safetensors.index.json.

    ValueError for an index that is not one, that names a file outside the folder or one that is missing, or a tensor that
    its shard lacks; and, since nothing is ever unpickled, for a folder with .bin files only.
    """
    check_links(folder, (SINGLE, INDEX))
    single, where = named(folder / SINGLE), named(folder / INDEX)
    if (folder / SINGLE).exists():
        return open_safetensors(folder / SINGLE), single
    if not (folder / INDEX).exists():
        for pattern, hint in (
            (
                "model-*-of-*.safetensors",
                f"there are shards but no {INDEX}: the copy is not complete",
            ),
            (
                "*.bin",
                "there are only .bin files, which are not read because they can run code: "
                "save the model as safetensors first",
            ),
        ):
            if next(folder.glob(pattern), None):
                raise ValueError(f"{single}: no such file; {hint}")
        raise ValueError(f"{single}: no such file")
    index = read_json(folder / INDEX, largest=LARGEST_SETTINGS)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if (
        not isinstance(places, dict)
        or not places
        or not all(isinstance(name, str) for name in places.values())
    ):
        raise ValueError(
            f"{where}: expected an object whose weight_map gives a file for each tensor"
        )
    shards: dict[str, dict[str, StoredTensor]] = {}
    for shard in dict.fromkeys(places.values()):
        if re.search(r"[/\\:\0]", shard) or shard in ("", ".", ".."):
            raise ValueError(
                f"{where}: {shown(shard)} points outside the folder, expected the name of a file in it"
            )
        check_links(folder, (shard,))
        try:
            shards[shard] = open_safetensors(folder / shard)
        except ValueError:
            if not os.path.lexists(folder / shard):
                raise ValueError(f"{where}: the shard {named(shard, 80)} is missing") from None
            raise
    for name, shard in places.items():
        if name not in shards[shard]:
            raise ValueError(
                f"{where}: tensor {named(name, 80)} is not in its shard {named(shard, 80)}"
            )
    return {name: shards[shard][name] for name, shard in places.items()}, where


# --------------------------------------------------------------------------------------------------------- writing


def round_to_bfloat16(x: np.ndarray) -> np.ndarray:
    """The bfloat16 bits (uint16) of float32 x, rounded to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    rounded = (bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16
    return np.where(np.isnan(x), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def write_safetensors(
    path: str | os.PathLike,
    arrays: Mapping[str, np.ndarray],
    dtypes: Mapping[str, str] | None = None,
) -> None:
    """Write {name: array} under a temporary name, flushed to disk, then renamed.

    dtypes: {name: "F32", "BF16", ...} for what the file is to hold; by default each array's own dtype.
    ValueError, before anything is written, for a finite value too large for that dtype.
    """
    with replaced(path) as temporary:
        _write(temporary, arrays, dtypes or {}, str(path))


def _write(
    temporary: Path, arrays: Mapping[str, np.ndarray], dtypes: Mapping[str, str], path: str
) -> None:
    from safetensors import SafetensorError, TensorSpec, serialize_file

    entries, alive = (
        {},
        [],
    )  # the writer is given addresses, so the arrays must stay alive until it is done
    for name, array in arrays.items():
        dtype = _file_dtype(name, array.dtype, dtypes)
        # the writer takes memory as it lies, so every array is made contiguous first
        with np.errstate(over="ignore"):  # found just below
            data = (
                round_to_bfloat16(array)
                if dtype == "BF16"
                else np.ascontiguousarray(array, dtype=_DTYPES[dtype])
            )
        infinite = (data & 0x7FFF) == 0x7F80 if dtype == "BF16" else np.isinf(data)
        if (overflow := infinite & np.isfinite(array)).any():
            raise ValueError(
                f"{path}: tensor {name} holds {array[overflow].flat[0]:.4g}, which is too large for {dtype}"
            )
        alive.append(data)
        entries[name] = TensorSpec(
            dtype=_LIBRARY_NAMES[dtype],
            shape=list(array.shape),
            data_ptr=data.ctypes.data,
            data_len=data.nbytes,
        )
    try:
        serialize_file(entries, temporary, {"format": "pt"})
    except SafetensorError as error:  # a full disk is an OSError like anywhere else
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error), path) from None


def write_folder(
    folder: Path,
    sizes: Mapping[str, int],
    arrays: Callable[[set[str]], Mapping[str, np.ndarray]],
    dtypes: Mapping[str, str],
    limit: int,
) -> None:
    """model.safetensors, or, where the tensors are larger than `limit` bytes together, shards of at most that and their index.

    sizes: {name: bytes in the file}; arrays(names) makes some of them, so that only one shard's are held at a time.
    All files are written under temporary names and renamed at the end; then what an earlier save left is removed.  In the moment
    of renaming shards there is no index, so that a break there can not leave one that mixes old shards with new.
    """
    shards: list[list[str]] = [[]]
    room = limit
    for name, size in sizes.items():
        if shards[-1] and size > room:
            shards.append([])
            room = limit
        shards[-1].append(name)
        room -= size
    if len(shards) == 1:
        write_safetensors(folder / SINGLE, arrays(set(shards[0])), dtypes)
        (folder / INDEX).unlink(missing_ok=True)
        _remove_shards(folder, keep=set())
        return
    names = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    with ExitStack() as files:
        for name, shard in zip(names, shards):
            temporary = files.enter_context(replaced(folder / name))
            _write(temporary, arrays(set(shard)), dtypes, str(folder / name))
            flush(temporary)  # what can fail fails now, while the old files are all there
        (folder / INDEX).unlink(missing_ok=True)
    places = {tensor: name for name, shard in zip(names, shards) for tensor in shard}
    write_json(
        folder / INDEX, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": places}
    )
    (folder / SINGLE).unlink(missing_ok=True)  # it would be read before the index
    _remove_shards(folder, keep=set(names))


def _remove_shards(folder: Path, keep: set[str]) -> None:
    for file in folder.glob("model-*-of-*.safetensors"):
        if file.name not in keep and re.fullmatch(r"model-\d{5}-of-\d{5}\.safetensors", file.name):
            file.unlink()


def _file_dtype(name: str, dtype: np.dtype, dtypes: Mapping[str, str]) -> str:
    return dtypes.get(name) or _NAMES_OF_DTYPES[dtype.name]


def file_sizes(
    shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype, dtypes: Mapping[str, str]
) -> dict[str, int]:
    """{name: bytes in the file} of tensors that have `dtype` in memory."""

    def width(name: str) -> int:
        kind = _file_dtype(name, dtype, dtypes)
        return 2 if kind == "BF16" else np.dtype(_DTYPES[kind]).itemsize

    return {name: math.prod(shape) * width(name) for name, shape in shapes.items()}


def parse_size(size: int | str) -> int:
    """Bytes: a number, or one with a unit of 1000s as transformers writes it ("500KB", "200MB", "5GB")."""
    known = isinstance(size, str) or (is_whole(size) and size < 2**64)
    match = (
        re.fullmatch(
            r"(\d{1,15}(?:\.\d{1,15})?)\s*([KMGT]?)B?", str(size), re.IGNORECASE | re.ASCII
        )
        if known
        else None
    )
    count = int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " ")) if match else 0
    if count < 1:
        raise wrong("max_shard_size", "a size of at least one byte, as 5000000 or '5GB'", size)
    return count


def main_dtype(
    shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype, dtypes: Mapping[str, str]
) -> str:
    """The name of the dtype in which most of the numbers are written, as config.json calls it ("float32", "bfloat16")."""
    totals: dict[str, int] = {}
    for name, shape in shapes.items():
        kind = _file_dtype(name, dtype, dtypes)
        totals[kind] = totals.get(kind, 0) + math.prod(shape)
    return _LIBRARY_NAMES[max(totals, key=totals.get)]
