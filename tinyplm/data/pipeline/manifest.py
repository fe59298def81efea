"""What a run is: its steps, settings and inputs with hashes, so that another is not resumed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...arguments import mismatch, shown
from ...files import open_regular, printable, read_json
from .sources import MANIFEST, Source
from .stages import Plan

VERSION = 1


def manifest_of(plan: Plan, sources: Sequence[Source], shard: int) -> dict[str, Any]:
    steps = [{"name": spec.name, **spec.settings} for spec in plan.specs]
    contents = {
        "version": VERSION,
        "steps": steps,
        "field": plan.field,
        "format": plan.format,
        "compression": plan.compression,
        "shard": shard,
        "longest": plan.longest,
        "shards": len(plan.shards),
        "inputs": [source._asdict() for source in sources],
        "files": {path: _digest(path) for path in sorted(set(_paths(steps)))},
    }
    try:
        return json.loads(json.dumps(contents))
    except TypeError as error:
        raise ValueError(f"steps: expected settings that JSON can hold, got {error}") from None


def check_same(folder: Path, manifest: dict[str, Any]) -> None:
    """ValueError naming the first thing in which the run in the folder is another."""
    file = folder / MANIFEST
    found = read_json(file)
    if not isinstance(found, dict):
        raise mismatch(printable(file), "a manifest", shown(found))
    for name, value in manifest.items():
        if found.get(name) != value:
            was, now = _different(found.get(name), value)
            raise mismatch(f"{printable(file)}: {name}", f"{shown(now)}, as now", shown(was))


def _different(was: Any, now: Any) -> tuple[Any, Any]:
    """The first elements in which two lists differ, or the two values."""
    if isinstance(was, list) and isinstance(now, list):
        for a, b in zip(was, now):
            if a != b:
                return a, b
        return f"{len(was)} of them", f"{len(now)} of them"
    return was, now


def _paths(value: Any) -> Iterator[str]:
    """The files that settings name."""
    if isinstance(value, str):
        if len(value) < 4096 and "\0" not in value and os.path.isfile(value):
            yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _paths(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _paths(part)


def _digest(path: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
