"""The arguments a component accepts, declared once above it and checked at each call.

    @expects("x (..., Din), W (Din, Dout), b (Dout,) or None; eps >= 0")

Arrays: a word is one size, equal wherever it occurs; so is `...`, any number of axes. `B or 1` is
either. They contain floating-point numbers unless the entry says integers, booleans, numbers (any
of these) or keys (random.py).
Trees: p {W b?} is a dict with W, optionally b, and nothing else; p {W ...} may have more.
Numbers, after the semicolon: `0 <= rate < 1`, `eps >= 0`, `scale or None`, `whole chunk >= 1`;
`flag grad` for True or False; `function activation` for callables.

Types, shapes, dtypes and numbers that passed are remembered, so a repeated check costs less than
half a microsecond. Array elements are never read.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from .arguments import check_flag, check_functions, check_number, check_whole, wrong
from .backend import array_module

F = TypeVar("F", bound=Callable)

KINDS = {
    "floating-point numbers": "f",
    "integers": "iu",
    "booleans": "b",
    "numbers": "fiub",
    "keys": "u",
}
REMEMBERED = 4096  # calls of a component; generation has new shapes at each token


class _Array(NamedTuple):
    name: str
    shapes: list[list[str]]  # one of these
    kind: str
    optional: bool


class _Tree(NamedTuple):
    name: str
    names: list[str]


class _Number(NamedTuple):
    name: str
    kind: str  # "", "whole", "flag" or "function"
    limits: dict[str, float]
    optional: bool


def expects(text: str, *, hot: bool = False) -> Callable[[F], F]:
    """A decorator: ValueError, "function: argument: expected ..., got ...", for bad arguments.

    hot: for functions called many times per token. Shapes are then checked only when the call
    fails, to explain why; the function itself must refuse shapes that would go wrong silently (a
    vector of one element that broadcasts).
    """
    arrays, _, numbers = text.partition(";")
    entries = [_entry(part) for part in re.split(r",\s*(?![^()]*\))", arrays.strip())]
    constants = [_number(part.strip()) for part in numbers.split(",") if part.strip()]

    def decorate(f: F) -> F:
        known: set[tuple] = set()

        def check(arguments: dict[str, Any], key: tuple | None) -> None:
            _check(f.__name__, entries, constants, arguments)
            if len(known) >= REMEMBERED:
                known.clear()
            if key is not None:
                known.add(key)

        wrapper = _wrapper(f, [*entries, *constants], known, check, hot)
        return cast(F, functools.wraps(f)(wrapper))

    return decorate


# Takes the arguments of f by name. Compiled from source, as in dataclasses: *args and **kwargs
# would be twice as slow.
_WRAPPER = """
def wrapper({signature}):
    try:
        _key = ({key},)
        _right = _key in _known{functions}
    except (AttributeError, TypeError):  # no array, or an unhashable number
        _right, _key = False, None
    if not _right:
        _check({{{arguments}}}, _key)
    try:
        return _f({call})
    except Exception:  # perhaps an argument that is not remembered, such as shapes if hot
        _check({{{arguments}}}, None)
        raise
"""


def _wrapper(f: Callable, entries: list, known: set[tuple], check: Callable, hot: bool) -> Any:
    signature, star = inspect.signature(f), False
    parts: list[str] = []
    call: list[str] = []
    values: dict[str, Any] = {"_f": f, "_known": known, "_check": check}
    for name, parameter in signature.parameters.items():
        keyword = parameter.kind is parameter.KEYWORD_ONLY
        if keyword and not star:
            parts.append("*")
        star = star or keyword
        default = parameter.default is not parameter.empty
        parts.append(f"{name}=default_{name}" if default else name)
        call.append(f"{name}={name}" if keyword else name)
        values |= {f"default_{name}": parameter.default} if default else {}
    functions = [entry for entry in entries if getattr(entry, "kind", None) == "function"]
    keyed = [entry for entry in entries if entry not in functions]
    called = [f"{f'{e.name} is None or ' * e.optional}callable({e.name})" for e in functions]
    source = _WRAPPER.format(
        signature=", ".join(parts),
        key=", ".join(_key(entry, hot) for entry in keyed),
        functions="".join(f" and ({test})" for test in called),
        arguments=", ".join(f"{name!r}: {name}" for name in signature.parameters),
        call=", ".join(call),
    )
    exec(compile(source, f"<expects {f.__name__}>", "exec"), values)
    return values["wrapper"]


def _key(entry: _Array | _Tree | _Number, hot: bool) -> str:
    """The part of an argument that is remembered, as source."""
    name = entry.name
    if isinstance(entry, _Number):
        return f"type({name}), {name}"  # True == 1 == 1.0
    if isinstance(entry, _Tree):
        return f"type({name}), *{name}"
    seen = f"type({name}), {name}.dtype" + f", {name}.shape" * (not hot)
    return f"None if {name} is None else ({seen})" if entry.optional else seen


def broadcastable(name: str, a: Any, shape: tuple[int, ...]) -> Any:
    """a; ValueError unless it broadcasts to the shape."""
    if a.ndim > len(shape) or any(n not in (1, m) for n, m in zip(a.shape[::-1], shape[::-1])):
        raise wrong(name, f"an array that broadcasts to {shape}", a)
    return a


def check_array(name: str, value: Any, text: str, **sizes: int) -> None:
    """ValueError unless value matches an entry without its name, "(B, T) integers or None".

    sizes: known ones, such as B=2.
    """
    entry = _entry(f"{name.replace(' ', '')} {text}")
    assert isinstance(entry, _Array)
    if not (value is None and entry.optional):
        _check_array(name, value, entry, sizes)


def check_module(name: str, value: Any) -> None:
    """ValueError unless value looks like an array module (numpy, cupy)."""
    if not hasattr(value, "ndarray"):
        raise wrong(name, "an array module such as numpy", value)


def check_float_dtype(name: str, value: Any) -> None:
    """ValueError unless value names a floating-point dtype."""
    try:
        kind = None if value is None else np.dtype(value).kind
    except Exception:  # NumPy raises several types for values that name no dtype
        kind = None
    if kind != "f":
        raise wrong(name, "a floating-point dtype", value)


def _check(
    function: str, entries: list, constants: list[_Number], arguments: dict[str, Any]
) -> None:
    sizes: dict[str, Any] = {}
    for entry in entries:
        value, name = arguments[entry.name], f"{function}: {entry.name}"
        if isinstance(entry, _Tree):
            _check_tree(name, value, entry.names)
        elif not (value is None and entry.optional):
            sizes = _check_array(name, value, entry, sizes)
    for constant in constants:
        value, name = arguments[constant.name], f"{function}: {constant.name}"
        if constant.kind == "flag":
            check_flag(name, value)
        elif constant.kind == "function":
            if not (value is None and constant.optional):
                check_functions(function, **{constant.name: value})
        elif constant.kind == "whole":
            limits: dict[str, Any] = constant.limits
            check_whole(name, value, **limits, or_none=constant.optional)
            if value is not None and not -(2**63) <= value < 2**63:
                raise wrong(name, "an integer of 64 bits", value)
        else:
            check_number(name, value, **constant.limits, or_none=constant.optional)


def _check_tree(name: str, value: Any, names: list[str]) -> None:
    needed = [n for n in names if n != "..." and n[-1] != "?"]
    if not isinstance(value, dict) or not all(n in value for n in needed):
        given = list(value) if isinstance(value, dict) else value
        raise wrong(name, f"a dict with {', '.join(needed)}", given)
    more = [n for n in value if n not in names and f"{n}?" not in names]
    if "..." not in names and more:
        raise wrong(name, f"a dict with {', '.join(names)} (? = optional) alone", more[0])


def _check_array(name: str, value: Any, entry: _Array, sizes: dict[str, Any]) -> dict[str, Any]:
    """`sizes`, extended by those of this array."""
    refused = (np.ma.MaskedArray, np.matrix)
    try:
        array_module(value)
        right = value.dtype.kind in KINDS[entry.kind] and not isinstance(value, refused)
    except (TypeError, AttributeError):
        right = False
    for dims in entry.shapes if right else ():
        if (fitted := _fit(value.shape, dims, sizes)) is not None:
            return fitted
    shapes = " or ".join(_shown(dims, sizes) for dims in entry.shapes)
    expected = f"{'None or ' * entry.optional}an array of {entry.kind} of shape {shapes}"
    raise wrong(name, expected, value)


def _fit(shape: tuple[int, ...], dims: list[str], sizes: dict[str, Any]) -> dict[str, Any] | None:
    """`sizes`, extended by those of this shape; None if it does not fit."""
    sizes = dict(sizes)
    if "..." in dims:
        at, extra = dims.index("..."), len(shape) - len(dims) + 1
        if extra < 0 or sizes.setdefault("...", shape[at : at + extra]) != shape[at : at + extra]:
            return None
        dims, shape = dims[:at] + dims[at + 1 :], shape[:at] + shape[at + extra :]
    if len(dims) != len(shape):
        return None
    for dim, n in zip(dims, shape):
        choices = [
            int(word) if word.isdigit() else sizes.get(word, n) for word in dim.split(" or ")
        ]
        if n not in choices:
            return None
        sizes.setdefault(dim.split(" or ")[0], n)
    return sizes


def _shown(dims: list[str], sizes: dict[str, Any]) -> str:
    """A shape with known sizes as numbers and the others by name."""
    parts: list[str] = []
    for dim in dims:
        known = sizes.get("...", ("...",)) if dim == "..." else (sizes.get(dim, dim),)
        parts += map(str, known)
    return f"({parts[0]},)" if len(parts) == 1 and parts[0] != "..." else f"({', '.join(parts)})"


@functools.cache
def _entry(text: str) -> _Array | _Tree:
    name, rest = text.strip().split(" ", 1)
    if rest[0] == "{":
        return _Tree(name, rest.strip("{}").split())
    found = re.findall(r"\(([^()]*)\)", rest)
    shapes = [[dim.strip() for dim in shape.split(",") if dim.strip()] for shape in found]
    kind = next((kind for kind in KINDS if kind in rest.split()), "floating-point numbers")
    return _Array(name, shapes, kind, "None" in rest.split())


def _value(text: str) -> float:
    return float(text) if "." in text else int(text)


def _number(text: str) -> _Number:
    optional, text = text.endswith(" or None"), text.removesuffix(" or None")
    kind, _, rest = text.partition(" ")
    if kind not in ("whole", "flag", "function"):
        kind, rest = "", text
    limits: dict[str, float] = {}
    words = rest.split()
    if len(words) == 5:  # 0 <= rate < 1
        limits["least" if words[1] == "<=" else "above"] = _value(words[0])
        words = words[2:]
    if len(words) == 3:
        limit = {">=": "least", ">": "above", "<=": "most", "<": "below"}[words[1]]
        limits[limit] = _value(words[2])
    if kind == "whole":
        limits = {"least": -(2**63), **limits}
    return _Number(words[0], kind, limits, optional)
