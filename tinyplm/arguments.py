"""Checks of arguments at the public border.  Every error is one line: "name: expected ..., got ..."."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
import numbers
import os
from collections.abc import Callable, Collection, Mapping, Set
from typing import Any, TypeVar

import numpy as np

LONGEST = 80  # characters of a value that a message repeats
MOST = 2**31 - 1  # of anything that is counted and then allocated
LONGEST_PATH = 4095  # bytes
LARGEST_KEY = 2**64 - 1  # keys and seeds have 64 bits


def shown(value: Any, longest: int = LONGEST) -> str:
    """A value as a message repeats it: on one line, printable, not longer than `longest`; arrays by dtype and shape."""
    if isinstance(getattr(value, "shape", None), tuple) and hasattr(value, "dtype"):
        return f"{value.dtype} array of shape {tuple(value.shape)}"
    if (
        isinstance(value, int) and value.bit_length() > 256
    ):  # Python refuses to print thousands of digits
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, str):
        text = repr(value[: longest + 1])
    else:
        try:
            text = repr(value)
        except (RecursionError, ValueError):  # nested too deep, or with such an integer inside
            text = f"a {type(value).__name__}"
    text = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: longest + 1]
    )
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def wrong(name: str, expected: str, value: Any) -> ValueError:
    """The error to raise for an argument that is not what was expected."""
    return ValueError(f"{name}: expected {expected}, got {shown(value)}")


def is_whole(value: Any) -> bool:
    """Whether it is an integer, Python's or NumPy's; booleans do not count."""
    return type(value) is int or (
        isinstance(value, numbers.Integral) and not isinstance(value, bool)
    )


def is_number(value: Any) -> bool:
    """Whether it is a finite real number, Python's or NumPy's; booleans do not count."""
    if (
        type(value) is not float
        and type(value) is not int
        and (not isinstance(value, numbers.Real) or isinstance(value, bool))
    ):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond float
        return False


def check_whole(
    name: str, value: Any, least: int = 0, most: int | None = None, *, or_none: bool = False
) -> None:
    """ValueError unless value is an integer from `least` to `most` (or None, where that is allowed)."""
    if (or_none and value is None) or (
        is_whole(value) and least <= value and (most is None or value <= most)
    ):
        return
    limits = f">= {least}" if most is None else f"from {least} to {most}"
    raise wrong(name, f"{'None or ' * or_none}an integer {limits}", value)


def check_number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    or_none: bool = False,
) -> None:
    """ValueError unless value is a finite number with least <= value <= most and above < value < below."""
    if or_none and value is None:
        return
    holds = (
        is_number(value)
        and (least is None or value >= least)
        and (most is None or value <= most)
        and (above is None or value > above)
        and (below is None or value < below)
    )
    if not holds:
        limits = [
            f"{sign} {limit}"
            for sign, limit in ((">=", least), (">", above), ("<=", most), ("<", below))
            if limit is not None
        ]
        raise wrong(
            name,
            f"{'None or ' * or_none}a finite number{' ' * bool(limits)}{' and '.join(limits)}",
            value,
        )


def check_key(name: str, value: Any, *, or_none: bool = False) -> None:
    """ValueError unless value is a key or a seed, an integer of 64 bits (or None, where that is allowed)."""
    check_whole(name, value, 0, LARGEST_KEY, or_none=or_none)


def plain_numbers(settings: Any) -> None:
    """Replace NumPy's numbers and booleans in a frozen dataclass by Python's, which can be written as JSON."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if type(value) not in (int, float) and (is_whole(value) or is_number(value)):
            object.__setattr__(
                settings, field.name, int(value) if is_whole(value) else float(value)
            )
        elif isinstance(value, np.bool_):
            object.__setattr__(settings, field.name, bool(value))


def check_choice(name: str, value: Any, choices: Collection[Any], *, or_none: bool = False) -> None:
    """ValueError unless value is one of the choices."""
    if (or_none and value is None) or any(
        type(value) is type(choice) and value == choice for choice in choices
    ):
        return
    raise wrong(name, f"{'None or ' * or_none}one of {', '.join(map(str, choices))}", value)


def check_text(name: str, value: Any, *, or_none: bool = False, empty: bool = True) -> None:
    """ValueError unless value is a string (that is not empty, where empty=False)."""
    if not ((or_none and value is None) or (isinstance(value, str) and (empty or value))):
        raise wrong(
            name, f"{'None or ' * or_none}a string{' that is not empty' * (not empty)}", value
        )


def check_flag(name: str, value: Any) -> None:
    """ValueError unless value is True or False, Python's or NumPy's."""
    if not isinstance(value, (bool, np.bool_)):
        raise wrong(name, "True or False", value)


def check_function(name: str, value: Any, *, or_none: bool = False) -> None:
    """ValueError unless value can be called."""
    if not (callable(value) or (or_none and value is None)):
        raise wrong(name, f"{'None or ' * or_none}a function", value)


def check_functions(caller: str, **functions: Any) -> None:
    """ValueError unless all of these can be called."""
    if not all(map(callable, functions.values())):
        name, value = next(item for item in functions.items() if not callable(item[1]))
        raise wrong(f"{caller}: {name}", "a function", value)


def is_several(value: Any) -> bool:
    """Whether it can be iterated over in order, as lists, arrays and generators can; strings, dicts and sets do not count."""
    try:
        iter(value)
    except TypeError:  # also an array without dimensions
        return False
    return not isinstance(value, (str, bytes, bytearray, Mapping, Set))


def check_several(name: str, value: Any, what: str = "strings") -> None:
    """ValueError unless value is a list or another iterable (see is_several), which is not read."""
    if not is_several(value):
        raise wrong(name, f"several {what}", value)


def listed(name: str, value: Any, expected: str) -> list:
    """list(value); ValueError unless is_several(value)."""
    if not is_several(value):
        raise wrong(name, expected, value)
    return list(value)


def as_texts(name: str, values: Any) -> list[str]:
    """The strings of a list or another iterable; ValueError for anything else."""
    texts = listed(name, values, "several strings")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise wrong(f"{name}: number {number}", "a string", text)
    return texts


def check_path(name: str, value: Any) -> None:
    """ValueError unless value can be the path of a file or folder."""
    try:
        path = os.fsencode(value) if isinstance(value, (str, os.PathLike)) else b""
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        path = b""
    if (
        not path
        or b"\0" in path
        or len(path) > LONGEST_PATH
        or max(map(len, path.split(b"/"))) > 255
    ):
        raise wrong(name, "a path", value)


def check_out(value: Any) -> None:
    """ValueError unless it can be the folder that a run writes into, or None."""
    if value is not None:
        check_path("out", value)


def check_takes(name: str, value: Any, *arguments: str) -> None:
    """ValueError unless it is a function that can be called with so many arguments; they are named in the message."""
    expected = f"a function of ({', '.join(arguments)})"
    if not callable(value):
        raise wrong(name, expected, value)
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # written in C: it says itself what is wrong
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        raise ValueError(
            f"{name}: {expected.replace('a function', 'expected a function')}, got one of {signature}"
        ) from None


def check_list(name: str, value: Any, expected: str) -> None:
    """ValueError unless it is several values with a length and numbers, such as a list; texts and dicts are not."""
    right = (
        hasattr(value, "__len__")
        and hasattr(value, "__getitem__")
        and not isinstance(value, (str, bytes, Mapping))
    )
    if not right or getattr(value, "ndim", 1) == 0:
        raise wrong(name, expected, value)


def check_names(where: str, given: Collection[str], known: Collection[str]) -> None:
    """TypeError naming the first of the given keywords that is not a known one, and those that are."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise TypeError(
                f"{where}: unknown argument {shown(name)}{hint}, expected some of {', '.join(known)}"
            )


F = TypeVar("F", bound=Callable)


def known_arguments(f: F) -> F:
    """A decorator for public functions: a call that does not fit the signature raises a TypeError that says what would.

    f itself checks what its **keyword collects.
    """
    signature = inspect.signature(f)
    parameters = list(signature.parameters.values())
    positional = [p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    required = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    collects = parameters[-1].kind is inspect.Parameter.VAR_KEYWORD
    names = {
        p.name: None
        for p in parameters
        if p.name not in ("self", "cls") and p.kind is not inspect.Parameter.VAR_KEYWORD
    }
    where = "model" if f.__name__ == "__call__" else f.__name__

    @functools.wraps(f)
    def checked(*args: Any, **kwargs: Any) -> Any:
        given = {*positional[: len(args)], *kwargs}
        once = len(given) == len(args) + len(kwargs)
        if not (
            once and given.issuperset(required) and (collects or kwargs.keys() <= names.keys())
        ):
            if not collects:
                check_names(where, kwargs, names)
            try:  # Python's words for what is missing or too much
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(
                    f"{where}: {error}; expected the arguments {', '.join(names)}"
                ) from None
        return f(*args, **kwargs)

    return checked  # type: ignore[return-value]


def as_array(
    name: str, values: Any, expected: str, kinds: str, dims: Collection[int] = (1,)
) -> np.ndarray:
    """A list or an array as a NumPy array, of one of these kinds of dtype and numbers of dimensions; ValueError otherwise."""
    try:
        array = np.asarray(values)
    except (
        Exception
    ):  # NumPy has several errors for what is no array: ragged, nested too deep, of another device
        raise wrong(name, expected, values) from None
    if array.size == 0 and array.dtype == np.float64 and not hasattr(values, "dtype"):
        array = array.astype(np.int64)  # np.asarray([]) is float
    if array.ndim not in dims or array.dtype.kind not in kinds:
        raise wrong(name, expected, values)
    return array


def as_ids(name: str, values: Any, vocab_size: int | None = None) -> np.ndarray:
    """Token ids (N,) as int64; ValueError for anything else, and for an id that is negative or not below vocab_size."""
    array = as_array(name, values, "a list of token ids", "iu")
    most = np.iinfo(np.int64).max if vocab_size is None else vocab_size - 1
    if array.size and (int(array.min()) < 0 or int(array.max()) > most):
        bad = next(i for i in array.tolist() if not 0 <= i <= most)
        limit = "0 on" if vocab_size is None else f"0 to {most}"
        raise ValueError(f"{name}: expected token ids from {limit}, got {bad}")
    return array.astype(np.int64, copy=False)
