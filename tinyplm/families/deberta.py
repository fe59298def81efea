"""DeBERTa (He et al. 2021): as BERT, except for its attention:

contents and relative positions attend to each other (layers/disentangled.py); distances are clipped
to a window.  Queries and values have biases, keys and positions projected as keys have none.  One
matrix makes queries, keys and values, head by head.  Padding is zero in the embeddings; absolute
positions, segments and embeddings of another width are optional.  `decoder_body` is the body of
pretraining, with the enhanced mask decoder.

Parameters: {"body": {"tokens" (V, E), "positions" (C, E), "segments" (types, E), "projection"
(E, D), "relative" (2 span, D), "norm", "layers": [...]}, of which a config has only some, "head":
by task}.
Heads: masked LM, logits = lm_transform(hidden) tokens^T + bias; classes from gelu(hidden_0 W + b),
the head's own pooler; classes of tokens and the ends of an answer from hidden.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..layers.relative_buckets import clipped_rows
from ..models import deberta_parts, disentangled, encoder, walks
from ..models import encoder_names as names
from ..models.config import check_only


@dataclasses.dataclass(frozen=True)
class Config(deberta_parts.Fields):
    """The fields of its config.json that affect the computation; `source` keeps the others."""

    MODEL_TYPE: ClassVar[str] = "deberta"

    talking_head: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_only(self, talking_head=(False,))


# He et al. 2021, appendix A.2, and the released configs, among them the xlarge one.
_RELEASED: dict = {
    "relative_attention": True,
    "pos_att_type": "c2p|p2c",
    "position_biased_input": False,
}
_LARGE: dict = {
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    **_RELEASED,
}
SIZES = {
    "deberta-base": Config(**_RELEASED),
    "deberta-large": Config(num_hidden_layers=24, **_LARGE),
    "deberta-xlarge": Config(num_hidden_layers=48, **_LARGE),
}
INPUTS = ("token_type_ids",)
TASKS = deberta_parts.table("Deberta")


def shapes(config: Config, task: str = "masked_lm") -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    D = config.hidden_size
    attention: dict = {"Wqkv": (D, 3 * D), "bq": (D,), "bv": (D,)}
    if config.relative_attention:
        attention |= {"Wkr": (D, D)} if "c2p" in config.terms else {}
        attention |= {"Wqr": (D, D), "bqr": (D,)} if "p2c" in config.terms else {}
    body = deberta_parts.body_shapes(config, attention)
    return {"body": body, "head": TASKS[task].shapes(config)}


def pieces(config: Any) -> encoder.Pieces:
    """Disentangled attention with clipped relative positions."""
    return disentangled.pieces(config, partial(clipped_rows, span=config.span))


init = walks.init
body, decoder_body = encoder.body_of(pieces), disentangled.decoder_body_of(pieces)

_HUB, _ATTENTION = f"{deberta_parts.HUB}.attention.self", f"{names.LAYER}.attention"
NAMES = [
    *deberta_parts.NAMES,
    names.transposed(f"{_HUB}.in_proj.weight", f"{_ATTENTION}.Wqkv"),
    names.Rename(f"{_HUB}.q_bias", f"{_ATTENTION}.bq"),
    names.Rename(f"{_HUB}.v_bias", f"{_ATTENTION}.bv"),
    names.transposed(f"{_HUB}.pos_proj.weight", f"{_ATTENTION}.Wkr"),
    *names.linears(_HUB, _ATTENTION, pos_q_proj="qr"),
]
PREFIX, SKIPPED, TIED = deberta_parts.PREFIX, deberta_parts.SKIPPED, deberta_parts.TIED
