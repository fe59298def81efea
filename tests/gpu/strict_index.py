"""What may stand between the brackets of a device array, and the checks that a GPU doesn't make.

CuPy wraps out-of-range indices, and does not define which of two values for the same place is stored.
Here both raise, so that code that would silently go wrong on a GPU is caught on the host.
"""

from __future__ import annotations

import numpy as np

from .strict_rules import API, synchronise

_array_type: type  # StrictArray; set by bind_array_type, since strict_array.py imports this file


def bind_array_type(array_type: type) -> None:
    global _array_type
    _array_type = array_type


def host_index(index) -> tuple:
    """The index with the NumPy arrays behind the device arrays, always a tuple.

    It always has an Ellipsis: with one, NumPy returns an array where it would otherwise return a scalar.
    """
    parts = index if isinstance(index, tuple) else (index,)
    converted = tuple(_host_part(part) for part in parts)
    return converted if any(part is Ellipsis for part in converted) else (*converted, Ellipsis)


def _host_part(part):
    if part is None or part is Ellipsis:
        return part
    if isinstance(part, slice):
        if any(isinstance(bound, (_array_type, np.ndarray)) for bound in (part.start, part.stop, part.step)):
            raise TypeError("slice indices must be integers of the host, not arrays")
        return part
    if isinstance(part, _array_type):
        if part.dtype.kind == "b":
            synchronise("a boolean mask as an index")  # CuPy counts the True values, even for writes
        elif part.dtype.kind not in "iu":
            raise IndexError(f"arrays used as indices must be of integer or boolean type, got {part.dtype}")
        return part._data
    if isinstance(part, (bool, np.bool_)):
        raise IndexError("a single bool as an index is not emulated")
    if isinstance(part, (int, np.integer)):
        return part
    if isinstance(part, (np.ndarray, list, tuple)):
        raise TypeError(f"index {type(part)} would be copied to the device at each use; use xp.asarray once")
    raise IndexError(f"unsupported index {type(part)}")


def is_advanced(index: tuple) -> bool:
    return any(isinstance(part, np.ndarray) for part in index)


def get(data: np.ndarray, index: tuple) -> np.ndarray:
    """data[index]: a view for slices and integers, a copy if there is an index array (a 0-d one too)."""
    found = data[index]
    return found.copy() if is_advanced(index) and np.may_share_memory(found, data) else found


def assign(data: np.ndarray, index: tuple, value) -> None:
    """data[index] = value; refused if one place would receive two values."""
    if np.size(value) > 1 and is_advanced(index) and has_duplicates(index, data.shape):
        raise IndexError("duplicate indices in an assignment: CuPy leaves open which value is stored; see add.at")
    data[index] = value


def scatter(operation: str, ufunc: np.ufunc, data: np.ndarray, index: tuple, value) -> None:
    """ufunc.at(data, index, value) with the dtypes of CuPy's atomic operations and its cast of the value."""
    dtypes = API["at_dtypes"][operation]
    atomic = any(isinstance(part, np.ndarray) and part.dtype.kind != "b" for part in index)
    if atomic and data.dtype.name not in dtypes:
        raise TypeError(f"cupy.{ufunc.__name__}.at only supports {', '.join(dtypes)}, got {data.dtype}")
    ufunc.at(data, index, np.asarray(value).astype(data.dtype))


def has_duplicates(index: tuple, shape: tuple[int, ...]) -> bool:
    """Whether two entries of the index arrays address the same place (-1 and the last index do)."""
    arrays, lengths = _integer_parts(index, shape)
    places = np.zeros((), np.int64)
    for array, length in zip(arrays, lengths, strict=True):
        places = places * length + array.astype(np.int64) % max(length, 1)
    return np.unique(places).size < places.size


def _integer_parts(index: tuple, shape: tuple[int, ...]) -> tuple[list[np.ndarray], list[int]]:
    """The index arrays, with masks as integers, and the lengths of the axes they index."""
    axes = [_axes_used(part) for part in index]
    arrays, lengths, axis = [], [], 0
    for part, used in zip(index, axes, strict=True):
        if part is Ellipsis:
            used = len(shape) - sum(axes)
        elif isinstance(part, np.ndarray):
            arrays.extend(part.nonzero() if part.dtype.kind == "b" else (part,))
            lengths.extend(shape[axis : axis + used])
        axis += used
    return arrays, lengths


def _axes_used(part) -> int:
    if part is None or part is Ellipsis:
        return 0
    return part.ndim if isinstance(part, np.ndarray) and part.dtype.kind == "b" else 1
