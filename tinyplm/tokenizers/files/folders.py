"""Loading and saving a tokenizer: one file, or a folder as on the Hugging Face hub.

tokenizer.json                           complete (tokenizer_json.py); read and written
tokenizer.model, spiece.model ...        SentencePiece (sentencepiece.py); read
qwen.tiktoken, tokenizer.model of GLM-4  tokens with ranks (tiktoken.py); read
vocab.json with merges.txt, vocab.txt    vocabularies; the rest follows from the tokenizer class
                                         (tokenizer_classes.py); read
source.spm with target.spm               Marian's pair of models; refused
config.json                              of the model: implies a class that is named nowhere else
tokenizer_config.json, special_tokens_map.json    names of tokens (settings.py); read and written
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...arguments import check_path, mismatch
from ...files import check_links, printable, read_json, replaced
from . import settings
from .tiktoken import TIKTOKEN_FILE
from .tokenizer_classes import SENTENCEPIECE_FILES, from_vocabularies, sentencepiece_parts
from .tokenizer_json import from_json, to_json

if TYPE_CHECKING:
    from ..tokenizer import Tokenizer

MARIAN_FILES = ("source.spm", "target.spm", "target_vocab.json")  # with vocab.json
# The files of a vocabulary, and those that may accompany it.
VOCABULARIES = (
    *("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "added_tokens.json"),
    *SENTENCEPIECE_FILES,
    TIKTOKEN_FILE,
    *MARIAN_FILES,
)
COMPANIONS = (*VOCABULARIES, *settings.FILES)


def read(path: str | os.PathLike) -> dict[str, Any]:
    """The arguments of Tokenizer.  In a folder, tokenizer.json takes precedence over others."""
    check_path("path", path)
    path = Path(path)
    if not path.is_dir():
        if path.suffix == ".model":
            return sentencepiece_parts(path)
        return from_json(read_json(path), printable(path))
    check_links(path, (*COMPANIONS, settings.MODEL))
    found = settings.folder_settings(path)
    if (path / "tokenizer.json").exists():
        parts = from_json(read_json(path / "tokenizer.json"), printable(path / "tokenizer.json"))
    elif (path / MARIAN_FILES[0]).exists():
        expected = "one tokenizer for both languages"
        given = "Marian's two SentencePiece models, one for each, which are not supported"
        raise mismatch(printable(path / MARIAN_FILES[0]), expected, given)
    else:
        parts = from_vocabularies(path, settings.class_of_model(path) | found)
    return parts | {"named": parts.get("named", {}) | settings.named_tokens(found)}


def main_file(path: str | os.PathLike) -> Path:
    """The file that messages name: a folder's tokenizer.json, if it has one."""
    inside = Path(path) / "tokenizer.json"
    return inside if inside.exists() else Path(path)


def write(tokenizer: Tokenizer, path: str | os.PathLike) -> None:
    """Write tokenizer.json at `path` or in the folder `path`; there also tokenizer_config.json, if
    needed.

    tokenizer_config.json is for transformers, which does not read the names of tokens from
    tokenizer.json.  In an existing one, the description of the tokenizer is replaced, and the rest
    (a chat template, the maximum length) is kept.
    """
    check_path("path", path)
    path = Path(path)
    if not path.is_dir():
        return _write_json(to_json(tokenizer), path)
    config, roles = path / settings.CONFIG, path / settings.SPECIAL_TOKENS
    content = to_json(tokenizer)
    old = settings.read_object(settings.folder_files(path), settings.CONFIG, str(path))
    kept = {key: value for key, value in old.items() if not _describes_tokenizer(key, value)}
    _write_json(content, path / "tokenizer.json")
    if tokenizer.named or config.exists():
        _write_json({"tokenizer_class": "PreTrainedTokenizerFast"} | kept | tokenizer.named, config)
    if roles.exists():
        _write_json(tokenizer.named, roles)


def _describes_tokenizer(key: str, value: Any) -> bool:
    """Whether a key of tokenizer_config.json is superseded by the new tokenizer.json."""
    return (
        (key.endswith("_token") and type(value) is not int)  # not num_image_token
        or key.endswith("_special_tokens")
        or key in ("tokenizer_class", "added_tokens_decoder", "extra_ids")
    )


def _write_json(content: Any, path: Path) -> None:
    with replaced(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
