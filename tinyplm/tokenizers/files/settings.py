"""The settings of a folder's tokenizer, in the one place that reads them: Tokenizer.load, chat templates and sentence encoders
all ask here.

tokenizer_config.json      the class, the named tokens, added_tokens_decoder, often the chat template
special_tokens_map.json    the named tokens again, or only here; written by transformers before version 5
chat_template.jinja        the chat template; takes precedence over the one in tokenizer_config.json

Where the two JSON files disagree, the result is what transformers 5 reads: a tokenizer_config.json with added_tokens_decoder is
complete and the map is ignored; beside any other, the map wins, key by key, and its null removes a token; lists of
extra_special_tokens are joined.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...arguments import wrong
from ...files import parse_json, read_bytes

CONFIG, SPECIAL_TOKENS, CHAT_TEMPLATE = FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
Settings = Mapping[str, Any]


def read_settings(files: Mapping[str, bytes], where: str = "") -> dict[str, Any]:
    """The settings from the contents of a folder's files, by the rule above; keys whose value is null are left out.

    where: the folder, for messages.  ValueError that names the file that is not a JSON object.
    """
    settings = read_object(files, CONFIG, where)
    if "added_tokens_decoder" not in settings:
        special, key = read_object(files, SPECIAL_TOKENS, where), "extra_special_tokens"
        if isinstance(special.get(key), list) and isinstance(settings.get(key), list):
            special[key] = [
                *settings[key],
                *(token for token in special[key] if token not in settings[key]),
            ]
        settings |= special
    return {key: value for key, value in settings.items() if value is not None}


def folder_settings(folder: str | os.PathLike) -> dict[str, Any]:
    """read_settings of a folder on disk; empty without these files."""
    return read_settings(folder_files(folder), str(folder))


def folder_files(folder: str | os.PathLike) -> dict[str, bytes]:
    """{name: contents} of those of FILES that the folder has."""
    return {name: read_bytes(Path(folder, name)) for name in FILES if Path(folder, name).exists()}


def read_object(files: Mapping[str, bytes], name: str, where: str = "") -> dict[str, Any]:
    """The object in one of the JSON files, empty without the file."""
    path = os.path.join(where, name)
    content = parse_json(_text(files[name], path), path) if name in files else {}
    if not isinstance(content, dict):
        raise wrong(path, "an object", content)
    return content


def chat_template(files: Mapping[str, bytes], where: str = "") -> str | None:
    """The source of the default chat template, None without one.  ValueError for a setting that is not a template."""
    if CHAT_TEMPLATE in files:
        return _text(files[CHAT_TEMPLATE], os.path.join(where, CHAT_TEMPLATE))
    source, name = (
        read_settings(files, where).get("chat_template"),
        f"{os.path.join(where, CONFIG)}: chat_template",
    )
    if isinstance(source, list):  # several, by name
        named = {
            t["name"]: t.get("template")
            for t in source
            if isinstance(t, dict) and isinstance(t.get("name"), str)
        }
        if named and "default" not in named:
            raise wrong(name, "one that is named default", list(named))
        source = named.get("default", source)
    if source is not None and not isinstance(source, str):
        raise wrong(name, "a text, or a list of texts with names", source)
    return source


def text_of_token(token: Any) -> str | None:
    """A token of the settings: its text, or an object with its text and flags; None for anything else."""
    content = token.get("content") if isinstance(token, Mapping) else token
    return content if isinstance(content, str) else None


def named_tokens(settings: Settings) -> dict[str, str]:
    """{"eos_token": "</s>", ...}; other keys that end so (add_bos_token, num_image_token) have no text."""
    named = {key: value for key, value in settings.items() if key.endswith("_token")}
    if isinstance(more := settings.get("extra_special_tokens"), Mapping):
        named |= more
    return {key: text for key, value in named.items() if (text := text_of_token(value))}


def _text(content: bytes, path: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error})") from None
