"""What a component takes, written once above it and checked at each call.

    @expects("x (..., Din), W (Din, Dout), b (Dout,) or None; eps >= 0")

Arrays: a word stands for one size, the same wherever it occurs; `...` stands for any axes, the same wherever it occurs; `B or 1`
is either.  They hold floating-point numbers unless the entry says integers, booleans, numbers (any of the three)
or keys (random.py).
Trees: p {W b?} is a dict with W, perhaps with b, and with nothing else; p {W ...} may have more.
Numbers, behind the semicolon: `0 <= rate < 1`, `eps >= 0`, `scale or None`, `whole chunk >= 1`; `flag grad` for True or False;
`function activation` for what can be called.

Types, shapes, dtypes and numbers that passed are remembered, so a check costs less than half a microsecond and never reads an
array.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

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
REMEMBERED = 4096  # calls of a component; generation has other shapes at each token


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
    """A decorator: ValueError, "function: argument: expected ..., got ...", unless the arguments are as `text` says.

    hot: for what is called many times for each token.  Shapes are then checked only when the call fails, to say why; the function
    itself must refuse what would go wrong silently (a vector of one element that broadcasts).
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

        return functools.wraps(f)(_wrapper(f, entries + constants, known, check, hot))

    return decorate


# With the arguments of f by name.  Written as source, as dataclasses write __init__: with *args and **kwargs it is twice as slow.
_WRAPPER = """
def wrapper({signature}):
    try:
        _key = ({key},)
        _right = _key in _known{functions}
    except (AttributeError, TypeError):  # no array, or a number that cannot be hashed
        _right, _key = False, None
    if not _right:
        _check({{{arguments}}}, _key)
    try:
        return _f({call})
    except Exception:  # perhaps for what is not remembered, as shapes if hot
        _check({{{arguments}}}, None)
        raise
"""


def _wrapper(f: Callable, entries: list, known: set[tuple], check: Callable, hot: bool) -> Any:
    signature, star = inspect.signature(f), False
    parts, call, values = [], [], {"_f": f, "_known": known, "_check": check}
    for name, parameter in signature.parameters.items():
        keyword = parameter.kind is parameter.KEYWORD_ONLY
        if keyword and not star:
            parts.append("*")
        star = star or keyword
        default = parameter.default is not parameter.empty
        parts.append(f"{name}=default_{name}" if default else name)
        call.append(f"{name}={name}" if keyword else name)
        values |= {f"default_{name}": parameter.default} if default else {}
    arguments = ", ".join(f"{name!r}: {name}" for name in signature.parameters)
    functions = {
        entry.name: entry.optional
        for entry in entries
        if getattr(entry, "kind", None) == "function"
    }
    key = ", ".join(_key(entry, hot) for entry in entries if entry.name not in functions)
    called = "".join(
        f" and ({f'{n} is None or ' * optional}callable({n}))" for n, optional in functions.items()
    )
    source = _WRAPPER.format(
        signature=", ".join(parts),
        key=key,
        functions=called,
        arguments=arguments,
        call=", ".join(call),
    )
    exec(compile(source, f"<expects {f.__name__}>", "exec"), values)
    return values["wrapper"]


def _key(entry: _Array | _Tree | _Number, hot: bool) -> str:
    """What of an argument is remembered, as source."""
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
    """ValueError unless value is as the text of an entry says, without its name: "(B, T) integers or None"; sizes: B=2."""
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
    except Exception:  # NumPy has several errors for what is no dtype
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
            check_functions(
                function, **({} if value is None and constant.optional else {constant.name: value})
            )
        elif constant.kind == "whole":
            check_whole(name, value, **constant.limits, or_none=constant.optional)
            if value is not None and not -(2**63) <= value < 2**63:
                raise wrong(name, "an integer of 64 bits", value)
        else:
            check_number(name, value, **constant.limits, or_none=constant.optional)


def _check_tree(name: str, value: Any, names: list[str]) -> None:
    needed = [n for n in names if n != "..." and n[-1] != "?"]
    if not isinstance(value, dict) or not all(n in value for n in needed):
        raise wrong(
            name,
            f"a dict with {', '.join(needed)}",
            value if not isinstance(value, dict) else list(value),
        )
    if "..." not in names and (
        more := [n for n in value if n not in names and f"{n}?" not in names]
    ):
        raise wrong(name, f"a dict with {', '.join(names)} (? = may be missing) alone", more[0])


def _check_array(name: str, value: Any, entry: _Array, sizes: dict[str, Any]) -> dict[str, Any]:
    """The sizes, with what this array adds to them."""
    try:
        array_module(value)
        right = value.dtype.kind in KINDS[entry.kind] and not isinstance(
            value, (np.ma.MaskedArray, np.matrix)
        )
    except (TypeError, AttributeError):
        right = False
    for dims in entry.shapes if right else ():
        if (fitted := _fit(value.shape, dims, sizes)) is not None:
            return fitted
    shapes = " or ".join(_shown(dims, sizes) for dims in entry.shapes)
    raise wrong(
        name, f"{'None or ' * entry.optional}an array of {entry.kind} of shape {shapes}", value
    )


def _fit(shape: tuple[int, ...], dims: list[str], sizes: dict[str, Any]) -> dict[str, Any] | None:
    """The sizes with those of this shape; None where it does not fit."""
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
    """A shape with the sizes that are known, and the names of the others."""
    parts = [
        str(n)
        for dim in dims
        for n in (sizes.get("...", ("...",)) if dim == "..." else (sizes.get(dim, dim),))
    ]
    return f"({parts[0]},)" if len(parts) == 1 and parts[0] != "..." else f"({', '.join(parts)})"


@functools.cache
def _entry(text: str) -> _Array | _Tree:
    name, rest = text.strip().split(" ", 1)
    if rest[0] == "{":
        return _Tree(name, rest.strip("{}").split())
    shapes = [
        [dim.strip() for dim in shape.split(",") if dim.strip()]
        for shape in re.findall(r"\(([^()]*)\)", rest)
    ]
    kind = next((kind for kind in KINDS if kind in rest.split()), "floating-point numbers")
    return _Array(name, shapes, kind, "None" in rest.split())


def _value(text: str) -> float:
    return float(text) if "." in text else int(text)


def _number(text: str) -> _Number:
    optional, text = text.endswith(" or None"), text.removesuffix(" or None")
    kind, _, rest = text.partition(" ")
    if kind not in ("whole", "flag", "function"):
        kind, rest = "", text
    limits, words = {}, rest.split()
    if len(words) == 5:  # 0 <= rate < 1
        limits["least" if words[1] == "<=" else "above"] = _value(words[0])
        words = words[2:]
    if len(words) == 3:
        limits[{">=": "least", ">": "above", "<=": "most", "<": "below"}[words[1]]] = _value(
            words[2]
        )
    if kind == "whole":
        limits = {"least": -(2**63), **limits}
    return _Number(words[0], kind, limits, optional)
