"""Batches from a packed token array: by sample number for training, in order for evaluation.

Shapes: B samples, T tokens per sample (`length`). targets[b, t] is the token that follows
inputs[b, t], so targets line up with the logits; IGNORED where there is nothing to predict.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..arguments import LARGEST_KEY, check_key, check_whole, mismatch
from ..core import IGNORED
from ..shapes import check_array


class Windows:
    """The samples of a training run. Sample n depends on (tokens, length, seed, n) alone.

    A run that resumes at sample n therefore needs no saved state, and ranks or micro-batches that
    share a batch simply ask for their sample numbers. Sample n belongs to epoch
    n // windows_per_epoch. Each epoch cuts the array into windows of `length` inputs (plus one
    final target), starting at a random offset so that the boundaries differ from epoch to epoch,
    and visits the windows in random order, each exactly once.

    windows_per_epoch = max(1, N // length - 1), one fewer than fit: this leaves at least `length`
    possible offsets (for N >= 2 length), all with the same number of windows. An epoch omits fewer
    than 2 length tokens; over many epochs every token is used.

    tokens (N,) of an integer dtype may be memory-mapped: only the requested windows are read.
    Keeps the order of one epoch (8 bytes per window). Not thread-safe.
    Errors: ValueError for fewer than length + 1 tokens.
    """

    def __init__(self, tokens: np.ndarray, length: int, seed: int) -> None:
        check_whole("length", length, 1, 2**62)
        _check(tokens, length, length + 1, f"a window of {length}")
        check_key("seed", seed)
        self.tokens = tokens
        self.length = length
        self.seed = seed
        self.windows_per_epoch = max(1, len(tokens) // length - 1)
        self.offsets = len(tokens) - self.windows_per_epoch * length
        self._epoch = -1
        self._starts = np.empty(0, np.int64)

    def starts(self, epoch: int) -> np.ndarray:
        """First token of each window of an epoch, in training order: (windows_per_epoch,) int64."""
        check_whole("epoch", epoch, most=LARGEST_KEY)
        if epoch != self._epoch:
            # The raw words of Philox, a counter-based generator (Salmon et al. 2011), keyed by
            # (seed, epoch). NumPy keeps this stream stable across versions, but not the output of
            # permutation() (NEP 19).
            key = np.array([self.seed, epoch], np.uint64)
            words = np.random.Philox(key=key).random_raw(self.windows_per_epoch + 1)
            offset = int(words[0]) % self.offsets
            order = np.argsort(words[1:], kind="stable")
            self._epoch, self._starts = epoch, offset + self.length * order
        return self._starts

    def batch(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples first ... first + count - 1: inputs (count, T) and targets (count, T), int64."""
        check_whole("first", first, 0, 2**63)
        check_whole("count", count, 0, 2**31)
        inputs = np.empty((count, self.length), np.int64)
        targets = np.empty((count, self.length), np.int64)
        for row, sample in enumerate(range(first, first + count)):
            epoch, place = divmod(sample, self.windows_per_epoch)
            start = int(self.starts(epoch)[place])
            inputs[row] = self.tokens[start : start + self.length]
            targets[row] = self.tokens[start + 1 : start + 1 + self.length]
        return inputs, targets


def document_positions(inputs: np.ndarray, eos_id: int) -> tuple[np.ndarray, np.ndarray]:
    """(documents, positions), both (B, T) int64, for packed samples with attention kept within
    documents.

    documents[b, t] = number of eos tokens in inputs[b, :t + 1]: tokens with equal numbers belong to
    the same document (see mask.packed_mask). positions[b, t] = t - first t of that document in the
    row.

    The eos between two documents starts the second one, at position 0. Every target is then
    predictable from its own document: the last token predicts eos, and eos alone predicts the first
    token of the next document, just as text is generated from an empty prompt.
    """
    check_array("inputs", inputs, "(..., T) integers")
    check_whole("eos_id", eos_id)
    starts = inputs == eos_id
    documents = np.cumsum(starts, axis=-1, dtype=np.int64)
    place = np.arange(inputs.shape[-1], dtype=np.int64)
    return documents, place - np.maximum.accumulate(np.where(starts, place, 0), axis=-1)


def evaluation_windows(
    tokens: np.ndarray, length: int, batch: int = 8, stride: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of (inputs, targets) that predict each of tokens[1:] exactly once, in order.

    tokens (N,) may be memory-mapped. Windows of `length` targets start every `stride` tokens and
    come in batches of `batch`: (B, T) int64, B = batch or fewer in the last. A target that an
    earlier window has covered is IGNORED, so every token outside the first window is predicted from
    at least length - stride tokens of context. stride None = length: windows do not overlap, and
    the first tokens of each have almost no context; a smaller stride gives more context and costs
    length / stride times as much. The last window is padded: inputs 0, targets IGNORED.
    Errors: ValueError for fewer than 2 tokens or a stride outside 1 to length, raised by the call
    itself rather than at the first batch.
    """
    _check(tokens, length, 2, "a prediction")
    check_whole("length", length, 1, 2**31)
    stride = length if stride is None else stride
    check_whole("batch", batch, 1, 2**31)
    check_whole("stride", stride, 1, length)
    return _evaluation_windows(tokens, length, batch, stride)


def _evaluation_windows(
    tokens: np.ndarray, length: int, batch: int, stride: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    last = len(tokens) - 1  # number of targets
    starts = np.arange(0, max(last - length, 0) + stride, stride)  # the last window reaches the end
    for first in range(0, len(starts), batch):
        start = starts[first : first + batch, None]
        place = start + np.arange(length)
        inside = place < last
        new = place >= np.where(start == 0, 0, start + length - stride)
        place = np.minimum(place, last - 1)
        inputs = np.where(inside, tokens[place], 0).astype(np.int64)
        yield inputs, np.where(inside & new, tokens[place + 1].astype(np.int64), IGNORED)


def _check(tokens: np.ndarray, length: int, needed: int, purpose: str) -> None:
    check_array("tokens", tokens, "(N,) integers")
    check_whole("length", length, 1)
    if len(tokens) < needed:
        expected = f"at least {needed} for {purpose}"
        raise mismatch("tokens", expected, f"{len(tokens)} (use more text or a smaller context)")
