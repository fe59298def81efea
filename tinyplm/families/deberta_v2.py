"""DeBERTa v2 (He et al. 2021, the released code) and v3 (He et al. 2023, the same encoder): as v1
in deberta.py, except:

relative positions are counted in buckets that grow with the logarithm of the distance, and their
embeddings pass a norm ("relative_norm" in the body); they are projected by the matrices of the
contents (share_att_key), all with biases; in v2 a "convolution" stands beside the first layer.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import ClassVar

from ..kernels.activation import ACTIVATIONS
from ..layers.relative_buckets import bucketed_rows
from ..models import deberta_parts, disentangled, encoder, tasks, walks
from ..models import encoder_names as names
from ..models.config import check_known, check_not_negative, check_only
from . import deberta


@dataclasses.dataclass(frozen=True)
class Config(deberta_parts.Fields):
    """The fields of its config.json that affect the computation; `source` keeps the others."""

    MODEL_TYPE: ClassVar[str] = "deberta-v2"
    OLD: ClassVar[tuple[str, ...]] = (*deberta_parts.Fields.OLD, "attention_head_size")

    vocab_size: int = 128100
    hidden_size: int = 1536
    num_hidden_layers: int = 24
    num_attention_heads: int = 24
    intermediate_size: int = 6144
    attention_head_size: int | None = None
    position_buckets: int = -1
    share_att_key: bool = False
    norm_rel_ebd: str = "none"
    conv_kernel_size: int = 0
    conv_groups: int = 1
    conv_act: str = "tanh"

    def __post_init__(self) -> None:
        super().__post_init__()
        D, K, G = self.hidden_size, self.conv_kernel_size, self.conv_groups
        check_only(self, attention_head_size=(None, D // self.num_attention_heads))
        check_known(self, "norm_rel_ebd", ("none", "layer_norm"))
        check_not_negative(self, "conv_kernel_size")
        if K:
            check_known(self, "conv_act", ACTIVATIONS)
        if K and K % 2 == 0:
            raise ValueError(f"config: conv_kernel_size: expected an odd number, got {K}")
        if K and (G < 1 or D % G):
            raise ValueError(f"config: conv_groups: expected a divisor of {D}, got {G}")
        buckets, most = self.position_buckets, 2 * self.window - 3
        if buckets > 0 and not 2 <= buckets <= most:
            raise ValueError(f"config: position_buckets: expected 2 to {most}, got {buckets}")

    @property
    def span(self) -> int:
        return self.position_buckets if self.position_buckets > 0 else self.window


# The released configs; He et al. 2023, table 2 and appendix, for v3.
_RELEASED: dict = {"relative_attention": True, "pos_att_type": "p2c|c2p", "share_att_key": True}
_RELEASED |= {"position_buckets": 256, "norm_rel_ebd": "layer_norm", "position_biased_input": False}
_V2: dict = {**_RELEASED, "attention_head_size": 64, "conv_kernel_size": 3, "conv_act": "gelu"}
SIZES = {
    "deberta-v2-xlarge": Config(**_V2),
    "deberta-v2-xxlarge": Config(num_hidden_layers=48, **_V2),
}
for _name, _D, _L in (
    ("xsmall", 384, 12),
    ("small", 768, 6),
    ("base", 768, 12),
    ("large", 1024, 24),
):
    _sizes: dict = {"hidden_size": _D, "num_attention_heads": _D // 64, "intermediate_size": 4 * _D}
    SIZES[f"deberta-v3-{_name}"] = Config(num_hidden_layers=_L, **_sizes, **_RELEASED)

TASKS = deberta_parts.table("DebertaV2")
TASKS["multiple_choice"] = deberta_parts.multiple_choice("DebertaV2")


def shapes(config: Config, task: str = "masked_lm") -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    D, kernel = config.hidden_size, config.conv_kernel_size
    projected = ["q", "k", "v"]
    if config.relative_attention and not config.share_att_key:
        projected += [n for n, term in (("kr", "c2p"), ("qr", "p2c")) if term in config.terms]
    attention = {f"{a}{n}": (D, D) if a == "W" else (D,) for n in projected for a in "Wb"}
    body = deberta_parts.body_shapes(config, attention)
    if config.norm_rel_ebd == "layer_norm":  # before the layers, see optim.layerwise.depths
        body = {"relative_norm": tasks.norm_shapes(D), **body}
    if kernel:
        convolution = {"W": (kernel, D // config.conv_groups, D), "b": (D,), **tasks.norm_shapes(D)}
        body["layers"][0] = {**body["layers"][0], "convolution": convolution}
    return {"body": body, "head": TASKS[task].shapes(config)}


def pieces(config: Config) -> encoder.Pieces:
    """DeBERTa's with relative positions in buckets, and a convolution where the tree has one."""
    layers = partial(disentangled.convolved, config=config)
    if config.position_buckets <= 0:
        return deberta.pieces(config)._replace(layers=layers)
    rows = partial(bucketed_rows, buckets=config.position_buckets, longest=config.window)
    return disentangled.pieces(config, rows)._replace(layers=layers)


INPUTS, init = deberta.INPUTS, walks.init
body, decoder_body = encoder.body_of(pieces), disentangled.decoder_body_of(pieces)

_KERNEL = names.permuted(2, 1, 0)  # torch's are (out, in / groups, K)
_HUB, _CONVOLUTION = "deberta.encoder", "body.layers.0.convolution"
_ATTENTION = (f"{deberta_parts.HUB}.attention.self", f"{names.LAYER}.attention")
NAMES = [
    *deberta_parts.NAMES,
    *names.norm(f"{_HUB}.LayerNorm", "body.relative_norm"),
    *names.linears(*_ATTENTION, query_proj="q", key_proj="k", value_proj="v"),
    *names.linears(*_ATTENTION, pos_key_proj="kr", pos_query_proj="qr"),
    names.Rename(f"{_HUB}.conv.conv.weight", f"{_CONVOLUTION}.W", operation=_KERNEL),
    names.Rename(f"{_HUB}.conv.conv.bias", f"{_CONVOLUTION}.b"),
    *names.norm(f"{_HUB}.conv.LayerNorm", _CONVOLUTION),
]
PREFIX, SKIPPED, TIED = deberta.PREFIX, deberta.SKIPPED, deberta.TIED
