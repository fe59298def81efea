"""The texts of a decoder so far, and the cache of their keys and values."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..arguments import listed, mismatch, wrong
from ..backend import array_module, at_least_float32, is_host, to_device, to_host
from ..layers.cache import Cache
from ..models.causal_model import CausalModel
from .settings import DecodingSettings


@dataclasses.dataclass
class Memory:
    """The keys and values of one text, kept between calls of `stream` to reuse a common prefix.

    It belongs to one model with its current parameters, and to one stream at a time.
    """

    ids: list[int] = dataclasses.field(default_factory=list)
    cache: Cache | None = None


class Batch:
    """The DecodingState of a decoder: one row per prompt at first.

    Texts are left-padded to one width; a cache has their keys and values.
    spare: how many tokens a text may exceed its limits by, and how many can be taken back.
    """

    def __init__(
        self,
        model: CausalModel,
        prompts: list[list[int]],
        settings: DecodingSettings,
        memory: Memory | None = None,
        spare: int = 0,
    ) -> None:
        self.model, self.memory, self.context = model, memory, model.config.context
        self.width = max(map(len, prompts))
        longest = self.width + settings.max_new_tokens + spare
        self.ids = np.zeros((len(prompts), longest), dtype=np.int64)
        self.real = np.ones(self.ids.shape, dtype=np.int64)
        for n, prompt in enumerate(prompts):
            self.ids[n, self.width - len(prompt) : self.width] = prompt
            self.real[n, : self.width - len(prompt)] = 0
        self.texts = [list(prompt) for prompt in prompts]
        self.capacity = min(longest, model.config.cache_context)
        self.cache: Cache | None = None
        if settings.cached and self.width <= self.capacity:
            self.cache = self._remembered(prompts[0], self.capacity)
            if self.cache is None:
                self.cache = model.empty_cache(len(prompts), self.capacity, spare=spare)

    def _remembered(self, prompt: list[int], capacity: int) -> Cache | None:
        """The cache in memory, cut to the prefix that it shares with the prompt.

        `inputs` does not check the cache, so it is checked here.
        """
        memory = self.memory
        if memory is None or memory.cache is None:
            return None
        if self.model.config.reads_places:
            return None  # the first tokens of a prompt see its later ones
        if not isinstance(memory.cache, Cache):
            raise wrong("memory: cache", "None or a Cache", memory.cache)
        if not memory.cache.current:
            return None  # a step was interrupted
        if memory.cache.batch != 1:
            raise wrong("memory: cache", "a cache of one sample", memory.cache.batch)
        self.model.check_cache("memory", memory.cache, 1, memory.cache.capacity)
        if len(listed("memory: ids", memory.ids, "token ids")) != memory.cache.length:
            expected = f"one for each of the {memory.cache.length} places of the cache"
            raise mismatch("memory: ids", expected, len(memory.ids))
        shared = _common_prefix(memory.ids, prompt[:-1])  # the last token's logits are needed
        if not memory.cache.can_cut(shared):
            return None  # a window has moved on
        memory.cache = memory.cache.cut(shared).grown(capacity)
        memory.ids = memory.ids[:shared]
        return memory.cache

    def inputs(self, start: int) -> dict[str, Any]:
        """The model's inputs from column `start` on, as Model.inputs gives, without checks."""
        inputs: dict[str, Any] = {"input_ids": self.ids[:, start : self.width]}
        real = self.real[:, : self.width]
        if self.model.config.reads_places:
            read = self.model.placed(self.ids[:, : self.width], real)
            inputs |= {"attention_mask": real, "position_ids": read["position_ids"][..., start:]}
            inputs |= {} if start else {"prefix_lengths": read["prefix_lengths"]}
        elif not real.all():
            counted = np.cumsum(real, axis=1) - 1
            positions = np.clip(counted, 0, self.model.config.cache_context - 1)[:, start:]
            inputs |= {"attention_mask": real, "position_ids": positions}
        if self.model.device != "cpu":
            inputs = to_device(inputs, self.model.device)
        return {**inputs, "cache": self.cache}

    def next_logits(self) -> np.ndarray:
        """(rows, V) on the host."""
        if self.cache is not None and self.width <= self.capacity:
            logits, self.cache = self.model.last_logits(self.inputs(self.cache.length))
        else:  # recompute; texts are grouped by length, which may change RoPE frequencies
            self.cache = None
            ids, real = self.ids[:, : self.width], self.real[:, : self.width]
            texts = [row[mask == 1][-self.context :] for row, mask in zip(ids, real)]
            groups: dict[int, list[int]] = {}
            for n, text in enumerate(texts):
                groups.setdefault(len(text), []).append(n)
            parts = []
            for group in groups.values():
                inputs = self.model.inputs(np.stack([texts[n] for n in group]))
                parts.append(self.model.last_logits(inputs)[0])
            order = np.argsort(np.concatenate(list(groups.values())))
            logits = array_module(parts[0]).concatenate(parts)[to_device(order, self.model.device)]
        if self.memory is not None:
            self.memory.cache = self.cache
            self.memory.ids = self.texts[0][: self.cache.length if self.cache else 0]
        return at_least_float32(logits if is_host(logits) else to_host(logits))

    def select(self, rows: np.ndarray, tokens: np.ndarray) -> None:
        """Row i continues row rows[i] with tokens[i]."""
        same = len(rows) == len(self.texts)
        if not (same and np.array_equal(rows, np.arange(len(rows)))):
            if self.cache is not None and same:
                self.cache = self.cache.reordered(rows.tolist(), self._shared(rows))
            elif self.cache is not None:
                self.cache = self.cache.take(to_device(rows, self.model.device))
            self.texts = [list(self.texts[n]) for n in rows.tolist()]
            self.ids, self.real = self.ids[rows], self.real[rows]
        self.ids[:, self.width] = tokens
        self.width += 1
        for text, token in zip(self.texts, tokens.tolist()):
            text.append(token)

    def _shared(self, rows: np.ndarray) -> list[int]:
        """In how many of the first places row i and row rows[i] are the same."""
        ids, real = self.ids[:, : self.width], self.real[:, : self.width]
        return equal_places((ids[rows] == ids) & (real[rows] == real))


def equal_places(same: np.ndarray) -> list[int]:
    """How many of the first places of each row (N, T) are True.

    Where texts begin alike, so do their keys and values: one is a copy of the other.
    """
    return np.where(same.all(axis=1), same.shape[1], same.argmin(axis=1)).tolist()


def _common_prefix(a: list[int], b: list[int]) -> int:
    """The length of the common prefix of two texts."""
    return next((n for n, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
