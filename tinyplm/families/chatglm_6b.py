"""ChatGLM-6B (GLM team 2023, the released code): as BLOOM, except that each sublayer adds to its
normed input, scaled up, and that RoPE turns each half of a head by a position of its own.

    n = norm(x),   x' = sqrt(2 L) n + f(n),   L = 28              layers.block.scaled_norm
    q = [rope(q1; i), rope(q2; j)],   likewise k                  layers.rope.paired_rope

i is a token's place, or in part B that of the mask; j is its place within part B (models/placing.py
reads both off the ids: text, [gMASK] or [MASK], more text, <sop> (`bos_token_id`), answer).  Tokens
before <sop> see each other in both directions.  The frequencies are rounded to float16, as there.
Its model_type "chatglm" is also that of later models, of which none has inner_hidden_size.
The files hold the head beside the table; as transformers loads them, the head is the table.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..arguments import wrong
from ..kernels.activation import gelu_tanh
from ..kernels.attention import self_attention
from ..kernels.mlp import mlp
from ..layers.block import block, deep_norm_scales, scaled_norm
from ..layers.rope_scaling import rope_frequencies
from ..models import causal_lm, decoder, tasks, walks
from ..models import config as base
from ..models.chatglm_config import check_plain
from ..models.decoder import Pieces, every
from ..models.names import Rename
from ..models.placing import blank_places
from ..models.rope import paired_rotary
from . import bloom

EARLY_VOCABULARY = 150528
LAYERS = 28  # of the scale, in the authors' code whatever num_layers says


@dataclasses.dataclass(frozen=True)
class Config(base.ScoreLabels):
    """The fields of config.json that say what is computed; `source` keeps the others."""

    MODEL_TYPE: ClassVar[str] = "chatglm_6b"
    FILE_TYPE: ClassVar[str] = "chatglm"
    ARCHITECTURE: ClassVar[str] = "ChatGLMModel"
    SCORED: ClassVar[str] = ""
    OLD: ClassVar[tuple[str, ...]] = ("pre_seq_len", *base.LABELS)
    ALIASES: ClassVar[dict[str, str]] = {
        **{"num_hidden_layers": "num_layers", "max_position_embeddings": "max_sequence_length"}
    }

    vocab_size: int = 130528
    hidden_size: int = 4096
    inner_hidden_size: int = 16384
    num_layers: int = 28
    num_attention_heads: int = 32
    max_sequence_length: int = 2048
    layernorm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    position_encoding_2d: bool = True
    tie_word_embeddings: bool = False
    quantization_bit: int | None = 0
    pre_seq_len: int | None = None
    bos_token_id: int | None = None
    mask_token_id: int | None = None
    gmask_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    source: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        base.check_types(self)
        sizes = ("vocab_size", "hidden_size", "inner_hidden_size", "num_layers")
        base.check_positive(self, *sizes, "num_attention_heads", "max_sequence_length")
        base.check_not_negative(self, "layernorm_epsilon", "initializer_range")
        base.check_only(self, position_encoding_2d=(True,))
        check_plain(self)
        if self.vocab_size == EARLY_VOCABULARY:
            expected = "130528 or another; the early files' code places positions otherwise"
            raise wrong("config: vocab_size", expected, self.vocab_size)
        base.check_heads(self, "hidden_size", "num_attention_heads")
        for name in ("bos_token_id", "mask_token_id", "gmask_token_id"):
            if self.source and name not in self.source:
                raise wrong(f"config: {name}", "an id, or null for a model without it", None)
        if (self.hidden_size // self.heads) % 4:
            expected = f"a multiple of 4 num_attention_heads = {4 * self.heads}"
            raise wrong("config: hidden_size", expected, self.hidden_size)

    heads = property(lambda self: self.num_attention_heads)
    context = cache_context = property(lambda self: self.max_sequence_length)
    position_rows = property(lambda self: self.max_sequence_length + 1)

    @property
    def reads_places(self) -> bool:
        return self.bos_token_id is not None and bool(self.masks)

    @property
    def masks(self) -> dict[str, int]:
        """The ids of the mask tokens; the first one in a text that has both counts."""
        ids = {"[gMASK]": self.gmask_token_id, "[MASK]": self.mask_token_id}
        return {name: id for name, id in ids.items() if id is not None}

    @property
    def cache_sizes(self) -> dict[str, int]:
        width = self.hidden_size // self.heads
        return {"layers": self.num_layers, "kv_heads": self.heads, "width": width}


_IDS: dict[str, Any] = {"bos_token_id": 130004, "mask_token_id": 130000, "gmask_token_id": 130001}
SIZES = {"chatglm-6b": Config(**_IDS, eos_token_id=130005, tie_word_embeddings=True)}


def shapes(config: Config) -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    V, D = config.vocab_size, config.hidden_size
    layer = tasks.block_shapes(D, config.inner_hidden_size)
    body = {"tokens": (V, D), "layers": [layer] * config.num_layers, "norm": tasks.norm_shapes(D)}
    return {"body": body} if config.tie_word_embeddings else {"body": body, "head": {"W": (D, V)}}


def pieces(config: Config) -> Pieces:
    """ChatGLM-6B for the walk of decoders."""
    alpha, _ = deep_norm_scales(LAYERS)
    frequencies = rope_frequencies(config.hidden_size // config.heads // 2)
    rounded = frequencies.astype("float16").astype("float64")
    return Pieces(
        norm=partial(bloom.norm, eps=config.layernorm_epsilon),
        attention=every(partial(self_attention, heads=config.heads)),
        mlp=every(partial(mlp, activation=gelu_tanh)),
        residual=partial(block, residual=partial(scaled_norm, alpha=alpha)),
        embed=decoder.no_embed,
        window=every(None),
        positions=paired_rotary(rounded),
        finish=decoder.final_norm,
    )


def placed(ids: Any, real: Any, *, config: Any) -> dict[str, Any]:
    """position_ids and prefix_lengths of ids (B, T) with a mask and bos_token_id."""
    return blank_places(ids, real, start=("<sop>", config.bos_token_id), masks=config.masks)


init = walks.init
body = partial(decoder.body, pieces)
output_matrix = causal_lm.output_matrix


def renames(config: Config) -> list[Rename]:
    """The authors' tensors: BLOOM's blocks under other names."""
    return [
        Rename("transformer.word_embeddings.weight", "body.tokens"),
        *bloom.norms("transformer.final_layernorm", "body.norm"),
        *bloom.block_renames("transformer.layers.{i}", "attention", config.heads),
        *decoder.HEADS,
    ]


NAMES = renames(Config())
PREFIX, SKIPPED = "transformer.", (r"rotary_emb\.inv_freq$",)
TIED = {"lm_head.weight": "transformer.word_embeddings.weight"}
