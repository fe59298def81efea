"""DistilBERT (Sanh et al. 2019): as BERT, except:

half of the layers, no segments and no pooler; dropout after the feed-forward layer and not after
attention; names of its own for everything.  Classes of a sequence and choices come from
relu(hidden_0 W + b), and the head of answers has dropout.  It is trained on BERT's logits and
hidden states, which is a matter of the loss, not of the model.
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from typing import Any, ClassVar

from ..kernels.activation import ACTIVATIONS
from ..layers.activation import relu
from ..layers.position import sinusoidal_table
from ..models import encoder, tasks, walks
from ..models import encoder_names as names
from ..models.config import check_encoder, check_heads, check_known
from . import bert


@dataclasses.dataclass(frozen=True)
class Config(encoder.EncoderConfig):
    """The fields of its config.json that affect the computation, and BERT's names for them."""

    MODEL_TYPE: ClassVar[str] = "distilbert"
    ALIASES = dict(hidden_size="dim", num_attention_heads="n_heads", num_hidden_layers="n_layers")

    vocab_size: int = 30522
    max_position_embeddings: int = 512
    sinusoidal_pos_embds: bool = False  # the initial table of positions; it is trained all the same
    n_layers: int = 6
    n_heads: int = 12
    dim: int = 768
    hidden_dim: int = 3072
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation: str = "gelu"
    initializer_range: float = 0.02
    qa_dropout: float = 0.1
    seq_classif_dropout: float = 0.2
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        rates = ("dropout", "attention_dropout", "qa_dropout", "seq_classif_dropout")
        tables = ("vocab_size", "max_position_embeddings")
        sizes = ("n_layers", "n_heads", "dim", "hidden_dim", *tables)
        check_encoder(self, rates=rates, sizes=sizes, tie_word_embeddings=(True,))
        check_known(self, "activation", ACTIVATIONS)
        check_heads(self, "dim", "n_heads")

    hidden_size = property(attrgetter("dim"))
    intermediate_size = property(attrgetter("hidden_dim"))
    num_hidden_layers = property(attrgetter("n_layers"))
    num_attention_heads = property(attrgetter("n_heads"))
    hidden_act = property(attrgetter("activation"))
    hidden_dropout_prob = property(attrgetter("dropout"))
    attention_probs_dropout_prob = property(attrgetter("attention_dropout"))
    layer_norm_eps: ClassVar[float] = 1e-12
    type_vocab_size: ClassVar[int] = 0


# Sanh et al. 2019, sec. 3; the vocabularies are those of the released weights.
SIZES = {
    "distilbert-base-uncased": Config(),
    "distilbert-base-cased": Config(vocab_size=28996),
    "distilbert-base-multilingual-cased": Config(vocab_size=119547),
}
_rate, _pooling = attrgetter("seq_classif_dropout"), lambda config: {"activation": relu}
TASKS = {
    "masked_lm": tasks.masked_lm("DistilBert"),
    "sequence_classification": tasks.classes("DistilBert", rate=_rate, pooling=_pooling),
    "multiple_choice": tasks.choices("DistilBert", rate=_rate, pooling=_pooling),
    "token_classification": tasks.tokens("DistilBert", rate=attrgetter("dropout")),
    "question_answering": tasks.answers("DistilBert", rate=attrgetter("qa_dropout")),
    "body": tasks.no_head("DistilBert"),
}


def shapes(config: Config, task: str = "masked_lm") -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    body = {name: part for name, part in bert.body_shapes(config).items() if name != "segments"}
    return {"body": body, "head": TASKS[task].shapes(config)}


def init(path: str, shape: tuple[int, ...], *, config: Config, key: int) -> Any:
    """As walks.init; sinusoidal_pos_embds: positions begin as in Vaswani et al. 2017."""
    if path == "body.positions" and config.sinusoidal_pos_embds:
        return sinusoidal_table(*shape)
    return walks.init(path, shape, config=config, key=key)


def pieces(config: Config) -> encoder.Pieces:
    """BERT's, with dropout in another place; a tree without segments skips their part."""
    feed_forward = encoder.feed_forward(ACTIVATIONS[config.activation])
    return bert.pieces(config)._replace(
        attention=encoder.attend(heads=config.n_heads, rate=config.attention_dropout),
        mlp=encoder.dropped(feed_forward, rate=config.dropout, number=1),
    )


INPUTS, body = (), encoder.body_of(pieces)

_HUB = "distilbert.transformer.layer.{i}"
_PROJECTIONS = {"q_lin": "q", "k_lin": "k", "v_lin": "v", "out_lin": "o"}
NAMES = [
    *names.embedding_names("distilbert"),
    *names.linears(f"{_HUB}.attention", f"{names.LAYER}.attention", **_PROJECTIONS),
    *names.norm(f"{_HUB}.sa_layer_norm", f"{names.LAYER}.norm1"),
    *names.linears(f"{_HUB}.ffn", f"{names.LAYER}.mlp", lin1="1", lin2="2"),
    *names.norm(f"{_HUB}.output_layer_norm", f"{names.LAYER}.norm2"),
    *names.lm_names("vocab_transform", "vocab_layer_norm", "vocab_projector.bias"),
    *names.linear("pre_classifier", "head.pooler"),
    *names.HEADS,
]
PREFIX, SKIPPED = "distilbert.", names.BUFFERS
TIED = {"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"}
