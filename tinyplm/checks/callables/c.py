"""C functions in a shared library, called by ctypes with flat arrays and their sizes."""

from __future__ import annotations

import ctypes
import math
import os
import re
from typing import Any, NamedTuple

import numpy as np

from ...arguments import check_text, is_number, is_whole, shown, wrong
from .adapter import Adapter, CallError, Gradients, Parameter, Slot

# {C type: NumPy dtype}
_TYPES = {
    "float": "float32",
    "double": "float64",
    "int": "intc",
    "unsigned": "uintc",
    "unsigned int": "uintc",
    "long": "long",
    "long long": "longlong",
    "size_t": "uintp",
    "ptrdiff_t": "intp",
    "bool": "bool",
    "_Bool": "bool",
    "char": "int8",
    "unsigned char": "uint8",
    **{f"{u}int{n}_t": f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)},
}
_QUALIFIERS = {"const", "restrict", "__restrict", "__restrict__", "volatile"}
_EXAMPLE = "a prototype such as 'void f(float *y, const float *x, int n)'"


class _Argument(NamedTuple):
    name: str
    dtype: np.dtype
    pointer: bool


class CFunction(Adapter):
    """A forward and a backward in C, described by their prototypes.

        CFunction("./libmine.so",
                  "void rmsnorm(float *y, const float *x, const float *gamma, "
                  "             int N, int D, float eps)",
                  "void rmsnorm_back(float *dx, float *dgamma, const float *dy, const float *x, "
                  "                  const float *gamma, int N, int D, float eps)",
                  shapes="x (N..., D), gamma (D), y (N..., D)")

    shapes names the sizes: N... is the product of any number of axes.  Without y among them, the
    value has the shape of the first array.  Arrays arrive in C order: float arrays as in the
    prototype, other arrays converted to its type; a keyword's array is broadcast to its shape.
    What is None arrives as NULL.

    The value is `y` and its cotangent `dy` (another name: value=); the gradient of x is `dx`.
    keeps="r (N...)" names arrays that forward fills and backward reads.  Value and gradients are
    filled with NaN before a call, or with accumulates=True the gradients with 0.
    """

    def __init__(
        self,
        library: str | os.PathLike | ctypes.CDLL,
        forward: str,
        backward: str,
        *,
        shapes: str,
        keeps: str = "",
        value: str = "y",
        accumulates: bool = False,
    ) -> None:
        check_text("value", value, empty=False)
        self.value, self.accumulates = value, accumulates
        self.shapes, self.keeps = _shapes("shapes", shapes), _shapes("keeps", keeps)
        self.name, self.forward = _prototype("forward", forward)
        name, self.backward = _prototype("backward", backward)
        try:
            loaded = library if isinstance(library, ctypes.CDLL) else ctypes.CDLL(_path(library))
            self.functions = [getattr(loaded, n) for n in (self.name, name)]
        except (OSError, TypeError) as error:
            raise ValueError(f"library: expected a shared library, got {error}") from None
        except AttributeError as error:
            raise ValueError(f"library: expected one with this function, got {error}") from None
        for function in self.functions:
            function.restype = None
        out = [a for a in self.forward if a.name == value and a.pointer]
        if not out or out[0].dtype.kind != "f":
            raise wrong("forward", f"an array {value} of float or double", forward)
        self.dtypes = (out[0].dtype.name,)
        self.parameters = [Parameter(name) for name in self._inputs()]

    def _inputs(self) -> list[str]:
        """The names in both prototypes that are neither results nor sizes."""
        dims = {d.removesuffix("...") for shape in self.shapes.values() for d in shape}
        names = dict.fromkeys(a.name for a in self.forward)
        names |= dict.fromkeys(a.name for a in self.backward)
        results = {self.value, *self.keeps} | {f"d{name}" for name in (*names, self.value)}
        return [name for name in names if name not in results | dims]

    def run(self, slots: list[Slot], keywords: dict[str, Any], dtype: str) -> tuple[Any, Gradients]:
        if dtype not in self.dtypes:
            raise CallError(f"dtypes: expected {self.dtypes[0]}, as in its prototype, got {dtype}")
        given = {slot.parameter: slot.value for slot in slots}
        sizes = self._sizes(slots)
        constants = [slot.parameter for slot in slots if not slot.differentiable]
        for name in constants:
            if isinstance(given[name], np.ndarray) and name in self.shapes:
                given[name] = np.broadcast_to(given[name], _shape(self.shapes[name], sizes))
        first = next(slot.value for slot in slots if isinstance(slot.value, np.ndarray))
        out = _shape(self.shapes[self.value], sizes) if self.value in self.shapes else first.shape
        y = np.full(out, np.nan, dtype)
        kept = {name: np.full(_shape(dims, sizes), np.nan) for name, dims in self.keeps.items()}
        # sizes as C has them
        given = {
            **{name: math.prod(n) if isinstance(n, tuple) else n for name, n in sizes.items()},
            **{name: self._typed(name, a) for name, a in kept.items()},
            **{name: self._typed(name, a) for name, a in given.items()},
            self.value: y,
        }
        _called(self.functions[0], self.forward, given)

        def backward(dy: Any) -> list[Any]:
            fill = 0.0 if self.accumulates else np.nan
            grads = [
                None if slot.value is None else np.full(np.shape(slot.value), fill, dtype)
                for slot in slots
                if slot.differentiable
            ]
            names = [f"d{slot.parameter}" for slot in slots if slot.differentiable]
            cotangent = {f"d{self.value}": np.ascontiguousarray(dy, dtype).reshape(np.shape(dy))}
            _called(self.functions[1], self.backward, given | cotangent | dict(zip(names, grads)))
            missing = set(names) - {a.name for a in self.backward}
            return [None if n in missing else g for n, g in zip(names, grads)]

        return y, backward

    def _typed(self, name: str, value: Any) -> Any:
        """An array as its prototype has it: C order and dtype, the same memory where it fits."""
        if not isinstance(value, np.ndarray):
            return value
        types = {a.name: a.dtype for a in (*self.backward, *self.forward)}
        return np.require(value, types.get(name, value.dtype), ["C", "W"])

    def _sizes(self, slots: list[Slot]) -> dict[str, Any]:
        """{size: number, or the tuple of axes of N...}; first of the arguments with a gradient,
        then of others with sizes that are not known yet."""
        sizes: dict[str, Any] = {}
        for slot in sorted(slots, key=lambda slot: not slot.differentiable):
            if not isinstance(slot.value, np.ndarray):
                continue
            name = slot.parameter
            if name not in self.shapes and slot.differentiable:
                raise CallError(f"shapes: expected the shape of {name}, got {shown(self.shapes)}")
            dims = self.shapes.get(name, [])
            known = [d.isdigit() or d.removesuffix("...") in sizes for d in dims]
            if slot.differentiable or not all(known):
                _bind(name, dims, slot.value.shape, sizes)
        return sizes


def _path(library: str | os.PathLike) -> str:
    """Of a file, from the root: the loader would look for "lib.so" among the system's libraries."""
    path = os.fspath(library)
    return os.path.abspath(path) if os.path.isfile(path) else path


def _bind(name: str, dims: list[str], shape: tuple[int, ...], sizes: dict[str, Any]) -> None:
    """Adds the sizes of one array."""
    found: tuple[Any, ...] = shape
    open_ = [i for i, d in enumerate(dims) if d.endswith("...")]
    if open_:
        at, more = open_[0], len(shape) - len(dims) + 1
        found = (*shape[:at], shape[at : at + more], *shape[at + more :])
    for dim, n in zip(dims, found):
        known = int(dim) if dim.isdigit() else sizes.setdefault(dim.removesuffix("..."), n)
        if known != n:
            break
    else:
        if len(found) == len(dims):
            return
    raise CallError(f"shapes: expected {name} ({', '.join(dims)}), got shape {shape}")


def _called(function: Any, prototype: list[_Argument], given: dict[str, Any]) -> None:
    values = []
    for argument in prototype:
        name, value = argument.name, given.get(argument.name)
        if name not in given:
            raise CallError(f"{function.__name__}: expected only known arguments, got {name}")
        if argument.pointer:
            if value is not None and not isinstance(value, np.ndarray):
                raise CallError(f"{function.__name__}: {name}: expected an array, got {value!r}")
            if value is not None and value.dtype != argument.dtype:
                kinds = f"{argument.dtype}, got {value.dtype}"
                raise CallError(f"{function.__name__}: {name}: expected {kinds}")
            values.append(None if value is None else ctypes.c_void_p(value.ctypes.data))
            continue
        right = is_whole if argument.dtype.kind in "iu" else is_number
        if not (right(value) or (argument.dtype.kind == "b" and isinstance(value, bool))):
            raise CallError(f"{function.__name__}: {name}: expected a number, got {shown(value)}")
        values.append(np.ctypeslib.as_ctypes_type(argument.dtype)(value))
    function(*values)


def _prototype(where: str, text: str) -> tuple[str, list[_Argument]]:
    """(name of the function, its arguments)."""
    found = re.fullmatch(r"\s*[\w\s*]*?(\w+)\s*\(([^()]*)\)\s*;?\s*", str(text))
    if found is None:
        raise wrong(where, _EXAMPLE, text)
    arguments = []
    for part in found[2].split(","):
        words = [w for w in re.findall(r"\w+", part.split("[")[0]) if w not in _QUALIFIERS]
        kind = " ".join(words[:-1])
        if kind not in _TYPES:
            raise wrong(where, f"a type and a name, the type one of {', '.join(_TYPES)}", part)
        arguments.append(_Argument(words[-1], np.dtype(_TYPES[kind]), "*" in part or "[" in part))
    return found[1], arguments


def _shapes(where: str, text: str) -> dict[str, list[str]]:
    """{"x": ["N...", "D"]} of "x (N..., D)"."""
    entry = r"\s*(\w+)\s*\(([\w\s,.]*)\)\s*"
    if not isinstance(text, str) or not re.fullmatch(rf"({entry}(,{entry})*)?", text):
        raise wrong(where, "shapes such as 'x (N..., D), gamma (D)'", text)
    shapes = {
        name: [d.strip() for d in dims.split(",") if d.strip()]
        for name, dims in re.findall(entry, text)
    }
    for dims in shapes.values():
        several = [d for d in dims if d.endswith("...")]
        if len(several) > 1 or not all(re.fullmatch(r"\w+(\.\.\.)?", d) for d in dims):
            raise wrong(where, "sizes that are names or numbers, at most one with ...", text)
    return shapes


def _shape(dims: list[str], sizes: dict[str, Any]) -> tuple[int, ...]:
    shape: list[int] = []
    for dim in dims:
        name = dim.removesuffix("...")
        if not dim.isdigit() and name not in sizes:
            raise CallError(f"shapes: expected sizes of the arguments, got {dim}")
        n = int(dim) if dim.isdigit() else sizes[name]
        shape += n if isinstance(n, tuple) else [n]
    return tuple(shape)
