"""InternLM 2 and 2.5 (Cai et al. 2024): as LLaMA, except that files hold the queries, keys and
values of each key/value head together (sec. 2.2), under names of their own.

    wqkv = [queries, key, value] of each key/value head in turn
    w1 = Wgate, w3 = Wup, w2 = Wdown

In our tree they are apart, as in LLaMA.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..models import causal_lm, decoder, walks
from ..models.names import Rename, grouped, linears
from ..models.rotary_config import RotaryConfig
from . import llama


@dataclasses.dataclass(frozen=True)
class Config(RotaryConfig):
    """InternLM 2's config.json: the fields of RotaryConfig, and whether attention has biases."""

    MODEL_TYPE: ClassVar[str] = "internlm2"
    ARCHITECTURE: ClassVar[str] = "InternLM2ForCausalLM"
    SCORED: ClassVar[str] = "InternLM2ForSequenceClassification"
    OLD: ClassVar[tuple[str, ...]] = (*RotaryConfig.OLD, "rope_parameters")

    head_dim: ClassVar[Any] = None  # type: ignore[misc]  # not a field of this family's files

    vocab_size: int = 103168
    bias: bool = False


def _size(D: int, F: int, L: int, H: int) -> Config:
    sizes: dict[str, Any] = {"hidden_size": D, "intermediate_size": F, "num_hidden_layers": L}
    sizes |= {"num_attention_heads": H, "num_key_value_heads": 8, "vocab_size": 92544}
    return Config(**sizes, rope_theta=1e6, rms_norm_eps=1e-5, max_position_embeddings=32768)


# Cai et al. 2024, table 2, and the configurations of the released models.
SIZES = {
    "internlm2-1.8b": _size(2048, 8192, 24, 16),
    "internlm2-7b": _size(4096, 14336, 32, 32),
    "internlm2-20b": _size(6144, 16384, 48, 48),
}


def shapes(config: Config) -> dict:
    """LLaMA's, with biases of attention where the config has them."""
    return llama.model_shapes(config, llama.layer_shapes(config, "qkvo" * config.bias))


pieces, init = llama.pieces, walks.init
body = partial(decoder.body, pieces)
output_matrix = causal_lm.output_matrix

_LAYER, _HUB = "body.layers.{i}", "model.layers.{i}"


def renames(config: Config) -> list[Rename]:
    """InternLM 2's tensors; wqkv holds the heads that share a key and value together."""
    attention, by_group = f"{_LAYER}.attention", grouped(config.kv_heads)
    weights, biases = ([f"{attention}.{kind}{n}" for n in "qkv"] for kind in "Wb")
    return [
        Rename("model.tok_embeddings.weight", "body.tokens"),
        Rename(f"{_HUB}.attention_norm.weight", f"{_LAYER}.norm1.gamma"),
        Rename(f"{_HUB}.attention.wqkv.weight", *weights, operation=by_group),
        Rename(f"{_HUB}.attention.wqkv.bias", *biases, operation=by_group),
        *linears(f"{_HUB}.attention", attention, wo="o"),
        Rename(f"{_HUB}.ffn_norm.weight", f"{_LAYER}.norm2.gamma"),
        *linears(f"{_HUB}.feed_forward", f"{_LAYER}.mlp", w1="gate", w3="up", w2="down"),
        Rename("model.norm.weight", "body.norm.gamma"),
        Rename("output.weight", "head.W", operation="transpose"),
        Rename("score.weight", "head.score", operation="transpose"),
    ]


NAMES = renames(Config())
PREFIX, SKIPPED = llama.PREFIX, llama.SKIPPED
TIED = {"output.weight": "model.tok_embeddings.weight"}
