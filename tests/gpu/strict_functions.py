"""The functions of the module `xp` and the methods of a device array, by their recorded signatures.

A call is first bound to CuPy's signature.  Then each argument is checked by the name of its parameter:
shapes, axes and the like must be host values; everything else must be a device array or a scalar.  Then
NumPy does the work.
"""

from __future__ import annotations

import numpy as np

from . import strict_index
from .strict_array import StrictArray, garbage, host, wrap
from .strict_rules import API, Call, checked_dtype, counters, quietly, synchronise

FUNCTIONS = API["cupy"]["functions"]
LINALG = API["cupy.linalg"]["functions"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Parameters that CuPy reads on the host: with a device array it would wait, or raise.
STATIC = _names("""
    shape newshape new_shape axis axes axis1 axis2 axisa axisb axisc order dtype N M k n m num start stop
    step reps dims dimensions keepdims ddof kth source destination pad_width minlength shift offset
    indices_or_sections ndim decimals kind casting side mode indexing sparse copy endpoint retstep base deg
    bitorder ord
""")
# Parameters that take several device arrays.
SEQUENCES = _names("tup arys arrays arrays_and_dtypes keys condlist choicelist operands xi args")
# Functions that return a Python value (or None) in CuPy too; all others return device arrays.
WRITERS = _names("copyto fill_diagonal place put putmask")
PLAIN = WRITERS | _names("""
    broadcast_shapes can_cast common_type iscomplexobj isdtype isfortran isrealobj isscalar issubdtype
    iterable may_share_memory min_scalar_type mintypecode ndim promote_types result_type shape shares_memory
    size typename
""")
# Functions whose first argument need not be a device array.
NO_ARRAY_FIRST = (PLAIN - WRITERS) | _names("""
    arange bartlett blackman broadcast_arrays atleast_1d atleast_2d atleast_3d einsum eye full hamming
    hanning identity indices ix_ kaiser linspace logspace meshgrid ones tri tril_indices triu_indices
    diag_indices zeros concatenate concat stack vstack hstack dstack column_stack lexsort select
""")
# Functions whose second argument must be a device array too; in other functions CuPy also takes a scalar there.
ARRAY_SECOND = _names("dot vdot inner outer tensordot cross isin searchsorted take_along_axis")
# Functions that wait for the device, because the result's shape depends on values or CuPy looks at them
# ("synchronize" in its source and docstrings).
SYNCHRONISING = _names("""
    argwhere asarray_chkfinite bincount choose compress cond delete extract flatnonzero gradient
    histogram histogram2d histogramdd interp intersect1d nanmax nanmin nonzero place ravel_multi_index
    real_if_close setdiff1d setxor1d tobytes tril_indices tril_indices_from trim_zeros triu_indices
    triu_indices_from union1d unique unique_all unique_counts unique_inverse unique_values unravel_index
""")
# Those that wait only if this argument is passed.
SYNCHRONISING_WITH = {"average": "weights", "repeat": "repeats"}
# In CuPy, but useless to a pure function on the device, or too far from NumPy to emulate.
NOT_EMULATED = _names("""
    apply_along_axis apply_over_axes array2string array_repr array_str base_repr binary_repr broadcast
    format_float_positional format_float_scientific frombuffer from_dlpack fromfile fromfunction fromiter
    fromstring genfromtxt get_printoptions load loadtxt mask_indices piecewise poly polyadd polyfit polymul
    polysub polyval printoptions roots save savetxt savez savez_compressed set_printoptions show_config
""")


class StrictFunction:
    """A function of the module or, with method=True, a method of the array (called by `on`)."""

    def __init__(self, name: str, text: str, numpy_function, *, method: bool = False):
        self.__name__ = name.split(".")[-1]
        self.call = Call(f"ndarray.{name}" if method else name, text, numpy_function, method=method)
        self._numpy = numpy_function
        self._arrays = []  # names of the parameters that take only a device array
        if not method and self.__name__ not in NO_ARRAY_FIRST:
            first = self.call.parameters[: 2 if self.__name__ in ARRAY_SECOND else 1]
            self._arrays = [parameter.name for parameter in first]
        # what the name says, looked up once
        self._waits, self._waits_with = self.__name__ in SYNCHRONISING, SYNCHRONISING_WITH.get(self.__name__)
        self._stable, self._plain = self.__name__ in ("sort", "argsort"), self.__name__ in PLAIN
        self._contiguous = method and self.__name__ in ("sort", "partition")
        self._static = STATIC.difference(self._arrays)

    def __repr__(self) -> str:
        return f"<strict function '{self.call.name}'>"

    def __call__(self, *args, **kwargs):
        return self.on(None, args, kwargs)

    def on(self, array: StrictArray | None, args: tuple, kwargs: dict):
        positional = self.call.bind(args, kwargs)
        given = {**dict(positional), **kwargs}
        self._check(array, given)
        convert = self._convert
        converted = [v._data if type(v) is StrictArray and n not in STATIC else convert(n, v) for n, v in positional]
        keywords = {name: convert(name, value) for name, value in kwargs.items()} if kwargs else {}
        if self._stable and "kind" not in given:
            keywords["kind"] = "stable"  # as CuPy's sorts always are
        if array is None:
            result = quietly(self._numpy, *converted, **keywords)
        else:
            result = quietly(self._numpy, array._data, *converted, **keywords)
        if given.get("out") is not None:
            return given["out"]
        return result if result is None or self._plain else wrap(result)

    def _check(self, array: StrictArray | None, given: dict) -> None:
        name = self.__name__
        for parameter in self._arrays:
            if not isinstance(value := given.get(parameter), StrictArray):
                raise TypeError(f"cupy.{name}: {parameter} must be a device array, got {type(value)}")
        if (out := given.get("out")) is not None and not isinstance(out, StrictArray):
            raise TypeError(f"cupy.{name}: out must be a device array, got {type(out)}")
        if self._waits or self._waits_with and isinstance(given.get(self._waits_with), StrictArray):
            synchronise(f"{name}()")
        if self._contiguous and not array.flags.c_contiguous:
            raise NotImplementedError("Sorting non-contiguous array is not supported.")

    def _convert(self, parameter: str, value):
        """One argument in the form that NumPy receives; TypeError if CuPy would refuse it or wait for it."""
        if isinstance(value, StrictArray) and parameter not in STATIC:
            return value._data
        kind = type(value)
        if value is None or (kind is int or kind is bool) and parameter != "dtype":
            return value
        name = self.__name__
        if parameter == "dtype":
            return checked_dtype(value)
        if parameter in self._static:
            return static(name, parameter, value)
        if isinstance(value, str):
            return value
        if parameter == "tup" and not all(isinstance(v, StrictArray) for v in value):
            raise TypeError(f"cupy.{name}: a sequence of device arrays expected, got {[type(v) for v in value]}")
        if parameter in SEQUENCES and isinstance(value, (tuple, list)):
            return [host(v, f"{name}()") for v in value]
        if name in PLAIN and isinstance(value, (np.dtype, type, tuple)):
            return value
        return host(value, f"{name}({parameter}=)")


def static(function: str, parameter: str, value):
    """A shape, an axis and the like: anything but an array."""
    if type(value) is int:
        return value
    if isinstance(value, (StrictArray, np.ndarray)):
        raise TypeError(f"{function}({parameter}=) must be given by numbers of the host, got {type(value)}")
    if isinstance(value, (tuple, list)):
        return tuple([v if type(v) is int else static(function, parameter, v) for v in value])
    return value


# Functions with their own rules.


class SpecialFunction(StrictFunction):
    """One of the functions below; it accepts only calls that CuPy's signature allows."""

    def __init__(self, text: str, function):
        super().__init__(function.__name__, text, getattr(np, function.__name__, None))
        self._function = function

    def __call__(self, *args, **kwargs):
        self.call.bind(args, kwargs)
        return self._function(*args, **kwargs)


def _to_device(obj, dtype, copy, order, ndmin=0) -> StrictArray:
    """Shared by xp.array and its relatives: device arrays are converted on the device, anything else is copied to it."""
    dtype = None if dtype is None else checked_dtype(dtype)
    if isinstance(obj, StrictArray):
        return wrap(np.array(obj._data, dtype=dtype, copy=copy, order=order, ndmin=ndmin))
    if _holds_device_array(obj):
        return wrap(np.array(_unwrapped(obj), dtype=dtype, ndmin=ndmin))
    counters.host_to_device += 1
    return wrap(np.array(obj, dtype=dtype, copy=True, order=order, ndmin=ndmin))


def _holds_device_array(obj) -> bool:
    if isinstance(obj, (list, tuple)):
        return any(_holds_device_array(v) for v in obj)
    return isinstance(obj, StrictArray)


def _unwrapped(obj):
    """A nested list of device arrays only; CuPy joins these, but can't mix them with scalars."""
    if isinstance(obj, (list, tuple)):
        return [_unwrapped(v) for v in obj]
    if isinstance(obj, StrictArray):
        return obj._data
    raise TypeError(f"a sequence of device arrays holds {type(obj)} too; CuPy can't join these")


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    return _to_device(obj, dtype, copy, order or "K", ndmin)


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    return _to_device(a, dtype, copy, order or "K")


def asanyarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    return _to_device(a, dtype, copy, order or "K")


def ascontiguousarray(a, dtype=None):
    return _to_device(a, dtype, None, "C")


def asfortranarray(a, dtype=None):
    return _to_device(a, dtype, None, "F")


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    return a.get(order=order, out=out) if isinstance(a, StrictArray) else np.asarray(a, order=order)


def empty(shape, dtype=float, order="C"):
    return garbage(static("empty", "shape", shape), dtype)


def empty_like(prototype, dtype=None, order="K", subok=None, shape=None):
    like = host(prototype, "empty_like()")
    return garbage(like.shape if shape is None else static("empty_like", "shape", shape), dtype or like.dtype)


def put_along_axis(arr, indices, values, axis):
    """Refuses whatever an assignment refuses."""
    for value in (arr, indices):
        if not isinstance(value, StrictArray):
            raise TypeError(f"cupy.put_along_axis: device arrays expected, got {type(value)}")
    index = list(np.ogrid[tuple(slice(n) for n in indices.shape)])
    index[axis] = indices._data
    strict_index.assign(arr._data, tuple(np.broadcast_arrays(*index)), host(values, "put_along_axis(values=)"))


def where(condition, x=None, y=None):
    if not isinstance(condition, StrictArray):
        raise TypeError(f"cupy.where: the condition must be a device array, got {type(condition)}")
    if (x is None) != (y is None):
        raise ValueError("where takes both x and y, or neither")
    if x is None:
        synchronise("where(condition)")
        return wrap(np.where(condition._data))
    return wrap(np.where(condition._data, host(x, "where(x=)"), host(y, "where(y=)")))


SPECIAL = (array, asarray, asanyarray, ascontiguousarray, asfortranarray, asnumpy)
SPECIAL += (empty, empty_like, put_along_axis, where)


def functions() -> dict:
    """{name: callable} of all emulated functions."""
    shared = {n: t for n, t in FUNCTIONS.items() if hasattr(np, n) and n not in NOT_EMULATED}
    found = {name: StrictFunction(name, text, getattr(np, name)) for name, text in shared.items()}
    return found | {f.__name__: SpecialFunction(FUNCTIONS[f.__name__], f) for f in SPECIAL}


def linalg_functions() -> dict:
    return {n: StrictFunction(f"linalg.{n}", text, getattr(np.linalg, n)) for n, text in LINALG.items()}


def install_methods() -> None:
    """Give StrictArray the methods of cupy.ndarray that it still lacks, with CuPy's keywords."""
    for name, text in API["ndarray"]["methods"].items():
        if hasattr(np.ndarray, name) and not hasattr(StrictArray, name):
            function = StrictFunction(name, text, getattr(np.ndarray, name), method=True)
            setattr(StrictArray, name, _method(function))
    product = StrictFunction("matmul", FUNCTIONS["matmul"], np.matmul)
    StrictArray.__matmul__ = lambda self, other: product(self, other)
    StrictArray.__rmatmul__ = lambda self, other: product(other, self)


def _method(function: StrictFunction):
    def method(self, *args, **kwargs):
        return function.on(self, args, kwargs)

    method.__name__ = function.__name__
    return method


install_methods()
