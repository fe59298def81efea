"""BART (Lewis et al. 2020): as the Transformer, except:

    x_0    = dropout(norm(scale tokens[ids] + positions[t + 2])), learned positions of each side
             (rows 0 and 1 are never used, as in the released code);   scale is 1
    logits = hidden tokens^T + logits_bias, which is not trained;   mlp with erf GELU
Heads of classes and answers read the decoder, which is given the source itself, shifted right:
classes from the state at the last end token, tanh(h W + b) and a linear layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any, ClassVar

from ..core import Tree, named
from ..layers.dropout import dropout
from ..layers.position import learned_positions
from ..models import causal_lm, seq2seq, tasks, walks
from ..models.names import Rename, linear, weight_and_bias
from ..models.seq2seq import Pieces, Side
from ..models.seq2seq_config import BothSides
from ..models.tasks import Task
from . import marian, transformer

OFFSET = 2  # the row of the first position


@dataclasses.dataclass(frozen=True)
class Config(BothSides):
    """BART's config.json."""

    MODEL_TYPE: ClassVar[str] = "bart"
    ARCHITECTURE: ClassVar[str] = "BartForConditionalGeneration"

    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | list[int] | None = 2


# Lewis et al. 2020, sec. 2.1 and 5; vocabularies of the released weights.
SIZES = {
    "bart-base": Config(**transformer.sides(768, 6, 12, 3072)),
    "bart-large": Config(),
    "bart-large-cnn": Config(vocab_size=50264),
}


def shapes(config: Any) -> dict:
    """The Transformer's, with positions and a norm of the embeddings on each side."""
    D, tree = config.d_model, transformer.shapes(config)
    table = (config.max_position_embeddings + OFFSET, D)
    first = {"positions": table, "embed_norm": {"gamma": (D,), "beta": (D,)}}
    sides = {side: {**first, **tree["body"][side]} for side in ("encoder", "decoder")}
    return {**tree, "body": {**tree["body"], **sides}}


def embed(p: Tree, x: Any, *, side: Side, key: Any, scale: float, rate: float) -> tuple:
    """y = dropout(n),   n = norm(s),   s = scale x + positions[t + 2].

    With ds = dy taken back through dropout and norm:   dx = scale ds,   dpositions[c] = sum of ds
    over all places with that row.
    """
    s, positions_back = learned_positions(
        scale * x, p["positions"], positions=side.positions + OFFSET
    )
    n, norm_back = named("embed_norm", transformer.norm)(p["embed_norm"], s)
    y, drop_back = dropout(n, rate=rate, key=key)

    def backward(dy: Any) -> tuple[Tree, Any]:
        dnorm, ds = norm_back(drop_back(dy))
        dx, dpositions = positions_back(ds)
        return {"positions": dpositions, "embed_norm": dnorm}, scale * dx

    return y, backward


def pieces(config: Any) -> Pieces:
    """The Transformer's, with BART's embeddings."""
    first: Callable = partial(embed, scale=config.embedding_scale, rate=config.dropout)
    return transformer.pieces(config)._replace(embed=first)


init, buffer_shapes = walks.init, marian.buffer_shapes
body = partial(seq2seq.body, pieces)
output_matrix = causal_lm.output_matrix


def embedding_names(side: str) -> list[Rename]:
    """What precedes a side's layers."""
    hub, path = f"model.{side}", f"body.{side}"
    norm = weight_and_bias(
        f"{hub}.layernorm_embedding", f"{path}.embed_norm.gamma", f"{path}.embed_norm.beta"
    )
    return [Rename(f"{hub}.embed_positions.weight", f"{path}.positions"), *norm]


def heads(prefix: str) -> dict[str, Task]:
    """The heads besides the language model's, by transformers' prefix of their classes."""
    classes = tasks.dense_classes(prefix, rate=attrgetter("classifier_dropout"))
    return {"sequence_classification": classes, "question_answering": tasks.answers(prefix)}


HEADS = heads("Bart")
NAMES = [
    *embedding_names("encoder"),
    *embedding_names("decoder"),
    *marian.NAMES,
    *linear("classification_head.dense", "head.dense"),
    *linear("classification_head.out_proj", "head.out"),
    *linear("qa_outputs", "head.span"),
]
PREFIX, COPIES, TIED = transformer.PREFIX, transformer.COPIES, transformer.TIED
SKIPPED: tuple[str, ...] = ()
