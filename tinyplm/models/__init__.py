"""The families, one file each, and the Model that a user holds."""

from __future__ import annotations

import importlib
from types import ModuleType

# model_type of config.json -> module of this package
FAMILIES = {"gpt2": "gpt2", "llama": "llama"}


def family(model_type: str) -> ModuleType:
    """The module of a family by its hub name; ValueError naming the families there are."""
    if model_type not in FAMILIES:
        raise ValueError(f"unknown model_type {model_type!r}; tinyplm has {', '.join(sorted(FAMILIES))}")
    return importlib.import_module(f"{__name__}.{FAMILIES[model_type]}")
