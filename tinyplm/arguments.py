"""Checks of arguments at the public border. Errors are one line: "name: expected ..., got ..."."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
import numbers
import os
from collections.abc import Callable, Collection, Mapping, Set
from typing import Any, TypeVar, cast

import numpy as np

LONGEST = 80  # characters of a value in a message
MOST = 2**31 - 1  # of anything that is counted and then allocated
LONGEST_PATH = 4095  # bytes
LARGEST_KEY = 2**64 - 1  # keys and seeds have 64 bits


def shown(value: Any, longest: int = LONGEST) -> str:
    """A value for a message: one printable line of at most `longest`; arrays as dtype and shape."""
    if isinstance(getattr(value, "shape", None), tuple) and hasattr(value, "dtype"):
        return f"{value.dtype} array of shape {tuple(value.shape)}"
    if isinstance(value, int) and value.bit_length() > 256:  # Python refuses thousands of digits
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, str):
        text = repr(value[: longest + 1])
    else:
        try:
            text = repr(value)
        except (RecursionError, ValueError):  # nested too deeply, or containing such an integer
            text = f"a {type(value).__name__}"
    text = "".join(_printable(c) for c in text[: longest + 1])
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _printable(c: str) -> str:
    return c if c.isprintable() else c.encode("unicode_escape").decode()


def wrong(name: str, expected: str, value: Any) -> ValueError:
    """The error to raise for a bad argument."""
    return mismatch(name, expected, shown(value))


def mismatch(name: object, expected: str, got: object) -> ValueError:
    """The same, with `got` as it is: text, a number or a shape that says what was found."""
    return ValueError(f"{name}: expected {expected}, got {got}")


def is_whole(value: Any) -> bool:
    """Whether it is an integer of Python or NumPy; booleans do not count."""
    if type(value) is int:
        return True
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a finite real number of Python or NumPy; booleans do not count."""
    if type(value) is not float and type(value) is not int:
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the range of float
        return False


def check_whole(
    name: str, value: Any, least: int = 0, most: int | None = None, *, or_none: bool = False
) -> None:
    """ValueError unless value is an integer from `least` to `most` (or None, if allowed)."""
    if or_none and value is None:
        return
    if is_whole(value) and least <= value and (most is None or value <= most):
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
    """ValueError unless value is a finite number within these limits (or None, if allowed)."""
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
        signs = ((">=", least), (">", above), ("<=", most), ("<", below))
        limits = " and ".join(f"{sign} {limit}" for sign, limit in signs if limit is not None)
        expected = f"{'None or ' * or_none}a finite number {limits}".rstrip()
        raise wrong(name, expected, value)


def check_key(name: str, value: Any, *, or_none: bool = False) -> None:
    """ValueError unless value is a key or seed, an integer of 64 bits (or None, if allowed)."""
    check_whole(name, value, 0, LARGEST_KEY, or_none=or_none)


def plain_numbers(settings: Any) -> None:
    """Convert NumPy numbers and booleans in a frozen dataclass to Python's, as JSON needs."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, np.bool_):
            object.__setattr__(settings, field.name, bool(value))
        elif type(value) not in (int, float) and (is_whole(value) or is_number(value)):
            plain = int(value) if is_whole(value) else float(value)
            object.__setattr__(settings, field.name, plain)


def check_choice(name: str, value: Any, choices: Collection[Any], *, or_none: bool = False) -> None:
    """ValueError unless value is one of the choices."""
    if or_none and value is None:
        return
    if any(type(value) is type(choice) and value == choice for choice in choices):
        return
    raise wrong(name, f"{'None or ' * or_none}one of {', '.join(map(str, choices))}", value)


def check_text(name: str, value: Any, *, or_none: bool = False, empty: bool = True) -> None:
    """ValueError unless value is a string, non-empty with empty=False (or None, if allowed)."""
    if not ((or_none and value is None) or (isinstance(value, str) and (empty or value))):
        kind = "a string" if empty else "a non-empty string"
        raise wrong(name, f"{'None or ' * or_none}{kind}", value)


def check_flag(name: str, value: Any) -> None:
    """ValueError unless value is True or False, of Python or NumPy."""
    if not isinstance(value, (bool, np.bool_)):
        raise wrong(name, "True or False", value)


def check_function(name: str, value: Any, *, or_none: bool = False) -> None:
    """ValueError unless value is callable (or None, if allowed)."""
    if not (callable(value) or (or_none and value is None)):
        raise wrong(name, f"{'None or ' * or_none}a function", value)


def check_functions(caller: str, **functions: Any) -> None:
    """ValueError unless all of these are callable."""
    if not all(map(callable, functions.values())):
        name, value = next(item for item in functions.items() if not callable(item[1]))
        raise wrong(f"{caller}: {name}", "a function", value)


def is_several(value: Any) -> bool:
    """Whether it is an ordered iterable, such as a list, array or generator.

    Strings, dicts and sets do not count.
    """
    try:
        iter(value)
    except TypeError:  # also an array without dimensions
        return False
    return not isinstance(value, (str, bytes, bytearray, Mapping, Set))


def check_several(name: str, value: Any, what: str = "strings") -> None:
    """ValueError unless value is an ordered iterable (see is_several), which is not consumed."""
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
    except UnicodeEncodeError:  # a lone surrogate that encodes no byte
        path = b""
    if not path or b"\0" in path or len(path) > LONGEST_PATH:
        raise wrong(name, "a path", value)
    if max(map(len, path.split(b"/"))) > 255:
        raise wrong(name, "a path", value)


def check_out(value: Any, resume: Any = False) -> None:
    """ValueError unless it can be the folder that a run writes into, or None; resume: only with
    one."""
    if value is not None:
        check_path("out", value)
    check_flag("resume", resume)
    if resume and value is None:
        raise mismatch("resume", "False without out", resume)


def check_takes(name: str, value: Any, *arguments: str) -> None:
    """ValueError unless it is a function that takes these arguments, which the message names."""
    expected = f"a function of ({', '.join(arguments)})"
    if not callable(value):
        raise wrong(name, expected, value)
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # written in C: it reports its own errors
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        raise ValueError(f"{name}: expected {expected}, got one of {signature}") from None


def check_list(name: str, value: Any, expected: str) -> None:
    """ValueError unless value has a length and elements by number, such as a list."""
    sized = hasattr(value, "__len__") and hasattr(value, "__getitem__")
    if not sized or isinstance(value, (str, bytes, Mapping)) or getattr(value, "ndim", 1) == 0:
        raise wrong(name, expected, value)


def check_names(where: str, given: Collection[str], known: Collection[str]) -> None:
    """TypeError naming the first unknown keyword, and the known ones."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            expected = f"some of the arguments {', '.join(known)}"
            raise TypeError(f"{where}: expected {expected}, got {shown(name)}{hint}")


F = TypeVar("F", bound=Callable)


def known_arguments(f: F) -> F:
    """A decorator for public functions: a TypeError for a wrong call says what was expected.

    The function itself checks what its **keyword collects.
    """
    signature = inspect.signature(f)
    parameters = list(signature.parameters.values())
    collects = parameters[-1].kind is inspect.Parameter.VAR_KEYWORD
    named = parameters[:-1] if collects else parameters
    positional = [p.name for p in named if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    required = [p.name for p in named if p.default is p.empty]
    names = {p.name: None for p in named if p.name not in ("self", "cls")}
    where = "model" if f.__name__ == "__call__" else f.__name__

    @functools.wraps(f)
    def checked(*args: Any, **kwargs: Any) -> Any:
        given = {*positional[: len(args)], *kwargs}
        once = len(given) == len(args) + len(kwargs)
        known = collects or kwargs.keys() <= names.keys()
        if not (once and known and given.issuperset(required)):
            if not collects:
                check_names(where, kwargs, names)
            try:  # Python's message names what is missing or superfluous
                signature.bind(*args, **kwargs)
            except TypeError as error:
                expected = f"the arguments {', '.join(names)}"
                raise TypeError(f"{where}: expected {expected}, got a bad call ({error})") from None
        return f(*args, **kwargs)

    return cast(F, checked)


def as_array(
    name: str, values: Any, expected: str, kinds: str, dims: Collection[int] = (1,)
) -> np.ndarray:
    """values as a NumPy array with one of these dtype kinds and ranks; ValueError otherwise."""
    try:
        array = np.asarray(values)
    except Exception:  # NumPy raises several types: ragged, nested too deeply, another device
        raise wrong(name, expected, values) from None
    if array.size == 0 and array.dtype == np.float64 and not hasattr(values, "dtype"):
        array = array.astype(np.int64)  # np.asarray([]) is float
    if array.ndim not in dims or array.dtype.kind not in kinds:
        raise wrong(name, expected, values)
    return array


def as_ids(name: str, values: Any, vocab_size: int | None = None) -> np.ndarray:
    """Token ids (N,) as int64; ValueError for other values, and for ids outside the vocabulary."""
    array = as_array(name, values, "a list of token ids", "iu")
    most = np.iinfo(np.int64).max if vocab_size is None else vocab_size - 1
    if array.size and (int(array.min()) < 0 or int(array.max()) > most):
        bad = next(i for i in array.tolist() if not 0 <= i <= most)
        limit = ">= 0" if vocab_size is None else f"from 0 to {most}"
        raise ValueError(f"{name}: expected token ids {limit}, got {bad}")
    return array.astype(np.int64, copy=False)
