"""CamemBERT (Martin et al. 2020): as RoBERTa, with a French vocabulary and classes of its own in
the hub's files."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from . import roberta, xlm_roberta


@dataclasses.dataclass(frozen=True)
class Config(xlm_roberta.Config):
    """XLM-RoBERTa's fields and defaults."""

    MODEL_TYPE: ClassVar[str] = "camembert"


SIZES = roberta.renamed_sizes(Config, "camembert", 32005)  # Martin et al. 2020, sec. 4
TASKS = roberta.renamed_tasks("Camembert")
INPUTS, shapes, init, body = roberta.INPUTS, roberta.shapes, roberta.init, roberta.body
NAMES, PREFIX, SKIPPED, TIED = roberta.NAMES, roberta.PREFIX, roberta.SKIPPED, roberta.TIED
