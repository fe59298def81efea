"""What decoding asks of a model: the texts so far, the next logits, and which rows continue."""

from __future__ import annotations

from typing import Protocol, cast

import numpy as np

from ..arguments import mismatch, wrong
from ..models.causal_model import CausalModel
from ..models.checks import check_range
from ..models.model import Model, check_decoder
from ..models.seq2seq_config import SEQ2SEQ
from ..models.seq2seq_model import Seq2SeqModel
from .batch import Batch, Memory
from .settings import DecodingSettings
from .source_batch import SourceBatch


class DecodingState(Protocol):
    """Texts that grow by one token at a time.  It starts with one row for each prompt, in order.

    Decoding calls `next_logits`, then `select`, in turn, and none of them after the last token.
    """

    texts: list[list[int]]
    """Of each row, the ids that the decoder has read and those chosen since: the prompt, or the
    start token of an encoder-decoder, and what follows.  Callers do not change it."""

    def next_logits(self) -> np.ndarray:
        """(rows, V) on the host, at least float32: the logits after each text."""
        ...

    def select(self, rows: np.ndarray, tokens: np.ndarray) -> None:
        """Continue with these rows: the new row i is the old row rows[i], then tokens[i].

        rows (N,) integers, any number in any order, with or without repeats; tokens (N,) integers.
        rows = 0, 1, ... rows - 1 must cost nothing.  With as many rows as before, only the i where
        rows[i] != i need a copy.
        """
        ...


def check_generates(name: str, model: Model) -> None:
    """ValueError unless `begin` knows models of this kind."""
    if not (isinstance(model, Seq2SeqModel) and model.task == SEQ2SEQ):
        check_decoder(name, model)


def begin(
    model: Model,
    prompts: list[list[int]],
    settings: DecodingSettings,
    memory: Memory | None = None,
) -> DecodingState:
    """The state of a model before the first token; ValueError for prompts that it cannot take."""
    if isinstance(model, Seq2SeqModel):
        if memory is not None:
            raise wrong("memory", "None for an encoder-decoder", memory)
        return SourceBatch(model, prompts, settings)
    check_prompts(model, prompts)
    return Batch(cast(CausalModel, model), prompts, settings, memory)


def check_prompts(model: Model, prompts: list[list[int]]) -> None:
    """ValueError for prompts that a decoder cannot take."""
    for prompt in prompts:
        if not 0 < len(prompt) <= model.config.context:
            given = f"{len(prompt)} in one prompt"
            raise mismatch("prompts", f"1 to {model.config.context} tokens", given)
        check_range("prompts", np.array(prompt), model.config.vocab_size)


def text_before(state: DecodingState, row: int) -> list[int]:
    """The ids whose text a new one continues: the prompt; none where a decoder begins a text."""
    return [] if isinstance(state, SourceBatch) else list(state.texts[row])
