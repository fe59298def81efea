"""The texts that the decoder of an encoder-decoder has written so far, and their cache."""

from __future__ import annotations

import numpy as np

from ..arguments import mismatch
from ..backend import at_least_float32, is_host, to_device, to_host
from ..layers.source_cache import SourceCache
from ..models.checks import check_range
from ..models.seq2seq_model import Seq2SeqModel
from .batch import equal_places
from .settings import DecodingSettings


class SourceBatch:
    """The DecodingState of an encoder-decoder: one row per source at first.

    The encoder runs once.  Rows of one source share what cross-attention reads of it.
    """

    def __init__(
        self, model: Seq2SeqModel, sources: list[list[int]], settings: DecodingSettings
    ) -> None:
        self.model, self.cached = model, settings.cached
        longest, start = settings.max_new_tokens, model.start_id()
        context = model.config.context
        if context is not None and longest > context:
            raise mismatch("max_new_tokens", f"at most {context}, the positions", longest)
        for source in sources:
            if not 0 < len(source) <= (len(source) if context is None else context):
                expected = "at least 1 token" if context is None else f"1 to {context} tokens"
                raise mismatch("prompts", expected, f"{len(source)} in one prompt")
            check_range("prompts", np.array(source), model.config.vocab_size)
        ids = np.full((len(sources), max(map(len, sources))), model.config.pad_token_id)
        mask = np.zeros(ids.shape, dtype=np.int64)
        for n, source in enumerate(sources):
            ids[n, : len(source)], mask[n, : len(source)] = source, 1
        self.mask = None if mask.all() else mask
        self.hidden = model.encode(ids, attention_mask=self.mask)
        self.texts = [[start] for _ in sources]
        self.ids = np.zeros((len(sources), longest + 1), dtype=np.int64)
        self.ids[:, 0], self.width = start, 1
        self.cache = self._fresh(longest)

    def _fresh(self, capacity: int) -> SourceCache:
        """An empty cache of the rows, each with a source of its own."""
        return self.model.source_cache(self.hidden, capacity=capacity, attention_mask=self.mask)

    def next_logits(self) -> np.ndarray:
        """(rows, V) on the host."""
        start = self.cache.length
        if not self.cached and start:
            self.cache, start = self._fresh(self.width), 0
        outputs = self.model.decode(self.ids[:, start : self.width], cache=self.cache)
        self.cache, logits = outputs["cache"], outputs["logits"][:, -1]
        return at_least_float32(logits if is_host(logits) else to_host(logits))

    def select(self, rows: np.ndarray, tokens: np.ndarray) -> None:
        """Row i continues row rows[i] with tokens[i]."""
        if not np.array_equal(rows, np.arange(len(self.texts))):
            self._take(rows)
        self.ids[:, self.width] = tokens
        self.width += 1
        for text, token in zip(self.texts, tokens.tolist()):
            text.append(token)

    def _take(self, rows: np.ndarray) -> None:
        if not self.cached:
            at = to_device(rows, self.model.device)
            self.hidden, self.mask = self.hidden[at], None if self.mask is None else self.mask[rows]
        elif len(rows) == len(self.texts):
            ids = self.ids[:, : self.width]
            self.cache = self.cache.reordered(rows, equal_places(ids[rows] == ids))
        else:
            self.cache = self.cache.take(rows)
        self.texts = [list(self.texts[n]) for n in rows.tolist()]
        self.ids = self.ids[rows]
