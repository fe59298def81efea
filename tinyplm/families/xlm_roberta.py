"""XLM-RoBERTa (Conneau et al. 2020): RoBERTa with a vocabulary of 100 languages, under names of its own in the hub's files."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from . import roberta
from .roberta import IGNORED, INPUTS, NAMES, PREFIX, TIED, body, init, shapes

__all__ = ["IGNORED", "INPUTS", "NAMES", "PREFIX", "SIZES", "TASKS", "TIED", "Config", "body", "init", "shapes"]


@dataclasses.dataclass(frozen=True)
class Config(roberta.Config):
    """RoBERTa's fields; only the default vocabulary differs."""

    MODEL_TYPE: ClassVar[str] = "xlm-roberta"

    vocab_size: int = 30522


# Conneau et al. 2020, sec. 4.
SIZES = {
    name.replace("roberta", "xlm-roberta"): Config(**{**vars(roberta.SIZES[name]), "vocab_size": 250002})
    for name in ("roberta-base", "roberta-large")
}
TASKS = {name: task._replace(architecture=f"XLM{task.architecture}") for name, task in roberta.TASKS.items()}
