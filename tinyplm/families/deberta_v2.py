"""DeBERTa v2 (He et al. 2021, the released code) and v3 (He et al. 2023, the same encoder): as v1 in deberta.py, except:

relative positions are counted in buckets that grow with the logarithm of the distance, and their embeddings pass a norm; they are
projected by the matrices of the contents (share_att_key), all with biases; a convolution stands beside the first layer (v2).

Parameters: as deberta.py, and "relative_norm" in the body, "convolution" in the first layer.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..kernels.activation import ACTIVATIONS
from ..layers.relative_buckets import bucketed_rows, clipped_rows
from ..models import deberta_parts, disentangled, encoder
from ..models.config import LABELS, check_known, check_not_negative, check_only, label_count
from ..models.deberta_parts import HUB, LAYER
from ..models.names import Operation, Rename, linears, weight_and_bias
from ..models.tasks import norm_shapes


@dataclasses.dataclass(frozen=True)
class Config:
    """The fields of DeBERTa v2's config.json that say what is computed; `source` keeps the others."""

    MODEL_TYPE: ClassVar[str] = "deberta-v2"
    ALIASES: ClassVar[dict[str, str]] = {}
    OLD: ClassVar[tuple[str, ...]] = (*LABELS, "embedding_size", "cls_dropout", "pooler_hidden_size", "attention_head_size")

    vocab_size: int = 128100
    hidden_size: int = 1536
    num_hidden_layers: int = 24
    num_attention_heads: int = 24
    intermediate_size: int = 6144
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 0
    embedding_size: int | None = None
    attention_head_size: int | None = None
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-7
    relative_attention: bool = False
    max_relative_positions: int = -1
    position_buckets: int = -1
    share_att_key: bool = False
    norm_rel_ebd: str = "none"
    conv_kernel_size: int = 0
    conv_groups: int = 1
    conv_act: str = "tanh"
    pad_token_id: int | None = 0
    position_biased_input: bool = True
    pos_att_type: str | list[str] | None = None
    pooler_dropout: float = 0.0
    pooler_hidden_act: str = "gelu"
    pooler_hidden_size: int | None = None
    cls_dropout: float | None = None
    legacy: bool = True
    tie_word_embeddings: bool = True
    id2label: dict | None = None
    label2id: dict | None = None
    problem_type: str | None = None
    source: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        deberta_parts.check(self)
        check_only(self, attention_head_size=(None, self.hidden_size // self.num_attention_heads))
        check_known(self, "norm_rel_ebd", ("none", "layer_norm"))
        check_not_negative(self, "conv_kernel_size")
        if self.conv_kernel_size:
            check_known(self, "conv_act", ACTIVATIONS)
            if self.conv_kernel_size % 2 == 0 or self.conv_groups < 1 or self.hidden_size % self.conv_groups:
                raise ValueError(f"config: conv_kernel_size {self.conv_kernel_size} must be odd, and conv_groups "
                                 f"{self.conv_groups} must divide hidden_size {self.hidden_size}")  # fmt: skip
        if self.position_buckets > 0 and not 1 <= self.position_buckets // 2 < deberta_parts.window(self) - 1:
            raise ValueError(f"config: position_buckets {self.position_buckets} must be at least 2, and half of it less than "
                             f"the largest distance {deberta_parts.window(self) - 1}")  # fmt: skip

    @property
    def context(self) -> int | None:
        return self.max_position_embeddings if self.position_biased_input else None

    @property
    def terms(self) -> tuple[str, ...]:
        return deberta_parts.terms(self)

    @property
    def span(self) -> int:
        """Half the rows of the table of relative positions."""
        return self.position_buckets if self.position_buckets > 0 else deberta_parts.window(self)

    @property
    def num_labels(self) -> int:
        return label_count(self)

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names in files that this config has no use for: the positions of the enhanced mask decoder."""
        return () if self.position_biased_input else (r"embeddings\.position_embeddings\.weight$",)


INPUTS = ("token_type_ids",)

# The released configs; He et al. 2023, table 2 and appendix, for v3.
_RELEASED = {"relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True,
             "pos_att_type": "p2c|c2p", "position_biased_input": False}  # fmt: skip
_V2 = {**_RELEASED, "attention_head_size": 64, "conv_kernel_size": 3, "conv_act": "gelu"}


def _v3(width: int, layers: int) -> Config:
    return Config(hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64, intermediate_size=4 * width,
                  **_RELEASED)  # fmt: skip


SIZES = {
    "deberta-v2-xlarge": Config(**_V2),
    "deberta-v2-xxlarge": Config(num_hidden_layers=48, **_V2),
    "deberta-v3-xsmall": _v3(384, 12),
    "deberta-v3-small": _v3(768, 6),
    "deberta-v3-base": _v3(768, 12),
    "deberta-v3-large": _v3(1024, 24),
}

TASKS = {**deberta_parts.tasks("DebertaV2"), "multiple_choice": deberta_parts.multiple_choice("DebertaV2")}


def shapes(config: Config, task: str = "masked_lm") -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    D, kernel = config.hidden_size, config.conv_kernel_size
    projected = ["q", "k", "v"]
    if config.relative_attention and not config.share_att_key:
        projected += [name for name, term in (("kr", "c2p"), ("qr", "p2c")) if term in config.terms]
    attention = {f"{kind}{name}": (D, D) if kind == "W" else (D,) for name in projected for kind in "Wb"}
    body = deberta_parts.body_shapes(config, attention)
    if config.norm_rel_ebd == "layer_norm":
        body = {"relative_norm": norm_shapes(D), **body}  # in front of the layers, see optim.layerwise.depths
    if kernel:
        convolution = {"W": (kernel, D // config.conv_groups, D), "b": (D,), **norm_shapes(D)}
        body["layers"] = [{**body["layers"][0], "convolution": convolution}, *body["layers"][1:]]
    return {"body": body, "head": TASKS[task].shapes(config)}


init = encoder.init


def _rows(config: Config):
    if config.position_buckets > 0:
        return partial(bucketed_rows, buckets=config.position_buckets, longest=deberta_parts.window(config))
    return partial(clipped_rows, span=config.span)


def body(p, inputs_embeds=None, *, config: Config, **inputs):
    """disentangled.body with relative positions in buckets."""
    return disentangled.body(p, inputs_embeds, config=config, rows=_rows(config), **inputs)


def decoder_body(p, inputs_embeds=None, *, config: Config, **inputs):
    """disentangled.decoder_body with relative positions in buckets: the body of pretraining."""
    return disentangled.decoder_body(p, inputs_embeds, config=config, rows=_rows(config), **inputs)


# torch's kernels are (out, in / groups, K)
_KERNEL = Operation(lambda a: a[0].transpose(2, 1, 0), lambda tensor, _: [tensor.transpose(2, 1, 0)],
                    lambda shapes: shapes[0][::-1])  # fmt: skip
NAMES = [
    *deberta_parts.NAMES,
    *weight_and_bias("deberta.encoder.LayerNorm", "body.relative_norm.gamma", "body.relative_norm.beta"),
    *linears(f"{HUB}.attention.self", f"{LAYER}.attention", query_proj="q", key_proj="k", value_proj="v",
             pos_key_proj="kr", pos_query_proj="qr"),
    Rename("deberta.encoder.conv.conv.weight", "body.layers.0.convolution.W", operation=_KERNEL),
    Rename("deberta.encoder.conv.conv.bias", "body.layers.0.convolution.b"),
    *weight_and_bias("deberta.encoder.conv.LayerNorm", "body.layers.0.convolution.gamma", "body.layers.0.convolution.beta"),
]  # fmt: skip
PREFIX, IGNORED, TIED = deberta_parts.PREFIX, deberta_parts.IGNORED, deberta_parts.TIED
