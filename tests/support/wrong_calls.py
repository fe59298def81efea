"""Wrong calls: arguments of the wrong kind, and whether a call with one ends well.

A call ends well if it returns, or raises our own ValueError or TypeError: raised by a `raise` in tinyplm, on one line,
naming the argument.  Anything else is an internal error that reached the user.

    complaints = wrong_calls(generate, {"model": model, "prompts": [[1]], "max_new_tokens": 2})
    assert not complaints, "\n".join(complaints)
"""

from __future__ import annotations

import dis
import inspect
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import tinyplm

PACKAGE = str(Path(tinyplm.__file__).parent) + os.sep

# What Python and NumPy say when a value of the wrong kind reaches an operation; our own messages may quote an error's text.
INTERNAL = re.compile(
    r"matmul|ufunc|could not be broadcast|could not broadcast|unexpected keyword|positional argument|has no attribute"
    r"|not subscriptable|unsupported operand"
    r"|cannot unpack|not iterable|not callable|out of bounds|inhomogeneous|truth value|invalid literal|could not convert"
    r"|unhashable|has no len|object cannot be interpreted|not supported between|only integer|only length-1|cannot be cast"
    r"|Cannot cast|must be real number|a bytes-like object|expected str, bytes|embedded null"
)


def wrong_values() -> dict[str, Any]:
    """{description: a fresh value} of every kind that a user may pass by mistake."""
    return {
        "None": None, "True": True, "zero": 0, "int": 7, "negative": -1, "huge int": 10**30, "5,000 digits": 10**5000,
        "fraction": 1.5, "NaN": float("nan"), "inf": float("inf"), "complex": 1j, "numpy scalar": np.float32(0.5),
        "str": "hello", "empty str": "", "line break": "a\nb", "NUL": "a\0b", "surrogate": "\ud800", "long str": "x" * 10_000,
        "bytes": b"x", "empty list": [], "list": [1, 2], "nested": [[1, 2], [3, 4]], "ragged": [[1], [2, 3]], "deep": _deep(50),
        "list with None": [[None, 1]], "list of str": ["a", "b"], "tuple": (1,), "dict": {"a": 1}, "dict of ints": {5: "x"},
        "empty dict": {}, "set": {1, 2}, "object": object(), "function": lambda *a: a, "class": int,
        "generator": (n for n in (1, 2)), "empty array": np.zeros((0, 3)), "0-d array": np.array(3),
        "NaN array": np.full((2, 3), np.nan), "wrong shape": np.zeros((5, 7, 2)), "int array": np.arange(3),
        "array of huge ints": np.array([[2**62]]), "negative array": np.array([[-1]]), "bool array": np.ones((2, 3), dtype=bool),
        "complex array": np.ones((2, 3), dtype=complex), "object array": np.array([[None, "x"]], dtype=object),
        "str array": np.array([["a"]]), "datetime array": np.array([["2020-01-01"]], dtype="datetime64[D]"),
        "structured array": np.zeros((2, 3), dtype=[("a", "i4")]),
    }  # fmt: skip


def _deep(levels: int) -> list:
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


def junk() -> st.SearchStrategy:
    """Values of any kind: scalars, nested lists and dicts of scalars, and arrays of any dtype and shape."""
    numbers = [st.booleans(), st.integers(), st.floats(), st.complex_numbers()]
    scalars = st.one_of(st.none(), *numbers, st.text(max_size=5), st.binary(max_size=5))

    def containers(inside: st.SearchStrategy) -> st.SearchStrategy:
        return st.lists(inside, max_size=3) | st.dictionaries(scalars, inside, max_size=3)

    shapes = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)
    return st.recursive(scalars, containers, max_leaves=6) | arrays.arrays(arrays.scalar_dtypes(), shapes)


def complaint(call: Callable[[], Any], names: Iterable[str] = ()) -> str | None:
    """What is wrong with how a call ends, or None.  names: the message must contain one of these words."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = call()
            if inspect.isgenerator(result):
                for _ in result:
                    pass
    except (ValueError, TypeError) as error:
        text, names = str(error), list(names)
        if not text or len(text.splitlines()) != 1 or not text.isprintable():
            return f"{type(error).__name__} is not one printable line: {text!r:.200}"
        if len(text) > 600:
            return f"a message of {len(text)} characters: {text[:100]!r}"
        if INTERNAL.search(text) or not _raised(error.__traceback__):
            return f"internal error: {type(error).__name__}: {text:.200}"
        if names and not any(name in text for name in names):
            return f"{type(error).__name__} names none of {', '.join(names)}: {text:.200}"
    except Exception as error:
        return f"{type(error).__name__} came out: {str(error)!r:.200}"
    return None


def _raised(traceback: TracebackType | None) -> bool:
    """Whether the error comes from a `raise` in tinyplm, and not from an operation or a library."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None or not traceback.tb_frame.f_code.co_filename.startswith(PACKAGE):
        return False
    return traceback.tb_frame.f_code.co_code[traceback.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def wrong_calls(function: Callable, right: Mapping[str, Any], *, only: Iterable[str] = (), skip: Iterable[str] = (),
                aliases: Mapping[str, Iterable[str]] | None = None) -> list[str]:  # fmt: skip
    """The complaints about function(**right) with each argument in turn replaced by each wrong value.

    right: valid arguments by name; they must not include values that can be read only once (generators).
    only: these arguments instead of all.  skip: kinds of values that this call accepts.
    aliases: {argument: words that its messages may use instead of its name}.
    """
    found = []
    for name in only or right:
        words = (name, *(aliases or {}).get(name, ()))
        problems = wrong_argument(lambda value, name=name: function(**{**right, name: value}), *words, skip=skip)
        found += [f"{name} = {problem}" for problem in problems]
    return found


def wrong_argument(call: Callable[[Any], Any], *words: str, skip: Iterable[str] = ()) -> list[str]:
    """The complaints about call(value) for each wrong value; each message must contain one of the words."""
    found = []
    for kind, value in wrong_values().items():
        if kind in skip:
            continue
        if (problem := complaint(lambda value=value: call(value), words)) is not None:
            found.append(f"{kind}: {problem}")
    return found
