"""DeBERTa (He et al. 2021): an encoder whose attention tells contents from relative positions, which are clipped to a window.

What it computes is in disentangled.py.  Queries and values have biases, keys and positions projected as keys have none.  One
matrix makes queries, keys and values, head by head.

Parameters: {"body": {"tokens" (V, E), "positions" (C, E), "segments" (types, E), "projection" (E, D), "relative" (2 span, D),
"norm", "layers": [...]}, of which a config has only some, "head": by task}.
Heads: masked LM, logits = lm_transform(hidden) tokens^T + bias; classes from gelu(hidden_0 W + b), the head's own pooler;
classes of tokens and the ends of an answer straight from hidden.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..layers.relative_buckets import clipped_rows
from ..models import deberta_parts, disentangled, encoder
from ..models.config import LABELS, label_count
from ..models.deberta_parts import HUB, LAYER
from ..models.names import Rename


@dataclasses.dataclass(frozen=True)
class Config:
    """The fields of DeBERTa's config.json that say what is computed; `source` keeps the others."""

    MODEL_TYPE: ClassVar[str] = "deberta"
    ALIASES: ClassVar[dict[str, str]] = {}
    OLD: ClassVar[tuple[str, ...]] = (*LABELS, "embedding_size", "cls_dropout", "pooler_hidden_size")

    vocab_size: int = 50265
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 0
    embedding_size: int | None = None
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-7
    relative_attention: bool = False
    max_relative_positions: int = -1
    pad_token_id: int | None = 0
    position_biased_input: bool = True
    pos_att_type: str | list[str] | None = None
    talking_head: bool = False
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
        deberta_parts.check(self, talking_head=(False,))

    @property
    def context(self) -> int | None:
        return self.max_position_embeddings if self.position_biased_input else None

    @property
    def terms(self) -> tuple[str, ...]:
        return deberta_parts.terms(self)

    @property
    def span(self) -> int:
        """Half the rows of the table of relative positions."""
        return deberta_parts.window(self)

    @property
    def num_labels(self) -> int:
        return label_count(self)

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names in files that this config has no use for: the positions of the enhanced mask decoder."""
        return () if self.position_biased_input else (r"embeddings\.position_embeddings\.weight$",)


INPUTS = ("token_type_ids",)

# He et al. 2021, appendix A.2, and the released configs, from which the xlarge one is.
_RELEASED = {"relative_attention": True, "pos_att_type": "c2p|p2c", "position_biased_input": False}
SIZES = {
    "deberta-base": Config(**_RELEASED),
    "deberta-large": Config(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, **_RELEASED),
    "deberta-xlarge": Config(hidden_size=1024, num_hidden_layers=48, num_attention_heads=16, intermediate_size=4096, **_RELEASED),
}

TASKS = deberta_parts.tasks("Deberta")


def shapes(config: Config, task: str = "masked_lm") -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    D = config.hidden_size
    attention = {"Wqkv": (D, 3 * D), "bq": (D,), "bv": (D,)}
    if config.relative_attention:
        attention |= {"Wkr": (D, D)} if "c2p" in config.terms else {}
        attention |= {"Wqr": (D, D), "bqr": (D,)} if "p2c" in config.terms else {}
    return {"body": deberta_parts.body_shapes(config, attention), "head": TASKS[task].shapes(config)}


init = encoder.init


def body(p, inputs_embeds=None, *, config: Config, **inputs):
    """disentangled.body with clipped relative positions."""
    return disentangled.body(p, inputs_embeds, config=config, rows=partial(clipped_rows, span=config.span), **inputs)


def decoder_body(p, inputs_embeds=None, *, config: Config, **inputs):
    """disentangled.decoder_body with clipped relative positions: the body of pretraining."""
    return disentangled.decoder_body(p, inputs_embeds, config=config, rows=partial(clipped_rows, span=config.span), **inputs)


NAMES = [
    *deberta_parts.NAMES,
    Rename(f"{HUB}.attention.self.in_proj.weight", f"{LAYER}.attention.Wqkv", operation="transpose"),
    Rename(f"{HUB}.attention.self.q_bias", f"{LAYER}.attention.bq"),
    Rename(f"{HUB}.attention.self.v_bias", f"{LAYER}.attention.bv"),
    Rename(f"{HUB}.attention.self.pos_proj.weight", f"{LAYER}.attention.Wkr", operation="transpose"),
    Rename(f"{HUB}.attention.self.pos_q_proj.weight", f"{LAYER}.attention.Wqr", operation="transpose"),
    Rename(f"{HUB}.attention.self.pos_q_proj.bias", f"{LAYER}.attention.bqr"),
]
PREFIX, IGNORED, TIED = deberta_parts.PREFIX, deberta_parts.IGNORED, deberta_parts.TIED
