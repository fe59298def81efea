"""Text from a language model: prompts in, continuations out, whole or token by token.

The prompts go through the model once and fill a key/value cache; after that each token costs one token's work.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Container, Iterable, Iterator, Sequence, Set
from typing import Any, NamedTuple

import numpy as np

from .. import random
from ..arguments import MOST, check_flag, check_key, check_names, check_whole, is_whole, known_arguments, listed, wrong
from ..backend import array_module, at_least_float32, is_host, to_device, to_host
from ..layers.cache import Cache
from ..models import causal_lm
from ..models.checks import check_range
from ..models.model import Model, check_model
from .sampling import Sampling, chosen_log_probabilities
from .text import TextStream, check_stop

MOST_TEXTS = 2**20  # continuations at a time


class Piece(NamedTuple):
    """One token of one continuation."""

    row: int  # which continuation: samples * (number of the prompt) + number of the sample
    id: int
    log_probability: float  # nats, by the model itself, whatever the temperature and the cuts
    text: str | None  # what is certain to come next in the text, perhaps nothing yet; None without a tokenizer
    finished: str | None  # "stop" or "length" with the last one


@dataclasses.dataclass
class Memory:
    """One text's keys and values, kept between calls of `stream`: what the next prompt shares with it is not computed again.

    It belongs to one model with its present parameters, and to one stream at a time.
    """

    ids: list[int] = dataclasses.field(default_factory=list)
    cache: Cache | None = None


@dataclasses.dataclass
class Continuation:
    """What follows a prompt.  A stop token that ended it is not in it; the text ends before a stop string."""

    prompt: int  # number of the prompt
    ids: list[int]
    log_probabilities: list[float]
    text: str | None
    finished: str = ""

    def add(self, piece: Piece, stop_ids: Container[int] = ()) -> None:
        """Take in its next piece."""
        if piece.id not in stop_ids:
            self.ids.append(piece.id)
            self.log_probabilities.append(piece.log_probability)
        self.text = None if piece.text is None else self.text + piece.text
        self.finished = piece.finished or ""


@known_arguments
def generate(model: Model, prompts: Sequence[int] | Sequence[Sequence[int]], *, samples: int = 1,
             stop_ids: Iterable[int] | None = None, **options: Any) -> list[Continuation]:  # fmt: skip
    """`samples` continuations of one prompt, or of each of several prompts: those of the first prompt first.

    The options and errors are those of `stream`.
    """
    check_model("model", model)
    model.check_causal()
    check_names("generate", options, _OPTIONS)
    if "max_new_tokens" not in options:
        raise TypeError("generate: missing a required argument: 'max_new_tokens'")
    several, stops = _several(prompts), stops_of(model, stop_ids)
    check_whole("samples", samples, 1, MOST)
    check_whole("prompts x samples", len(several) * samples, 1, MOST_TEXTS)
    out = [Continuation(n // samples, [], [], "" if model.tokenizer else None) for n in range(len(several) * samples)]
    for pieces in stream(model, several, samples=samples, stop_ids=stops, **options):
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
    **sampling: Any,
) -> Iterator[list[Piece]]:
    """One step after the other, the next token of every continuation that goes on.

    prompts: token ids, of one prompt or of several of any lengths.  sampling: the fields of `Sampling` (temperature, top_k,
    top_p, min_p, repetition_penalty, no_repeat_ngram).
    A continuation ends with one of stop_ids (by default model.end_ids(), those that end a text; () for none), when its text holds
    one of stop_strings, or after max_new_tokens.
    Sample n of prompt i depends on the seed, n and i, not on how many there are; first_prompt is the number of the first one, for
    prompts that are a part of more.
    vocabulary: draw ids below this one only; by default those that the tokenizer has, since a model's table may be padded.
    cached=False passes over the whole text for every token, with the same result to rounding.  So does a text that has outgrown
    the model's context (which then sees the last `context` tokens) or what it can cache (dynamic RoPE scaling).
    memory: for one prompt and one sample, as in a chat; it is updated with every token.
    ValueError for an empty prompt or one longer than the context, ids out of range, and bad settings; FloatingPointError when the
    model gives NaN.
    """
    check_model("model", model)
    model.check_causal()
    check_names("stream", sampling, _OPTIONS)
    settings, several, stops = Sampling(**sampling), _several(prompts), stops_of(model, stop_ids)
    check_stop(stop_strings, "stop_strings")
    if stop_strings:
        model.text_tokenizer()
    for name, count in (("samples", samples), ("max_new_tokens", max_new_tokens)):
        check_whole(name, count, 1, MOST)
    check_whole("vocabulary", vocabulary, 1, or_none=True)
    check_key("seed", seed)
    check_whole("first_prompt", first_prompt, 0, MOST)
    check_flag("cached", cached)
    if not (memory is None or isinstance(memory, Memory)):
        raise wrong("memory", "None or a Memory", memory)
    if vocabulary is None and model.tokenizer is not None:
        vocabulary = model.tokenizer.vocab_size
    check_whole("prompts x samples", len(several) * samples, 1, MOST_TEXTS)
    if memory is not None and (len(several) > 1 or samples > 1):
        raise ValueError(f"memory: expected one prompt and one sample, got {len(several)} and {samples}")
    batch = _Batch(model, several, samples, max_new_tokens, cached, memory)
    return _steps(batch, settings, seed, samples, max_new_tokens, stops, stop_strings, vocabulary, first_prompt)


def _steps(batch: _Batch, settings: Sampling, seed: int, samples: int, max_new_tokens: int, stops: set[int],
           stop_strings: Sequence[str], vocabulary: int | None, first: int) -> Iterator[list[Piece]]:  # fmt: skip
    rows = list(range(len(batch.texts)))  # the continuations that go on
    generators = [random.generator(random.fold(random.key(seed), first + n // samples, n % samples)) for n in rows]
    tokenizer = batch.model.tokenizer
    streams = [None if tokenizer is None else TextStream(tokenizer, stop_strings, batch.texts[n]) for n in rows]
    for step in range(max_new_tokens):
        logits = batch.next_logits()
        tokens = settings.choose(logits, batch.texts, [generators[n] for n in rows], vocabulary)
        pieces = []
        last = step == max_new_tokens - 1
        for n, token, log_p in zip(rows, tokens.tolist(), chosen_log_probabilities(logits, tokens).tolist()):
            text, stopped, new = streams[n], token in stops, None
            if text is not None:
                new = text.finish() if stopped else text.push(token, last=last)
                stopped |= text.stopped
            pieces.append(Piece(n, token, log_p, new, "stop" if stopped else "length" if last else None))
        yield pieces
        going = [i for i, piece in enumerate(pieces) if not piece.finished]
        if not going:
            return
        batch.append(tokens, going)
        rows = [rows[i] for i in going]


class _Batch:
    """The texts so far, padded on the left to one width, and the cache of their keys and values."""

    def __init__(self, model: Model, prompts: list[list[int]], samples: int, max_new_tokens: int, cached: bool,
                 memory: Memory | None) -> None:  # fmt: skip
        self.model, self.samples, self.memory = model, samples, memory
        self.context = model.config.context
        for prompt in prompts:
            if not prompt:
                raise ValueError("prompts: the prompt is empty: expected at least one token")
            if len(prompt) > self.context:
                raise ValueError(f"prompts: the prompt of {len(prompt)} tokens is longer than the context of {self.context}")
            check_range("prompts", np.array(prompt), model.config.vocab_size)
        self.width = max(map(len, prompts))
        self.ids = np.zeros((len(prompts), self.width + max_new_tokens), dtype=np.int64)
        self.real = np.ones(self.ids.shape, dtype=np.int64)
        for n, prompt in enumerate(prompts):
            self.ids[n, self.width - len(prompt) : self.width] = prompt
            self.real[n, : self.width - len(prompt)] = 0
        self.cache = None
        self.texts = [list(prompt) for prompt in prompts for _ in range(samples)]
        capacity = min(self.width + max_new_tokens, model.config.cache_context)
        known = None if memory is None else memory.cache
        if cached and self.width <= capacity and (known is None or not known.current):  # not current: a step was interrupted
            self.cache = model.empty_cache(len(prompts), capacity)
        elif cached and self.width <= capacity:
            model.check_origin("memory", known)
            shared = _shared(memory.ids, prompts[0][:-1])  # the last token is always computed: its logits are wanted
            self.cache = memory.cache = known.cut(shared).grown(capacity)
            memory.ids = memory.ids[:shared]
        self.fresh = True  # the prompts stand once each, not yet once a sample

    def inputs(self, start: int) -> dict[str, Any]:
        """The model's inputs for the columns from `start` on, as Model.inputs gives them, without checks at each token."""
        inputs, real = {"input_ids": self.ids[:, start : self.width]}, self.real[:, : self.width]
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
        else:  # what outgrew the cache is computed anew, texts of one length together: it may change their frequencies
            self.cache = None
            texts = [ids[real == 1][-self.context :] for ids, real in zip(self.ids[:, : self.width], self.real[:, : self.width])]
            groups: dict[int, list[int]] = {}
            for n, text in enumerate(texts):
                groups.setdefault(len(text), []).append(n)
            parts = [self._last_logits(self.model.inputs(np.stack([texts[n] for n in group])))[0] for group in groups.values()]
            order = np.argsort(np.concatenate(list(groups.values())))
            logits = array_module(parts[0]).concatenate(parts)[to_device(order, self.model.device)]
        if self.memory is not None:
            self.memory.cache, self.memory.ids = self.cache, self.texts[0][: self.cache.length if self.cache else 0]
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
        """Go on with the rows `going` only, each longer by its token."""
        if len(going) < len(tokens):
            tokens = tokens[going]
            self.texts = [self.texts[n] for n in going]
            self._take(np.array(going))
        self.ids[:, self.width] = tokens
        self.width += 1
        for text, token in zip(self.texts, tokens.tolist()):
            text.append(token)

    def _take(self, rows: np.ndarray) -> None:
        """Go on with these rows, some of them left out or several times."""
        self.ids, self.real = self.ids[rows], self.real[rows]
        if self.cache is not None:
            self.cache = self.cache.take(to_device(rows, self.model.device))


def _shared(a: list[int], b: list[int]) -> int:
    """How many tokens two texts have in common at their beginning."""
    return next((n for n, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def _several(prompts: Sequence[int] | Sequence[Sequence[int]]) -> list[list[int]]:
    """One prompt or several as a list of prompts, of plain ints."""
    expected = "token ids of one prompt or of several, as model.tokenizer.encode gives them"
    several = listed("prompts", prompts, expected)
    try:
        if not several or np.ndim(several[0]) == 0:
            several = [several]
        arrays = [np.asarray(prompt) for prompt in several]
    except Exception:  # NumPy has several errors for what is no array
        raise wrong("prompts", expected, prompts) from None
    if any(a.ndim != 1 or (a.size and a.dtype.kind not in "iu") for a in arrays):
        raise wrong("prompts", expected, prompts)
    return [a.tolist() for a in arrays]


def stops_of(model: Model, stop_ids: Iterable[int] | None) -> set[int]:
    """The ids that end a continuation; by default those of the model."""
    return model.end_ids() if stop_ids is None else checked_stops(stop_ids)


def checked_stops(stop_ids: Any) -> set[int]:
    """Given stop ids as a set; ValueError for what is no token id."""
    stops = list(stop_ids) if isinstance(stop_ids, Set) else listed("stop_ids", stop_ids, "None or a list of token ids")
    if not all(is_whole(i) and i >= 0 for i in stops):
        raise wrong("stop_ids", "None or a list of token ids", stop_ids)
    return {int(i) for i in stops}


_OPTIONS = (*inspect.signature(stream).parameters, *(field.name for field in dataclasses.fields(Sampling)))
