"""Where a tokenizer is found: one file, or a folder with files of the Hugging Face hub.

tokenizer.json                              everything (json_file.py), read and written
tokenizer.model, spiece.model ...           SentencePiece (sentencepiece.py), read
vocab.json with merges.txt, vocab.txt       vocabularies only; the rest is known from the class (folders.py), read
tokenizer_config.json, special_tokens_map.json   which token is bos_token, eos_token ... (settings.py), read and written
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ...arguments import check_path
from ...files import check_links, named, read_json, replaced
from .settings import (
    CONFIG,
    FILES,
    SPECIAL_TOKENS,
    folder_files,
    folder_settings,
    named_tokens,
    read_object,
)
from .tokenizer_classes import SENTENCEPIECE_FILES, from_vocabularies, sentencepiece_parts
from .tokenizer_json import from_json, to_json

# Files of a tokenizer's vocabulary, and what stands beside any.
VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "added_tokens.json",
    *SENTENCEPIECE_FILES,
)
COMPANIONS = (*VOCABULARIES, *FILES)


def read(path: str | os.PathLike) -> dict[str, Any]:
    """The arguments of Tokenizer.  A folder's tokenizer.json goes before its other files."""
    check_path("path", path)
    path = Path(path)
    if not path.is_dir():
        if path.suffix == ".model":
            return sentencepiece_parts(path)
        return from_json(read_json(path), named(path))
    check_links(path, COMPANIONS)
    settings = folder_settings(path)
    if (path / "tokenizer.json").exists():
        parts = from_json(read_json(path / "tokenizer.json"), named(path / "tokenizer.json"))
    else:
        parts = from_vocabularies(path, settings)
    return parts | {"named": parts.get("named", {}) | named_tokens(settings)}


def main_file(path: str | os.PathLike) -> Path:
    """The file that messages name: of a folder its tokenizer.json, if there is one."""
    inside = Path(path) / "tokenizer.json"
    return inside if inside.exists() else Path(path)


def write(tokenizer: Any, path: str | os.PathLike) -> None:
    """tokenizer.json at `path`, or in the folder `path`; there also tokenizer_config.json, if there is something to say in it.

    tokenizer_config.json is for transformers, which does not look for the names of tokens in tokenizer.json.  In one that is
    there already, what describes the tokenizer is replaced, and the rest (a chat template, the longest text) stays.
    """
    check_path("path", path)
    path = Path(path)
    if not path.is_dir():
        return _write_json(to_json(tokenizer), path)
    config, roles = path / CONFIG, path / SPECIAL_TOKENS
    content, settings = to_json(tokenizer), read_object(folder_files(path), CONFIG, str(path))
    kept = {key: value for key, value in settings.items() if not _of_the_tokenizer(key, value)}
    _write_json(content, path / "tokenizer.json")
    if tokenizer.named or config.exists():
        _write_json({"tokenizer_class": "PreTrainedTokenizerFast"} | kept | tokenizer.named, config)
    if roles.exists():
        _write_json(tokenizer.named, roles)


def _of_the_tokenizer(key: str, value: Any) -> bool:
    """Whether a key of tokenizer_config.json says which tokens there are, or how text is cut: tokenizer.json says it now."""
    role = key.endswith("_token") and type(value) is not int  # not num_image_token
    return (
        role
        or key.endswith("_special_tokens")
        or key in ("tokenizer_class", "added_tokens_decoder", "extra_ids")
    )


def _write_json(content: Any, path: Path) -> None:
    with replaced(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
