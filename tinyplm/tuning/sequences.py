"""Token sequences of which some tokens are trained on: prompts with answers, conversations with the assistant's words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence as SequenceOf

import numpy as np

from .. import random
from ..arguments import wrong
from ..data.batches import IGNORED


@dataclasses.dataclass(frozen=True)
class Sequence:
    """ids: token ids; counts: for each, whether its prediction counts.  The first token is predicted from nothing, so never does.

    ValueError for lists of different lengths, fewer than two tokens, or none that counts.
    """

    ids: list[int]
    counts: list[bool]

    def __post_init__(self) -> None:
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
    if not len(prompt) or not len(answer):
        raise ValueError(f"expected a prompt and an answer, got {len(prompt)} and {len(answer)} tokens")
    return Sequence([*prompt, *answer], [False] * len(prompt) + [True] * len(answer))


def arrays(sequences: SequenceOf[Sequence], width: int | None = None) -> dict[str, np.ndarray]:
    """{"input_ids", "attention_mask", "targets"}, each (N, T): the tokens but the last, 1 where they are real, and the next token
    where it counts, else IGNORED.  Padded on the right, where a causal model does not see it, with token 0 to the longest or to
    `width` places.
    """
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


def check_sequences(sequences: SequenceOf[Sequence], *, context: int | None, vocabulary: int, name: str = "sequence") -> None:
    """ValueError naming the first that is not a Sequence, is longer than the context, or has ids beyond the vocabulary."""
    for n, sequence in enumerate(sequences):
        if not isinstance(sequence, Sequence):
            raise wrong(f"{name} {n}", "a tuning.sequences.Sequence, such as answered(prompt, answer)", sequence)
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
