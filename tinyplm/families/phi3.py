"""Phi-3 and Phi-4 (Abdin et al. 2024a, 2024b): as LLaMA, except that files hold queries, keys and
values in one matrix, gate and up in another, that sublayers have dropout, that there can be a
window, that RoPE turns only a share of each head in Phi-4 mini (partial_rotary_factor), and that
the models for 128k tokens have LongRoPE (Ding et al. 2024): models.rope.

    qkv_proj = [Wq, Wk, Wv],   gate_up_proj = [Wgate, Wup]

In our tree they are apart, as in LLaMA.  SIZES lacks the models for 128k tokens: their factors are
in their config.json.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..arguments import wrong
from ..models import causal_lm, decoder, walks
from ..models.config import check_positive, check_rates
from ..models.decoder import Pieces, every, pre_norm_block
from ..models.names import Rename, fused, linears
from ..models.rotary_config import RotaryConfig
from . import llama


@dataclasses.dataclass(frozen=True)
class Config(RotaryConfig):
    """Phi-3's config.json: the fields of RotaryConfig, dropout and window."""

    MODEL_TYPE: ClassVar[str] = "phi3"
    ARCHITECTURE: ClassVar[str] = "Phi3ForCausalLM"
    SCORED: ClassVar[str] = "Phi3ForSequenceClassification"
    OLD: ClassVar[tuple[str, ...]] = (*RotaryConfig.OLD, "head_dim")
    PARTIAL: ClassVar[float | None] = 1.0

    vocab_size: int = 32064
    hidden_size: int = 3072
    intermediate_size: int = 8192
    max_position_embeddings: int = 4096
    original_max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-5
    resid_pdrop: float = 0.0
    embd_pdrop: float = 0.0  # transformers has the field and no such dropout
    sliding_window: int | None = None
    pad_token_id: int | None = None  # written, since transformers' default need not be a token
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 32000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "sliding_window", "original_max_position_embeddings")
        check_rates(self, "resid_pdrop", "embd_pdrop")
        if self.rope.type not in ("default", "longrope"):  # transformers reads yarn as longrope
            raise wrong("config: rope_type", "default or longrope for phi3", self.rope.type)


_PHI4: dict[str, Any] = {"vocab_size": 100352, "base": 250000.0, "context": 16384}
_PHI4 |= {"original_max_position_embeddings": 16384}
_PHI4 |= {"bos_token_id": 100257, "eos_token_id": 100257}

# Abdin et al. 2024a, sec. 2; 2024b, sec. 3; and the configurations of the released models.
SIZES = {
    "phi-3-mini-4k": Config.of(3072, 8192, 32, 32, 32, context=4096, sliding_window=2047),
    "phi-3-medium-4k": Config.of(5120, 17920, 40, 40, 10, context=4096, sliding_window=2047),
    "phi-4": Config.of(5120, 17920, 40, 40, 10, **_PHI4),
}


def shapes(config: Config) -> dict:
    """LLaMA's without biases."""
    return llama.model_shapes(config, llama.layer_shapes(config))


def pieces(config: Config) -> Pieces:
    """LLaMA's, with dropout and a window in every layer."""
    residual = pre_norm_block(config.resid_pdrop)
    return llama.pieces(config)._replace(residual=residual, window=every(config.sliding_window))


init = walks.init
body = partial(decoder.body, pieces)
output_matrix = causal_lm.output_matrix

_LAYER, _HUB = "body.layers.{i}", "model.layers.{i}"
_QKV = [f"{_LAYER}.attention.W{n}" for n in "qkv"]
GATE_UP = [
    Rename(
        f"{_HUB}.mlp.gate_up_proj.weight",
        *(f"{_LAYER}.mlp.W{n}" for n in ("gate", "up")),
        operation=fused(),
    ),
    *linears(f"{_HUB}.mlp", f"{_LAYER}.mlp", down_proj="down"),
]
NAMES = [
    *llama.ENDS,
    *llama.NORMS,
    Rename(f"{_HUB}.self_attn.qkv_proj.weight", *_QKV, operation=fused()),
    *linears(f"{_HUB}.self_attn", f"{_LAYER}.attention", o_proj="o"),
    *GATE_UP,
]
PREFIX, SKIPPED, TIED = llama.PREFIX, llama.SKIPPED, llama.TIED
