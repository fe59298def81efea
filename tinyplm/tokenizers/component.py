"""A component is a frozen dataclass: its class name is the "type" in a tokenizer.json, its fields are the keys there.

    {"type": "Digits", "individual_digits": true}   <->   Digits(individual_digits=True)

Whatever would change ids or text and is not known here is refused by its name: reading on without it would give wrong ids
silently.  A field that we do not know is let through only when it is off (null, false, empty, zero).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from ..arguments import shown
from ..files import named

C = TypeVar("C", bound="Component")

_PLAIN = {
    "bool": bool,
    "int": int,
    "float": (int, float),
    "str": str,
    "str | None": (str, type(None)),
}


class Component:
    """Those whose fields are plain (bool, int, float, str) need no more than their fields; others write the two methods anew."""

    @classmethod
    def from_json(cls: type[C], content: Mapping[str, Any], where: str) -> C:
        """`content`: the object in the file.  `where`: the file and part, for messages.  ValueError says what is wrong."""
        fields = _fields(cls)
        if not content.keys() <= fields.keys():
            only_known(content, {"type", *fields}, f"{where} {cls.__name__}")
        values = {}
        for name, (type, plain, required) in fields.items():
            if name not in content:
                if required:
                    raise ValueError(f"{where} {cls.__name__} must say {name!r}")
                continue
            value = values[name] = content[name]
            if plain is not None and (
                not isinstance(value, plain) or isinstance(value, bool) != (plain is bool)
            ):
                raise ValueError(
                    f"{where} {cls.__name__}: {name} must be of type {type}, got {shown(value)}"
                )
        try:
            return cls(**values)
        except ValueError as error:  # what __post_init__ refuses
            raise ValueError(f"{where} {cls.__name__}: {error}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled are the fields alone, not what is computed from them (a trie)."""
        return type(self), tuple(getattr(self, f.name) for f in dataclasses.fields(self))

    def to_json(self) -> dict[str, Any]:
        return {"type": type(self).__name__} | {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self)
        }


@cache
def _fields(cls: type) -> dict[str, tuple[str, Any, bool]]:
    """name -> (what its annotation says, the Python types of that if it is plain, whether it has no default)"""
    missing = dataclasses.MISSING
    return {
        f.name: (
            str(f.type),
            _PLAIN.get(str(f.type)),
            f.default is missing and f.default_factory is missing,
        )
        for f in dataclasses.fields(cls)
    }


def only_known(content: Mapping[str, Any], known: set[str], where: str) -> None:
    """ValueError naming the first key that is neither known nor off."""
    for key, value in content.items():
        if key not in known and value not in (None, False, "", 0, [], {}):
            raise ValueError(f"{where}: {named(key)} = {shown(value)} is not supported")


def read_component(content: Any, kinds: Mapping[str, type[C]], where: str) -> C | None:
    """The component that an object of the file describes, None for null.  ValueError names a type that is not among `kinds`."""
    if content is None:
        return None
    if not isinstance(content, Mapping) or not isinstance(content.get("type"), str):
        raise ValueError(f"{where}: an object with a text 'type' is expected, got {shown(content)}")
    if content["type"] not in kinds:
        raise ValueError(
            f"{where}: {shown(content['type'])} is not supported; supported are {', '.join(kinds)}"
        )
    return kinds[content["type"]].from_json(content, where)


def check_component(name: str, value: Any, *, or_none: bool = False) -> None:
    """TypeError unless value is a component."""
    if not (isinstance(value, Component) or (or_none and value is None)):
        raise TypeError(f"{name} must be a component, such as BPE or NFC, got {shown(value)}")
