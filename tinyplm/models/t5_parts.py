"""What T5 and mT5 share: config, shapes, initial values, pieces for the walk, names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from ..core import Component, on_tree
from ..kernels.activation import ACTIVATIONS
from ..kernels.attention import cross_attention, self_attention
from ..kernels.mlp import gated_mlp, mlp
from ..layers.block import pre_norm
from ..layers.dropout import dropout
from ..layers.norm import rmsnorm
from ..layers.relative_bias import relative_bias
from ..layers.relative_buckets import t5_rows
from ..random import generator
from . import config as base
from . import seq2seq
from .names import Rename, linears
from .seq2seq import Pieces
from .seq2seq_config import Seq2SeqConfig, check_special_tokens

norm = on_tree(rmsnorm, "gamma")


@dataclasses.dataclass(frozen=True)
class Fields(Seq2SeqConfig):
    """The fields of T5's config.json that say what is computed.

    Whether the output is scaled by D^-0.5: scale_decoder_outputs, which transformers 5 writes; in
    other files tie_word_embeddings says it.
    """

    ALIASES: ClassVar[dict[str, str]] = {
        **{"hidden_size": "d_model", "num_hidden_layers": "num_layers"},
        **{"num_attention_heads": "num_heads", "head_dim": "d_kv"},
    }
    OLD: ClassVar[tuple[str, ...]] = (*base.LABELS, "scale_decoder_outputs")

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_decoder_layers: int | None = None
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    initializer_factor: float = 1.0
    feed_forward_proj: str = "relu"
    scale_decoder_outputs: bool | None = None
    pad_token_id: int = 0
    eos_token_id: int | list[int] | None = 1
    decoder_start_token_id: int | None = 0

    def __post_init__(self) -> None:
        base.check_types(self)
        sizes = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers")
        base.check_positive(self, *sizes, "num_heads")
        base.check_not_negative(self, "layer_norm_epsilon", "initializer_factor")
        base.check_rates(self, "dropout_rate")
        base.check_only(self, is_encoder_decoder=(True,))
        kinds = [f"{gate}{name}" for gate in ("", "gated-") for name in ACTIVATIONS]
        base.check_known(self, "feed_forward_proj", kinds)
        check_special_tokens(self, "pad_token_id", "decoder_start_token_id")
        for decoder in (False, True):  # refuses buckets that cannot be
            self.rows(1, 1, decoder=decoder)

    def rows(self, T: int, S: int, *, decoder: bool) -> Any:
        """The bucket of each distance between the last T of S queries and S keys."""
        buckets, longest = self.relative_attention_num_buckets, self.relative_attention_max_distance
        return t5_rows(T, S, buckets=buckets, longest=longest, bidirectional=not decoder)

    heads, context = property(lambda self: self.num_heads), None
    gated = property(lambda self: self.feed_forward_proj.startswith("gated-"))
    depth = property(lambda self: self.num_decoder_layers or self.num_layers)

    @property
    def activation(self) -> Any:
        """ "gated-gelu" means the tanh GELU, as in the released code; "gelu" the exact one."""
        name = self.feed_forward_proj
        return ACTIVATIONS["gelu_new" if name == "gated-gelu" else name.removeprefix("gated-")]

    @property
    def logit_scale(self) -> float:  # type: ignore[override]
        scaled = self.scale_decoder_outputs
        scaled = self.tie_word_embeddings if scaled is None else scaled
        return self.d_model**-0.5 if scaled else 1.0

    def for_decoding(self) -> Any:
        scaled = self.logit_scale != 1
        return dataclasses.replace(self, tie_word_embeddings=False, scale_decoder_outputs=scaled)

    @property
    def cache_sizes(self) -> dict[str, int]:
        return {"layers": self.depth, "kv_heads": self.num_heads, "width": self.d_kv}


Rows = dict[str, tuple[int, int, int, int, int]]  # D, E, F, L, H of each size
V1: Rows = {
    "small": (512, 64, 2048, 6, 8),
    "base": (768, 64, 3072, 12, 12),
    "large": (1024, 64, 4096, 24, 16),
    "3b": (1024, 128, 16384, 24, 32),
    "11b": (1024, 128, 65536, 24, 128),
}
V1_1: Rows = {
    "small": (512, 64, 1024, 8, 6),
    "base": (768, 64, 2048, 12, 12),
    "large": (1024, 64, 2816, 24, 16),
    "xl": (2048, 64, 5120, 24, 32),
    "xxl": (4096, 64, 10240, 24, 64),
}


def sized(D: int, E: int, F: int, L: int, H: int) -> dict[str, Any]:
    """The fields of a size."""
    return {"d_model": D, "d_kv": E, "d_ff": F, "num_layers": L, "num_heads": H}


def shapes(config: Fields) -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    V, D, F, H = config.vocab_size, config.d_model, config.d_ff, config.num_heads
    n, width = {"gamma": (D,)}, H * config.d_kv
    a = {"Wq": (D, width), "Wk": (D, width), "Wv": (D, width), "Wo": (width, D)}
    m = {"W1": (D, F), "W2": (F, D)}
    if config.gated:
        m = {"Wgate": (D, F), "Wup": (D, F), "Wdown": (F, D)}
    encoder = {"norm1": n, "attention": a, "norm2": n, "mlp": m}
    decoder = {"norm1": n, "attention": a, "norm2": n, "cross": a, "norm3": n, "mlp": m}

    def side(layer: dict, count: int) -> dict:
        table = (config.relative_attention_num_buckets, H)
        return {"bias": table, "layers": [layer] * count, "norm": n}

    sides = {
        "encoder": side(encoder, config.num_layers),
        "decoder": side(decoder, config.depth),
    }
    body = {"tokens": (V, D), **sides}
    return {"body": body} if config.tie_word_embeddings else {"body": body, "head": {"W": (D, V)}}


def init(path: str, shape: tuple[int, ...], *, config: Fields, key: int) -> Any:
    """As in the released code: N(0, 1 / rows) for matrices, N(0, 1 / (rows d_kv)) for queries
    (attention does not scale), N(0, 1) for the table and an untied head, N(0, 1 / D) for biases."""
    name, factor = path.rsplit(".", 1)[-1], config.initializer_factor
    if name == "gamma":
        return factor
    std = shape[0] ** -0.5
    if name == "Wq":
        std *= config.d_kv**-0.5
    elif name == "bias":
        std = config.d_model**-0.5
    elif path in ("body.tokens", "head.W"):
        std = 1.0
    return generator(key).normal(0, factor * std, shape)


def attention(config: Fields) -> dict[str, Any]:
    """The options of all attention: scores are q k^T itself."""
    return {"heads": config.num_heads, "scale": 1.0, "rate": config.dropout_rate}


def feed_forward(config: Fields) -> Component:
    """mlp or gated_mlp with dropout after the activation."""
    f = gated_mlp if config.gated else mlp
    return seq2seq.feed_forward(f, config.activation, rate=config.dropout_rate)


def pieces(config: Fields) -> Pieces:
    """T5 for the walk of encoder-decoders."""
    rate, options = config.dropout_rate, attention(config)

    def attend(p, x, bias, *, side, mask, key, cache):
        return self_attention(p, x, bias, **options, mask=mask, key=key, cache=cache)

    def embed(p, x, *, side, key):
        y, back = dropout(x, rate=rate, key=key)
        return y, lambda dy: ({}, back(dy))

    def shared(p, side):
        S = side.start + side.length
        rows = config.rows(side.length, S, decoder=side.decoder)
        bias, back = relative_bias(p["bias"], rows=rows, keys=S)
        return (bias,), lambda dbias: {"bias": back(seq2seq.or_zeros(dbias, bias))}

    return Pieces(
        norm=partial(norm, eps=config.layer_norm_epsilon),
        attention=attend,
        cross=partial(cross_attention, **options),
        mlp=feed_forward(config),
        residual={"residual": pre_norm, "rate": rate},
        embed=embed,
        shared=shared,
        finish=partial(seq2seq.final_norm, rate=rate),
    )


def _side_names(side: str, *attentions: tuple[str, str]) -> list[Rename]:
    hub, path = f"{side}.block.{{i}}.layer", f"body.{side}.layers.{{i}}"
    table = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    names = [
        Rename(table, f"body.{side}.bias"),
        Rename(f"{side}.final_layer_norm.weight", f"body.{side}.norm.gamma"),
    ]
    for i, (module, name) in enumerate(attentions):
        names += linears(f"{hub}.{i}.{module}", f"{path}.{name}", q="q", k="k", v="v", o="o")
    n, up = len(attentions), {"wi": "1", "wi_0": "gate", "wi_1": "up"}
    names += linears(f"{hub}.{n}.DenseReluDense", f"{path}.mlp", **up)
    for letter in ("2", "down"):
        names += linears(f"{hub}.{n}.DenseReluDense", f"{path}.mlp", wo=letter)
    return names + [
        Rename(f"{hub}.{i}.layer_norm.weight", f"{path}.norm{i + 1}.gamma") for i in range(n + 1)
    ]


NAMES = [
    Rename("shared.weight", "body.tokens"),
    *_side_names("encoder", ("SelfAttention", "attention")),
    *_side_names("decoder", ("SelfAttention", "attention"), ("EncDecAttention", "cross")),
    Rename("lm_head.weight", "head.W", operation="transpose"),
]
PREFIX = ""
SKIPPED = (r"EncDecAttention\.relative_attention_bias\.weight$",)  # never used; in old files
# files may hold the shared table more than once
COPIES = {f"{side}.embed_tokens.weight": "shared.weight" for side in ("encoder", "decoder")}
TIED = {"lm_head.weight": "shared.weight"}


def settled(config: Any, tensors: Mapping[str, Any]) -> Any:
    """The config of a file with these tensors, as far as these tell whether the head is tied.

    transformers 5 writes tie_word_embeddings = true whatever the model is, and unties the head
    where the file has another matrix for it.
    """
    head = tensors.get("lm_head.weight")
    tables = [tensors[name] for name in ("shared.weight", *COPIES) if name in tensors]
    tied = head is None or (config.tie_word_embeddings and bool(tables) and head.equals(tables[0]))
    if tied == config.tie_word_embeddings:
        return config
    scaled = config.logit_scale != 1
    return dataclasses.replace(config, tie_word_embeddings=tied, scale_decoder_outputs=scaled)
