"""Token sequences of which some tokens are trained on: prompts with answers, conversations with the assistant's words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence as SequenceOf
from typing import Any

import numpy as np

from ... import random
from ...arguments import check_list, check_whole, wrong
from ...core import IGNORED

TOKEN_IDS = "token ids, integers"


@dataclasses.dataclass(frozen=True)
class Sequence:
    """ids: token ids; counts: for each, whether its prediction counts.  The first token is predicted from nothing, so never does.

    ValueError for ids that are no token ids, lists of different lengths, fewer than two tokens, or none that counts.
    """

    ids: list[int]
    counts: list[bool]

    def __post_init__(self) -> None:
        _check_ids("ids", self.ids)
        check_list("counts", self.counts, "True or False for each token")
        if len(self.ids) != len(self.counts):
            raise ValueError(f"expected whether it counts for each of {len(self.ids)} tokens, got {len(self.counts)} marks")
        if len(self.ids) < 2 or not any(self.counts[1:]):
            raise ValueError(f"expected a prompt and an answer, got {len(self.ids)} tokens of which none is to be predicted")
        if self.counts[0]:
            raise ValueError("the first token counts, but is predicted from nothing: expected a prompt before the answer")

    def __len__(self) -> int:
        """The places of the model's input: all tokens but the last."""
        return len(self.ids) - 1


def answered(prompt: SequenceOf[int], answer: SequenceOf[int]) -> Sequence:
    """A prompt, and an answer that counts (with the token that ends it, where the model should learn to stop)."""
    for name, ids in (("prompt", prompt), ("answer", answer)):
        check_list(name, ids, TOKEN_IDS)
    if not len(prompt) or not len(answer):
        raise ValueError(f"expected a prompt and an answer, got {len(prompt)} and {len(answer)} tokens")
    return Sequence([*prompt, *answer], [False] * len(prompt) + [True] * len(answer))


def arrays(sequences: SequenceOf[Sequence], width: int | None = None) -> dict[str, np.ndarray]:
    """{"input_ids", "attention_mask", "targets"}, each (N, T): the tokens but the last, 1 where they are real, and the next token
    where it counts, else IGNORED.  Padded on the right, where a causal model does not see it, with token 0 to the longest or to
    `width` places.
    """
    check_every(sequences)
    check_whole("width", width, 1, or_none=True)
    longest = max(map(len, sequences))
    T = longest if width is None else width
    if T < longest:
        raise ValueError(f"a sequence needs {longest} places, more than {T}")
    inputs = np.zeros((len(sequences), T), np.int64)
    mask, targets = np.zeros_like(inputs), np.full_like(inputs, IGNORED)
    for n, sequence in enumerate(sequences):
        L = len(sequence)
        inputs[n, :L] = sequence.ids[:-1]
        mask[n, :L] = 1
        targets[n, :L] = np.where(sequence.counts[1:], sequence.ids[1:], IGNORED)
    return {"input_ids": inputs, "attention_mask": mask, "targets": targets}


def _check_ids(name: str, ids: Any) -> None:
    """ValueError unless they are integers >= 0, one behind the other; a whole array at a time, since corpora have many."""
    check_list(name, ids, TOKEN_IDS)
    try:
        values = np.asarray(ids)
    except (ValueError, TypeError, OverflowError):  # lists of different lengths
        values = None
    if values is None or values.ndim != 1 or (values.size and (values.dtype.kind not in "iu")):
        raise wrong(name, TOKEN_IDS, ids)


def check_every(sequences: Any, *, name: str = "sequence", least: int = 1) -> None:
    """ValueError unless they are so many Sequences or more."""
    check_list(f"{name}s", sequences, "a list of tuning.sequences.Sequence")
    if len(sequences) < least:
        raise ValueError(f"{name}s: expected at least {least}, got {len(sequences)}")
    for n, sequence in enumerate(sequences):
        if not isinstance(sequence, Sequence):
            raise wrong(f"{name} {n}", "a tuning.sequences.Sequence, such as answered(prompt, answer)", sequence)


def check_sequences(sequences: SequenceOf[Sequence], *, context: int | None, vocabulary: int, name: str = "sequence") -> None:
    """ValueError naming the first that is no Sequence, is longer than the model's context, or has ids beyond the vocabulary."""
    check_every(sequences, name=name, least=0)
    for n, sequence in enumerate(sequences):
        if context is not None and len(sequence) > context:
            raise ValueError(f"{name} {n} has {len(sequence)} places, more than the model's context of {context}")
        if not 0 <= min(sequence.ids) <= max(sequence.ids) < vocabulary:
            outside = next(i for i in sequence.ids if not 0 <= i < vocabulary)
            raise ValueError(f"{name} {n} has token id {outside}, expected 0 to {vocabulary - 1}, the model's vocabulary")


def batch_numbers(count: int, size: int, step: int, *, key: int) -> np.ndarray:
    """The samples of step number `step`, from 0, `size` of `count`: each epoch has all of them once, in an order of its own.

    Known from the key and the step alone; a batch may reach from one epoch into the next.
    """
    if count < 1:
        raise ValueError("there are no samples to train on")
    places = np.arange(step * size, (step + 1) * size)
    orders = {
        epoch: random.generator(random.fold(key, epoch)).permutation(count) for epoch in np.unique(places // count).tolist()
    }
    return np.array([orders[epoch][place] for epoch, place in zip((places // count).tolist(), (places % count).tolist())])
