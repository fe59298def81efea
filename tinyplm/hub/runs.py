"""The model folder that a path stands for: itself or, of a training run, the model it made."""

from __future__ import annotations

import os
from pathlib import Path

from ..arguments import check_path, mismatch
from ..files import exists, printable, read_text

# of a run, from the most to the least wanted: what tuning ended with; the checkpoint with the best
# validation loss; the newest
FINAL, BEST, LATEST = "final", "best", "latest"
INCREMENT, ADAPTER, TOKENIZERS = (
    "increment.safetensors",
    "adapter.json",
    ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json"),
)

# an adapter as the library PEFT writes it; only PEFT can merge all of its kinds
PEFT = "adapter_config.json"
PEFT_ADVICE = (
    f"an adapter of PEFT ({PEFT}): merge it there (merge_and_unload, then save_pretrained) and "
    "give that folder"
)


def model_folder(folder: str | os.PathLike, name: str = "folder") -> Path:
    """The folder with the config.json and the tensors of a model.

    `folder` itself; of a run its final model, or best/ of finetune; else its best checkpoint, else
    its latest.
    ValueError saying what is there instead: nothing, a run without a checkpoint or of several
    models, an incremental checkpoint, an adapter (ours or PEFT's), a tokenizer
    alone, GLM-130B's pickled parts.
    """
    check_path(name, folder)
    path = Path(folder)
    if not (exists(path) and path.is_dir()):
        expected = "expected a model folder, as on the hub (nothing is downloaded)"
        raise ValueError(f"{printable(path)}: {expected}, got none (no such folder)")
    if exists(path / "config.json"):
        return path
    if exists(path / FINAL / "config.json"):
        return path / FINAL
    if exists(path / BEST / "config.json"):  # of finetune, whose best epoch is a folder
        return path / BEST
    for pointer in (BEST, LATEST):
        if (path / pointer).is_file() and not exists(path / FINAL / ADAPTER):
            return _pointed(path, pointer)
    found = printable(path)
    if (path / INCREMENT).is_file():
        raise mismatch(
            found,
            "a full checkpoint",
            "an incremental one; to convert it, call "
            f"tinyplm.training.incremental.replay({str(path)!r}, FOLDER)",
        )
    adapter = path if exists(path / ADAPTER) else path / FINAL
    if exists(adapter / ADAPTER):
        raise mismatch(
            found,
            "a model folder",
            f"an adapter ({printable(adapter / ADAPTER)}), which belongs to another model: merge "
            "it by tinyplm convert --adapter, or see tinyplm.tuning.load_lora and load_prefix",
        )
    if exists(path / PEFT):
        raise mismatch(found, "a model folder", PEFT_ADVICE)
    if (path / "run.json").is_file():
        inside = sorted(str(file.parent) for file in path.glob("*/latest"))  # of several models
        got = f"one of several models: {', '.join(inside)}" if inside else "one without any"
        raise mismatch(found, "a run with a checkpoint", got)
    if any(exists(path / file) for file in TOKENIZERS):
        raise mismatch(found, "a model folder with a config.json", "a tokenizer alone")
    if next(path.glob("mp_rank_*_model_states.pt"), None):
        given = "only .pt files, which can run code (families/glm_130b.py says how to join them)"
        raise mismatch(found, "config.json and model.safetensors", given)
    return path


def _pointed(path: Path, pointer: str) -> Path:
    """The checkpoint that the file out/best or out/latest names."""
    name = read_text(path / pointer, largest=1000).strip()
    folder = path / name
    if name in ("", ".", "..") or any(c in name for c in "/\\:\0\n") or not folder.is_dir():
        raise mismatch(
            printable(path / pointer), "the name of a checkpoint folder", printable(name)
        )
    return folder if exists(folder / "config.json") else model_folder(folder)
