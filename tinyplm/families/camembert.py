"""CamemBERT (Martin et al. 2020): RoBERTa with a French vocabulary, under names of its own in the hub's files."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from . import roberta
from .roberta import IGNORED, INPUTS, NAMES, PREFIX, TIED, body, init, shapes

__all__ = ["IGNORED", "INPUTS", "NAMES", "PREFIX", "SIZES", "TASKS", "TIED", "Config", "body", "init", "shapes"]


@dataclasses.dataclass(frozen=True)
class Config(roberta.Config):
    """RoBERTa's fields; only the default vocabulary differs."""

    MODEL_TYPE: ClassVar[str] = "camembert"

    vocab_size: int = 30522


# Martin et al. 2020, sec. 4.
SIZES = {
    name.replace("roberta", "camembert"): Config(**{**vars(roberta.SIZES[name]), "vocab_size": 32005})
    for name in ("roberta-base", "roberta-large")
}
TASKS = {name: task._replace(architecture=task.architecture.replace("Roberta", "Camembert"))
         for name, task in roberta.TASKS.items()}  # fmt: skip
