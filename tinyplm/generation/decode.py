"""Text from a language model: prompts in, continuations out, whole or token by token.

The model reads the prompts once and fills a key/value cache; each further token then costs one
token's work.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Iterator, Sequence, Set
from typing import Any, NamedTuple, cast

import numpy as np

from .. import random
from ..arguments import (
    MOST,
    check_flag,
    check_key,
    check_whole,
    is_whole,
    known_arguments,
    listed,
    mismatch,
    wrong,
)
from ..backend import array_module, at_least_float32, is_host, to_device, to_host
from ..layers.cache import Cache
from ..models import causal_lm
from ..models.causal_model import CausalModel
from ..models.checks import check_range
from ..models.model import Model, check_model
from .sampling import Sampling, chosen_log_probabilities
from .text import TextStream, check_stop

MOST_TEXTS = 2**20  # continuations in one call


class Piece(NamedTuple):
    """One token of one continuation."""

    row: int  # the continuation: samples * (prompt number) + sample number
    id: int
    log_probability: float  # nats, under the model itself, regardless of sampling settings
    text: str | None  # the next text that is certain, possibly ""; None without a tokenizer
    finished: str | None  # "stop" or "length" with the last token


@dataclasses.dataclass
class Memory:
    """The keys and values of one text, kept between calls of `stream` to reuse a common prefix.

    It belongs to one model with its current parameters, and to one stream at a time.
    """

    ids: list[int] = dataclasses.field(default_factory=list)
    cache: Cache | None = None


@dataclasses.dataclass
class Continuation:
    """What follows a prompt, without the stop token or stop string that ended it."""

    prompt: int  # number of the prompt
    ids: list[int]
    log_probabilities: list[float]
    text: str | None
    finished: str = ""

    def add(self, piece: Piece, stop_ids: Container[int] = ()) -> None:
        """Append the next piece."""
        if piece.id not in stop_ids:
            self.ids.append(piece.id)
            self.log_probabilities.append(piece.log_probability)
        self.text = None if piece.text is None else (self.text or "") + piece.text
        self.finished = piece.finished or ""


@dataclasses.dataclass(frozen=True)
class GenerationSettings:
    """The options of `stream`, checked."""

    max_new_tokens: int
    samples: int
    seed: int
    stop_ids: Iterable[int] | None
    stop_strings: Sequence[str]
    vocabulary: int | None
    cached: bool
    first_prompt: int

    def __post_init__(self) -> None:
        if self.stop_ids is not None:
            object.__setattr__(self, "stop_ids", checked_stops(self.stop_ids))
        check_stop(self.stop_strings, "stop_strings")
        check_whole("samples", self.samples, 1, MOST)
        check_whole("max_new_tokens", self.max_new_tokens, 1, MOST)
        check_whole("vocabulary", self.vocabulary, 1, or_none=True)
        check_key("seed", self.seed)
        check_whole("first_prompt", self.first_prompt, 0, MOST)
        check_flag("cached", self.cached)


@known_arguments
def generate(
    model: Model,
    prompts: Sequence[int] | Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    samples: int = 1,
    seed: int = 0,
    stop_ids: Iterable[int] | None = None,
    stop_strings: Sequence[str] = (),
    vocabulary: int | None = None,
    cached: bool = True,
    memory: Memory | None = None,
    first_prompt: int = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    no_repeat_ngram: int | None = None,
) -> list[Continuation]:
    """`samples` continuations of one prompt or of each of several, those of the first prompt first.

    Options and errors are those of `stream`.
    """
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, no_repeat_ngram)
    settings = GenerationSettings(
        max_new_tokens, samples, seed, stop_ids, stop_strings, vocabulary, cached, first_prompt
    )
    steps, rows = _stream(model, prompts, settings, sampling, memory)
    stops, text = stops_of(model, settings.stop_ids), "" if model.tokenizer else None
    out = [Continuation(n // samples, [], [], text) for n in range(rows)]
    for pieces in steps:
        for piece in pieces:
            out[piece.row].add(piece, stops)
    return out


@known_arguments
def stream(
    model: Model,
    prompts: Sequence[int] | Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    samples: int = 1,
    seed: int = 0,
    stop_ids: Iterable[int] | None = None,
    stop_strings: Sequence[str] = (),
    vocabulary: int | None = None,
    cached: bool = True,
    memory: Memory | None = None,
    first_prompt: int = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    no_repeat_ngram: int | None = None,
) -> Iterator[list[Piece]]:
    """Step by step, the next token of every unfinished continuation.

    prompts: token ids of one prompt or of several, of any lengths.
    temperature ... no_repeat_ngram: see `Sampling`.
    A continuation ends with one of stop_ids (default model.end_ids(); () for none), when its text
    contains one of stop_strings, or after max_new_tokens.
    Sample n of prompt i depends on the seed, n and i, not on how many there are; the first prompt
    has number first_prompt, for prompts that are part of a larger set.
    vocabulary: draw only ids below it; default: those the tokenizer has, as the model's embedding
    table may be padded.
    cached=False recomputes the whole text for every token, with the same result to rounding. This
    also happens to a text longer than the model's context (the model then sees the last `context`
    tokens) or longer than it can cache (dynamic RoPE scaling).
    memory: for one prompt and one sample, as in a chat; updated with every token.
    ValueError for an empty prompt or one longer than the context, ids out of range, and bad
    settings; FloatingPointError if the model produces NaN.
    """
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, no_repeat_ngram)
    settings = GenerationSettings(
        max_new_tokens, samples, seed, stop_ids, stop_strings, vocabulary, cached, first_prompt
    )
    return _stream(model, prompts, settings, sampling, memory)[0]


def _stream(
    model: Model,
    prompts: Sequence[int] | Sequence[Sequence[int]],
    settings: GenerationSettings,
    sampling: Sampling,
    memory: Memory | None,
) -> tuple[Iterator[list[Piece]], int]:
    """The steps of `stream`, and the number of continuations; all checks happen here."""
    check_model("model", model)
    model.check_causal()
    several, samples = _several(prompts), settings.samples
    if settings.stop_strings:
        model.text_tokenizer()
    if not (memory is None or isinstance(memory, Memory)):
        raise wrong("memory", "None or a Memory", memory)
    check_whole("prompts x samples", len(several) * samples, 1, MOST_TEXTS)
    if memory is not None and (len(several) > 1 or samples > 1):
        raise mismatch("memory", "one prompt and one sample", f"{len(several)} and {samples}")
    batch = _Batch(cast(CausalModel, model), several, settings, memory)
    return _steps(batch, settings, sampling), len(several) * samples


def _steps(
    batch: _Batch, settings: GenerationSettings, sampling: Sampling
) -> Iterator[list[Piece]]:
    model, samples, vocabulary = batch.model, settings.samples, settings.vocabulary
    tokenizer, stops = model.tokenizer, stops_of(model, settings.stop_ids)
    if vocabulary is None and tokenizer is not None:
        vocabulary = tokenizer.vocab_size
    rows = list(range(len(batch.texts)))  # the unfinished continuations
    run, first = random.key(settings.seed), settings.first_prompt
    keys = [random.fold(run, first + n // samples, n % samples) for n in rows]
    generators = [random.generator(key) for key in keys]
    streams: list[TextStream | None] = [None] * len(rows)
    if tokenizer is not None:
        streams = [TextStream(tokenizer, settings.stop_strings, text) for text in batch.texts]
    for step in range(settings.max_new_tokens):
        logits = batch.next_logits()
        draws = [generators[n] for n in rows]
        tokens = sampling.choose(logits, batch.texts, draws, vocabulary)
        log_ps = chosen_log_probabilities(logits, tokens)
        pieces = []
        last = step == settings.max_new_tokens - 1
        for n, token, log_p in zip(rows, tokens.tolist(), log_ps.tolist()):
            text, stopped, new = streams[n], token in stops, None
            if text is not None:
                new = text.finish() if stopped else text.push(token, last=last)
                stopped |= text.stopped
            finished = "stop" if stopped else "length" if last else None
            pieces.append(Piece(n, token, log_p, new, finished))
        yield pieces
        going = [i for i, piece in enumerate(pieces) if not piece.finished]
        if not going:
            return
        batch.append(tokens, going)
        rows = [rows[i] for i in going]


class _Batch:
    """The texts so far, left-padded to one width, and the cache of their keys and values."""

    def __init__(
        self,
        model: CausalModel,
        prompts: list[list[int]],
        settings: GenerationSettings,
        memory: Memory | None,
    ) -> None:
        self.model, self.samples, self.memory = model, settings.samples, memory
        self.context = model.config.context
        for prompt in prompts:
            if not 0 < len(prompt) <= self.context:
                given = f"{len(prompt)} in one prompt"
                raise mismatch("prompts", f"1 to {self.context} tokens", given)
            check_range("prompts", np.array(prompt), model.config.vocab_size)
        self.width = max(map(len, prompts))
        longest = self.width + settings.max_new_tokens
        self.ids = np.zeros((len(prompts), longest), dtype=np.int64)
        self.real = np.ones(self.ids.shape, dtype=np.int64)
        for n, prompt in enumerate(prompts):
            self.ids[n, self.width - len(prompt) : self.width] = prompt
            self.real[n, : self.width - len(prompt)] = 0
        self.texts = [list(prompt) for prompt in prompts for _ in range(self.samples)]
        capacity = min(longest, model.config.cache_context)
        self.cache: Cache | None = None
        if settings.cached and self.width <= capacity:
            self.cache = self._remembered(prompts[0], capacity)
            if self.cache is None:
                self.cache = model.empty_cache(len(prompts), capacity)
        self.fresh = True  # each prompt is still one row, not yet one row per sample

    def _remembered(self, prompt: list[int], capacity: int) -> Cache | None:
        """The cache in memory, cut to the prefix that it shares with the prompt.

        `inputs` does not check the cache, so it is checked here.
        """
        memory = self.memory
        if memory is None or memory.cache is None:
            return None
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
        if not real.all():
            positions = np.maximum(np.cumsum(real, axis=1) - 1, 0)[:, start:]
            inputs |= {"attention_mask": real, "position_ids": positions}
        if self.model.device != "cpu":
            inputs = to_device(inputs, self.model.device)
        return {**inputs, "cache": self.cache}

    def next_logits(self) -> np.ndarray:
        """(rows, V) on the host."""
        if self.cache is not None and self.width <= self.cache.capacity:
            logits, self.cache = self._last_logits(self.inputs(self.cache.length))
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
                parts.append(self._last_logits(inputs)[0])
            order = np.argsort(np.concatenate(list(groups.values())))
            logits = array_module(parts[0]).concatenate(parts)[to_device(order, self.model.device)]
        if self.memory is not None:
            self.memory.cache = self.cache
            self.memory.ids = self.texts[0][: self.cache.length if self.cache else 0]
        if self.fresh and self.samples > 1:
            rows = np.repeat(np.arange(len(logits)), self.samples)
            self._take(rows)
            logits = logits[to_device(rows, self.model.device)]
        self.fresh = False
        return at_least_float32(logits if is_host(logits) else to_host(logits))

    def _last_logits(self, inputs: dict[str, Any]) -> tuple[Any, Cache | None]:
        model = self.model
        return causal_lm.last_logits(model.family, model.params, inputs, config=model.config)

    def append(self, tokens: np.ndarray, going: list[int]) -> None:
        """Continue with the rows `going`, each with its new token."""
        if len(going) < len(tokens):
            tokens = tokens[going]
            self.texts = [self.texts[n] for n in going]
            self._take(np.array(going))
        self.ids[:, self.width] = tokens
        self.width += 1
        for text, token in zip(self.texts, tokens.tolist()):
            text.append(token)

    def _take(self, rows: np.ndarray) -> None:
        """Continue with these rows, which may omit or repeat some."""
        self.ids, self.real = self.ids[rows], self.real[rows]
        if self.cache is not None:
            self.cache = self.cache.take(to_device(rows, self.model.device))


def _common_prefix(a: list[int], b: list[int]) -> int:
    """The length of the common prefix of two texts."""
    return next((n for n, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def _several(prompts: Sequence[int] | Sequence[Sequence[int]]) -> list[list[int]]:
    """One prompt or several, as a list of prompts of plain ints."""
    expected = "token ids of one prompt or of several, as from model.tokenizer.encode"
    several = listed("prompts", prompts, expected)
    try:
        if not several or np.ndim(several[0]) == 0:
            several = [several]
        arrays = [np.asarray(prompt) for prompt in several]
    except Exception:  # NumPy raises several types for values that form no array
        raise wrong("prompts", expected, prompts) from None
    if any(a.ndim != 1 or (a.size and a.dtype.kind not in "iu") for a in arrays):
        raise wrong("prompts", expected, prompts)
    return [a.tolist() for a in arrays]


def stops_of(model: Model, stop_ids: Iterable[int] | None) -> set[int]:
    """The ids that end a continuation; by default those of the model."""
    if stop_ids is None:
        return cast(CausalModel, model).end_ids()
    return checked_stops(stop_ids)


def checked_stops(stop_ids: Any) -> set[int]:
    """stop_ids as a set; ValueError for anything that is no token id."""
    expected = "None or a list of token ids"
    stops = list(stop_ids) if isinstance(stop_ids, Set) else listed("stop_ids", stop_ids, expected)
    if not all(is_whole(i) and i >= 0 for i in stops):
        raise wrong("stop_ids", expected, stop_ids)
    return {int(i) for i in stops}
