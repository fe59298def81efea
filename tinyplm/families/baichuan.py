"""Baichuan 1 and 2 (Baichuan 2023; Yang et al. 2023): as LLaMA, except that files hold queries,
keys and values in one matrix, that ALiBi takes the place of RoPE in the 13B models, and that
Baichuan 2 normalises the output matrix (sec. 2.4, NormHead).

    W_pack = [Wq, Wk, Wv]
    13B:  scores = E^-0.5 q k^T + m_h s,   s the number of tokens before the key
    2:    logits[v] = hidden . u_v,   u_v = w_v / |w_v|,   w_v the row of token v in lm_head

One model_type names all four.  The 13B models state model_max_length and no
max_position_embeddings; Baichuan 2 has z_loss_weight, or its vocabulary of 125696.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property, partial
from typing import Any, ClassVar

from ..arguments import wrong
from ..core import Tree
from ..models import causal_lm, decoder, walks
from ..models.config import check_only, check_positive
from ..models.decoder import Pieces, alibi_positions
from ..models.names import Rename, fused, linears
from ..models.rope import Rope, read_rope
from ..models.rotary_config import MultiHeadConfig
from . import llama

VOCABULARY = 125696  # of Baichuan 2


@dataclasses.dataclass(frozen=True)
class Config(MultiHeadConfig):
    """Baichuan's config.json: the fields of MultiHeadConfig, of the 13B and of Baichuan 2."""

    MODEL_TYPE: ClassVar[str] = "baichuan"
    ARCHITECTURE: ClassVar[str] = "BaichuanForCausalLM"
    SCORED: ClassVar[str] = "BaichuanForSequenceClassification"
    OLD: ClassVar[tuple[str, ...]] = (
        *MultiHeadConfig.OLD,
        *("max_position_embeddings", "model_max_length", "z_loss_weight"),
    )

    vocab_size: int = 64000
    max_position_embeddings: int | None = None  # type: ignore[assignment]
    model_max_length: int | None = None
    z_loss_weight: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "model_max_length")
        check_only(self, z_loss_weight=(None, 0))  # a term of the loss
        if self.source and self.max_position_embeddings is self.model_max_length is None:
            expected = "it, or model_max_length as in the models with ALiBi"
            raise wrong("config: max_position_embeddings", expected, None)

    alibi = property(
        lambda self: self.max_position_embeddings is None and self.model_max_length is not None
    )
    unit_head = property(
        lambda self: self.z_loss_weight is not None or self.vocab_size == VOCABULARY
    )

    @cached_property
    def rope(self) -> Rope:
        return read_rope(None, None, None, self.max_position_embeddings or 4096)

    @property
    def context(self) -> int:
        """The longest sequence; ALiBi has none, see BLOOM."""
        return max(self.model_max_length or 0, 1 << 16) if self.alibi else self.rope.context

    cache_context = context

    def for_decoding(self) -> Any:
        """The head holds the normalised matrix: without this, each token would normalise it."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return _Normalised(**{**fields, "tie_word_embeddings": False})


class _Normalised(Config):
    unit_head = property(lambda self: False)


_13B: dict[str, Any] = {"hidden_size": 5120, "intermediate_size": 13696, "model_max_length": 4096}
_13B |= {"num_hidden_layers": 40, "num_attention_heads": 40}
_2: dict[str, Any] = {"vocab_size": VOCABULARY, "z_loss_weight": 0}

# The READMEs of Baichuan-7B and Baichuan-13B; Yang et al. 2023, table 3; the configurations of the
# released base models.
SIZES = {
    "baichuan-7b": Config(max_position_embeddings=4096),
    "baichuan-13b": Config(**_13B),
    "baichuan2-7b": Config(max_position_embeddings=4096, model_max_length=4096, **_2),
    "baichuan2-13b": Config(**_13B, **_2),
}


def shapes(config: Config) -> dict:
    """LLaMA's."""
    return llama.model_shapes(config, llama.layer_shapes(config))


def pieces(config: Config) -> Pieces:
    """LLaMA's, with ALiBi in the 13B models."""
    parts = llama.pieces(config)
    return parts._replace(positions=alibi_positions(config.heads)) if config.alibi else parts


def output_matrix(params: Tree, *, config: Config) -> tuple[Any, Any]:
    """LLaMA's; in Baichuan 2 with columns, one for each token, of length 1."""
    matrix = causal_lm.unit_output_matrix if config.unit_head else causal_lm.output_matrix
    return matrix(params, config=config)


init = walks.init
body = partial(decoder.body, pieces)

_LAYER, _HUB = "body.layers.{i}", "model.layers.{i}"
_QKV = [f"{_LAYER}.attention.W{n}" for n in "qkv"]
NAMES = [
    *llama.ENDS,
    *llama.NORMS,
    Rename(f"{_HUB}.self_attn.W_pack.weight", *_QKV, operation=fused()),
    *linears(f"{_HUB}.self_attn", f"{_LAYER}.attention", o_proj="o"),
    *llama.MLP,
]
PREFIX, SKIPPED, TIED = llama.PREFIX, llama.SKIPPED, llama.TIED
