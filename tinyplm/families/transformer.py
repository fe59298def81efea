"""The Transformer (Vaswani et al. 2017): a post-norm encoder-decoder with sinusoidal positions.

    x_0     = dropout(sqrt(D) tokens[ids] + sinusoidal[t])          for the source and the target
    encoder:  h = norm1(e_i + dropout(attention(e_i))),   e_{i+1} = norm2(h + dropout(mlp(h)))
    decoder:  h = norm1(d_i + dropout(attention(d_i))),   c = norm2(h + dropout(cross(h, E))),
              d_{i+1} = norm3(c + dropout(mlp(c))),   E = e_L
    logits  = hidden tokens^T: one table for the source, the target and the output (sec. 3.4)

mlp: ReLU.  The walk is models/seq2seq.py.  Its weights were never released in a folder of the hub,
so files have Marian's names and their own model_type.
Parameters: {"body": {"tokens" (V, D), "encoder": {"layers"}, "decoder": {"layers"}},
"head": {"W" (D, V)} unless tied}.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from ..core import Component, Tree, on_tree
from ..kernels.activation import ACTIVATIONS
from ..kernels.attention import cross_attention, self_attention
from ..kernels.mlp import mlp
from ..layers.block import post_norm
from ..layers.dropout import dropout
from ..layers.norm import layernorm
from ..layers.position import sinusoidal
from ..models import causal_lm, seq2seq, tasks, walks
from ..models.names import Rename, linears, weight_and_bias
from ..models.seq2seq import Pieces, Side
from ..models.seq2seq_config import BothSides

norm = on_tree(layernorm, "gamma", "beta")


@dataclasses.dataclass(frozen=True)
class Config(BothSides):
    """The fields of BothSides, with the paper's base model as default."""

    MODEL_TYPE: ClassVar[str] = "transformer"
    ARCHITECTURE: ClassVar[str] = "TransformerForConditionalGeneration"

    vocab_size: int = 37000
    d_model: int = 512
    encoder_layers: int = 6
    encoder_attention_heads: int = 8
    encoder_ffn_dim: int = 2048
    decoder_layers: int = 6
    decoder_attention_heads: int = 8
    decoder_ffn_dim: int = 2048
    activation_function: str = "relu"
    scale_embedding: bool = True
    init_std: float = 0.02
    pad_token_id: int = 0
    eos_token_id: int | list[int] | None = 1
    bos_token_id: int | None = None
    decoder_start_token_id: int | None = 0


def sides(D: int, L: int, H: int, F: int) -> dict[str, Any]:
    """The fields of a model whose sides are alike."""
    sizes = {"layers": L, "attention_heads": H, "ffn_dim": F}
    fields = {f"{side}_{n}": size for side in ("encoder", "decoder") for n, size in sizes.items()}
    return {"d_model": D, **fields}


# Vaswani et al. 2017, table 3.
SIZES = {
    "transformer-base": Config(),
    "transformer-big": Config(**sides(1024, 6, 16, 4096), dropout=0.3),
}


def shapes(config: Any) -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    D, V = config.d_model, config.vocab_size
    encoder = tasks.block_shapes(D, config.encoder_ffn_dim)
    decoder = tasks.block_shapes(D, config.decoder_ffn_dim)
    decoder |= {"cross": decoder["attention"], "norm3": decoder["norm2"]}
    sides = {
        "encoder": {"layers": [encoder] * config.encoder_layers},
        "decoder": {"layers": [decoder] * config.decoder_layers},
    }
    body = {"tokens": (V, D), **sides}
    return {"body": body} if config.tie_word_embeddings else {"body": body, "head": {"W": (D, V)}}


def embed(
    p: Tree,
    x: Any,
    *,
    side: Side,
    key: Any,
    scale: float,
    rate: float,
    waves: Callable[..., Any] = sinusoidal,
) -> tuple[Any, Callable]:
    """y = dropout(scale x + waves[t]).   dx = scale dy, taken back through the dropout."""
    placed = scale * x + waves(side.positions, x.shape[-1], dtype=x.dtype)
    y, drop_back = dropout(placed, rate=rate, key=key)
    return y, lambda dy: ({}, scale * drop_back(dy))


def attention(config: Any) -> Component:
    """The piece `attention`: each side has its own number of heads."""

    def piece(p, x, *, side, **options):
        heads = config.decoder_attention_heads if side.decoder else config.encoder_attention_heads
        return self_attention(p, x, heads=heads, rate=config.attention_dropout, **options)

    return piece


def pieces(config: Any) -> Pieces:
    """The Transformer for the walk of encoder-decoders."""
    rate, activation = config.attention_dropout, ACTIVATIONS[config.activation_function]
    return Pieces(
        norm=norm,
        attention=attention(config),
        cross=partial(cross_attention, heads=config.decoder_attention_heads, rate=rate),
        mlp=seq2seq.feed_forward(mlp, activation, rate=config.activation_dropout),
        residual={"residual": post_norm, "rate": config.dropout},
        embed=partial(embed, scale=config.embedding_scale, rate=config.dropout),
        shared=seq2seq.nothing_shared,
        finish=seq2seq.no_finish,
    )


init = walks.init
body = partial(seq2seq.body, pieces)
output_matrix = causal_lm.output_matrix


def side_names(side: str, *sublayers: tuple[str, str]) -> list[Rename]:
    """A side's layers; sublayers: the hub's module and norm of each attention."""
    hub, path = f"model.{side}.layers.{{i}}", f"body.{side}.layers.{{i}}"
    projections = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "out_proj": "o"}
    names = []
    for i, (module, name) in enumerate(sublayers, 1):
        names += linears(f"{hub}.{module}", f"{path}.{name}", **projections)
        names += weight_and_bias(
            f"{hub}.{module}_layer_norm", f"{path}.norm{i}.gamma", f"{path}.norm{i}.beta"
        )
    last = f"{path}.norm{len(sublayers) + 1}"
    return [
        *names,
        *linears(hub, f"{path}.mlp", fc1="1", fc2="2"),
        *weight_and_bias(f"{hub}.final_layer_norm", f"{last}.gamma", f"{last}.beta"),
    ]


NAMES = [
    Rename("model.shared.weight", "body.tokens"),
    *side_names("encoder", ("self_attn", "attention")),
    *side_names("decoder", ("self_attn", "attention"), ("encoder_attn", "cross")),
    Rename("lm_head.weight", "head.W", operation="transpose"),
]
PREFIX = "model."  # a file of the bare body lacks it
SKIPPED: tuple[str, ...] = ()
# files may hold the shared table more than once
COPIES = {f"model.{n}.embed_tokens.weight": "model.shared.weight" for n in ("encoder", "decoder")}
TIED = {"lm_head.weight": "model.shared.weight"}
