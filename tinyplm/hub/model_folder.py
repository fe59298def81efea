"""The folder that `load` reads, and what is said of one that holds no model."""

from __future__ import annotations

import os
from pathlib import Path

from ..arguments import check_path, mismatch
from ..files import exists, printable, read_text


def model_folder(folder: str | os.PathLike) -> Path:
    """The path of a model folder; ValueError if there is something else.

    Of a run's checkpoints it names the latest; of GLM-130B's pickled parts it says what to do.
    """
    check_path("folder", folder)
    folder = Path(folder)
    if not (exists(folder) and folder.is_dir()):
        expected = "expected a model folder, as on the hub (nothing is downloaded)"
        raise ValueError(f"{printable(folder)}: {expected}, got none (no such folder)")
    if exists(folder / "config.json"):
        return folder
    if (folder / "latest").is_file():
        newest = read_text(folder / "latest", largest=1000).strip()
        expected = f"a model folder, such as {printable(folder / newest)}"
        raise mismatch(printable(folder), expected, "a folder of checkpoints")
    if next(folder.glob("mp_rank_*_model_states.pt"), None):
        given = "only .pt files, which can run code (families/glm_130b.py says how to join them)"
        raise mismatch(printable(folder), "config.json and model.safetensors", given)
    return folder
