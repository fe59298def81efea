"""GPT-3 (Brown et al. 2020): as GPT-2, except that every second layer sees only a band of keys
(sec. 2.1: "alternating dense and locally banded sparse attention patterns", Child et al. 2019).

The paper does not say how wide the band is; `band` is a parameter, by default 256.  The weights
were never released, so files have GPT-2's names and their own model_type.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..models import causal_lm, decoder
from ..models.config import check_positive
from ..models.decoder import Pieces
from . import gpt2


@dataclasses.dataclass(frozen=True)
class Config(gpt2.Config):
    """GPT-2's fields, and `band`: how many keys a query of an odd layer sees, its own included."""

    MODEL_TYPE: ClassVar[str] = "gpt3"
    ARCHITECTURE: ClassVar[str] = "GPT3LMHeadModel"
    SCORED: ClassVar[str] = "GPT3ForSequenceClassification"

    n_positions: int = 2048
    band: int | None = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "band")

    def window_of(self, layer: int) -> int | None:
        """How many keys a query of this layer sees; None for all before it."""
        return self.band if layer % 2 else None


def _size(L: int, D: int, H: int) -> Config:
    return Config(n_layer=L, n_embd=D, n_head=H)


# Brown et al. 2020, table 2.1.  It gives the XL 24 heads of width 128, which do not make 2048, and
# the 13B a width of 5140, which 40 heads of 128 do not make: here 16 heads, and 5120.
SIZES = {
    "gpt3-small": _size(12, 768, 12),
    "gpt3-medium": _size(24, 1024, 16),
    "gpt3-large": _size(24, 1536, 16),
    "gpt3-xl": _size(24, 2048, 16),
    "gpt3-2.7b": _size(32, 2560, 32),
    "gpt3-6.7b": _size(32, 4096, 32),
    "gpt3-13b": _size(40, 5120, 40),
    "gpt3-175b": _size(96, 12288, 96),
}


def pieces(config: Any) -> Pieces:
    """GPT-2's, with the band in every second layer."""
    return gpt2.pieces(config)._replace(window=config.window_of)


shapes, init = gpt2.shapes, gpt2.init
body = partial(decoder.body, pieces)
output_matrix = causal_lm.output_matrix
NAMES, PREFIX, SKIPPED, TIED = gpt2.NAMES, gpt2.PREFIX, gpt2.SKIPPED, gpt2.TIED
