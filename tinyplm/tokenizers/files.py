"""Where a tokenizer is found: one file, or a folder with files of the Hugging Face hub.

tokenizer.json                              everything (json_file.py), read and written
tokenizer.model, spiece.model ...           SentencePiece (sentencepiece.py), read
vocab.json with merges.txt, vocab.txt       vocabularies only; the rest is known from the class (folders.py), read
tokenizer_config.json, special_tokens_map.json   which token is bos_token, eos_token ..., read and written
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..files import replaced
from .folders import from_vocabularies, named_tokens, sentencepiece_parts
from .json_file import from_json, load_json, to_json


def read(path: str | os.PathLike) -> dict[str, Any]:
    """The arguments of Tokenizer.  A folder's tokenizer.json goes before its other files."""
    path = Path(path)
    if not path.is_dir():
        if path.suffix == ".model":
            return sentencepiece_parts(path)
        return from_json(load_json(path), str(path))
    settings = read_settings(path)
    if (path / "tokenizer.json").exists():
        parts = from_json(load_json(path / "tokenizer.json"), str(path / "tokenizer.json"))
    else:
        parts = from_vocabularies(path, settings)
    return parts | {"named": parts.get("named", {}) | named_tokens(settings)}


def read_settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, with what special_tokens_map.json adds to it; empty without these files."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).exists():
            content = load_json(folder / name)
            if not isinstance(content, dict):
                raise ValueError(f"{folder / name}: an object is expected, got {content!r:.60}")
            settings |= {key: value for key, value in content.items() if value is not None}
    return settings


def write(tokenizer: Any, path: str | os.PathLike) -> None:
    """tokenizer.json at `path`, or in the folder `path`; there also tokenizer_config.json, if there is something to say in it.

    tokenizer_config.json is for transformers, which does not look for the names of tokens in tokenizer.json.
    """
    path = Path(path)
    folder = path.is_dir()
    _write_json(to_json(tokenizer), path / "tokenizer.json" if folder else path)
    if folder and tokenizer.named:
        _write_json({"tokenizer_class": "PreTrainedTokenizerFast"} | tokenizer.named, path / "tokenizer_config.json")


def _write_json(content: Any, path: Path) -> None:
    with replaced(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
