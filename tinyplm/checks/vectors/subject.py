"""What vectors are made of: subjects with their cases, and what one run of a case gives."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ...core import flatten
from .draws import DTYPES


class Result(NamedTuple):
    """One forward.  outputs: {name of an array: array}; backward: cotangents of the outputs in
    `differentiable` -> {name: gradient}, None if there is no gradient."""

    outputs: dict[str, Any]
    differentiable: tuple[str, ...] = ()
    backward: Callable[[dict[str, Any]], dict[str, Any]] | None = None


class Made(NamedTuple):
    """A case.  args: {name: tree of float64 arrays}, in order; kwargs may contain arrays and
    functions.  note: what is difficult about it, "" if nothing is."""

    name: str
    note: str
    args: dict[str, Any]
    kwargs: dict[str, Any] = {}
    sizes: dict[str, Any] = {}  # the sizes and the seed that it was drawn from


class Subject(NamedTuple):
    """Something with vectors of its own.  run(arguments, keywords) computes in their dtype."""

    name: str
    kind: str  # "component", "kernel", "optimiser", "schedule", "sampler", "objective", "family"
    text: str
    f: Any  # whose docstring has the equation
    run: Callable[[Mapping[str, Any], Mapping[str, Any]], Result]
    cases: Callable[[], list[Made]]
    dtypes: tuple[str, ...] = DTYPES
    wide: tuple[str, ...] = ()  # arrays that are float64 in every dtype, by the end of their name
    roundings: int = 8  # that a tolerance allows, see measure.py


def named(name: str, tree: Any) -> dict[str, Any]:
    """{name.path: array} of the arrays of a tree."""
    leaves = flatten(tree) if isinstance(tree, (dict, list)) else {"": tree}
    return {f"{name}.{path}".rstrip("."): a for path, a in leaves.items() if a is not None}


_SOURCE = re.compile(
    r"[A-Z]\w+(?: & [A-Z]\w+| et al\.)? (?:19|20)\d\d[a-z]?"
    r"(?:, (?:eq|sec|app|alg|fig|appendix|algorithm)\b\.? ?(?:[\w.-]*\w)?)*"
)


def equation(f: Any) -> str:
    """The equation in a docstring: its first paragraph and a display after it, without sources."""
    paragraphs = (inspect.getdoc(f) or "").split("\n\n")
    count = 2 if paragraphs[0].rstrip().endswith((",", ":", "with")) else 1
    text = "\n".join(paragraphs[:count])
    if not inspect.ismodule(f):  # of a family the sentence that says what it is
        text = re.sub(r"\([,; ]*\)", "", _SOURCE.sub("", text))
    return " ".join(text.split()).rstrip(" ,:")


def sources(f: Any) -> list[str]:
    """The papers that a docstring names, with equation numbers where it has them."""
    text = " ".join((inspect.getdoc(f) or "").split())
    return list(dict.fromkeys(match.group() for match in _SOURCE.finditer(text)))


def implementation(f: Any) -> str:
    """The full name of a function or a module."""
    return f.__name__ if inspect.ismodule(f) else f"{f.__module__}.{f.__qualname__}"
