"""generation_config.json: the settings of `generate` that a folder has, read and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..arguments import wrong
from ..files import LARGEST_SETTINGS, printable, read_json

GENERATION = "generation_config.json"


def read_generation(file: Path) -> dict[str, Any]:
    """The contents of generation_config.json; {} without one."""
    settings = read_json(file, largest=LARGEST_SETTINGS) if file.exists() else {}
    check_generation(printable(file), settings)
    return settings


def check_generation(where: str, settings: Any) -> None:
    """ValueError unless these are settings, with integers or null as eos_token_id."""
    if not isinstance(settings, dict):
        raise wrong(where, "an object", settings)
    ends = settings.get("eos_token_id")
    if ends is not None:
        if not all(type(i) is int for i in (ends if isinstance(ends, list) else [ends])):
            raise wrong(f"{where}: eos_token_id", "an integer, a list of them or null", ends)
