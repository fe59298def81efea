"""The settings of a tokenizer folder.  Tokenizer.load, chat templates and sentence encoders all
read them through this file.

tokenizer_config.json      the class, named tokens, added_tokens_decoder, often the chat template
special_tokens_map.json    named tokens, in addition or instead; written by transformers 4
chat_template.jinja        the chat template; takes precedence over that of tokenizer_config.json

If the two JSON files disagree, the result is that of transformers 5.  A tokenizer_config.json with
added_tokens_decoder is complete, and the map is ignored.  Otherwise the map wins, key by key, and a
null in it removes a token; lists of extra_special_tokens are joined.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...arguments import wrong
from ...files import LARGEST_SETTINGS, parse_json, read_bytes, read_json

CONFIG, SPECIAL_TOKENS, CHAT_TEMPLATE = FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
Settings = Mapping[str, Any]

# model_type of config.json -> its class, for folders whose own settings name none.  Read as the
# plain file, a T5's would lack </s> and the sentinels, a BART's <s> and </s>.
CLASSES = {
    **dict.fromkeys(("t5", "mt5"), "T5Tokenizer"),
    "bart": "BartTokenizer",
    "mbart": "MBartTokenizer",
    "marian": "MarianTokenizer",
}
MODEL = "config.json"


def read_settings(files: Mapping[str, bytes], where: str = "") -> dict[str, Any]:
    """The settings in a folder's files, given their contents, by the rule above.  Keys with a null
    value are omitted.

    where: the folder, for messages.  ValueError naming a file that is not a JSON object.
    """
    settings = read_object(files, CONFIG, where)
    if "added_tokens_decoder" not in settings:
        special, key = read_object(files, SPECIAL_TOKENS, where), "extra_special_tokens"
        if isinstance(special.get(key), list) and isinstance(settings.get(key), list):
            added = [token for token in special[key] if token not in settings[key]]
            special[key] = [*settings[key], *added]
        settings |= special
    return {key: value for key, value in settings.items() if value is not None}


def folder_settings(folder: str | os.PathLike) -> dict[str, Any]:
    """read_settings of a folder on disk; empty if it has none of the files."""
    return read_settings(folder_files(folder), str(folder))


def class_of_model(folder: str | os.PathLike) -> dict[str, Any]:
    """{"tokenizer_class": ...} that the model's config.json names or implies, as in transformers.

    {} without a config.json of one of CLASSES.
    """
    path = Path(folder, MODEL)
    content: Any = read_json(path, largest=LARGEST_SETTINGS) if path.exists() else {}
    model_type = content.get("model_type") if isinstance(content, dict) else None
    if not isinstance(model_type, str) or model_type not in CLASSES:
        return {}
    return {"tokenizer_class": content.get("tokenizer_class") or CLASSES[model_type]}


def folder_files(folder: str | os.PathLike) -> dict[str, bytes]:
    """{name: contents} of the FILES that the folder has."""
    return {name: read_bytes(Path(folder, name)) for name in FILES if Path(folder, name).exists()}


def read_object(files: Mapping[str, bytes], name: str, where: str = "") -> dict[str, Any]:
    """The object in one of the JSON files; empty if the file is missing."""
    path = os.path.join(where, name)
    content = parse_json(_text(files[name], path), path) if name in files else {}
    if not isinstance(content, dict):
        raise wrong(path, "an object", content)
    return content


def chat_template(files: Mapping[str, bytes], where: str = "") -> str | None:
    """The source of the default chat template, None if there is none.  ValueError if it is not a
    string."""
    if CHAT_TEMPLATE in files:
        return _text(files[CHAT_TEMPLATE], os.path.join(where, CHAT_TEMPLATE))
    name = f"{os.path.join(where, CONFIG)}: chat_template"
    source = read_settings(files, where).get("chat_template")
    if isinstance(source, list):  # several named ones
        templates = [t for t in source if isinstance(t, dict) and isinstance(t.get("name"), str)]
        named = {template["name"]: template.get("template") for template in templates}
        if named and "default" not in named:
            raise wrong(name, "one named default", list(named))
        source = named.get("default", source)
    if source is not None and not isinstance(source, str):
        raise wrong(name, "a string, or a list of named strings", source)
    return source


def text_of_token(token: Any) -> str | None:
    """The text of a token in the settings: a string, or an object with text and flags; None for
    anything else."""
    content = token.get("content") if isinstance(token, Mapping) else token
    return content if isinstance(content, str) else None


def named_tokens(settings: Settings) -> dict[str, str]:
    """{"eos_token": "</s>", ...}; other keys with that ending (add_bos_token, num_image_token) have
    no text."""
    named = {key: value for key, value in settings.items() if key.endswith("_token")}
    if isinstance(more := settings.get("extra_special_tokens"), Mapping):
        named |= more
    return {key: text for key, value in named.items() if (text := text_of_token(value))}


def _text(content: bytes, path: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8, got: {error}") from None
