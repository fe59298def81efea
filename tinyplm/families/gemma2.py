"""Gemma 2 (Gemma team 2024b): as Gemma 1, except that (sec. 2)

    h       = x + norm(attention(norm(x))),   x_{i+1} = h + norm(mlp(norm(h))): norms on both sides
    scores  = soft_cap(q k^T / sqrt(query_pre_attn_scalar), 50),   logits = soft_cap(hidden W, 30)
    layers 0, 2, 4 ... see a window of 4096 keys, the others all

with soft_cap(s, c) = c tanh(s / c).  Parameters as in Gemma 1, with norm1 and norm2 of each layer
{"before", "after"}.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..arguments import wrong
from ..layers.block import block, both_norms
from ..models import causal_lm, decoder
from ..models.config import check_positive
from ..models.decoder import Pieces, every
from ..models.names import Rename
from ..models.rotary_config import RotaryConfig, check_layer_types
from . import gemma, llama


@dataclasses.dataclass(frozen=True)
class Config(RotaryConfig):
    """Gemma 2's config.json: the fields of RotaryConfig, caps, scale and windows."""

    MODEL_TYPE: ClassVar[str] = "gemma2"
    ARCHITECTURE: ClassVar[str] = "Gemma2ForCausalLM"
    SCORED: ClassVar[str] = "Gemma2ForSequenceClassification"
    OLD: ClassVar[tuple[str, ...]] = (*RotaryConfig.OLD, "layer_types")

    # not a field of this family's file
    hidden_act: ClassVar[Any] = property(lambda self: self.hidden_activation)  # type: ignore[misc]

    vocab_size: int = 256000
    hidden_size: int = 2304
    intermediate_size: int = 9216
    num_hidden_layers: int = 26
    num_attention_heads: int = 8
    num_key_value_heads: int | None = 4
    head_dim: int | None = 256
    hidden_activation: str = "gelu_pytorch_tanh"
    max_position_embeddings: int = 8192
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    query_pre_attn_scalar: float = 256
    sliding_window: int | None = 4096
    layer_types: list[str] | None = None
    attn_logit_softcapping: float | None = 50.0
    final_logit_softcapping: float | None = 30.0
    use_bidirectional_attention: bool | None = None
    pad_token_id: int | None = None  # written, since transformers' default need not be a token
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        gemma.check_one_way(self)
        check_positive(self, "sliding_window")
        for name in ("query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise wrong(f"config: {name}", "a number > 0", value)
        check_layer_types(self.layer_types, self.num_hidden_layers, self.sliding_window)

    logit_cap = property(lambda self: self.final_logit_softcapping)
    pattern = property(
        lambda self: 2
    )  # every second layer sees all keys, where layer_types is None

    def window_of(self, layer: int) -> int | None:
        """How many keys a query of this layer sees; None for all before it."""
        if self.layer_types is None:
            return self.sliding_window if (layer + 1) % self.pattern else None
        return self.sliding_window if self.layer_types[layer] == "sliding_attention" else None


# Gemma team 2024b, table 1; query_pre_attn_scalar of the released configurations.
SIZES = {
    "gemma-2-2b": Config.of(2304, 9216, 26, 8, 4, context=8192),
    "gemma-2-9b": Config.of(3584, 14336, 42, 16, 8, context=8192),
    "gemma-2-27b": Config.of(
        4608, 36864, 46, 32, 16, context=8192, head_dim=128, query_pre_attn_scalar=144
    ),
}


def with_both_norms(layer: dict) -> dict:
    """These shapes of a layer, with a norm before and one after each sublayer: `BOTH_NORMS`."""
    return {**layer, **{n: {"before": layer[n], "after": layer[n]} for n in ("norm1", "norm2")}}


def layer_shapes(config: Any) -> dict:
    """Gemma's, with norms on both sides."""
    return with_both_norms(llama.layer_shapes(config, "qkvo" * config.attention_bias))


def shapes(config: Config) -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    return llama.model_shapes(config, layer_shapes(config))


BOTH_NORMS = partial(block, residual=both_norms)  # the piece `residual`


def pieces(config: Any, **attention: Any) -> Pieces:
    """Gemma's, with norms on both sides, caps and windows; attention: more of its options."""
    options = {"scale": config.query_pre_attn_scalar**-0.5, "cap": config.attn_logit_softcapping}
    return gemma.pieces(config)._replace(
        attention=every(llama.attention(config, **options, **attention)),
        residual=BOTH_NORMS,
        window=config.window_of,
    )


init = gemma.init
body = partial(decoder.body, pieces)
output_matrix = causal_lm.output_matrix


def both_norm_names(*hub: str) -> list[Rename]:
    """The norms of `with_both_norms`, by the hub's names, in the order of the computation."""
    places = ("norm1.before", "norm1.after", "norm2.before", "norm2.after")
    return [
        Rename(f"model.layers.{{i}}.{name}.weight", f"body.layers.{{i}}.{place}.gamma")
        for name, place in zip(hub, places, strict=True)
    ]


_NORMS = both_norm_names(
    *("input_layernorm", "post_attention_layernorm"),
    *("pre_feedforward_layernorm", "post_feedforward_layernorm"),
)
NAMES = [*llama.ENDS, *_NORMS, *llama.ATTENTION, *llama.MLP]
PREFIX, SKIPPED, TIED = llama.PREFIX, llama.SKIPPED, llama.TIED
