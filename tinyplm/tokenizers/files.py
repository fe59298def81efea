"""The files of a byte-level BPE tokenizer: tokenizer.json (read, written), vocab.json with merges.txt (read).

tokenizer.json is the format of the library `tokenizers`: a list of added tokens and a chain of components,
each an object with a "type". Of the components we have ByteLevel and BPE. Whatever else would change ids or
text is refused by its name, since reading on without it would give wrong ids silently.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files import replaced

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class AddedToken:
    """A token that is matched in the text as a whole, before any cutting into words.

    special: marks structure rather than text (end of text, padding). normalized: is looked for in what the
    tokens without this mark left over.
    """

    content: str
    id: int
    special: bool = True
    normalized: bool = False


def _byte_level(add_prefix_space: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": add_prefix_space,
        "trim_offsets": True,
        "use_regex": True,
    }


@dataclass(frozen=True)
class TokenizerFile:
    """What a tokenizer.json says. Tokens are spelled in GPT-2's characters (bytelevel.py); merges in order of
    rank.
    """

    vocab: Mapping[str, int]
    merges: list[tuple[str, str]]
    added_tokens: list[AddedToken] = field(default_factory=list)
    pre_tokenizer: dict[str, Any] = field(default_factory=lambda: _byte_level(False))
    # These two play no part in ids and text (they concern offsets) and are kept to be written back.
    post_processor: dict[str, Any] | None = field(default_factory=lambda: _byte_level(False))
    decoder: dict[str, Any] = field(default_factory=lambda: _byte_level(False))


def read(path: str | os.PathLike) -> TokenizerFile:
    """Read a tokenizer.json, or a folder with one, or else a folder with vocab.json and merges.txt."""
    path = Path(path)
    if not path.is_dir():
        return _from_json(_load(path), str(path))
    if (path / "tokenizer.json").exists():
        return _from_json(_load(path / "tokenizer.json"), str(path / "tokenizer.json"))
    if (path / "vocab.json").exists() and (path / "merges.txt").exists():
        return _from_vocab_and_merges(path)
    raise FileNotFoundError(f"{path} has neither tokenizer.json nor vocab.json and merges.txt")


def write(file: TokenizerFile, path: str | os.PathLike) -> None:
    """Write tokenizer.json. `path` is the file, or an existing folder that it goes into."""
    path = Path(path)
    if path.is_dir():
        path = path / "tokenizer.json"
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": t.id, "content": t.content, "single_word": False, "lstrip": False, "rstrip": False}
            | {"normalized": t.normalized, "special": t.special}
            for t in sorted(file.added_tokens, key=lambda t: t.id)
        ],
        "normalizer": None,
        "pre_tokenizer": file.pre_tokenizer,
        "post_processor": file.post_processor,
        "decoder": file.decoder,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(sorted(file.vocab.items(), key=lambda item: item[1])),
            "merges": [f"{a} {b}" for a, b in file.merges],
        },
    }
    with replaced(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def _load(path: Path) -> Any:
    def without_repeats(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) < len(items):
            keys = [key for key, _ in items]
            raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} occurs twice in one object")
        return result

    try:
        return json.loads(path.read_bytes().decode("utf-8"), object_pairs_hook=without_repeats)
    except ValueError as error:  # of JSON, of UTF-8, and ours
        raise ValueError(f"{path}: not a valid JSON file: {error}") from error


def _from_json(content: Any, name: str) -> TokenizerFile:
    def refuse(what: str) -> None:
        raise ValueError(f"{name}: {what} is not supported; supported is byte-level BPE as in GPT-2")

    def only(part: str, values: Mapping[str, Any], known: set[str]) -> None:
        """A field that we do not know is of no effect only when it is off."""
        for key, value in values.items():
            if key not in known and value not in (None, False, "", 0, [], {}):
                refuse(f"{part}{key} = {json.dumps(value, ensure_ascii=False)[:80]}")

    def component(part: str, kind: str, optional: bool = False) -> dict[str, Any] | None:
        value = content.get(part)
        if optional and (value is None or _adds_nothing(value)):
            return value
        # The oldest files leave out the model's type.
        found = value.get("type", "BPE" if part == "model" else None) if isinstance(value, dict) else value
        if found != kind:
            refuse(f"{part} {found!r}")
        return value

    if not isinstance(content, dict) or "model" not in content:
        raise ValueError(f"{name}: not a tokenizer.json: an object with the key 'model' is expected")
    known = {"version", "added_tokens", "pre_tokenizer", "post_processor", "decoder", "model", "normalizer"}
    if (normalizer := content.get("normalizer")) is not None:
        refuse(f"normalizer {normalizer.get('type') if isinstance(normalizer, dict) else normalizer!r}")
    only("", content, known)

    model = component("model", "BPE")
    pre_tokenizer = component("pre_tokenizer", "ByteLevel")
    post_processor = component("post_processor", "ByteLevel", optional=True)
    decoder = component("decoder", "ByteLevel")
    flags = {"type", "add_prefix_space", "trim_offsets", "use_regex"}
    for part in ("pre_tokenizer", "post_processor", "decoder"):
        only(f"{part}.", content.get(part) or {}, flags | {"single", "pair"})
    # unk_token stands for bytes that the vocabulary lacks; where one turns up we raise an error instead.
    only("model.", model, {"type", "vocab", "merges", "unk_token"})
    if not isinstance(model.get("vocab"), dict) or not isinstance(model.get("merges"), list):
        raise ValueError(f"{name}: the model must have an object 'vocab' and a list 'merges'")

    if not isinstance(pre_tokenizer.get("add_prefix_space"), bool):
        raise ValueError(f"{name}: pre_tokenizer ByteLevel must say add_prefix_space, true or false")

    added = []
    if not isinstance(content.get("added_tokens") or [], list):
        raise ValueError(f"{name}: added_tokens must be a list, got {content['added_tokens']!r:.60}")
    for token in content.get("added_tokens") or []:
        if not isinstance(token, dict):
            raise ValueError(f"{name}: an added token must be an object, got {token!r}")
        only(f"added token {token.get('content')!r}: ", token, {"id", "content", "special", "normalized"})
        if not isinstance(token.get("content"), str) or not isinstance(token.get("id"), int):
            raise ValueError(f"{name}: an added token must have a text 'content' and a number 'id', got {token}")
        special, normalized = bool(token.get("special")), bool(token.get("normalized"))
        added.append(AddedToken(token["content"], token["id"], special, normalized))
    merges = [_merge(merge, number, name) for number, merge in enumerate(model["merges"])]
    return TokenizerFile(model["vocab"], merges, added, pre_tokenizer, post_processor, decoder)


def _adds_nothing(post_processor: Any) -> bool:
    """transformers writes GPT-2's post-processor as a template of the text alone: no [CLS], no [SEP]."""
    return (
        isinstance(post_processor, dict)
        and post_processor.get("type") == "TemplateProcessing"
        and post_processor.get("single") == [{"Sequence": {"id": "A", "type_id": 0}}]
        and not post_processor.get("special_tokens")
    )


def _merge(merge: Any, number: int, name: str) -> tuple[str, str]:
    """Older files write a merge as "a b", newer ones as ["a", "b"]."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    good = isinstance(parts, list) and len(parts) == 2 and all(isinstance(part, str) for part in parts)
    if not good or " " in parts[0] + parts[1]:  # the space of a token of bytes is written "Ġ"
        raise ValueError(f"{name}: merge {number} must be a pair of tokens, got {merge!r}")
    return parts[0], parts[1]


def _from_vocab_and_merges(folder: Path) -> TokenizerFile:
    """The two files that GPT-2 was published with. Its special token is in the vocabulary, without a mark."""
    vocab = _load(folder / "vocab.json")
    if not isinstance(vocab, dict):
        raise ValueError(f"{folder / 'vocab.json'}: an object of tokens and ids is expected")
    lines = (folder / "merges.txt").read_bytes().decode("utf-8").replace("\r\n", "\n").split("\n")
    lines = [line for line in lines if line and not line.startswith("#version")]
    merges = [_merge(line, number, str(folder / "merges.txt")) for number, line in enumerate(lines)]
    extra = _load(folder / "added_tokens.json") if (folder / "added_tokens.json").exists() else {}
    if unknown := [token for token in extra if token not in vocab]:
        raise ValueError(f"{folder / 'added_tokens.json'}: tokens beside vocab.json are not supported: {unknown[0]!r}; "
                         "a tokenizer.json has them all")  # fmt: skip
    added = [AddedToken(END_OF_TEXT, vocab[END_OF_TEXT])] if END_OF_TEXT in vocab else []
    config = folder / "tokenizer_config.json"
    prefix = bool(_load(config).get("add_prefix_space", False)) if config.exists() else False
    return TokenizerFile(vocab, merges, added, pre_tokenizer=_byte_level(prefix))
