"""Qwen2 and Qwen2.5 (Yang et al. 2024a, 2024b): as LLaMA, except that queries, keys and values have
biases (2024a, sec. 2.2.1), and that layers from `max_window_layers` on can have a sliding window.

All released models switch the window off (`use_sliding_window`); the small ones have a tied head.
transformers 5 writes `layer_types`, which takes precedence over `max_window_layers`.
Parameters as in LLaMA, with bq, bk and bv.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..models import causal_lm, decoder, walks
from ..models.decoder import Pieces
from ..models.rotary_config import WindowedConfig
from . import llama


@dataclasses.dataclass(frozen=True)
class Config(WindowedConfig):
    """Qwen2's config.json: the fields of WindowedConfig."""

    MODEL_TYPE: ClassVar[str] = "qwen2"
    ARCHITECTURE: ClassVar[str] = "Qwen2ForCausalLM"
    SCORED: ClassVar[str] = "Qwen2ForSequenceClassification"

    vocab_size: int = 151936
    intermediate_size: int = 22016
    num_key_value_heads: int | None = 32
    max_position_embeddings: int = 32768
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None


def _size(D: int, F: int, L: int, H: int, K: int, *, context: int, **others: Any) -> Config:
    ids: dict[str, Any] = {"bos_token_id": 151643, "eos_token_id": 151643}
    windows: dict[str, Any] = {"sliding_window": context, "max_window_layers": L}
    return Config.of(D, F, L, H, K, context=context, base=1e6, **ids, **windows, **others)


_SMALL: dict[str, Any] = {"context": 131072, "tie_word_embeddings": True}
_LARGE: dict[str, Any] = {"context": 131072, "vocab_size": 152064}
_LARGEST: dict[str, Any] = {**_LARGE, "rms_norm_eps": 1e-5}

# Yang et al. 2024a, table 1; 2024b, table 1; and the configurations of the released base models.
SIZES = {
    "qwen2-0.5b": _size(896, 4864, 24, 14, 2, **_SMALL),
    "qwen2-1.5b": _size(1536, 8960, 28, 12, 2, **_SMALL),
    "qwen2-7b": _size(3584, 18944, 28, 28, 4, **_LARGE),
    "qwen2-72b": _size(8192, 29568, 80, 64, 8, **_LARGEST),
    "qwen2.5-0.5b": _size(896, 4864, 24, 14, 2, **{**_SMALL, "context": 32768}),
    "qwen2.5-1.5b": _size(1536, 8960, 28, 12, 2, **_SMALL),
    "qwen2.5-3b": _size(2048, 11008, 36, 16, 2, **{**_SMALL, "context": 32768}),
    "qwen2.5-7b": _size(3584, 18944, 28, 28, 4, **_LARGE),
    "qwen2.5-14b": _size(5120, 13824, 48, 40, 8, **_LARGEST),
    "qwen2.5-32b": _size(5120, 27648, 64, 40, 8, **_LARGEST),
    "qwen2.5-72b": _size(8192, 29568, 80, 64, 8, **_LARGEST),
}


def pieces(config: Config) -> Pieces:
    """LLaMA's, with each layer's own window."""
    return llama.pieces(config)._replace(window=config.window_of)


def shapes(config: Config) -> dict:
    """LLaMA's, with biases of queries, keys and values."""
    return llama.model_shapes(config, llama.layer_shapes(config, "qkv"))


init = walks.init
body = partial(decoder.body, pieces)
output_matrix = causal_lm.output_matrix
NAMES, PREFIX, SKIPPED, TIED = llama.NAMES, llama.PREFIX, llama.SKIPPED, llama.TIED
