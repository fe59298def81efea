"""Components: frozen dataclasses that mirror the objects of a tokenizer.json.

The class name is the "type" of an object, the fields are its keys:

    {"type": "Digits", "individual_digits": true}   <->   Digits(individual_digits=True)

Anything that would change ids or text and is not supported is refused by name: ignoring it would
silently produce wrong ids.  An unknown key is accepted only if its value switches it off (null,
false, empty, zero).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..arguments import shown, wrong
from ..files import printable

if TYPE_CHECKING:
    from .text.alignment import Aligned

C = TypeVar("C", bound="Component")

_FIELDS: dict[type, dict[str, tuple[str, Any, bool]]] = {}
_PLAIN: dict[str, Any] = {
    "bool": bool,
    "int": int,
    "int | None": (int, type(None)),
    "float": (int, float),
    "str": str,
    "str | None": (str, type(None)),
}


class Component:
    """Fields of plain types (bool, int, float, str) are read and written here; other components
    override both methods."""

    @classmethod
    def from_json(cls: type[C], content: Mapping[str, Any], where: str) -> C:
        """The component that a JSON object describes.  where: the file and part, for messages."""
        fields = _fields(cls)
        if not content.keys() <= fields.keys():
            only_known(content, {"type", *fields}, f"{where} {cls.__name__}")
        values = {}
        for name, (annotation, plain, required) in fields.items():
            if name not in content:
                if required:
                    raise ValueError(f"{where} {cls.__name__}: {name}: expected a value, got none")
                continue
            value = values[name] = content[name]
            if plain is not None and (
                not isinstance(value, plain) or isinstance(value, bool) != (plain is bool)
            ):
                raise wrong(f"{where} {cls.__name__}: {name}", annotation, value)
        try:
            return cls(**values)
        except ValueError as error:  # from __post_init__
            raise ValueError(f"{where} {cls.__name__}: {error}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the fields only, not what is cached from them (such as a trie)."""
        return type(self), tuple(getattr(self, name) for name in _fields(type(self)))

    def to_json(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in _fields(type(self))}
        return {"type": type(self).__name__} | fields


class Normalizer(Component):
    """Rewrites text before it is cut into words.  The two methods produce the same text."""

    def __call__(self, text: str) -> str:
        raise NotImplementedError

    def aligned(self, piece: Aligned) -> Aligned:
        """The normalized text with the span of each character."""
        raise NotImplementedError


class Model(Protocol):
    """Turns a word into ids: BPE, WordPiece, Unigram."""

    @property
    def vocab(self) -> Mapping[str, int]:
        """token -> id"""

    def encode(self, word: str) -> Sequence[int]: ...

    def encode_spans(self, word: str) -> list[tuple[int, int, int]]:
        """(id, start, end) of each token, in characters of the word."""

    def without(self, tokens: Iterable[str]) -> Model:
        """The same model, except that it treats the text of these special tokens as any text."""

    def to_json(self) -> dict[str, Any]: ...


def _fields(cls: type[Any]) -> dict[str, tuple[str, Any, bool]]:
    """name -> (annotation, the Python types that match it if it is plain, required?); cached."""
    if cls not in _FIELDS:
        missing = dataclasses.MISSING
        _FIELDS[cls] = {
            f.name: (
                str(f.type),
                _PLAIN.get(str(f.type)),
                f.default is missing and f.default_factory is missing,
            )
            for f in dataclasses.fields(cls)
        }
    return _FIELDS[cls]


def only_known(content: Mapping[str, Any], known: set[str], where: str) -> None:
    """ValueError naming the first unknown key that is not switched off."""
    for key, value in content.items():
        if key not in known and value not in (None, False, "", 0, [], {}):
            raise wrong(f"{where}: {printable(key)}", "none, it is not supported", value)


def read_component(content: Any, kinds: Mapping[str, type[C]], where: str) -> C | None:
    """The component of a JSON object, None for null.  ValueError for a type not among `kinds`."""
    if content is None:
        return None
    if not isinstance(content, Mapping) or not isinstance(content.get("type"), str):
        raise wrong(where, "an object with a string 'type'", content)
    if content["type"] not in kinds:
        raise wrong(f"{where}: type", f"one of {', '.join(kinds)}", content["type"])
    return kinds[content["type"]].from_json(content, where)


def read_parts(
    content: Mapping[str, Any], key: str, kinds: Mapping[str, type[C]], where: str
) -> tuple[C, ...]:
    """The components of a Sequence, listed under `key`."""
    where = f"{where} Sequence"
    only_known(content, {"type", key}, where)
    listed = content.get(key)
    parts = (
        [read_component(part, kinds, where) for part in listed]
        if isinstance(listed, list)
        else [None]
    )
    read = tuple(part for part in parts if part is not None)
    if len(read) < len(parts):
        raise wrong(f"{where}: {key}", "a list of objects", listed)
    return read


def check_component(name: str, value: Any, *, or_none: bool = False) -> None:
    """TypeError unless value is a component."""
    if not (isinstance(value, Component) or (or_none and value is None)):
        raise TypeError(f"{name}: expected a component, such as BPE or NFC, got {shown(value)}")
