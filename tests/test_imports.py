"""Imports point one way, and only backend.py knows CuPy (DESIGN.md, "Conventions")."""

from __future__ import annotations

import ast
import functools
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# what each part of the package may import from the package; a part not listed may import nothing
ALLOWED = {
    "arguments": set(),
    "backend": set(),
    "files": set(),
    "imported": set(),
    "shapes": {"backend"},
    "core": {"backend"},
    "memory": {"backend"},
    "random": {"backend"},
    "special": {"backend"},
    "layers": {"backend", "core", "random", "shapes", "special"},
    "losses": {"backend", "core", "layers", "shapes"},
    "kernels": {"backend", "core", "random", "layers", "losses", "shapes", "special"},
    "optim": {"backend", "core", "shapes"},
    "data": {"core", "files", "random", "shapes", "layers", "losses", "optim"},
    "objectives": {"core", "random", "data", "shapes"},
    "tokenizers": {"files", "random"},
    "evaluation": {"backend", "core", "random", "files", "data", "generation", "losses", "shapes"},
    "models": {"backend", "memory", "core", "random", "layers", "losses", "kernels"},
    "families": {"backend", "core", "random", "layers", "losses", "kernels", "models"},
    "hub": {"backend", "memory", "core", "files", "random", "models", "families", "tokenizers"},
    "sentence_encoder": {"backend", "core", "files", "layers", "models", "families", "tokenizers", "hub"},
    "generation": {"backend", "layers", "random", "objectives", "models"},
    "training": {"backend", "memory", "core", "random", "files", "data", "losses", "optim", "models", "hub"},
    "tuning": {"backend", "memory", "core", "random", "files", "imported", "layers", "losses", "kernels", "data", "optim",
               "evaluation", "tokenizers", "models", "families", "hub", "generation", "training"},
    "checks": {"backend", "core", "files", "layers", "losses", "kernels", "optim", "data", "objectives", "tokenizers", "models",
               "families", "hub", "generation", "tuning"},
    "scaling": {"core", "layers", "kernels", "models", "families", "training"},
    "cli": {"backend", "memory", "files", "imported", "core", "checks", "data", "evaluation", "tokenizers", "optim", "models",
            "families", "hub", "generation", "training", "tuning", "losses", "scaling", "sentence_encoder"},
    "__main__": {"cli"},
    "__init__": {"checks", "generation", "hub", "models"},
}  # fmt: skip
THIRD_PARTY = {"numpy", "regex", "safetensors", "tqdm", "threadpoolctl", "matplotlib", "jinja2", "tomli"}
# imported only when a user passes one of its functions
OPTIONAL = {
    "torch": ("checks/callables/torch.py", "checks/torch_tracing.py"),
    "jax": ("checks/callables/jax.py",),
    "fasttext": ("data/language/fasttext.py",),
    "tensorboardX": ("training/writers.py",),
    "wandb": ("training/writers.py",),
    "zstandard": ("data/pipeline/compression.py",),
    "resiliparse": ("data/pipeline/readers.py",),
}


def sources():
    return sorted((ROOT / "tinyplm").rglob("*.py"))


# what every part may import
ANYWHERE = {"arguments"}


def part_of(path: Path) -> str:
    first = path.relative_to(ROOT / "tinyplm").parts[0]
    return first.removesuffix(".py")


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Full names of everything a file imports, including inside functions; relative imports are resolved."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join(base + (node.module.split(".") if node.module else []))
            # `from . import x` names modules, `from .x import y` names objects in one
            found |= {f"{module}.{a.name}" for a in node.names} if module in ("tinyplm", *_packages()) else {module}
    return frozenset(found)


@functools.cache
def _packages():
    return [".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "tinyplm").rglob("__init__.py")]


def may_import(path: Path, name: str) -> bool:
    top, *rest = name.split(".")
    part = part_of(path)
    if top == "tinyplm":
        return not rest or rest[0] in ALLOWED[part] | ANYWHERE | {part}
    if top == "cupy":
        return part == "backend"
    if top in OPTIONAL:
        return str(path.relative_to(ROOT / "tinyplm")) in OPTIONAL[top]
    return top not in ("reference", "tests", "transformers", "scipy", "hypothesis", "pytest")


def test_imports_point_one_way():
    unknown = {part_of(path) for path in sources()} - ALLOWED.keys()
    assert not unknown, f"add {unknown} to the picture in tests/test_imports.py and the README"
    wrong = [(path, name) for path in sources() for name in imports(path) if not may_import(path, name)]
    assert not wrong, "\n".join(f"{path.relative_to(ROOT)} imports {name}" for path, name in wrong)


def test_third_party_imports_are_the_declared_ones():
    used = {name.split(".")[0] for path in sources() for name in imports(path)}
    assert used - {"tinyplm", "cupy", "__future__", *OPTIONAL} - set(sys.stdlib_module_names) <= THIRD_PARTY


def test_the_oracle_does_not_know_the_implementation():
    """reference/ imports only NumPy, the standard library and itself."""
    for path in (ROOT / "reference").rglob("*.py"):
        others = (
            {name.split(".")[0] for name in imports(path)} - {"numpy", "reference", "__future__"} - set(sys.stdlib_module_names)
        )
        assert not others, f"{path.relative_to(ROOT)} imports {others}"


def test_files_keep_to_their_room():
    """Families have 220 lines at most, other files 400."""
    for folder in ("tinyplm", "reference", "tests", "examples", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            limit = 220 if path.parent == ROOT / "tinyplm" / "families" else 400
            assert lines <= limit, f"{path.relative_to(ROOT)} has {lines} lines"


def test_every_folder_lists_its_files():
    """Each module is named in the __init__.py of its folder, or of the folder above."""
    missing = []
    for path in sources():
        folder = path.parent
        if path.name == "__init__.py" or folder == ROOT / "tinyplm":
            continue
        maps = [folder / "__init__.py", *([folder.parent / "__init__.py"] if folder.parent != ROOT / "tinyplm" else [])]
        words = {word for file in maps for word in re.findall(r"\w+", file.read_text(encoding="utf-8"))}
        if path.stem not in words:
            missing.append(str(path.relative_to(ROOT)))
    assert not missing
