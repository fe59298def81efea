"""Reads the source of tinyplm and reports what CuPy lacks: names and keywords of `xp`, and keywords of methods.

    python -m tests.gpu.static_check [folder]

It sees every line, including those that no test runs on the strict device.  But it recognises `xp` only by its name
(or an assignment from array_module), and can't tell an array from another object with a method of the same name.
"""

from __future__ import annotations

import ast
import functools
import pathlib
import sys
from typing import NamedTuple

import numpy as np

from .strict import StrictUfunc, strict
from .strict_functions import StrictFunction
from .strict_rules import API, Call

# Code whose arrays may be on any device: array methods are checked here too.
DEVICE_CODE = ("core", "layers", "losses", "kernels", "families", "models", "optim", "random.py")
# Device code that must not use NumPy, since `np` makes host arrays.
NO_NUMPY = ("layers", "losses", "kernels", "families", "models")
# Exceptions: the NumPy names these files may use, in addition to the bare name `np` (a default for xp=).
HOST_NUMPY = {
    "layers/mask.py": (),  # the host is the default device for masks made from lengths
    "layers/cache.py": (),  # and for empty buffers
    "layers/cache_size.py": ("dtype",),  # bytes of a number
    "layers/source_cache.py": ("ndarray", "diff", "flatnonzero", "arange", "array_equal"),  # numbers of rows, on the host
    "layers/alibi.py": ("ndarray", "arange", "concatenate"),  # slopes: one number for each head, made on the host
    "layers/position.py": ("arange",),  # the frequencies, a constant that depends only on the width
    "layers/rope_scaling.py": tuple("arange array clip float64 ndarray".split()),  # frequencies: few numbers, from the config
    "layers/relative_buckets.py": tuple("ndarray arange abs maximum log float32 ceil sign where clip".split()),  # tables
    "models/names.py": ("ndarray", "split", "cumsum", "concatenate", "stack"),  # tensors from files
    "models/rope.py": ("ndarray",),
    "models/placing.py": tuple("ndarray array ones flatnonzero arange maximum cumsum where take_along_axis stack".split()),
    "models/checks.py": ("asarray",),  # the border: lists of ids passed by the user
    "models/model.py": ("dtype",),  # the name of a dtype passed by the user
}
ONLY_CUPY_IMPORT = "backend.py"

# Lists, dicts and strings have methods with these names too.
AMBIGUOUS = {"copy", "get", "item", "partition", "put", "set", "sort", "view"}
NUMPY_ONLY = set(dir(np.ndarray)) - {*API["ndarray"]["methods"], *API["ndarray"]["attributes"], *dir(object)}
NUMPY_ONLY = {name for name in NUMPY_ONLY if not name.startswith("_")} - {"dump", "dumps", "tofile"}


class Problem(NamedTuple):
    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


def check_folder(folder: pathlib.Path) -> list[Problem]:
    problems = []
    for file in sorted(folder.rglob("*.py")):
        problems += check_source(file.read_text(), file.relative_to(folder).as_posix())
    return problems


def check_source(source: str, path: str) -> list[Problem]:
    """`path` is relative to the package and determines which rules apply."""
    checker = _Checker(path)
    checker.find_names(tree := ast.parse(source))
    checker.visit(tree)
    return sorted(checker.problems)


def _within(path: str, places: tuple[str, ...]) -> bool:
    return path.split("/")[0] in places


@functools.cache
def method_call(name: str) -> Call:
    return Call(f"ndarray.{name}", API["ndarray"]["methods"][name], getattr(np.ndarray, name, None), method=True)


class _Anything:
    """Stands for an argument whose value isn't known, so it never counts as wrong."""

    __hash__ = None

    def __eq__(self, other) -> bool:
        return True


class _Checker(ast.NodeVisitor):
    def __init__(self, path: str):
        self.path = path
        self.problems: list[Problem] = []
        self.device_code = _within(path, DEVICE_CODE)
        self.no_numpy = _within(path, NO_NUMPY)
        self.modules = {"xp"}  # names of the array module
        self.numpy = set()  # names of NumPy
        self.imported = set()

    def find_names(self, tree: ast.AST) -> None:
        """Finds what the file's names refer to, wherever they are bound."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and _is_array_module(node.value):
                self.modules |= {target.id for target in node.targets if isinstance(target, ast.Name)}
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.asname or alias.name for alias in node.names]
                self.imported |= set(names)
                if isinstance(node, ast.Import):
                    self.numpy |= {n for n, a in zip(names, node.names, strict=True) if a.name == "numpy"}

    def report(self, node: ast.AST, message: str) -> None:
        self.problems.append(Problem(self.path, node.lineno, message))

    # Imports and NumPy

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._check_import(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if not node.level:
            self._check_import(node, node.module)

    def _check_import(self, node: ast.AST, module: str) -> None:
        top = module.split(".")[0]
        if top in ("cupy", "cupyx") and self.path != ONLY_CUPY_IMPORT:
            self.report(node, f"only {ONLY_CUPY_IMPORT} imports {top}")
        if top == "numpy" and self.no_numpy and self.path not in HOST_NUMPY:
            self.report(node, "device code imports numpy; use array_module(x)")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        names = self._names_after_module(node)
        if names:
            self._find(node, names)
        elif isinstance(node.value, ast.Name) and node.value.id in self.numpy:
            if self.no_numpy and node.attr not in HOST_NUMPY.get(self.path, ()):
                self.report(node, f"device code uses numpy.{node.attr}")
        elif self.device_code and node.attr in NUMPY_ONLY:
            self.report(node, f"cupy.ndarray has no {node.attr}")
        else:
            self.generic_visit(node)

    # xp.name

    def _names_after_module(self, node: ast.AST) -> list[str]:
        """["add", "at"] of the expression xp.add.at; empty if it doesn't begin with the array module."""
        names = []
        while isinstance(node, ast.Attribute):
            names.insert(0, node.attr)
            node = node.value
        is_module = (isinstance(node, ast.Name) and node.id in self.modules) or _is_array_module(node)
        return names if is_module else []

    def _find(self, node: ast.AST, names: list[str]):
        """What the strict device has under these names; reports a problem if there is nothing."""
        if not hasattr(np, names[0]) and hasattr(strict, names[0]):
            self.report(node, f"NumPy has no {names[0]}, only CuPy")
            return None
        found = strict
        for name in names:
            try:
                if isinstance(found, StrictUfunc):
                    return found.method_signature(name) if hasattr(np.ufunc, name) else None
                if isinstance(found, type):  # xp.float32.name, xp.finfo.max: NumPy's own
                    return None
                found = getattr(found, name)
            except (AttributeError, NotImplementedError) as error:
                self.report(node, str(error))
                return None
        return found

    # Calls

    def visit_Call(self, node: ast.Call) -> None:
        names = self._names_after_module(node.func)
        if names:
            self._check_call(node, self._find(node, names))
        elif isinstance(node.func, ast.Attribute) and self.device_code:
            self.visit(node.func)
            self._check_method(node, node.func)
        else:
            self.visit(node.func)
        for argument in [*node.args, *node.keywords]:
            self.visit(argument)

    def _check_call(self, node: ast.Call, found) -> None:
        if isinstance(found, StrictFunction):
            self._check_arguments(node, found.call)
        elif isinstance(found, StrictUfunc):
            for keyword in node.keywords:
                if keyword.arg is not None and keyword.arg not in API["ufunc_keywords"]:
                    self.report(node, f"cupy.{found.__name__} has no keyword {keyword.arg}")
        elif isinstance(found, Call):
            self._check_arguments(node, found)

    def _check_method(self, node: ast.Call, function: ast.Attribute) -> None:
        name, owner = function.attr, function.value
        if name not in API["ndarray"]["methods"] or (isinstance(owner, ast.Name) and owner.id in self.imported):
            return
        call = method_call(name)
        if name not in AMBIGUOUS:
            self._check_arguments(node, call)
        elif name == "sort" and any(k.arg in ("kind", "stable", "order") for k in node.keywords):
            self._check_arguments(node, call)

    def _check_arguments(self, node: ast.Call, call: Call) -> None:
        starred = any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords)
        keywords = {k.arg: _value(k.value) for k in node.keywords if k.arg is not None}
        if starred:  # the number of arguments isn't known, the keywords are
            for name in keywords.keys() - call.signature.parameters.keys():
                self.report(node, f"cupy.{call.name} has no keyword {name}")
            return
        try:
            call.bind(tuple(_value(a) for a in node.args), keywords)
        except TypeError as error:
            self.report(node, str(error))


def _is_array_module(node: ast.AST) -> bool:
    """Whether the expression is array_module(...) or backend.array_module(...)."""
    if not isinstance(node, ast.Call):
        return False
    function = node.func
    return (function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")) == "array_module"


def _value(node: ast.AST):
    return node.value if isinstance(node, ast.Constant) else _Anything()


def main() -> int:
    default = pathlib.Path(__file__).parents[2] / "tinyplm"
    problems = check_folder(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default)
    print("\n".join(map(str, problems)) or "nothing to report")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
