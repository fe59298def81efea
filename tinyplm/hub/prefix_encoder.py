"""The prefix in folders of ChatGLM's P-tuning: its settings and its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")
SETTINGS, TENSORS = ("pre_seq_len", "prefix_projection"), "prefix_encoder."


def without_prefix(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of config.json of the model alone."""
    return {name: value for name, value in settings.items() if name not in SETTINGS}


def split_prefix(tensors: Mapping[str, T]) -> tuple[dict[str, T], dict[str, T]]:
    """(the prefix's tensors, by the end of their names; all others)."""
    own, others = {}, {}
    for name, tensor in tensors.items():
        if name.removeprefix("transformer.").startswith(TENSORS):
            own[name.partition(TENSORS)[2]] = tensor
        else:
            others[name] = tensor
    return own, others
