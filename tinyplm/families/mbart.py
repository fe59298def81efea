"""mBART (Liu et al. 2020): as BART, except:

pre-norm: x + dropout(attention(norm1(x))) ..., and E = norm(e_L), hidden = norm(d_L)
scale is sqrt(D) in the released models
the source ends with its language's token; the decoder begins with the target's last token, its
language, so labels are rotated by one instead of shifted after a start token
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..backend import array_module
from ..core import IGNORED
from ..layers.block import pre_norm
from ..models import causal_lm, seq2seq, walks
from ..models.names import weight_and_bias
from ..models.seq2seq import Pieces
from ..models.seq2seq_config import BothSides
from . import bart, marian


@dataclasses.dataclass(frozen=True)
class Config(BothSides):
    """mBART's config.json, BART's fields."""

    MODEL_TYPE: ClassVar[str] = "mbart"
    ARCHITECTURE: ClassVar[str] = "MBartForConditionalGeneration"

    vocab_size: int = 50265
    decoder_start_token_id: int | None = None
    forced_eos_token_id: int | list[int] | None = 2

    def decoder_ids(self, labels: Any) -> Any:
        """labels (..., T) rotated right: each row's last token, then its others but the last.

        -100 and padding come after the last token.
        """
        xp = array_module(labels)
        ids = xp.where(labels == IGNORED, self.pad_token_id, labels)
        last = xp.maximum((ids != self.pad_token_id).sum(axis=-1, keepdims=True) - 1, 0)
        first = xp.take_along_axis(ids, last, axis=-1)
        return xp.concatenate([first, ids[..., :-1]], axis=-1)


SIZES = {"mbart-large-cc25": Config(vocab_size=250027, scale_embedding=True)}


def shapes(config: Config) -> dict:
    """BART's, with a norm after the last layer of each side."""
    D, tree = config.d_model, bart.shapes(config)
    norm = {"norm": {"gamma": (D,), "beta": (D,)}}
    sides = {side: {**tree["body"][side], **norm} for side in ("encoder", "decoder")}
    return {**tree, "body": {**tree["body"], **sides}}


def pieces(config: Config) -> Pieces:
    """BART's, pre-norm."""
    residual = {"residual": pre_norm, "rate": config.dropout}
    return bart.pieces(config)._replace(residual=residual, finish=seq2seq.final_norm)


init, buffer_shapes = walks.init, marian.buffer_shapes
body = partial(seq2seq.body, pieces)
output_matrix = causal_lm.output_matrix
HEADS = bart.heads("MBart")

_NORMS = [
    weight_and_bias(f"model.{n}.layer_norm", f"body.{n}.norm.gamma", f"body.{n}.norm.beta")
    for n in ("encoder", "decoder")
]
NAMES = [*bart.NAMES, *_NORMS[0], *_NORMS[1]]
PREFIX, COPIES, TIED, SKIPPED = bart.PREFIX, bart.COPIES, bart.TIED, bart.SKIPPED
