"""Post-processors: special tokens around one text or two, and offsets without the space that byte-level tokens begin with.

    TemplateProcessing   any pattern, "[CLS] $A [SEP] $B:1 [SEP]:1": special tokens, the texts $A and $B, type ids after a colon
    BertProcessing       [CLS] A [SEP]         [CLS] A [SEP] B [SEP]           types 0 and 1   (Devlin et al. 2019, section 3)
    RobertaProcessing    <s> A </s>            <s> A </s> </s> B </s>          types all 0     (Liu et al. 2019), offsets trimmed
    ByteLevel            A                     A B                             offsets trimmed
    Sequence             several, one after the other; with none of them the texts are only joined: Sequence()

Cutting to a length comes before (encoding.py: truncate, with `added` taken off the length), padding after.  Equal to `tokenizers`
but in one thing: which of two texts a token is of (sequence_ids) is not known there in overflow without a post-processor, when
ByteLevel comes after a template, or when a template has no text; here always.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

from ...arguments import shown
from ..component import Component, read_component
from .encoding import LARGEST_TYPE_ID, Encoding

MOST_PIECES = 1000  # of a template


class PostProcessor(Component):
    """What all have in common.  Each has besides

    process(encodings, add_special_tokens)       a list of encodings, the texts at first, to such a list
    ids(first, second, add_special_tokens=True)  the ids of the result, from the ids of one text or two
    """

    arranges: ClassVar[bool] = (
        True  # adds tokens or changes their order, so that `ids` is not only first + second
    )

    def __call__(
        self, first: Encoding, second: Encoding | None = None, add_special_tokens: bool = True
    ) -> Encoding:
        texts = [first] if second is None else [first, second]
        return Encoding.merge(
            self.process([text.numbered(k) for k, text in enumerate(texts)], add_special_tokens)
        )

    def named_ids(self) -> Iterator[tuple[str, int]]:
        """The ids that it adds, each with the key of the file that says it."""
        return iter(())

    def added(self, pair: bool) -> int:
        """How many tokens it adds to one text, or to two."""
        return len(self.ids([], [] if pair else None))


class Piece(NamedTuple):
    """Of a template.  kind: "Sequence" with id "A" or "B", or "SpecialToken" with its name."""

    kind: str
    id: str
    type_id: int = 0


class Special(NamedTuple):
    """What a special token of a template stands for: mostly one token of the same name."""

    id: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class TemplateProcessing(PostProcessor):
    single: tuple[Piece, ...] = (Piece("Sequence", "A"),)
    pair: tuple[Piece, ...] = (Piece("Sequence", "A"), Piece("Sequence", "B", 1))
    special_tokens: Mapping[str, Special] = field(default_factory=dict)

    @classmethod
    def of(cls, single: str, pair: str, special_tokens: Mapping[str, int]) -> TemplateProcessing:
        """Patterns of words: $A or $B or the name of a special token, :n for the type id; $ and $0 are $A, $n is $A:n."""
        specials = {name: Special(name, (id,), (name,)) for name, id in special_tokens.items()}
        return cls(tuple(map(_piece, single.split())), tuple(map(_piece, pair.split())), specials)

    def __post_init__(self) -> None:
        if not isinstance(self.special_tokens, Mapping):
            raise ValueError(f"special_tokens must be an object, got {shown(self.special_tokens)}")
        for name, pieces, texts in (
            ("single", self.single, ("A",)),
            ("pair", self.pair, ("A", "B")),
        ):
            if len(pieces) > MOST_PIECES:
                raise ValueError(f"{name} may have at most {MOST_PIECES} pieces, got {len(pieces)}")
            for piece in pieces:
                if type(piece.type_id) is not int or not 0 <= piece.type_id <= LARGEST_TYPE_ID:
                    raise ValueError(
                        f"{name}: type_id must be a number from 0 to {LARGEST_TYPE_ID}, got {shown(piece.type_id)}"
                    )
                if piece.kind == "Sequence" and piece.id not in texts:
                    raise ValueError(
                        f"{name} may name the texts {' and '.join(texts)} only, got {shown(piece.id)}"
                    )
                if piece.kind == "SpecialToken" and piece.id not in self.special_tokens:
                    raise ValueError(
                        f"{name} names {shown(piece.id)}, not among special_tokens: {shown(list(self.special_tokens), 200)}"
                    )
        for name, special in self.special_tokens.items():
            texts = [special.id, *special.tokens]
            good = len(special.ids) == len(special.tokens) <= MOST_PIECES and all(
                isinstance(text, str) for text in texts
            )
            if not good or not all(type(id) is int and id >= 0 for id in special.ids):
                raise ValueError(
                    f"special token {shown(name)} needs as many ids, numbers from 0 on, as tokens, "
                    f"got {shown(tuple(special), 200)}"
                )

    def named_ids(self) -> Iterator[tuple[str, int]]:
        return (
            (f"special_tokens {shown(name)}", id)
            for name, special in self.special_tokens.items()
            for id in special.ids
        )

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> TemplateProcessing:
        try:
            specials = {
                name: Special(token["id"], _listed(token["ids"]), _listed(token["tokens"]))
                for name, token in content["special_tokens"].items()
            }
            single, pair = (
                tuple(map(_piece_of, _listed(content[name]))) for name in ("single", "pair")
            )
        except (KeyError, TypeError, AttributeError):
            raise ValueError(
                f"{where} TemplateProcessing: single and pair must be lists of pieces with id and type_id, "
                f"special_tokens an object of objects with id, ids and tokens; got {shown(dict(content), 200)}"
            ) from None
        except ValueError as error:
            raise ValueError(f"{where} TemplateProcessing: {error}") from None
        return super().from_json(
            {**content, "single": single, "pair": pair, "special_tokens": specials}, where
        )

    def to_json(self) -> dict[str, Any]:
        def written(pieces: tuple[Piece, ...]) -> list[dict[str, Any]]:
            return [{piece.kind: {"id": piece.id, "type_id": piece.type_id}} for piece in pieces]

        specials = {
            name: {"id": special.id, "ids": list(special.ids), "tokens": list(special.tokens)}
            for name, special in sorted(self.special_tokens.items())
        }
        return {
            "type": "TemplateProcessing",
            "single": written(self.single),
            "pair": written(self.pair),
            "special_tokens": specials,
        }

    def process(self, encodings: list[Encoding], add_special_tokens: bool) -> list[Encoding]:
        """As in `tokenizers`, a type id is not given to overflow: that of $B keeps 1 and that of $A 0."""
        result = []
        for kind, name, type_id in self._pieces(len(encodings) == 2):
            if kind == "Sequence":
                text = encodings["AB".index(name)]
                result.append(replace(text, type_ids=[type_id] * len(text)))
            elif add_special_tokens:
                special = self.special_tokens[name]
                result.append(Encoding.special(special.ids, special.tokens, type_id))
        return result

    def ids(
        self, first: list[int], second: list[int] | None = None, add_special_tokens: bool = True
    ) -> list[int]:
        result: list[int] = []
        for kind, name, _ in self._pieces(second is not None):
            if kind == "Sequence":
                result += first if name == "A" else second  # type: ignore[arg-type]
            elif add_special_tokens:
                result += self.special_tokens[name].ids
        return result

    def _pieces(self, pair: bool) -> tuple[Piece, ...]:
        if pair and {piece.id for piece in self.pair if piece.kind == "Sequence"} != {"A", "B"}:
            raise ValueError("two texts were given, and the template for pairs does not use both")
        return self.pair if pair else self.single


def _piece(word: str) -> Piece:
    name, colon, number = word.partition(":")
    if colon and not _is_number(number):
        raise ValueError(
            f"after the colon of {shown(word)} must stand a type id, a number from 0 on"
        )
    if not name.startswith("$"):
        return Piece("SpecialToken", name, int(number or 0))
    if _is_number(name[1:]):
        return Piece("Sequence", "A", int(number or name[1:]))
    if name not in ("$", "$A", "$a", "$B", "$b"):
        raise ValueError(f"{shown(word)} is no text of a template: $A, $B, or $ with a number")
    return Piece("Sequence", name[1:].upper() or "A", int(number or 0))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _listed(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(value)


def _piece_of(content: Mapping[str, Any]) -> Piece:
    for kind, piece in content.items() if len(content) == 1 else ():
        result = Piece(kind, piece["id"], piece["type_id"])
        if (
            kind in ("Sequence", "SpecialToken")
            and type(result.type_id) is int
            and isinstance(result.id, str)
        ):
            return result
    raise ValueError(
        f"a piece must be a Sequence or a SpecialToken with id and type_id, got {shown(content)}"
    )


class _Classifier(PostProcessor):
    """One token before the first text, one after each: `cls` and `sep` are (token, id), lists in the file."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> Any:
        pairs = {
            name: tuple(content[name])
            for name in ("sep", "cls")
            if isinstance(content.get(name), list)
        }
        return super().from_json({**content, **pairs}, where)

    def named_ids(self) -> Iterator[tuple[str, int]]:
        return iter((("sep", self.sep[1]), ("cls", self.cls[1])))

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"sep": list(self.sep), "cls": list(self.cls)}

    def __post_init__(self) -> None:
        for name, pair in (("sep", self.sep), ("cls", self.cls)):
            if not isinstance(pair, tuple) or [type(part) for part in pair] != [str, int]:
                raise ValueError(f"{name} must be a token and its id, got {shown(pair)}")


@dataclass(frozen=True)
class BertProcessing(_Classifier):
    sep: tuple[str, int]
    cls: tuple[str, int]

    def process(self, encodings: list[Encoding], add_special_tokens: bool) -> list[Encoding]:
        if not add_special_tokens:
            return encodings
        first, *others = encodings
        return [
            Encoding.merge([_special(self.cls), first, _special(self.sep)]),
            *(text.joined(_special(self.sep, 1)) for text in others),
        ]

    def ids(
        self, first: list[int], second: list[int] | None = None, add_special_tokens: bool = True
    ) -> list[int]:
        if not add_special_tokens:
            return first + (second or [])
        return [
            self.cls[1],
            *first,
            self.sep[1],
            *([] if second is None else [*second, self.sep[1]]),
        ]


@dataclass(frozen=True)
class RobertaProcessing(_Classifier):
    sep: tuple[str, int]
    cls: tuple[str, int]
    trim_offsets: bool = True
    add_prefix_space: bool = True

    def process(self, encodings: list[Encoding], add_special_tokens: bool) -> list[Encoding]:
        """As in `tokenizers`, the overflow of a second text without special tokens keeps type 1."""
        if self.trim_offsets:
            encodings = [_trimmed(text, self.add_prefix_space) for text in encodings]
        if not add_special_tokens:
            return [replace(text, type_ids=[0] * len(text)) for text in encodings]
        around = [(self.cls, self.sep), (self.sep, self.sep)]
        return [
            _of_type_0(Encoding.merge([_special(before), text, _special(after)]))
            for text, (before, after) in zip(encodings, around)
        ]

    def ids(
        self, first: list[int], second: list[int] | None = None, add_special_tokens: bool = True
    ) -> list[int]:
        if not add_special_tokens:
            return first + (second or [])
        end = self.sep[1]
        return [self.cls[1], *first, end, *([] if second is None else [end, *second, end])]


def _special(token: tuple[str, int], type_id: int = 0) -> Encoding:
    return Encoding.special([token[1]], [token[0]], type_id)


def _of_type_0(encoding: Encoding) -> Encoding:
    return replace(
        encoding,
        type_ids=[0] * len(encoding),
        overflowing=[_of_type_0(piece) for piece in encoding.overflowing],
    )


@dataclass(frozen=True)
class ByteLevel(PostProcessor):
    """add_prefix_space: the pre-tokenizer put a space before the text, which has no place in offsets.  use_regex: no effect."""

    add_prefix_space: bool = True
    trim_offsets: bool = True
    use_regex: bool = True
    arranges: ClassVar[bool] = False

    def process(self, encodings: list[Encoding], add_special_tokens: bool) -> list[Encoding]:
        return (
            [_trimmed(text, self.add_prefix_space) for text in encodings]
            if self.trim_offsets
            else encodings
        )

    def ids(
        self, first: list[int], second: list[int] | None = None, add_special_tokens: bool = True
    ) -> list[int]:
        return first + (second or [])


# White_Space of Unicode (str.isspace counts U+001C to U+001F too), and the space as byte-level tokens write it.
_SPACES = "Ġ\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)


def _trimmed(encoding: Encoding, add_prefix_space: bool) -> Encoding:
    """Offsets without the spaces at the ends of their tokens.

    With add_prefix_space, one space before the first token, or before one at the beginning of the text, is taken for the added
    one, to which no character belongs.  Several were in the text: then none was added.
    """
    offsets = list(encoding.offsets)
    for k, (token, (start, end)) in enumerate(zip(encoding.tokens, encoding.offsets)):
        before, after = (
            len(token) - len(token.lstrip(_SPACES)),
            len(token) - len(token.rstrip(_SPACES)),
        )
        if before > 1 or before and not (add_prefix_space and (k == 0 or start == 0)):
            start = min(start + before, end)
        if after and end >= after:
            end = max(end - after, start)
        offsets[k] = start, end
    return replace(
        encoding,
        offsets=offsets,
        overflowing=[_trimmed(piece, add_prefix_space) for piece in encoding.overflowing],
    )


@dataclass(frozen=True)
class Sequence(PostProcessor):
    """At most one of them may arrange tokens: the templates of `tokenizers` know two texts, and no more come out of one."""

    processors: tuple[PostProcessor, ...] = ()

    def __post_init__(self) -> None:
        arranging = [type(p).__name__ for p in self.processors if p.arranges]
        if len(arranging) > 1:
            raise ValueError(
                f"only one post-processor of a Sequence may arrange tokens, got {', '.join(arranging)}"
            )

    def named_ids(self) -> Iterator[tuple[str, int]]:
        return (named for processor in self.processors for named in processor.named_ids())

    @property
    def arranges(self) -> bool:  # type: ignore[override]
        return any(p.arranges for p in self.processors)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> Sequence:
        if not isinstance(content.get("processors"), list):
            raise ValueError(
                f"{where} Sequence: processors must be a list, got {shown(content.get('processors'))}"
            )
        parts = tuple(
            read_component(part, POST_PROCESSORS, f"{where} Sequence")
            for part in content["processors"]
        )
        if None in parts:
            raise ValueError(f"{where} Sequence: processors must be objects, got null")
        return super().from_json({**content, "processors": parts}, where)

    def to_json(self) -> dict[str, Any]:
        return {"type": "Sequence", "processors": [p.to_json() for p in self.processors]}

    def process(self, encodings: list[Encoding], add_special_tokens: bool) -> list[Encoding]:
        for processor in self.processors:
            encodings = processor.process(encodings, add_special_tokens)
        return encodings

    def ids(
        self, first: list[int], second: list[int] | None = None, add_special_tokens: bool = True
    ) -> list[int]:
        for processor in self.processors:
            if processor.arranges:
                return processor.ids(first, second, add_special_tokens)
        return first + (second or [])


POST_PROCESSORS: dict[str, type[PostProcessor]] = {
    "TemplateProcessing": TemplateProcessing,
    "BertProcessing": BertProcessing,
    "RobertaProcessing": RobertaProcessing,
    "ByteLevel": ByteLevel,
    "Sequence": Sequence,
}
