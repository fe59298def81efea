"""StrictArray: an array on a device that isn't there.  It wraps a NumPy array and hides it as a GPU would.

This file defines the array itself; strict_ufunc.py adds the operators, strict_functions.py the
other methods.  All are CuPy's: what cupy.ndarray lacks is missing here too.
"""

from __future__ import annotations

import numpy as np

from . import strict_index
from .strict_rules import checked_dtype, copy_to_host, counters, synchronise

_WAY = "use xp.asarray(array) to copy it to the device"


class StrictArray:
    """Stands for cupy.ndarray."""

    __slots__ = ("_data", "__weakref__")
    __hash__ = None
    __array_ufunc__ = None  # NumPy's operators and ufuncs refuse this array: no host * device slips through

    def __init__(self, *args, **kwargs):
        raise TypeError("a device array is made by xp.asarray, xp.empty, ..., not by calling its class")

    def __array__(self, dtype=None, copy=None):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_function__(self, function, types, args, kwargs):
        raise TypeError(f"numpy.{function.__name__} called with a device array; use that array's module, xp")

    # Metadata: known to the host.

    shape = property(lambda self: self._data.shape)
    dtype = property(lambda self: self._data.dtype)
    ndim = property(lambda self: self._data.ndim)
    size = property(lambda self: self._data.size)
    nbytes = property(lambda self: self._data.nbytes)
    itemsize = property(lambda self: self._data.itemsize)
    strides = property(lambda self: self._data.strides)
    flags = property(lambda self: self._data.flags)
    T = property(lambda self: wrap(self._data.T))
    mT = property(lambda self: wrap(self._data.mT))
    real = property(lambda self: wrap(self._data.real))
    imag = property(lambda self: wrap(self._data.imag))

    @property
    def base(self):
        return None if self._data.base is None else wrap(self._data.base)

    def __len__(self) -> int:
        return len(self._data)

    # Reading values makes the host wait.

    def get(self, stream=None, order="C", out=None, blocking=True) -> np.ndarray:
        copy_to_host("get()")
        if out is None:
            return np.array(self._data, order=order)
        if not isinstance(out, np.ndarray) or out.shape != self.shape or out.dtype != self.dtype:
            raise TypeError(f"get(out=) needs a NumPy array of shape {self.shape} and dtype {self.dtype}")
        np.copyto(out, self._data)
        return out

    def item(self):
        copy_to_host("item()")
        return self._data.item()

    def tolist(self):
        copy_to_host("tolist()")
        return self._data.tolist()

    def tobytes(self, order="C") -> bytes:
        copy_to_host("tobytes()")
        return self._data.tobytes(order)

    def __float__(self) -> float:
        copy_to_host("float()")
        return float(self._data)

    def __int__(self) -> int:
        copy_to_host("int()")
        return int(self._data)

    def __complex__(self) -> complex:
        copy_to_host("complex()")
        return complex(self._data)

    def __bool__(self) -> bool:
        copy_to_host("bool()")
        if self.size == 0:
            raise ValueError("the truth value of an empty array is ambiguous")
        return bool(self._data)

    def __repr__(self) -> str:
        copy_to_host("repr()")
        return f"strict {self._data!r}"

    def __str__(self) -> str:
        copy_to_host("str()")
        return str(self._data)

    def __format__(self, spec: str) -> str:
        copy_to_host("format()")
        return format(self._data, spec)

    def __reduce__(self):
        copy_to_host("pickling")
        return _unpickle, (self._data,)

    def __copy__(self):
        return wrap(self._data.copy())

    def __deepcopy__(self, memo):
        return wrap(self._data.copy())

    def __iter__(self):
        """Views along the first axis, which are free; but a loop over elements counts as a wait."""
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        if self.ndim == 1:
            synchronise("a loop over the elements of an array")
        return (self[i] for i in range(len(self)))

    # Indexing.

    def __getitem__(self, index):
        return wrap(strict_index.get(self._data, strict_index.host_index(index)))

    def __setitem__(self, index, value) -> None:
        given = host(value, "an assignment")
        if not isinstance(value, StrictArray):
            given = np.asarray(given, dtype=self.dtype)  # out of range for the dtype: OverflowError, as in CuPy
        strict_index.assign(self._data, strict_index.host_index(index), given)

    def set(self, arr, stream=None) -> None:
        if type(arr) is not np.ndarray or arr.dtype != self.dtype or arr.shape != self.shape:
            raise TypeError(f"set() needs a NumPy array of shape {self.shape} and dtype {self.dtype}")
        counters.host_to_device += 1
        self._data[...] = arr

    def fill(self, value) -> None:
        if isinstance(value, StrictArray):
            synchronise("fill() with a device array")  # CuPy asks `if value == 0`; `a[...] = value` does not
        self._data.fill(host(value, "fill()"))


def wrap(value):
    """NumPy's result as a device array: scalars become 0-d arrays, tuples and lists are wrapped item by item."""
    if type(value) is not np.ndarray:
        if isinstance(value, tuple):
            return tuple(wrap(v) for v in value)  # NumPy's named tuples are plain ones in CuPy
        if isinstance(value, list):
            return [wrap(v) for v in value]
        value = np.asarray(value)
    data = value
    checked_dtype(data.dtype)
    array = object.__new__(StrictArray)
    array._data = data
    return array


def host(value, what: str):
    """The NumPy array behind a device array; scalars pass unchanged; nothing else may be mixed with device arrays."""
    if isinstance(value, StrictArray):
        return value._data
    if isinstance(value, (bool, int, float, complex)) and not isinstance(value, np.generic):
        return value
    if isinstance(value, np.generic):
        checked_dtype(value.dtype)
        return value
    if isinstance(value, np.ndarray):
        raise TypeError(f"{what}: unsupported type {type(value)}, an array on the host; {_WAY}")
    if isinstance(value, (list, tuple)):
        raise TypeError(f"{what}: a Python {type(value).__name__} where a device array is expected; {_WAY}")
    raise TypeError(f"{what}: unsupported type {type(value)}")


def _unpickle(data: np.ndarray) -> StrictArray:
    counters.host_to_device += 1
    return wrap(data.copy())


def freeze(array: StrictArray) -> StrictArray:
    """Make writes through this array, and through views taken of it from now on, raise ValueError.

    CuPy has no equivalent: this is for tests that a function leaves its inputs alone.  Returns the same array.
    """
    if not isinstance(array, StrictArray):
        raise TypeError(f"freeze expects a device array, got {type(array).__name__}")
    array._data = array._data.view()
    array._data.flags.writeable = False
    return array


def garbage(shape, dtype) -> StrictArray:
    """An array as returned by `empty`: reading it before writing yields NaN or nonsense."""
    data = np.empty(shape, checked_dtype(dtype))
    if data.dtype.kind in "fc":
        data.fill(np.nan)
    elif data.dtype.kind == "b":
        data[...] = np.arange(data.size).reshape(data.shape) % 2 == 0
    else:
        data.fill(np.iinfo(data.dtype).max - 12)
    return wrap(data)


strict_index.bind_array_type(StrictArray)
