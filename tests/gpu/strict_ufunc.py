"""CuPy's ufuncs: fewer keywords and methods than NumPy's, and types chosen from CuPy's own list."""

from __future__ import annotations

import functools

import numpy as np

from . import strict_index
from .strict_array import StrictArray, host, wrap
from .strict_rules import API, Call, PromotionError, checked_dtype, quietly

# fix, i0 and sinc are ufuncs in CuPy only
UFUNCS = {name: u for name, u in API["cupy"]["ufuncs"].items() if isinstance(getattr(np, name, None), np.ufunc)}
_KEYWORDS = frozenset(API["ufunc_keywords"])
_WEAK = {int: np.dtype(np.int64), float: np.dtype(np.float64), complex: np.dtype(np.complex128)}


class StrictUfunc:
    """Stands for one cupy.ufunc."""

    def __init__(self, name: str):
        entry = UFUNCS[name]
        self.__name__ = name
        self.nin, self.nout, self.nargs = entry["nin"], entry["nout"], entry["nin"] + entry["nout"]
        self.types = [loop for loop in entry["types"].split() if not loop.endswith("!")]
        self._entry = entry
        self._numpy = getattr(np, name)
        self._methods: dict[str, Call] = {}  # those that were called
        self._checked: set[tuple] = set()  # kinds of inputs that are promoted alike

    def __repr__(self) -> str:
        return f"<strict ufunc '{self.__name__}'>"

    def __call__(self, *args, **kwargs):
        if kwargs and (unknown := kwargs.keys() - _KEYWORDS):
            raise TypeError(f"cupy.{self.__name__}: wrong arguments {sorted(unknown)}")
        if not self.nin <= len(args) <= self.nargs:
            raise TypeError(f"cupy.{self.__name__} takes {self.nin} inputs, got {len(args)} arguments")
        inputs = [a._data if type(a) is StrictArray else host(a, self.__name__) for a in args[: self.nin]]
        outputs = self._outputs(args[self.nin :], kwargs.pop("out", None)) if kwargs or len(args) > self.nin else ()
        if kwargs.get("dtype") is not None:
            checked_dtype(kwargs["dtype"])
        else:
            kwargs.pop("dtype", None)
            kinds = tuple([_kind(x) for x in inputs])
            if kinds not in self._checked:
                self._check_promotion(kinds)
                self._checked.add(kinds)
        if outputs and any(out is not None for out in outputs):
            kwargs["out"] = tuple(None if out is None else host(out, "out=") for out in outputs)
        result = quietly(self._numpy, *inputs, **kwargs)
        if self.nout == 1:
            return outputs[0] if outputs and outputs[0] is not None else wrap(result)
        given = outputs or (None,) * self.nout
        return tuple(wrap(r) if g is None else g for r, g in zip(result, given, strict=True))

    def _outputs(self, positional: tuple, keyword) -> tuple:
        if keyword is None:
            outputs = positional
        elif positional:
            raise ValueError("cannot specify 'out' as both a positional and keyword argument")
        else:
            outputs = keyword if isinstance(keyword, tuple) else (keyword,)
        for out in outputs:
            if out is not None and not isinstance(out, StrictArray):
                raise TypeError(f"cupy.{self.__name__}: out must be a device array, got {type(out)}")
        return outputs

    def _check_promotion(self, kinds: tuple) -> None:
        """Raises if CuPy would choose other result dtypes than NumPy."""
        ours, theirs = result_dtypes(self.__name__, kinds)
        if ours is None:
            raise TypeError(f"cupy.{self.__name__}: wrong type {kinds}")
        if theirs is not None and ours != theirs:
            raise PromotionError(f"{self.__name__} of {kinds} gives {ours} in CuPy, {theirs} in NumPy")

    # The methods

    def method_signature(self, method: str) -> Call:
        """How CuPy's method is called; NotImplementedError if this ufunc lacks it."""
        if method != "outer" and not self._entry.get(method):
            raise NotImplementedError(f"`cupy.{self.__name__}.{method}` is not supported yet")
        if method not in self._methods:
            text = API["ufunc_methods"][method]
            self._methods[method] = Call(f"{self.__name__}.{method}", text, getattr(self._numpy, method))
        return self._methods[method]

    def at(self, *args, **kwargs) -> None:
        self.method_signature("at").bind(args, kwargs)
        self._at(*args, **kwargs)

    def _at(self, a, indices, b=None) -> None:
        index = strict_index.host_index(indices)
        value = host(b, f"{self.__name__}.at")
        strict_index.scatter(self._entry["at"], self._numpy, _device(a)._data, index, value)

    def outer(self, A, B, **kwargs):
        A, B = _device(A), _device(B)
        return self(A.reshape(A.shape + (1,) * B.ndim), B, **kwargs)

    def reduce(self, *args, **kwargs):
        return self._method("reduce", args, kwargs)

    def accumulate(self, *args, **kwargs):
        return self._method("accumulate", args, kwargs)

    def reduceat(self, *args, **kwargs):
        return self._method("reduceat", args, kwargs)

    def _method(self, method: str, args: tuple, kwargs: dict):
        given = dict(self.method_signature(method).bind(args, kwargs)) | kwargs
        out = given.get("out")
        for name in ("array", "indices", "out"):
            if given.get(name) is not None:
                given[name] = _device(given[name])._data
        result = getattr(self._numpy, method)(given.pop("array"), **given)
        return wrap(result) if out is None else out


def _kind(value):
    """The dtype of an array or a NumPy scalar; int, float or complex for such a Python number, whose width does not count."""
    if hasattr(value, "dtype"):
        return value.dtype
    return type(value) if type(value) in _WEAK else np.result_type(value)


def _device(value) -> StrictArray:
    if not isinstance(value, StrictArray):
        raise TypeError(f"expected a device array, got {type(value)}")
    return value


@functools.cache
def result_dtypes(name: str, kinds: tuple) -> tuple[tuple | None, tuple | None]:
    """Result dtypes in CuPy and in NumPy.  An input is specified by its dtype, or by int, float, complex if weak."""
    try:
        resolved = getattr(np, name).resolve_dtypes((*kinds, *(None,) * UFUNCS[name]["nout"]))
        theirs = resolved[len(kinds) :]
    except TypeError:
        theirs = None
    loop = cupy_loop(UFUNCS[name]["types"].split(), kinds)
    return (None if loop is None else tuple(np.dtype(c) for c in loop.split("->")[1])), theirs


def cupy_loop(loops: list[str], kinds: tuple) -> str | None:
    """The first loop to which all inputs can be cast: CuPy's _core/_kernel.pyx, _guess_routine_from_in_types.

    For a Python scalar only its kind counts, unless that is higher than every array's.
    """
    types = [_WEAK.get(kind, kind) for kind in kinds]
    weak = [kind if kind in _WEAK else None for kind in kinds]
    score = {"b": 0, "i": 1, "u": 1, "f": 2, "c": 2}
    strong_scores = [score[t.kind] for t, w in zip(types, weak, strict=True) if w is None]
    weak_scores = [score[t.kind] for t, w in zip(types, weak, strict=True) if w is not None]
    if not strong_scores or not weak_scores or max(strong_scores) < max(weak_scores):
        weak = [None] * len(kinds)
    for loop in loops:
        for given, scalar, wanted in zip(types, weak, map(np.dtype, loop.split("->")[0]), strict=True):
            fits = scalar is not None and np.result_type(scalar(0), wanted) == wanted
            if not (fits or np.can_cast(given, wanted)):
                break
        else:
            return None if loop.endswith("!") else loop
    return None


def _operator(ufunc: StrictUfunc, *, reflected: bool = False, in_place: bool = False):
    """A method that implements one operator: x + y, y + x (reflected) or x += y (in place)."""

    def method(self, *other):
        if reflected:
            return ufunc(*other, self)
        return ufunc(self, *other, out=self) if in_place else ufunc(self, *other)

    return method


def install_operators() -> None:
    """Give StrictArray the operators of cupy.ndarray, each implemented by its ufunc."""
    binary = {
        **{"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "mod": "remainder"},
        **{"floordiv": "floor_divide", "pow": "power", "lshift": "left_shift", "rshift": "right_shift"},
        **{"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor"},
    }
    for name, ufunc in binary.items():
        setattr(StrictArray, f"__{name}__", _operator(StrictUfunc(ufunc)))
        setattr(StrictArray, f"__r{name}__", _operator(StrictUfunc(ufunc), reflected=True))
        setattr(StrictArray, f"__i{name}__", _operator(StrictUfunc(ufunc), in_place=True))
    comparisons = {"lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}
    for name, ufunc in {**comparisons, "eq": "equal", "ne": "not_equal"}.items():
        setattr(StrictArray, f"__{name}__", _operator(StrictUfunc(ufunc)))
    unary = {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}
    for name, ufunc in {**unary, "divmod": "divmod"}.items():
        setattr(StrictArray, f"__{name}__", _operator(StrictUfunc(ufunc)))
    StrictArray.__rdivmod__ = _operator(StrictUfunc("divmod"), reflected=True)


install_operators()
