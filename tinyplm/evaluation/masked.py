"""What a masked language model is to be compared with: guesses from counts, on the same masked places.

unigram      the most frequent token of the training text, and its distribution
neighbours   the most frequent token between the same two neighbours; where they were never seen around a token, or one of them
             is hidden, after the left one, then before the right one; else the most frequent of all
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from ..arguments import as_ids, check_several, check_whole, wrong
from ..core import IGNORED
from ..shapes import check_array


class Guesses:
    """Counts over training texts, each a sequence of ids (a sentence, or all of a document) without special tokens."""

    def __init__(self, texts: Iterable[Sequence[int]], vocab_size: int) -> None:
        check_whole("vocab_size", vocab_size, 1, 2**32)
        check_several("texts", texts, "sequences of ids")
        self.counts = np.zeros(vocab_size, np.int64)
        around: dict[tuple, Counter] = {}
        for text in texts:
            ids = as_ids("texts", text, vocab_size).tolist()
            np.add.at(self.counts, ids, 1)
            for left, middle, right in zip([None, *ids[:-1]], ids, [*ids[1:], None]):
                for pair in ((left, right), (left, None), (None, right)):
                    if pair != (None, None):
                        around.setdefault(pair, Counter())[middle] += 1
        if not self.counts.any():
            raise ValueError("the training texts hold no tokens, expected some to count")
        self.best = int(self.counts.argmax())
        self.around = {pair: counter.most_common(1)[0][0] for pair, counter in around.items()}

    def unigram_loss(self, targets: np.ndarray) -> float:
        """Mean -log p in nats of the targets that count, with p = (count + 1) / (N + V): no token is impossible."""
        targets = _targets("targets", targets, len(self.counts))
        t = targets[targets != IGNORED]
        return float(-np.log((self.counts[t] + 1) / (self.counts.sum() + len(self.counts))).mean())

    def unigram_accuracy(self, targets: np.ndarray) -> float:
        targets = _targets("targets", targets, len(self.counts))
        return float((targets[targets != IGNORED] == self.best).mean())

    def neighbour_accuracy(self, input_ids: np.ndarray, targets: np.ndarray) -> float:
        """input_ids (B, T) as the model gets them, corrupted, and targets (B, T)."""
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
    """ValueError unless these are ids in the vocabulary or IGNORED, and some of them count."""
    check_array(name, targets, "(...) integers")
    counted = targets[targets != IGNORED]
    if not counted.size or counted.min() < 0 or counted.max() >= vocab_size:
        raise wrong(name, f"ids from 0 to {vocab_size - 1}, or {IGNORED}, at least one that counts", targets)
    return targets


def joined(batches: Sequence[tuple[dict, dict]]) -> tuple[np.ndarray, np.ndarray]:
    """(input_ids, logits' targets) of several batches of one length."""
    check_several("batches", batches, "batches (inputs, targets)")
    batches = list(batches)
    for batch in batches:
        right = isinstance(batch, (tuple, list)) and len(batch) == 2 and all(isinstance(part, dict) for part in batch)
        if not right or "input_ids" not in batch[0] or "logits" not in batch[1]:
            raise wrong("batches", 'pairs ({"input_ids": ...}, {"logits": ...})', batch)
        check_array("batches: input_ids", batch[0]["input_ids"], "(B, T) integers")
        check_array("batches: logits", batch[1]["logits"], "(B, T) integers")
    if len({batch[0]["input_ids"].shape[1] for batch in batches} | {batch[1]["logits"].shape[1] for batch in batches}) != 1:
        raise wrong("batches", "batches of one length, at least one", [batch[0]["input_ids"].shape for batch in batches])
    return tuple(np.concatenate([part[name] for part in parts]) for name, parts in
                 (("input_ids", [b[0] for b in batches]), ("logits", [b[1] for b in batches])))  # fmt: skip
