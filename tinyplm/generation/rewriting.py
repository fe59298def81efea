"""Texts whose last tokens can be taken back: of both models in speculative decoding."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import at_least_float32, is_host, to_device, to_host
from ..layers.cache import Cache
from ..layers.cache_alignment import aligned
from .batch import Batch


class Rewritable(Batch):
    """A Batch that scores several tokens at once, and takes back those that are not wanted.

    Each text may lose another number of tokens, so afterwards texts and caches are aligned at their
    ends again.
    """

    def scores(self, new: int, counts: list[int]) -> tuple[np.ndarray, Any]:
        """The logits after each of the last `new` tokens of all texts, and after the one before.

        Row n needs those after its first counts[n] <= new of them alone; the others mean nothing.
        -> logits (rows, new + 1, V) on the host, and on the device the hidden states (rows, T, D)
        of all places that the model read; None where it read whole texts, without a cache.
        """
        if self.cache is not None and self.width - new <= self.capacity:
            inputs = self.inputs(self.cache.length)
            found = self.model.several_logits(inputs, count=new + 1)
            logits, hidden, self.cache = found
            return at_least_float32(logits if is_host(logits) else to_host(logits)), hidden
        self.cache = None
        ends = [len(text) - new + count for text, count in zip(self.texts, counts)]
        texts = [text[:end][-self.context :] for text, end in zip(self.texts, ends)]
        groups: dict[tuple[int, int], list[int]] = {}  # the length may change RoPE's frequencies
        for n, (text, count) in enumerate(zip(texts, counts)):
            groups.setdefault((len(text), count), []).append(n)
        shape, scores = (len(texts), new + 1, self.model.config.vocab_size), np.zeros(())
        for (_, count), group in groups.items():
            inputs = self.model.inputs(np.array([texts[n] for n in group]))
            logits = self.model.several_logits(inputs, count=count + 1)[0]
            logits = at_least_float32(logits if is_host(logits) else to_host(logits))
            scores = scores if scores.ndim else np.zeros(shape, dtype=logits.dtype)
            scores[group, : count + 1] = logits
        return scores, None

    def rewrite(self, rows: np.ndarray, kept: list[int], tokens: list[int]) -> None:
        """Row i continues the first kept[i] ids of row rows[i] with tokens[i]."""
        same = np.array_equal(rows, np.arange(len(self.texts)))
        pads = [self.width - len(self.texts[n]) for n in rows.tolist()]
        before, width = (self.ids, self.real), max(kept) + 1
        self.ids, self.real = (np.zeros((len(rows), a.shape[1]), dtype=a.dtype) for a in before)
        self.real[:, width:] = 1
        for i, (n, pad, count) in enumerate(zip(rows.tolist(), pads, kept)):
            self.ids[i, width - 1 - count : width - 1] = before[0][n, pad : pad + count]
            self.ids[i, width - 1], self.real[i, width - 1 - count : width] = tokens[i], 1
        texts = self.texts if same else [list(self.texts[n]) for n in rows.tolist()]
        for text, count, token in zip(texts, kept, tokens):
            text[count:] = [token]
        self.texts, self.width = texts, width
        if self.cache is not None:
            cache = self.cache if same else self.cache.take(to_device(rows, self.model.device))
            self.cache = self._aligned(cache, pads, kept)

    def _aligned(self, cache: Cache, pads: list[int], kept: list[int]) -> Cache:
        """The cache cut back to what all texts have, but for the same number of last tokens."""
        known = [max(0, min(cache.length - pad, count)) for pad, count in zip(pads, kept)]
        unread = max(count + 1 - n for count, n in zip(kept, known))
        ends = [pad + max(0, count + 1 - unread) for pad, count in zip(pads, kept)]
        return aligned(cache, [min(n, cache.length) for n in ends], self.width - unread)
