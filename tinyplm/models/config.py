"""Reading and writing config.json: a frozen dataclass a family, whose field names are the hub's."""

from __future__ import annotations

import dataclasses
from typing import Any


def from_dict(cls: type, source: dict[str, Any]) -> Any:
    """The config of class cls from the contents of a config.json.

    Unknown keys are kept in `source` and written back.  cls.ALIASES names other spellings of a field that transformers takes as
    well; ValueError where the two differ.
    """
    names = {f.name for f in dataclasses.fields(cls)} - {"source"}
    values = {name: value for name, value in source.items() if name in names}
    for alias, name in cls.ALIASES.items():
        if alias in source and values.setdefault(name, source[alias]) != source[alias]:
            raise ValueError(f"{alias} is {source[alias]!r}, but {name}, which means the same, is {values[name]!r}")
    return cls(**values, source=dict(source))


def to_dict(config: Any) -> dict[str, Any]:
    """The contents of a config.json: what was read, with the fields as they are now.

    A field that the file did not have and that is at its default is not added, so that reading and writing is the identity.
    """
    out = dict(config.source)
    for field in dataclasses.fields(config):
        if field.name == "source":
            continue
        value = getattr(config, field.name)
        if field.name in out or not config.source or value != field.default:
            out[field.name] = value
    for alias, name in type(config).ALIASES.items():
        if alias in out:
            out[alias] = getattr(config, name)
    return {"model_type": type(config).MODEL_TYPE, **out}


def check_positive(config: Any, *names: str) -> None:
    """ValueError naming the first of these fields that is not a positive integer."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"config: {name} must be a positive integer, got {value!r}")


def check_rates(config: Any, *names: str) -> None:
    """ValueError naming the first of these fields that is not a dropout rate in [0, 1)."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"config: {name} must be in [0, 1), got {getattr(config, name)!r}")
