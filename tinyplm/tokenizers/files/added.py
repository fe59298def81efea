"""The added tokens that the files of a folder without a tokenizer.json name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...arguments import wrong
from ...files import printable
from ..text.added_tokens import AddedToken
from .settings import Settings, named_tokens, text_of_token
from .vocabularies import read_vocabulary


def added_of_folder(folder: Path, parts: Mapping[str, Any], settings: Settings) -> list[AddedToken]:
    """The added tokens: added_tokens.json, added_tokens_decoder of the settings, and named tokens.

    A token that the settings name and no vocabulary has gets the next id, as in transformers.
    """
    vocab = parts["model"].vocab
    found = {token.content: token for token in parts.get("added_tokens", [])}
    default, named = [*parts["named"].values()], _special(settings)
    special = {*default, *named}
    if (path := folder / "added_tokens.json").exists():
        for content, id in read_vocabulary(path).items():
            flags = {"special": content in special, "normalized": content not in special}
            token = {"content": content, "id": id} | flags
            found[content] = AddedToken.from_json(token, printable(path))
    decoder = settings.get("added_tokens_decoder", {})
    if not isinstance(decoder, Mapping):
        raise wrong("added_tokens_decoder", "an object", decoder)
    for key, value in decoder.items():
        if not key.isdecimal() or len(key) > 9 or not isinstance(value, Mapping):
            raise wrong("added_tokens_decoder", "a token for each id", {key: value})
        read = _token({"special": False} | dict(value) | {"id": int(key)}, "added_tokens_decoder")
        if (known := found.get(read.content)) and known.normalized and not read.special:
            read = replace(read, normalized=True)  # a user-defined piece, such as ▁▁ for two spaces
        found[read.content] = read
    of_id = {token.id: token.content for token in found.values()}  # the last one, of the settings
    found = {text: token for text, token in found.items() if of_id[token.id] == text}
    given = {
        text_of_token(value): value
        for key, value in settings.items()
        if key.endswith("_token") and isinstance(value, Mapping)
    }
    size = 1 + max((*vocab.values(), *(token.id for token in found.values())), default=-1)
    for content in [*named, *default]:
        if (content not in found or content in given) and (content in vocab or content in named):
            id = found[content].id if content in found else vocab.get(content, size)
            size += id == size
            token = {"special": True, "normalized": False} | dict(given.get(content, {}))
            found[content] = _token(token | {"content": content, "id": id}, "settings:")
    return list(found.values())


def _special(settings: Settings) -> list[str]:
    """The special tokens in the settings."""
    texts: list[str | None] = [*named_tokens(settings).values()]
    # The older and the newer name of the same setting.
    for key in ("additional_special_tokens", "extra_special_tokens"):
        tokens = settings.get(key, [])
        if not isinstance(tokens, (list, Mapping)) or None in map(text_of_token, tokens):
            raise wrong(key, "a list of tokens", tokens)
        texts += map(text_of_token, tokens) if isinstance(tokens, list) else []
    return [*dict.fromkeys(filter(None, texts))]


def _token(content: Settings, where: str) -> AddedToken:
    """transformers 4 marks such objects with "__type": "AddedToken"."""
    known = {key: value for key, value in content.items() if key != "__type"}
    return AddedToken.from_json(known, where)
