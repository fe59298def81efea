"""InternLM 1 (InternLM team 2023): as LLaMA, except that queries, keys, values and the output of
attention have biases in the 7B (`bias`).

    q, k, v = x W + b,   y = o Wo + bo

Later files describe RoPE in `rotary`, {"base", "type": "origin" or "dynamic", "scaling_factor"}.
Parameters as in LLaMA, with bq, bk, bv and bo.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property, partial
from typing import Any, ClassVar

from ..arguments import wrong
from ..models import causal_lm, decoder, walks
from ..models.rope import Rope, read_rope
from ..models.rotary_config import MultiHeadConfig
from . import llama


@dataclasses.dataclass(frozen=True)
class Config(MultiHeadConfig):
    """InternLM's config.json: the fields of MultiHeadConfig, biases and `rotary`."""

    MODEL_TYPE: ClassVar[str] = "internlm"
    ARCHITECTURE: ClassVar[str] = "InternLMForCausalLM"
    SCORED: ClassVar[str] = "InternLMForSequenceClassification"
    OLD: ClassVar[tuple[str, ...]] = (*MultiHeadConfig.OLD, "rotary")

    vocab_size: int = 103168
    bias: bool = True
    rotary: dict | None = None

    @cached_property
    def rope(self) -> Rope:
        settings = {"type": "origin", "base": 10000, "scaling_factor": 1.0} | (self.rotary or {})
        kind, base, factor = (settings.pop(name) for name in ("type", "base", "scaling_factor"))
        if kind not in ("origin", "dynamic") or settings:
            expected = "type origin or dynamic, base and scaling_factor"
            raise wrong("config: rotary", expected, self.rotary)
        scaling = {"type": kind, "factor": factor} if kind == "dynamic" else None
        return read_rope(None, scaling, base, self.max_position_embeddings)


def _size(D: int, F: int, L: int, H: int, *, context: int, bias: bool) -> Config:
    sizes: dict[str, Any] = {"hidden_size": D, "intermediate_size": F, "num_hidden_layers": L}
    sizes |= {"num_attention_heads": H, "max_position_embeddings": context}
    return Config(**sizes, bias=bias)


# InternLM team 2023, and the configurations of the released base models.
SIZES = {
    "internlm-7b": _size(4096, 11008, 32, 32, context=2048, bias=True),
    "internlm-20b": _size(5120, 13824, 60, 40, context=4096, bias=False),
}


def shapes(config: Config) -> dict:
    """LLaMA's, with biases of attention."""
    return llama.model_shapes(config, llama.layer_shapes(config, "qkvo" * config.bias))


pieces, init = llama.pieces, walks.init
body = partial(decoder.body, pieces)
output_matrix = causal_lm.output_matrix
NAMES, PREFIX, SKIPPED, TIED = llama.NAMES, llama.PREFIX, llama.SKIPPED, llama.TIED
