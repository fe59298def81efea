"""tokenizer.json, the format of the library `tokenizers`: added tokens, and a chain of components, each an object with a "type".

A part is read by the component of that name (component.py), which also writes it.  What would change ids or text and is not
supported is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...arguments import shown
from ..component import only_known, read_component
from ..models.bpe import BPE
from ..models.unigram import Unigram
from ..models.wordpiece import WordPiece
from ..text.added_tokens import AddedToken
from ..text.decoding import DECODERS
from ..text.encoding import Padding, Truncation
from ..text.normalization import NORMALIZERS
from ..text.postprocessing import POST_PROCESSORS
from ..text.pretokenization import PRE_TOKENIZERS

MODELS = {"BPE": BPE, "WordPiece": WordPiece, "Unigram": Unigram}

_PARTS = {
    "normalizer": NORMALIZERS,
    "pre_tokenizer": PRE_TOKENIZERS,
    "post_processor": POST_PROCESSORS,
    "decoder": DECODERS,
}


def from_json(content: Any, name: str) -> dict[str, Any]:
    """The arguments of Tokenizer that a tokenizer.json stands for.  name: the file, for messages."""
    if not isinstance(content, Mapping) or not isinstance(content.get("model"), Mapping):
        raise ValueError(
            f"{name}: not a tokenizer.json: an object with an object 'model' is expected"
        )
    only_known(
        content, {"version", "truncation", "padding", "added_tokens", "model", *_PARTS}, name
    )
    parts = {
        part: read_component(content.get(part), kinds, f"{name}: {part}")
        for part, kinds in _PARTS.items()
    }
    model = read_component(
        {"type": "BPE"} | dict(content["model"]), MODELS, f"{name}: model"
    )  # the oldest files have no type
    if not isinstance(content.get("added_tokens", []), (list, type(None))):
        raise ValueError(
            f"{name}: added_tokens must be a list, got {shown(content['added_tokens'])}"
        )
    added = []
    for number, token in enumerate(content.get("added_tokens") or []):
        if not isinstance(token, Mapping):
            raise ValueError(
                f"{name}: added_tokens: {number} must be an object, got {shown(token)}"
            )
        added.append(
            AddedToken.from_json(
                {"special": False} | dict(token), f"{name}: added_tokens: {number}:"
            )
        )
    for part, kind in (("truncation", Truncation), ("padding", Padding)):
        value = content.get(part)
        if value is not None and not isinstance(value, Mapping):
            raise ValueError(f"{name}: {part} must be an object, got {shown(value)}")
        parts[part] = None if value is None else kind.from_json(value, f"{name}: {part}")
    return {"model": model, "added_tokens": added, **parts}


def to_json(tokenizer: Any) -> dict[str, Any]:
    def written(part: str) -> Any:
        component = getattr(tokenizer, part)
        return None if component is None else component.to_json()

    return {
        "version": "1.0",
        "truncation": written("truncation"),
        "padding": written("padding"),
        "added_tokens": [token.to_json() for token in tokenizer.added_tokens],
        "normalizer": written("normalizer"),
        "pre_tokenizer": written("pre_tokenizer"),
        "post_processor": written("post_processor"),
        "decoder": written("decoder"),
        "model": written("model"),
    }
