"""mT5 (Xue et al. 2021): T5 1.1 with a vocabulary of 101 languages; its files have another
model_type, and the output is never scaled."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from ..models import causal_lm
from ..models import t5_parts as parts
from . import t5


@dataclasses.dataclass(frozen=True)
class Config(t5.Config):
    """T5's config.json with mT5's defaults."""

    MODEL_TYPE: ClassVar[str] = "mt5"
    ARCHITECTURE: ClassVar[str] = "MT5ForConditionalGeneration"

    vocab_size: int = 250112
    d_kv: int = 64
    d_ff: int = 1024
    num_layers: int = 8
    num_heads: int = 6
    feed_forward_proj: str = "gated-gelu"
    tie_word_embeddings: bool = False

    logit_scale = 1.0


# Xue et al. 2021, table 1: T5 1.1's sizes.
SIZES = {f"mt5-{name}": Config(**parts.sized(*row)) for name, row in parts.V1_1.items()}

shapes, init, pieces, body, walk = t5.shapes, t5.init, t5.pieces, t5.body, t5.walk
output_matrix = causal_lm.output_matrix
NAMES, PREFIX, SKIPPED, COPIES, TIED = t5.NAMES, t5.PREFIX, t5.SKIPPED, t5.COPIES, t5.TIED
settled = t5.settled
