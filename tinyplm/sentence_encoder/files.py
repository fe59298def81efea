"""The files of sentence-transformers beside the model's own: modules, pooling, limits on tokens."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..arguments import check_whole, shown, wrong
from ..files import (
    LARGEST_SETTINGS,
    check_links,
    printable,
    read_bytes,
    read_json,
    replaced,
    write_json,
)
from ..models.model import Model
from ..tokenizers.files.settings import read_settings

NOTES = "config_sentence_transformers.json"
_POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Version 5.4 has longer module names, pooling_mode instead of flags, and names the model's output.
_OUTPUT = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings"}
_OUTPUT_OF_TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}


def read_modules(folder: Path) -> tuple[list[str], list[str]]:
    """(classes, paths) of the modules: Transformer, Pooling and optionally Normalize."""
    path = folder / "modules.json"
    file = printable(path)
    if not path.exists():
        hint = "for another layout: SentenceEncoder(tinyplm.load(folder), pooling)"
        raise ValueError(f"{file}: expected a file, got none (no such file; {hint})")
    check_links(folder, (path.name,))
    modules = read_json(path, largest=LARGEST_SETTINGS)
    listed = isinstance(modules, list) and all(isinstance(module, dict) for module in modules)
    if not listed or not all({"type", "path"} <= module.keys() for module in modules):
        raise wrong(file, "a list of objects with type and path", modules)
    names = [printable(module["type"], 80) for module in modules][:5]
    ours = "sentence_transformers."
    kinds = [name.rpartition(".")[2] if name.startswith(ours) else name for name in names]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        expected = "Transformer, Pooling and optionally Normalize"
        raise ValueError(f"{file}: expected modules {expected}, got {', '.join(kinds)}")
    paths = [str(module["path"]) for module in modules]
    for place in paths:
        if re.search(r"[/\\:\0]", place) or place == ".." or len(place) > 255:
            raise wrong(f"{file}: path", "the name of a folder in the folder", place)
    check_links(folder, paths)
    return kinds, paths


def read_transformer(folder: Path, model: Model) -> dict[str, Any]:
    """max_seq_length and do_lower_case; old versions have the family's name in the file's name."""
    files = sorted(folder.glob("sentence_*_config.json"))
    settings = _object(files[0]) if files else {}
    if files:
        file = printable(files[0])
        check_whole(f"{file}: max_seq_length", settings.get("max_seq_length"), 1, or_none=True)
        known = {"max_seq_length", "do_lower_case", "modality_config", *_OUTPUT}
        _refuse(files[0], settings, {**_OUTPUT, **dict.fromkeys(settings.keys() - known)})
        text = settings.get("modality_config", {})
        text = text.get("text", _OUTPUT_OF_TEXT) if isinstance(text, dict) else text
        if text != _OUTPUT_OF_TEXT:
            raise wrong(f"{file}: modality_config.text", shown(_OUTPUT_OF_TEXT), text)
    tokenizer = read_settings(model.files, str(folder))
    _refuse(folder / "tokenizer_config.json", tokenizer, {"truncation_side": "right"})
    return settings


def read_pooling(file: Path, supported: Collection[str]) -> str:
    """The single pooling mode that the file names."""
    settings = _object(file)
    _refuse(file, settings, {"include_prompt": True})
    flags = [mode for key, mode in _POOLING_KEYS.items() if settings.get(key)]
    modes = settings.get("pooling_mode") or flags or ["mean"]
    modes = modes if isinstance(modes, list) else [modes]
    if len(modes) != 1 or not isinstance(modes[0], str) or modes[0] not in supported:
        given = printable(" and ".join(map(str, modes)), 80)
        expected = f"one of {', '.join(supported)}"
        raise ValueError(f"{printable(file)}: pooling: expected {expected}, got {given}")
    return modes[0]


def read_notes(file: Path) -> bytes | None:
    """config_sentence_transformers.json as it is; None without one."""
    if not file.exists():
        return None
    supported = {"default_prompt_name": None, "model_type": "SentenceTransformer"}
    _refuse(file, _object(file), supported)
    return read_bytes(file)


def write_modules(
    folder: Path,
    *,
    width: int,
    pooling: str,
    normalise: bool,
    max_length: int,
    lowercase: bool,
    notes: bytes | None,
) -> None:
    """Write the files that the functions above read."""
    (folder / "1_Pooling").mkdir(exist_ok=True)
    flags = {key: mode == pooling for key, mode in _POOLING_KEYS.items()}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **flags})
    limits = {"max_seq_length": max_length, "do_lower_case": lowercase}
    write_json(folder / "sentence_bert_config.json", limits)
    if notes is not None:
        with replaced(folder / NOTES) as temporary:
            temporary.write_bytes(notes)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    entries = []
    for i, (path, kind) in enumerate(modules if normalise else modules[:2]):
        type_name = f"sentence_transformers.models.{kind}"
        entries.append({"idx": i, "name": str(i), "path": path, "type": type_name})
    write_json(folder / "modules.json", entries)


def _object(file: Path) -> dict[str, Any]:
    check_links(file.parent, (file.name,))
    settings = read_json(file, largest=LARGEST_SETTINGS)
    if not isinstance(settings, dict):
        raise wrong(printable(file), "an object", settings)
    return settings


def _refuse(file: Path, settings: Mapping[str, Any], supported: Mapping[str, Any]) -> None:
    """ValueError naming the first key that is set to anything but the one supported value."""
    for key, value in supported.items():
        if settings.get(key) not in (None, value) and (value is not None or settings[key]):
            expected = "no value" if value is None else shown(value)
            raise wrong(f"{printable(file)}: {key}", expected, settings[key])
