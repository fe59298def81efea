"""What a run was started with, as hashes and facts: a resumed run must be given the same."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..arguments import shown
from ..backend import to_host
from ..core import flatten
from ..files import printable
from ..models.config import to_dict
from ..models.model import Model
from ..tokenizers.text.encoding import Encoding
from .data.sequences import TokenSequence

HASH = "sha256:"


def identity(value: Any) -> Any:
    """Facts as JSON has them: of a model its config, task and dtype, and a hash of its parameters;
    numbers, texts and dicts of them as they are; of other data a hash."""
    plain = (str, int, float, type(None))
    if isinstance(value, plain):
        return value
    if isinstance(value, dict) and all(isinstance(part, plain) for part in value.values()):
        return value
    if not hasattr(value, "with_params"):
        return fingerprint(value)
    trees = {"params": value.params, "buffers": getattr(value, "buffers", None)}
    frozen = getattr(value, "base", None)  # behind a soft prompt
    facts = {} if frozen is None else {"base": identity(frozen)}
    if isinstance(value, Model):
        config = json.loads(json.dumps(to_dict(value.config)))
        facts |= {"config": config, "task": value.task, "dtype": str(value.dtype)}
    return {**facts, "parameters": fingerprint(flatten(trees))}


def fingerprint(value: Any) -> str:
    """A hash of token sequences, encoded samples, arrays, numbers and texts, and of lists, dicts
    and dataclasses of these.  An array and a list of the same integers are alike."""
    digest = hashlib.sha256()
    _add(digest, value)
    return HASH + digest.hexdigest()


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, TokenSequence):
        _add(digest, (np.asarray(value.ids, np.int64), np.asarray(value.counts, bool)))
    elif isinstance(value, Encoding):  # what a model reads
        lists = (value.ids, value.type_ids, value.attention_mask)
        _add(digest, tuple(np.asarray(some, np.int64) for some in lists))
    elif hasattr(value, "dtype") and hasattr(value, "shape"):
        array = np.asarray(to_host(value))
        array = array.astype(np.int64) if array.dtype.kind in "iu" else array
        digest.update(f"{array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data if array.size else b"")
    elif isinstance(value, (list, tuple)) and value and all(type(n) is int for n in value):
        _add(digest, np.asarray(value, np.int64))
    elif isinstance(value, Mapping):
        _add(digest, [part for item in value.items() for part in item])
    elif dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        _add(digest, {field.name: getattr(value, field.name) for field in fields})
    elif isinstance(value, (list, tuple)):
        digest.update(f"list {len(value)} ".encode())
        for part in value:
            _add(digest, part)
    else:
        digest.update(f"{type(value).__name__} {value!r} ".encode())


def differences(name: str, saved: Any, now: Any) -> list[str]:
    """ "name: expected … as in the run, got …" for each part that differs."""
    if isinstance(saved, dict) and isinstance(now, dict):
        return [
            line
            for key in {**saved, **now}
            for line in differences(f"{name}.{key}" if name else key, saved.get(key), now.get(key))
        ]
    if saved == now:
        return []
    where = printable(name, 80)
    if any(isinstance(value, str) and value.startswith(HASH) for value in (saved, now)):
        given = "none" if now is None else "others"
        return [f"{where}: expected {'none' if saved is None else 'those of the run'}, got {given}"]
    return [f"{where}: expected {shown(saved)} as in the run, got {shown(now)}"]
