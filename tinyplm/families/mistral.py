"""Mistral 7B and Nemo (Jiang et al. 2023): as LLaMA, except that a query sees the last
`sliding_window` keys, its own included (sec. 2).

Released models from 7B v0.2 on have no window (None).  Parameters as in LLaMA, without biases.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..models import causal_lm, decoder, walks
from ..models.config import check_positive
from ..models.decoder import Pieces, every
from ..models.rotary_config import RotaryConfig
from . import llama


@dataclasses.dataclass(frozen=True)
class Config(RotaryConfig):
    """Mistral's config.json: the fields of RotaryConfig, and the window."""

    MODEL_TYPE: ClassVar[str] = "mistral"
    ARCHITECTURE: ClassVar[str] = "MistralForCausalLM"
    SCORED: ClassVar[str] = "MistralForSequenceClassification"

    intermediate_size: int = 14336
    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 131072
    sliding_window: int | None = 4096

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "sliding_window")


_V2: dict[str, Any] = {"context": 32768, "base": 1e6, "sliding_window": None, "rms_norm_eps": 1e-5}

# Jiang et al. 2023, table 1; and the configurations of the released weights.
SIZES = {
    "mistral-7b-v0.1": Config.of(4096, 14336, 32, 32, 8, context=32768, rms_norm_eps=1e-5),
    "mistral-7b-v0.2": Config.of(4096, 14336, 32, 32, 8, **_V2),
    "mistral-7b-v0.3": Config.of(4096, 14336, 32, 32, 8, vocab_size=32768, **_V2),
    "mistral-nemo": Config.of(
        5120, 14336, 40, 32, 8, head_dim=128, vocab_size=131072, **{**_V2, "context": 128000}
    ),
}


def pieces(config: Config) -> Pieces:
    """LLaMA's, with the window in every layer."""
    return llama.pieces(config)._replace(window=every(config.sliding_window))


def shapes(config: Config) -> dict:
    """LLaMA's without biases."""
    return llama.model_shapes(config, llama.layer_shapes(config))


init = walks.init
body = partial(decoder.body, pieces)
output_matrix = causal_lm.output_matrix
NAMES, PREFIX, SKIPPED, TIED = llama.NAMES, llama.PREFIX, llama.SKIPPED, llama.TIED
