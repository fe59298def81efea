"""What may stand between the brackets of a device array, and the checks that a GPU doesn't make.

CuPy wraps indices that are out of range, and leaves open which of two values for the same place is stored.  Here both
raise, so that code which would go wrong silently on a GPU is found on the host.
"""

from __future__ import annotations

import numpy as np

from .strict_rules import API, synchronise

_array_type: type  # StrictArray; set by bind_array_type, since strict_array.py imports this file


def bind_array_type(array_type: type) -> None:
    global _array_type
    _array_type = array_type


def host_index(index, shape: tuple[int, ...]) -> tuple:
    """The index with device arrays replaced by the arrays behind them, always a tuple that has an Ellipsis (so
    NumPy never answers with a scalar)."""
    parts = index if isinstance(index, tuple) else (index,)
    converted = tuple(_host_part(part) for part in parts)
    return converted if any(part is Ellipsis for part in converted) else (*converted, Ellipsis)


def _host_part(part):
    if part is None or part is Ellipsis:
        return part
    if isinstance(part, slice):
        for bound in (part.start, part.stop, part.step):
            if isinstance(bound, (_array_type, np.ndarray)):
                raise TypeError("slice indices must be integers of the host, not arrays")
        return part
    if isinstance(part, _array_type):
        if part.dtype.kind == "b":
            synchronise("indexing with a boolean mask")  # it counts the True ones, when writing too
        elif part.dtype.kind not in "iu":
            raise IndexError(f"arrays used as indices must be integer or boolean, got {part.dtype}")
        return part._data
    if isinstance(part, (bool, np.bool_)):
        raise IndexError("a Python bool as an index is not emulated")
    if isinstance(part, (int, np.integer)):
        return part
    if isinstance(part, np.ndarray):
        raise TypeError("a host array as an index would be copied to the device at each use; use xp.asarray once")
    if isinstance(part, (list, tuple)):
        raise TypeError("a Python list as an index would be copied to the device at each use; use xp.asarray")
    raise IndexError(f"unsupported index {type(part)}")


def is_advanced(index: tuple) -> bool:
    return any(isinstance(part, np.ndarray) for part in index)


def get(data: np.ndarray, index: tuple) -> np.ndarray:
    """data[index]: a view for slices and integers, a copy if there is an index array (a 0-d one too)."""
    found = data[index]
    return found.copy() if is_advanced(index) else found


def integer_parts(index: tuple, shape: tuple[int, ...]) -> tuple[list[np.ndarray], list[int]]:
    """The index arrays with masks turned into integers, and the lengths of the axes that they index."""
    used = sum(part.ndim if isinstance(part, np.ndarray) and part.dtype.kind == "b" else part is not None
               for part in index if part is not Ellipsis)
    arrays, lengths, axis = [], [], 0
    for part in index:
        if part is Ellipsis:
            axis += len(shape) - used
        elif isinstance(part, np.ndarray) and part.dtype.kind == "b":
            arrays.extend(part.nonzero())
            lengths.extend(shape[axis : axis + part.ndim])
            axis += part.ndim
        elif isinstance(part, np.ndarray):
            arrays.append(part)
            lengths.append(shape[axis])
            axis += 1
        elif part is not None:
            axis += 1
    return arrays, lengths


def has_duplicates(index: tuple, shape: tuple[int, ...]) -> bool:
    """Whether two entries of the index arrays point at the same place (-1 and the last one do)."""
    arrays, lengths = integer_parts(index, shape)
    if not arrays:
        return False
    places = np.zeros((), np.int64)
    for array, length in zip(arrays, lengths, strict=True):
        places = places * length + array.astype(np.int64) % max(length, 1)
    return np.unique(places).size < places.size


def assign(data: np.ndarray, index: tuple, value, from_device: bool) -> None:
    """data[index] = value, refused if duplicate indices would get different values."""
    data[index]  # an index out of range raises here, before anything is written
    if np.ndim(value) > 0 and is_advanced(index) and has_duplicates(index, data.shape):
        raise IndexError(
            "duplicate indices in an assignment: which value is stored is undefined in CuPy; add.at adds them up"
        )
    if not from_device:
        value = np.asarray(value, dtype=data.dtype)  # CuPy fills with the scalar in the array's dtype
    data[index] = value


def scatter(operation: str, ufunc: np.ufunc, data: np.ndarray, index: tuple, value) -> None:
    """ufunc.at(data, index, value) with the dtypes of CuPy's atomic operations and its cast of the value."""
    dtypes = API["at_dtypes"][operation]
    if any(isinstance(part, np.ndarray) and part.dtype.kind != "b" for part in index) and data.dtype.name not in dtypes:
        raise TypeError(f"cupy.{ufunc.__name__}.at only supports {', '.join(dtypes)}, got {data.dtype}")
    ufunc.at(data, index, np.asarray(value).astype(data.dtype))
