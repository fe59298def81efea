"""A function of the user's, named as FILE.py:NAME, imported from its file."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from .arguments import shown


def imported(text: str, name: str = "FILE.py:NAME") -> Any:
    """The object that FILE.py:NAME names; its file is run, and may import its neighbours.

        imported("mine.py:rmsnorm")

    name: of the argument, for messages.  ValueError for another text, a file that does not exist or
    cannot be imported, and a name that it lacks.
    """
    path, colon, inside = text.rpartition(":")
    if not (colon and path.endswith(".py") and inside):
        raise ValueError(f"{name}: expected a file and a name in it, got {shown(text)}")
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"{path}: expected a file, got none (no such file)")
    # the file may have the name of a library
    spec = importlib.util.spec_from_file_location(f"checked_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.resolve().parent))  # it may import its neighbours
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: expected a file that can be imported, got {said}") from error
    value: Any = module
    for part in inside.split("."):
        if not hasattr(value, part):
            names = [n for n in vars(module) if not n.startswith("_")]
            raise ValueError(f"{path}: expected one of {', '.join(names)}, got {shown(inside)}")
        value = getattr(value, part)
    return value
