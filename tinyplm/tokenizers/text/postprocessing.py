"""Post-processors: special tokens around one text or two, and offsets without the space of
byte-level tokens.

    TemplateProcessing   any pattern, "[CLS] $A [SEP] $B:1 [SEP]:1": special tokens, texts, type ids
    BertProcessing       [CLS] A [SEP]     [CLS] A [SEP] B [SEP]      types 0 and 1
    RobertaProcessing    <s> A </s>        <s> A </s> </s> B </s>     all types 0, offsets trimmed
    ByteLevel            A                 A B                        offsets trimmed
    Sequence             several in a row; an empty Sequence() only joins the texts

Devlin et al. 2019, section 3 (BERT); Liu et al. 2019 (RoBERTa).

Truncation happens before (encoding.truncate, which takes the number of special tokens as `added`),
padding after.  The result equals that of `tokenizers` with one exception.  There, sequence_ids is
lost in overflow without a post-processor, when ByteLevel comes after a template, or when a template
uses no text; here it is always set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, TypeVar

from ...arguments import mismatch, shown, wrong
from ..component import Component, read_parts
from .encoding import LARGEST_TYPE_ID, Encoding

T = TypeVar("T", bound="_Classifier")

MOST_PIECES = 1000  # in a template


class PostProcessor(Component):
    """The base class of all post-processors."""

    # Whether it adds or reorders tokens, so that `ids` is more than first + second.
    arranges: ClassVar[bool] = True

    def process(self, encodings: list[Encoding], add_special_tokens: bool) -> list[Encoding]:
        """From the texts, or the result of the previous post-processor, to the encodings to be
        joined."""
        raise NotImplementedError

    def ids(
        self, first: list[int], second: list[int] | None = None, add_special_tokens: bool = True
    ) -> list[int]:
        """The ids of the result, from the ids of one text or two."""
        return first + (second or [])

    def __call__(
        self, first: Encoding, second: Encoding | None = None, add_special_tokens: bool = True
    ) -> Encoding:
        texts = [first] if second is None else [first, second]
        numbered = [text.numbered(k) for k, text in enumerate(texts)]
        return Encoding.merge(self.process(numbered, add_special_tokens))

    def named_ids(self) -> Iterator[tuple[str, int]]:
        """The ids that it adds, each with the key that specifies it in the file."""
        return iter(())

    def added(self, pair: bool) -> int:
        """The number of tokens that it adds to one text, or to two."""
        return len(self.ids([], [] if pair else None))


class Piece(NamedTuple):
    """Of a template.  kind: "Sequence" with the id "A" or "B", or "SpecialToken" with its name."""

    kind: str
    id: str
    type_id: int = 0


class Special(NamedTuple):
    """What a special token of a template expands to: usually one token of the same name."""

    id: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class TemplateProcessing(PostProcessor):
    """Any arrangement of texts and special tokens."""

    single: tuple[Piece, ...] = (Piece("Sequence", "A"),)
    pair: tuple[Piece, ...] = (Piece("Sequence", "A"), Piece("Sequence", "B", 1))
    special_tokens: Mapping[str, Special] = field(default_factory=dict)

    @classmethod
    def of(cls, single: str, pair: str, special_tokens: Mapping[str, int]) -> TemplateProcessing:
        """From patterns of words: $A, $B or a special token, then :n for the type id.

        As in `tokenizers`, $ and $0 are $A, and $n is $A:n.
        """
        specials = {name: Special(name, (id,), (name,)) for name, id in special_tokens.items()}
        return cls(tuple(map(_piece, single.split())), tuple(map(_piece, pair.split())), specials)

    def __post_init__(self) -> None:
        if not isinstance(self.special_tokens, Mapping):
            raise wrong("special_tokens", "an object", self.special_tokens)
        for name, pieces, texts in (("single", self.single, "A"), ("pair", self.pair, "AB")):
            if len(pieces) > MOST_PIECES:
                raise mismatch(name, f"at most {MOST_PIECES} pieces", len(pieces))
            for kind, id, type_id in pieces:
                if type(type_id) is not int or not 0 <= type_id <= LARGEST_TYPE_ID:
                    raise wrong(
                        f"{name}: type_id", f"an integer from 0 to {LARGEST_TYPE_ID}", type_id
                    )
                if kind == "Sequence" and id not in [*texts]:
                    raise wrong(name, f"only the texts {' and '.join(texts)}", id)
                if kind == "SpecialToken" and id not in self.special_tokens:
                    known = shown([*self.special_tokens], 200)
                    raise wrong(name, f"tokens of special_tokens, {known}", id)
        for name, special in self.special_tokens.items():
            if (
                not len(special.ids) == len(special.tokens) <= MOST_PIECES
                or not all(isinstance(text, str) for text in (special.id, *special.tokens))
                or not all(type(id) is int and id >= 0 for id in special.ids)
            ):
                given = shown(tuple(special), 200)
                raise mismatch(f"special_tokens {shown(name)}", "as many ids >= 0 as tokens", given)

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
                f"{where} TemplateProcessing: expected single and pair, lists of pieces with id "
                f"and type_id, and special_tokens, an object of objects with id, ids and tokens, "
                f"got {shown(dict(content), 200)}"
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
        """As in `tokenizers`, overflow does not get the type id: $B keeps 1, and $A 0."""
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
                result += first if name == "A" else second or []
            elif add_special_tokens:
                result += self.special_tokens[name].ids
        return result

    def _pieces(self, pair: bool) -> tuple[Piece, ...]:
        if pair and {piece.id for piece in self.pair if piece.kind == "Sequence"} != {"A", "B"}:
            raise ValueError("pair: expected a template with both texts, got one without")
        return self.pair if pair else self.single


def _piece(word: str) -> Piece:
    name, colon, number = word.partition(":")
    if colon and not _is_number(number):
        raise wrong("template", "a type id >= 0 after the colon", word)
    if not name.startswith("$"):
        return Piece("SpecialToken", name, int(number or 0))
    if _is_number(name[1:]):
        return Piece("Sequence", "A", int(number or name[1:]))
    if name not in ("$", "$A", "$a", "$B", "$b"):
        raise wrong("template", "$A, $B, or $ with a number", word)
    return Piece("Sequence", name[1:].upper() or "A", int(number or 0))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _listed(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(value)


def _piece_of(content: Mapping[str, Any]) -> Piece:
    for kind, piece in content.items() if len(content) == 1 else ():
        id, type_id = piece["id"], piece["type_id"]
        if kind in ("Sequence", "SpecialToken") and type(type_id) is int and isinstance(id, str):
            return Piece(kind, id, type_id)
    raise wrong("piece", "a Sequence or a SpecialToken with id and type_id", content)


@dataclass(frozen=True)
class _Classifier(PostProcessor):
    """cls before the first text, sep after each: (token, id), lists in the file."""

    sep: tuple[str, int]
    cls: tuple[str, int]

    @classmethod
    def from_json(cls: type[T], content: Mapping[str, Any], where: str) -> T:
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
                raise wrong(name, "a token and its id", pair)


@dataclass(frozen=True)
class BertProcessing(_Classifier):
    """[CLS] A [SEP] B [SEP]"""

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
        rest = [] if second is None else [*second, self.sep[1]]
        return [self.cls[1], *first, self.sep[1], *rest]


@dataclass(frozen=True)
class RobertaProcessing(_Classifier):
    """<s> A </s> </s> B </s>"""

    trim_offsets: bool = True
    add_prefix_space: bool = True

    def process(self, encodings: list[Encoding], add_special_tokens: bool) -> list[Encoding]:
        """As in `tokenizers`, the overflow of a second text keeps type 1 without special tokens."""
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
    overflowing = [_of_type_0(piece) for piece in encoding.overflowing]
    return replace(encoding, type_ids=[0] * len(encoding), overflowing=overflowing)


@dataclass(frozen=True)
class ByteLevel(PostProcessor):
    """Trims offsets.

    add_prefix_space: the pre-tokenizer inserted a space, which has no offset.  use_regex has no
    effect.
    """

    add_prefix_space: bool = True
    trim_offsets: bool = True
    use_regex: bool = True
    arranges: ClassVar[bool] = False

    def process(self, encodings: list[Encoding], add_special_tokens: bool) -> list[Encoding]:
        if not self.trim_offsets:
            return encodings
        return [_trimmed(text, self.add_prefix_space) for text in encodings]


# Unicode's White_Space (str.isspace also includes U+001C to U+001F), and the space as byte-level
# tokens write it.
_SPACES = "Ġ\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000"
_SPACES += "".join(map(chr, range(0x2000, 0x200B)))


def _trimmed(encoding: Encoding, add_prefix_space: bool) -> Encoding:
    """Offsets without the spaces at either end of a token.

    With add_prefix_space, a single space before the first token, or before one at the start of the
    text, is taken to be the inserted one, which has no character in the text.  Several spaces were
    in the text: then none was inserted.
    """
    offsets = list(encoding.offsets)
    for k, (token, (start, end)) in enumerate(zip(encoding.tokens, encoding.offsets)):
        before = len(token) - len(token.lstrip(_SPACES))
        after = len(token) - len(token.rstrip(_SPACES))
        if before > 1 or before and not (add_prefix_space and (k == 0 or start == 0)):
            start = min(start + before, end)
        if after and end >= after:
            end = max(end - after, start)
        offsets[k] = start, end
    overflowing = [_trimmed(piece, add_prefix_space) for piece in encoding.overflowing]
    return replace(encoding, offsets=offsets, overflowing=overflowing)


@dataclass(frozen=True)
class Sequence(PostProcessor):
    """Several in a row.  At most one may arrange tokens, since it merges the texts into one."""

    processors: tuple[PostProcessor, ...] = ()

    def __post_init__(self) -> None:
        if len(arranging := [type(p).__name__ for p in self.processors if p.arranges]) > 1:
            raise mismatch("processors", "at most one that arranges tokens", ", ".join(arranging))
        object.__setattr__(self, "arranges", bool(arranging))

    def named_ids(self) -> Iterator[tuple[str, int]]:
        return (named for processor in self.processors for named in processor.named_ids())

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> Sequence:
        parts = read_parts(content, "processors", POST_PROCESSORS, where)
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
    kind.__name__: kind
    for kind in (TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel, Sequence)
}
