"""Files of small models: arrays as safetensors, settings as JSON in the same file's header.

One file is written under a temporary name and renamed, so it is never half written; nothing in it
is unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..arguments import check_path, mismatch, shown
from ..files import open_regular, parse_json, printable, replaced

KEY = "tinyplm"  # of the header's metadata
VERSION = 1


def write_model(
    path: str | os.PathLike,
    kind: str,
    arrays: Mapping[str, np.ndarray],
    settings: Mapping[str, Any],
) -> None:
    """Write arrays and settings, which JSON can hold, as a model of this kind."""
    check_path("path", path)
    header = {KEY: json.dumps({"kind": kind, "version": VERSION, **settings}, ensure_ascii=False)}
    with replaced(path) as temporary:
        save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, temporary, header)


def read_model(path: str | os.PathLike, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(arrays, settings) of a file that write_model wrote; ValueError naming any other file."""
    check_path("path", path)
    where = printable(path)
    open_regular(path).close()
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(KEY, "{}")
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, TypeError) as error:  # TypeError: a dtype that NumPy lacks
        raise mismatch(where, "a model's safetensors file", f"an error ({error})") from None
    settings = parse_json(text, f"{where}: header")
    if not isinstance(settings, dict) or settings.get("kind") != kind:
        found = settings.get("kind") if isinstance(settings, dict) else settings
        raise mismatch(where, f"a {kind} model", f"a file of {shown(found)}")
    if settings["version"] != VERSION:
        raise mismatch(f"{where}: version", str(VERSION), shown(settings["version"]))
    return arrays, settings


def stored_array(
    where: str, arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]
) -> np.ndarray:
    """arrays[name]; ValueError unless it is float32, of this shape, and finite."""
    array = arrays.get(name)
    if array is None or array.dtype != np.float32 or array.shape != shape:
        raise mismatch(f"{where}: {name}", f"float32 of shape {shape}", shown(array))
    if not np.isfinite(array).all():
        raise mismatch(f"{where}: {name}", "finite numbers", "others")
    return array
