"""Docstrings of the standard library: the texts of finetune_classifier.py and text_to_text.py."""

from __future__ import annotations

import ast
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinyplm import random

SKIPPED = {"test", "tests", "idlelib", "lib2to3", "__pycache__"}  # folders


class Example(NamedTuple):
    """A docstring, the number of its package, and its module."""

    text: str
    label: int
    module: str


# ----------------------------------------------------------------------------------------- the data


def documented() -> Iterator[tuple[str, ast.AST, str]]:
    """(module, node, docstring) of all functions and classes in packages of the standard library.

    Its lines have the indentation of the docstring removed.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.glob("*/**/*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if not all(part.isidentifier() for part in parts) or SKIPPED & {*parts}:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about invalid escapes in docstrings
                tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        module = ".".join(parts).removesuffix(".__init__")
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and (
                text := ast.get_docstring(node)
            ):
                yield module, node, text


def docstrings() -> list[tuple[str, str]]:
    """(module, docstring) of all of them, each on one line."""
    return [(module, " ".join(text.split())) for module, _, text in documented()]


def examples(classes: int) -> tuple[list[Example], list[str]]:
    """Distinct texts of the packages with the most of them, names blanked out; and the packages."""
    rows, seen = docstrings(), set()
    modules = {}
    for module, _ in rows:
        modules.setdefault(module.split(".")[0], set()).add(module)
    own = (module.split(".")[0] for module, _ in rows)
    count = Counter(package for package in own if len(modules[package]) >= 5)
    packages = sorted(name for name, _ in count.most_common(classes))
    if len(packages) < classes:
        expected = f"at most {len(packages)}, the packages with docstrings in 5 modules"
        raise ValueError(f"--classes: expected {expected}, got {classes}")
    every = [module for package in packages for module in modules[package]]
    names = {part.strip("_") for module in every for part in module.split(".")}
    blanked = re.compile(
        rf"\w*(?:{'|'.join(packages)})\w*|\b_*(?:{'|'.join(sorted(names - {''}))})\b", re.IGNORECASE
    )
    found = []
    for module, text in rows:
        text = blanked.sub("_", text)
        if module.split(".")[0] in packages and len(text.split()) >= 5 and text not in seen:
            seen.add(text)
            found.append(Example(text, packages.index(module.split(".")[0]), module))
    return found, packages


def split(some: list[Example]) -> tuple[list[Example], list[Example], list[Example]]:
    """(training, validation, test), by module; of each package about 30% for testing, 15% to
    validate.

    A package's modules are taken by size, each for the part furthest below its share.  Of the
    validation texts, which are evaluated after every epoch, 120 are kept, balanced over packages.
    """
    parts = ([], [], [])
    for label in sorted({e.label for e in some}):
        own = Counter(e.module for e in some if e.label == label)
        where, lack = {}, [share * own.total() for share in (0.55, 0.15, 0.3)]
        for module, size in own.most_common():
            where[module] = int(np.argmax(lack))
            lack[where[module]] -= size
        for e in some:
            if e.module in where:
                parts[where[e.module]].append(e)
    training, validation, test = parts
    draw = random.generator(random.key(0))
    return training, balanced(validation, min(120, len(validation)), draw), test


def balanced(some: list[Example], count: int, draw: np.random.Generator) -> list[Example]:
    """`count` samples drawn at random, with labels as equally frequent as possible."""
    shuffled = [some[i] for i in draw.permutation(len(some))]
    ranks, turn = Counter(), []
    for e in shuffled:
        turn.append(ranks[e.label])
        ranks[e.label] += 1
    return [shuffled[i] for i in np.argsort(turn, kind="stable")[:count]]
