"""XLM-RoBERTa (Conneau et al. 2020): as RoBERTa, with a vocabulary of 100 languages and classes of
its own in the hub's files."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from . import roberta


@dataclasses.dataclass(frozen=True)
class Config(roberta.Config):
    """RoBERTa's fields; only the default vocabulary differs."""

    MODEL_TYPE: ClassVar[str] = "xlm-roberta"

    vocab_size: int = 30522


SIZES = roberta.renamed_sizes(Config, "xlm-roberta", 250002)  # Conneau et al. 2020, sec. 4
TASKS = roberta.renamed_tasks("XLMRoberta")
INPUTS, shapes, init, body = roberta.INPUTS, roberta.shapes, roberta.init, roberta.body
NAMES, PREFIX, SKIPPED, TIED = roberta.NAMES, roberta.PREFIX, roberta.SKIPPED, roberta.TIED
