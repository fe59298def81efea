"""RoBERTa (Liu et al. 2019): as BERT, except:

positions count the tokens that are not padding, and begin after padding's:
    positions[t] = pad + count[t],   count[t] = how many of the tokens up to t are not padding;
                                     padding itself is at position pad
Heads: no next sentence; the masked LM has the erf GELU whatever hidden_act is; classes of a
sequence come from hidden_0 by a dense layer of their own, with dropout before and after it; the
pooler is for choices.   XLM-RoBERTa and CamemBERT are this model under other names.
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from typing import Any, ClassVar

from ..kernels.activation import gelu
from ..layers.position import counted_positions
from ..models import encoder, tasks, walks
from ..models import encoder_names as names
from ..models.encoder import Pieces
from ..models.tasks import Task
from . import bert


@dataclasses.dataclass(frozen=True)
class Config(bert.Config):
    """BERT's fields; a token that is the padding is required."""

    MODEL_TYPE: ClassVar[str] = "roberta"

    vocab_size: int = 50265
    pad_token_id: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.pad_token_id < self.vocab_size or self.context < 1:
            raise ValueError(
                f"config: pad_token_id: expected a token from 0 to {self.vocab_size - 1}, with "
                f"positions after it, got {self.pad_token_id} with {self.max_position_embeddings} "
                "positions"
            )

    @property
    def context(self) -> int:
        return self.max_position_embeddings - self.pad_token_id - 1


# Liu et al. 2019, sec. 3.1; distilroberta: Sanh et al. 2019, the recipe of DistilBERT.
_RELEASED: dict = {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
_LARGE: dict = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
SIZES = {
    "roberta-base": Config(**_RELEASED),
    "roberta-large": Config(**_RELEASED, **_LARGE, num_hidden_layers=24),
    "distilroberta-base": Config(**_RELEASED, num_hidden_layers=6),
}
INPUTS = bert.INPUTS


TASKS = {
    "masked_lm": tasks.masked_lm("Roberta", activation=gelu),
    **tasks.heads("Roberta", rate=attrgetter("head_dropout")),
    # in place of BERT's
    "sequence_classification": tasks.dense_classes("Roberta", rate=attrgetter("head_dropout")),
    "multiple_choice": tasks.choices("Roberta", rate=attrgetter("hidden_dropout_prob")),
}


def renamed_sizes(config: type[Config], prefix: str, vocab_size: int) -> dict[str, Any]:
    """The base and the large one for a family that is RoBERTa under another name."""
    fields = {size: vars(SIZES[f"roberta-{size}"]) for size in ("base", "large")}
    return {f"{prefix}-{n}": config(**{**f, "vocab_size": vocab_size}) for n, f in fields.items()}


def renamed_tasks(prefix: str) -> dict[str, Task]:
    """TASKS with another prefix of transformers' classes."""
    rename = {name: task.architecture.replace("Roberta", prefix) for name, task in TASKS.items()}
    return {name: task._replace(architecture=rename[name]) for name, task in TASKS.items()}


def shapes(config: Config, task: str = "masked_lm") -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    return {"body": bert.body_shapes(config), "head": TASKS[task].shapes(config)}


def pieces(config: Config) -> Pieces:
    """BERT's, with positions counted by ids, also where these come with embeddings; embeddings
    alone are taken for tokens."""
    padding = config.pad_token_id

    def positions(inputs):
        if inputs.ids is None:
            return encoder.from_zero(inputs) + padding + 1
        return counted_positions(inputs.ids, padding_id=padding)

    return bert.pieces(config)._replace(positions=positions)


init, body = walks.init, encoder.body_of(pieces)

NAMES = [
    *names.body_names("roberta"),
    *names.lm_names("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
    *names.linear("classifier.dense", "head.dense"),
    *names.linear("classifier.out_proj", "head.out"),
    *names.HEADS,
]
PREFIX, SKIPPED = "roberta.", names.BUFFERS
TIED = names.tied("lm_head.bias", "roberta")
