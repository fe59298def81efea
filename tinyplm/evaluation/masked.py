"""Baselines of masked language models: guesses from counts, at the same masked places.

unigram      the most frequent training token, and the unigram distribution
neighbours   the most frequent token between the same two neighbours; if that pair is new or a
             neighbour is masked, after the left one, then before the right one, then the unigram
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from ..arguments import as_ids, check_several, check_whole, wrong
from ..core import IGNORED
from ..shapes import check_array


class Guesses:
    """Counts over training texts, each a sequence of ids (a sentence or a whole document).

    The ids contain no special tokens.
    """

    def __init__(self, texts: Iterable[Sequence[int]], vocab_size: int) -> None:
        check_whole("vocab_size", vocab_size, 1, 2**32)
        check_several("texts", texts, "sequences of ids")
        self.counts = np.zeros(vocab_size, np.int64)
        around: dict[tuple[int | None, int | None], Counter[int]] = {}
        for text in texts:
            ids = as_ids("texts", text, vocab_size).tolist()
            np.add.at(self.counts, ids, 1)
            for left, middle, right in zip([None, *ids[:-1]], ids, [*ids[1:], None]):
                for pair in ((left, right), (left, None), (None, right)):
                    if pair != (None, None):
                        around.setdefault(pair, Counter())[middle] += 1
        if not self.counts.any():
            raise ValueError("texts: expected at least one token, got none")
        self.best = int(self.counts.argmax())
        self.around = {pair: counter.most_common(1)[0][0] for pair, counter in around.items()}

    def unigram_loss(self, targets: np.ndarray) -> float:
        """Mean -log p in nats over counted targets, p = (count + 1) / (N + V): never zero."""
        targets = _targets("targets", targets, len(self.counts))
        t = targets[targets != IGNORED]
        return float(-np.log((self.counts[t] + 1) / (self.counts.sum() + len(self.counts))).mean())

    def unigram_accuracy(self, targets: np.ndarray) -> float:
        """The share of counted targets equal to the most frequent training token."""
        targets = _targets("targets", targets, len(self.counts))
        return float((targets[targets != IGNORED] == self.best).mean())

    def neighbour_accuracy(self, input_ids: np.ndarray, targets: np.ndarray) -> float:
        """input_ids (B, T), corrupted as the model sees them, and targets (B, T)."""
        targets = _targets("targets", targets, len(self.counts))
        check_array("input_ids", input_ids, "(B, T) integers")
        if input_ids.shape != targets.shape:
            raise wrong("targets", f"an array of shape {input_ids.shape}, as input_ids", targets)
        right = 0
        rows, places = np.nonzero(targets != IGNORED)
        for row, place in zip(rows, places):
            ids = input_ids[row]
            before = int(ids[place - 1]) if place else None
            after = int(ids[place + 1]) if place + 1 < len(ids) else None
            pairs = ((before, after), (before, None), (None, after))
            guess = next((self.around[pair] for pair in pairs if pair in self.around), self.best)
            right += guess == targets[row, place]
        return right / max(len(rows), 1)


def _targets(name: str, targets: np.ndarray, vocab_size: int) -> np.ndarray:
    """ValueError unless all are ids in the vocabulary or IGNORED, and at least one counts."""
    check_array(name, targets, "(...) integers")
    counted = targets[targets != IGNORED]
    if not counted.size or counted.min() < 0 or counted.max() >= vocab_size:
        expected = f"ids from 0 to {vocab_size - 1}, or {IGNORED}, at least one that counts"
        raise wrong(name, expected, targets)
    return targets


def joined(batches: Sequence[tuple[dict, dict]]) -> tuple[np.ndarray, np.ndarray]:
    """(input_ids, targets of logits) of several batches of equal length."""
    check_several("batches", batches, "batches (inputs, targets)")
    batches = list(batches)
    for batch in batches:
        right = isinstance(batch, (tuple, list)) and list(map(type, batch)) == [dict, dict]
        if not right or "input_ids" not in batch[0] or "logits" not in batch[1]:
            raise wrong("batches", 'pairs ({"input_ids": ...}, {"logits": ...})', batch)
        check_array("batches: input_ids", batch[0]["input_ids"], "(B, T) integers")
        check_array("batches: logits", batch[1]["logits"], "(B, T) integers")
    ids = [inputs["input_ids"] for inputs, _ in batches]
    logits = [targets["logits"] for _, targets in batches]
    if len({a.shape[1] for a in ids + logits}) != 1:
        raise wrong("batches", "one or more of equal length", [a.shape for a in ids])
    return np.concatenate(ids), np.concatenate(logits)
