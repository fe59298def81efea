"""tokenizer.json, the format of the library `tokenizers`: added tokens and a chain of components,
objects with a "type".

The component of that name reads and writes each object (component.py).  Anything that would change
ids or text and is not supported is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...arguments import wrong
from ..component import Component, only_known, read_component
from ..models.bpe import BPE
from ..models.unigram import Unigram
from ..models.wordpiece import WordPiece
from ..text.added_tokens import AddedToken
from ..text.decoding import DECODERS
from ..text.encoding import Padding, Truncation
from ..text.normalization import NORMALIZERS
from ..text.postprocessing import POST_PROCESSORS
from ..text.pretokenization import PRE_TOKENIZERS

if TYPE_CHECKING:
    from ..tokenizer import Tokenizer

MODELS: dict[str, type[Component]] = {"BPE": BPE, "WordPiece": WordPiece, "Unigram": Unigram}

_PARTS: dict[str, Mapping[str, type[Component]]] = {
    "normalizer": NORMALIZERS,
    "pre_tokenizer": PRE_TOKENIZERS,
    "post_processor": POST_PROCESSORS,
    "decoder": DECODERS,
}


def from_json(content: Any, name: str) -> dict[str, Any]:
    """The arguments of Tokenizer for the content of a tokenizer.json.  name: the file, for
    messages."""
    if not isinstance(content, Mapping) or not isinstance(content.get("model"), Mapping):
        raise wrong(name, "a tokenizer.json, an object with an object 'model'", content)
    only_known(
        content, {"version", "truncation", "padding", "added_tokens", "model", *_PARTS}, name
    )
    parts: dict[str, Any] = {
        part: read_component(content.get(part), kinds, f"{name}: {part}")
        for part, kinds in _PARTS.items()
    }
    # The oldest files have no type.
    model = read_component({"type": "BPE"} | dict(content["model"]), MODELS, f"{name}: model")
    tokens = content.get("added_tokens")
    tokens = [] if tokens is None else tokens
    if not isinstance(tokens, list):
        raise wrong(f"{name}: added_tokens", "a list", tokens)
    added = []
    for number, token in enumerate(tokens):
        where = f"{name}: added_tokens: number {number}"
        if not isinstance(token, Mapping):
            raise wrong(where, "an object", token)
        added.append(AddedToken.from_json({"special": False} | dict(token), f"{where}:"))
    kind: type[Component]
    for part, kind in (("truncation", Truncation), ("padding", Padding)):
        value = content.get(part)
        if value is not None and not isinstance(value, Mapping):
            raise wrong(f"{name}: {part}", "an object", value)
        parts[part] = None if value is None else kind.from_json(value, f"{name}: {part}")
    return {"model": model, "added_tokens": added, **parts}


def to_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of its tokenizer.json."""

    def written(part: str) -> Any:
        component = getattr(tokenizer, part)
        return None if component is None else component.to_json()

    settings = {part: written(part) for part in ("truncation", "padding")}
    added = [token.to_json() for token in tokenizer.added_tokens]
    chain = {part: written(part) for part in (*_PARTS, "model")}
    return {"version": "1.0", **settings, "added_tokens": added, **chain}
