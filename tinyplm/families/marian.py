"""Marian (Junczys-Dowmunt et al. 2018), as the OPUS-MT models have it: as the Transformer, except:

sinusoidal[t] = [sin(t w), cos(t w)]: all sines first, w = 10000^(-2i/D)
mlp with swish (SiLU);   logits = hidden tokens^T + logits_bias, which is not trained
the decoder begins with padding
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..arguments import wrong
from ..backend import array_module
from ..layers.position import sinusoidal
from ..models import causal_lm, seq2seq, walks
from ..models.names import Rename
from ..models.seq2seq import Pieces
from ..models.seq2seq_config import BothSides
from . import transformer


@dataclasses.dataclass(frozen=True)
class Config(BothSides):
    """The fields of Marian's config.json; one vocabulary for both languages."""

    MODEL_TYPE: ClassVar[str] = "marian"
    ARCHITECTURE: ClassVar[str] = "MarianMTModel"

    vocab_size: int = 58101
    decoder_vocab_size: int | None = None
    share_encoder_decoder_embeddings: bool = True
    pad_token_id: int = 58100
    eos_token_id: int | list[int] | None = 0
    bos_token_id: int | None = None
    decoder_start_token_id: int | None = 58100

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.share_encoder_decoder_embeddings:
            expected = "true, one table for both languages"
            raise wrong("config: share_encoder_decoder_embeddings", expected, False)
        if self.decoder_vocab_size not in (None, self.vocab_size):
            raise wrong(
                "config: decoder_vocab_size", f"{self.vocab_size} or null", self.decoder_vocab_size
            )


SIZES = {
    "opus-mt-en-de": Config(
        **transformer.sides(512, 6, 8, 2048),
        max_position_embeddings=512,
        scale_embedding=True,
        activation_function="swish",
    )
}


def sinusoids_apart(positions: Any, width: int, *, dtype: Any) -> Any:
    """The columns of `sinusoidal`, sines first: [sin(t w_0), sin(t w_1) ..., cos(t w_0) ...]."""
    waves = sinusoidal(positions, width, dtype=dtype)
    return array_module(waves).concatenate([waves[..., 0::2], waves[..., 1::2]], axis=-1)


def buffer_shapes(config: Any) -> dict:
    """The shapes of what is saved but not trained."""
    return {"logits_bias": (1, config.vocab_size)}


def pieces(config: Config) -> Pieces:
    """The Transformer's, with the sines apart from the cosines."""
    made = transformer.pieces(config)
    return made._replace(embed=partial(made.embed, waves=sinusoids_apart))


shapes, init = transformer.shapes, walks.init
body = partial(seq2seq.body, pieces)
output_matrix = causal_lm.output_matrix

NAMES = [*transformer.NAMES, Rename("final_logits_bias", "buffers.logits_bias")]
PREFIX, COPIES, TIED = transformer.PREFIX, transformer.COPIES, transformer.TIED
SKIPPED = (r"embed_positions\.weight$",)  # sinusoids that files carry
