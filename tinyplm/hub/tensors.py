"""Safetensors files, single and sharded, read and written, with the bfloat16 that NumPy lacks."""

from __future__ import annotations

import errno
import math
import mmap
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..arguments import is_whole, mismatch, wrong
from ..files import (
    LARGEST_SETTINGS,
    check_links,
    flush,
    open_regular,
    parse_json,
    printable,
    read_json,
    replaced,
    write_json,
)

# fmt: off
_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32,
    "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_, "U16": np.uint16,
    "U32": np.uint32, "U64": np.uint64,
    "F8_E4M3": np.uint8,  # as its bits: fp8.py
}
# fmt: on
_NAMES_OF_DTYPES = {
    np.dtype(dtype).name: name for name, dtype in _DTYPES.items() if name[:2] != "F8"
}
_LIBRARY_NAMES = {**{name: dtype for dtype, name in _NAMES_OF_DTYPES.items()}, "BF16": "bfloat16"}

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth")  # ends of the names of files that are never read
BLOCK = 1 << 18  # numbers of a file processed at a time
MOST_AXES = 32  # per tensor, NumPy's limit before version 2


class StoredTensor(NamedTuple):
    """One tensor of a memory-mapped file; nothing is read until it is needed."""

    file: mmap.mmap
    offset: int
    shape: tuple[int, ...]
    file_dtype: str  # as the file calls it: "F32", "BF16", ...

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the values: float32 for bfloat16."""
        return np.dtype(np.float32 if self.file_dtype == "BF16" else _DTYPES[self.file_dtype])

    def stored(self) -> np.ndarray:
        """The numbers as stored, a read-only view of the file; bfloat16 as its bits in uint16."""
        dtype = np.uint16 if self.file_dtype == "BF16" else self.dtype
        values = np.frombuffer(self.file, dtype, math.prod(self.shape), self.offset)
        return values.reshape(self.shape)

    def fill(self, out: np.ndarray, part: np.ndarray, *, finite: bool = False) -> None:
        """Write `part`, a view of stored(), into `out` (same shape, any float dtype).

        Mapped pages count as memory in use, so it proceeds block by block along the file.
        ValueError for a finite value too large for out's dtype and, with `finite`, for NaN or inf.
        """
        bits = self.file_dtype == "BF16"
        fill(out, part, finite=finite, bits=bits, done=self.release)

    def pieces(self) -> Iterator[tuple[Any, np.ndarray]]:
        """(where, the numbers there) of all that is stored: one piece, a view of the file."""
        yield ..., self.stored()

    def release(self) -> None:
        """Release the memory of pages read so far; they are read again when needed."""
        if hasattr(self.file, "madvise"):  # not on Windows
            self.file.madvise(mmap.MADV_DONTNEED)

    def equals(self, other: StoredTensor) -> bool:
        """Whether both have the same shape and values, compared bit by bit if dtypes are equal."""
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
        """The values as an array of `dtype` or of this tensor's own."""
        values = np.empty(self.shape, dtype=self.dtype)
        self.fill(values, self.stored())
        return values if dtype is None else values.astype(dtype)


def fill(
    out: np.ndarray,
    part: np.ndarray,
    *,
    finite: bool = False,
    bits: bool = False,
    done: Callable[[], None] = lambda: None,
) -> None:
    """StoredTensor.fill: bits for bfloat16 as its bits; done: called after each block."""
    axis = int(np.argmax(part.strides)) if part.ndim else 0
    out, part = (np.moveaxis(np.atleast_1d(a), axis, 0) for a in (out, part))
    rows = max(1, BLOCK // max(1, math.prod(part.shape[1:])))
    for start in range(0, len(part), rows):
        block = part[start : start + rows]
        block = widened(block) if bits else block
        if finite and not (held := np.isfinite(block)).all():
            raise ValueError(f"expected finite numbers, got {block[~held].flat[0]}")
        with np.errstate(over="ignore"):  # detected below
            out[start : start + rows] = block
        if out.dtype.itemsize < block.dtype.itemsize:
            overflow = np.isinf(out[start : start + rows]) & np.isfinite(block)
            if overflow.any():
                big = block[overflow].flat[0]
                raise ValueError(f"expected values within {out.dtype}, got {big:.4g}")
        done()


def widened(bits: np.ndarray) -> np.ndarray:
    """The float32 values of bfloat16 bits (uint16), which are their upper half."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def open_safetensors(path: str | os.PathLike) -> dict[str, StoredTensor]:
    """{name: tensor} of one file.

    ValueError naming the file unless it is a regular file whose header describes each of its bytes
    once (the library checks for truncated, excess and overlapping data), with unique names and
    known dtypes.
    """
    from safetensors import SafetensorError, safe_open

    where = printable(path)
    with open_regular(path) as file:
        try:
            with safe_open(path, framework="np"):
                pass
        except (SafetensorError, OSError) as error:
            reason = printable(str(error))
            raise mismatch(where, "a complete safetensors file", f"an error ({reason})") from None
        size = int.from_bytes(file.read(8), "little")
        header = parse_json(file.read(size).decode("utf-8"), f"{where}: header")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        dtype, shape, (start, _) = entry["dtype"], entry["shape"], entry["data_offsets"]
        tensor = f"{where}: tensor {printable(name, 80)}"
        if dtype not in (known := ("BF16", *sorted(_DTYPES))):
            raise wrong(f"{tensor}: dtype", f"one of {', '.join(known)}", dtype)
        if len(shape) > MOST_AXES:
            raise wrong(f"{tensor}: shape", f"at most {MOST_AXES} axes", len(shape))
        tensors[name] = StoredTensor(mapped, 8 + size + start, tuple(shape), dtype)
    return tensors


def read_safetensors(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """({name: array}, {name: dtype in the file}); arrays of NumPy's dtypes are memory-mapped."""
    tensors = open_safetensors(path)
    arrays = {}
    for name, tensor in tensors.items():
        arrays[name] = np.asarray(tensor) if tensor.file_dtype == "BF16" else tensor.stored()
    return arrays, {name: t.file_dtype for name, t in tensors.items()}


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """The texts in the header of a safetensors file that open_safetensors accepts."""
    with open_regular(path) as file:
        size = int.from_bytes(file.read(8), "little")
        header = parse_json(file.read(size).decode("utf-8"), f"{printable(path)}: header")
    return header.get("__metadata__", {})


def open_folder(folder: Path) -> tuple[dict[str, StoredTensor], str]:
    """({name: tensor}, source) of a folder with model.safetensors, or shards and their index.

    ValueError for an invalid index, one that names a missing file or a file outside the folder, a
    tensor missing from its shard, and a folder of PICKLES only, since nothing is unpickled.
    """
    check_links(folder, (SINGLE, INDEX))
    single, where = printable(folder / SINGLE), printable(folder / INDEX)
    if (folder / SINGLE).exists():
        return open_safetensors(folder / SINGLE), single
    if not (folder / INDEX).exists():
        found = "none (no such file)"
        if next(folder.glob("model-*-of-*.safetensors"), None):
            found = f"shards without {INDEX} (an incomplete copy)"
        elif pickle := next((p for end in PICKLES for p in folder.glob(f"*{end}")), None):
            found = f"only {pickle.suffix} files, which can run code (save the model as safetensors"
            found += " first)"
        raise ValueError(f"{single}: expected a safetensors file, got {found}")
    index = read_json(folder / INDEX, largest=LARGEST_SETTINGS)
    places = index.get("weight_map") if isinstance(index, dict) else None
    right = isinstance(places, dict) and all(isinstance(name, str) for name in places.values())
    if not right or not places:
        raise wrong(f"{where}: weight_map", "an object with the file of each tensor", places)
    shards: dict[str, dict[str, StoredTensor]] = {}
    for shard in dict.fromkeys(places.values()):
        if re.search(r"[/\\:\0]", shard) or shard in ("", ".", ".."):
            raise wrong(f"{where}: weight_map", "names of files in the folder", shard)
        check_links(folder, (shard,))
        try:
            shards[shard] = open_safetensors(folder / shard)
        except ValueError:
            if not os.path.lexists(folder / shard):
                name = printable(shard, 80)
                raise ValueError(f"{where}: expected the shard {name}, got none") from None
            raise
    for name, shard in places.items():
        if name not in shards[shard]:
            missing, file = printable(name, 80), printable(shard, 80)
            raise ValueError(f"{where}: expected tensor {missing} in shard {file}, got none")
    return {name: shards[shard][name] for name, shard in places.items()}, where


# ---- writing


def round_to_bfloat16(x: np.ndarray) -> np.ndarray:
    """The bfloat16 bits (uint16) of float32 x, rounded to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    rounded = (bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16
    return np.where(np.isnan(x), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def write_safetensors(
    path: str | os.PathLike,
    arrays: Mapping[str, np.ndarray],
    dtypes: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write {name: array} under a temporary name, flushed to disk, then renamed.

    dtypes: {name: "F32", "BF16", ...} to store; by default each array's own dtype.
    metadata: texts that the header keeps beside them; see read_metadata.
    ValueError, before anything is written, for a finite value too large for that dtype.
    """
    with replaced(path) as temporary:
        _write(temporary, arrays, dtypes or {}, str(path), metadata or {})


def _write(
    temporary: Path,
    arrays: Mapping[str, np.ndarray],
    dtypes: Mapping[str, str],
    path: str,
    metadata: Mapping[str, str] = {},
) -> None:
    from safetensors import SafetensorError, TensorSpec, serialize_file

    entries, alive = {}, []  # the writer takes addresses, so the arrays must outlive it
    for name, array in arrays.items():
        dtype = _file_dtype(name, array.dtype, dtypes)
        with np.errstate(over="ignore"):  # detected below
            if dtype == "BF16":
                data = round_to_bfloat16(array)
            else:  # contiguous, because the writer copies memory as it lies
                data = np.ascontiguousarray(array, dtype=_DTYPES[dtype])
        infinite = (data & 0x7FFF) == 0x7F80 if dtype == "BF16" else np.isinf(data)
        if (overflow := infinite & np.isfinite(array)).any():
            big = array[overflow].flat[0]
            given = f"{big:.4g}"
            raise ValueError(f"{path}: tensor {name}: expected values within {dtype}, got {given}")
        alive.append(data)
        entries[name] = TensorSpec(
            dtype=_LIBRARY_NAMES[dtype],
            shape=list(array.shape),
            data_ptr=data.ctypes.data,
            data_len=data.nbytes,
        )
    try:
        serialize_file(entries, temporary, {"format": "pt", **metadata})
    except SafetensorError as error:  # report a full disk as an OSError, as elsewhere
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error), path) from None


def write_folder(
    folder: Path,
    sizes: Mapping[str, int],
    arrays: Callable[[set[str]], Mapping[str, np.ndarray]],
    dtypes: Mapping[str, str],
    limit: int,
) -> None:
    """model.safetensors or, beyond `limit` bytes in total, shards of at most that and their index.

    sizes: {name: bytes in the file}; arrays(names) makes some arrays, so that only one shard's are
    held at a time. All files are written under temporary names and renamed at the end; then files
    of an earlier save are removed. While shards are renamed there is no index, so an interruption
    cannot leave an index that mixes old shards with new ones.
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
            flush(temporary)  # let it fail here, while the old files are intact
        (folder / INDEX).unlink(missing_ok=True)
    places = {tensor: name for name, shard in zip(names, shards) for tensor in shard}
    metadata = {"total_size": sum(sizes.values())}
    write_json(folder / INDEX, {"metadata": metadata, "weight_map": places})
    (folder / SINGLE).unlink(missing_ok=True)  # it would take precedence over the index
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
    """{name: bytes in the file} of tensors with `dtype` in memory."""

    def width(name: str) -> int:
        kind = _file_dtype(name, dtype, dtypes)
        return 2 if kind == "BF16" else np.dtype(_DTYPES[kind]).itemsize

    return {name: math.prod(shape) * width(name) for name, shape in shapes.items()}


def parse_size(size: int | str) -> int:
    """Bytes: a number, or one with a decimal unit, as in transformers ("500KB", "200MB", "5GB")."""
    known = isinstance(size, str) or (is_whole(size) and size < 2**64)
    form = r"(\d{1,15}(?:\.\d{1,15})?)\s*([KMGT]?)B?"
    match = re.fullmatch(form, str(size), re.IGNORECASE | re.ASCII) if known else None
    count = int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " ")) if match else 0
    if count < 1:
        raise wrong("max_shard_size", "at least one byte, such as 5000000 or '5GB'", size)
    return count


def main_dtype(
    shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype, dtypes: Mapping[str, str]
) -> str:
    """The dtype of most stored numbers, as named in config.json ("float32", "bfloat16")."""
    totals: dict[str, int] = {}
    for name, shape in shapes.items():
        kind = _file_dtype(name, dtype, dtypes)
        totals[kind] = totals.get(kind, 0) + math.prod(shape)
    return _LIBRARY_NAMES[max(totals, key=lambda kind: totals[kind])]
