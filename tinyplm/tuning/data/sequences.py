"""Token sequences with a mark on the tokens that are trained on, such as those of answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ... import random
from ...arguments import check_list, check_whole, mismatch, wrong
from ...core import IGNORED

TOKEN_IDS = "token ids, integers"


@dataclasses.dataclass(frozen=True)
class TokenSequence:
    """ids: token ids; counts: for each token, whether its prediction counts.

    The first token is predicted from nothing, so it never counts.
    ValueError for invalid ids, lists of different lengths, fewer than two tokens, or no token that
    counts.
    """

    ids: list[int]
    counts: list[bool]

    def __post_init__(self) -> None:
        _check_ids("ids", self.ids)
        check_list("counts", self.counts, "True or False for each token")
        if len(self.ids) != len(self.counts):
            raise mismatch("counts", f"one for each of {len(self.ids)} tokens", len(self.counts))
        if len(self.ids) < 2 or not any(self.counts[1:]):
            raise mismatch(
                "ids", "a prompt and an answer", f"{len(self.ids)} tokens, none to be predicted"
            )
        if self.counts[0]:
            raise mismatch(
                "counts", "False for the first token, which is predicted from nothing", "True"
            )

    def __len__(self) -> int:
        """The length of the model's input: all tokens but the last."""
        return len(self.ids) - 1


def answered(prompt: Sequence[int], answer: Sequence[int]) -> TokenSequence:
    """A prompt and an answer that counts, ending in its end token if that is to be learned."""
    for name, ids in (("prompt", prompt), ("answer", answer)):
        check_list(name, ids, TOKEN_IDS)
        if not len(ids):
            raise ValueError(f"{name}: expected at least 1 token, got 0")
    return TokenSequence([*prompt, *answer], [False] * len(prompt) + [True] * len(answer))


def sequence_arrays(
    sequences: Sequence[TokenSequence], width: int | None = None
) -> dict[str, np.ndarray]:
    """{"input_ids", "attention_mask", "targets"}, each (N, T).

    Inputs are all tokens but the last, the mask is 1 on real tokens, targets are the next tokens,
    IGNORED where they do not count.  Padded on the right, where a causal model does not see it,
    with token 0, to `width` or the longest sequence.
    """
    check_every(sequences)
    check_whole("width", width, 1, or_none=True)
    longest = max(map(len, sequences))
    T = longest if width is None else width
    if T < longest:
        raise ValueError(f"width: expected at least {longest}, the longest sequence, got {T}")
    inputs = np.zeros((len(sequences), T), np.int64)
    mask, targets = np.zeros_like(inputs), np.full_like(inputs, IGNORED)
    for n, sequence in enumerate(sequences):
        L = len(sequence)
        inputs[n, :L] = sequence.ids[:-1]
        mask[n, :L] = 1
        targets[n, :L] = np.where(sequence.counts[1:], sequence.ids[1:], IGNORED)
    return {"input_ids": inputs, "attention_mask": mask, "targets": targets}


def _check_ids(name: str, ids: Any) -> None:
    """ValueError unless ids is one-dimensional and integer; checked as an array, for speed."""
    check_list(name, ids, TOKEN_IDS)
    try:
        values = np.asarray(ids)
    except (ValueError, TypeError, OverflowError):  # lists of different lengths
        values = None
    if values is None or values.ndim != 1 or (values.size and (values.dtype.kind not in "iu")):
        raise wrong(name, TOKEN_IDS, ids)


def check_every(sequences: Any, *, name: str = "sequence", least: int = 1) -> None:
    """ValueError unless these are at least `least` TokenSequences."""
    check_list(f"{name}s", sequences, "a list of TokenSequence")
    if len(sequences) < least:
        raise ValueError(f"{name}s: expected at least {least}, got {len(sequences)}")
    for n, sequence in enumerate(sequences):
        if not isinstance(sequence, TokenSequence):
            expected = "a TokenSequence, such as answered(prompt, answer)"
            raise wrong(f"{name} {n}", expected, sequence)


def check_sequences(
    sequences: Sequence[TokenSequence],
    *,
    context: int | None,
    vocabulary: int,
    name: str = "sequence",
    least: int = 0,
) -> None:
    """ValueError unless these are at least `least` TokenSequences within context and vocabulary."""
    check_every(sequences, name=name, least=least)
    for n, sequence in enumerate(sequences):
        if context is not None and len(sequence) > context:
            raise mismatch(
                f"{name} {n}", f"at most {context} tokens, the model's context", len(sequence)
            )
        if not 0 <= min(sequence.ids) <= max(sequence.ids) < vocabulary:
            outside = next(i for i in sequence.ids if not 0 <= i < vocabulary)
            raise mismatch(f"{name} {n}", f"token ids from 0 to {vocabulary - 1}", outside)


def batch_numbers(count: int, size: int, step: int, *, key: int) -> np.ndarray:
    """The numbers of the samples of step `step`: `size` of `count`, in a new order for each epoch.

    A function of key and step alone; a batch may span two epochs.
    """
    if count < 1:
        raise ValueError("samples: expected at least 1, got 0")
    places = np.arange(step * size, (step + 1) * size)
    orders = {
        epoch: random.generator(random.fold(key, epoch)).permutation(count)
        for epoch in np.unique(places // count).tolist()
    }
    return np.array([orders[n // count][n % count] for n in places.tolist()])
