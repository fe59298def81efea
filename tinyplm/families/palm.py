"""PaLM (Chowdhery et al. 2022): as LLaMA, except that (sec. 2 and 5.1)

    x_{i+1} = x + attention(n) + mlp(n),   n = layernorm(x) without bias: parallel sublayers
    all heads share one key and one value (multi-query)
    logits  = D^-0.5 hidden tokens^T: the table is N(0, 1) at first and is the output matrix

Its weights were never released, so files have names in LLaMA's style and their own model_type.
Parameters: {"body": {"tokens" (V, D), "layers": [{"norm", "attention", "mlp"}], "norm"},
"head" if untied}.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from ..core import Component, Tree, on_tree
from ..layers.block import parallel_block
from ..layers.norm import layernorm
from ..models import causal_lm, decoder, walks
from ..models.decoder import Pieces, final_norm
from ..models.names import Rename
from ..models.rotary_config import RotaryConfig
from ..random import generator
from . import llama

norm = on_tree(layernorm, "gamma")


@dataclasses.dataclass(frozen=True)
class Config(RotaryConfig):
    """The fields of RotaryConfig, with PaLM's defaults."""

    MODEL_TYPE: ClassVar[str] = "palm"
    ARCHITECTURE: ClassVar[str] = "PalmForCausalLM"
    SCORED: ClassVar[str] = "PalmForSequenceClassification"

    vocab_size: int = 256000
    intermediate_size: int = 16384
    num_attention_heads: int = 16
    num_key_value_heads: int | None = 1
    head_dim: int | None = 256
    rms_norm_eps: float = 1e-6  # of LayerNorm, under LLaMA's name
    tie_word_embeddings: bool = True


# Chowdhery et al. 2022, table 1.
SIZES = {
    "palm-8b": Config.of(4096, 16384, 32, 16, 1, context=2048),
    "palm-62b": Config.of(8192, 32768, 64, 32, 1, context=2048),
    "palm-540b": Config.of(18432, 73728, 118, 48, 1, context=2048),
}


def shapes(config: Config) -> dict:
    """LLaMA's, with one norm a layer."""
    layer = llama.layer_shapes(config)
    return llama.model_shapes(
        config, {"norm": layer["norm1"], "attention": layer["attention"], "mlp": layer["mlp"]}
    )


def init(path: str, shape: tuple[int, ...], *, config: Config, key: int) -> Any:
    """The table N(0, 1), matrices N(0, 1 / inputs), norms 1.    Chowdhery et al. 2022, sec. 5.1"""
    if path.endswith("tokens"):
        return generator(key).normal(0, 1, shape)
    return walks.normal_init(path, shape, std=shape[0] ** -0.5, key=key)


def finish(p: Tree, x: Any, *, norm: Component, scale: float) -> tuple[Any, Callable]:
    """y = scale norm(x): the scaled logits are those of the scaled hidden states."""
    y, back = final_norm(p, x, norm=norm)
    return scale * y, lambda dy: back(scale * dy)


def pieces(config: Config) -> Pieces:
    """LLaMA's, with parallel sublayers, PaLM's norm and its scaled output."""
    return llama.pieces(config)._replace(
        norm=partial(norm, eps=config.rms_norm_eps),
        residual=parallel_block,
        finish=partial(finish, scale=config.hidden_size**-0.5),
    )


body = partial(decoder.body, pieces)
output_matrix = causal_lm.output_matrix

_NORM = Rename("model.layers.{i}.input_layernorm.weight", "body.layers.{i}.norm.gamma")
NAMES = [*llama.ENDS, _NORM, *llama.ATTENTION, *llama.MLP]
PREFIX, SKIPPED, TIED = llama.PREFIX, llama.SKIPPED, llama.TIED
