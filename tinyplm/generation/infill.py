"""Blanks in the middle of a text, filled in order by a GLM or an encoder-decoder with sentinels.

    prompt     x1 [M] x4 [M]     part A, which sees all of itself
    it reads   [S] x2 x3         part B: the fill of the first blank, which ends with [E], not read
               [S] x5            then that of the second

A GLM's tokens in part B have two positions, that of the blank's mask and the place in the fill, as
in training (objectives/infilling.py).  A later blank sees the earlier fills in part B, where they
were written; they are not pasted into part A.  So does the authors' code (THUDM/GLM, commit
4f61ed7, generate_samples.py): it encodes part A once, takes the masks of all kinds from left to
right, and keeps one memory for all.  It does not read the last token of a fill that max_new_tokens
ends; here a later blank sees it, as in training.

An encoder-decoder writes the same with sentinels: <extra_id_0> x2 x3 <extra_id_1> x5.  Each blank
begins with its own sentinel, whatever the model wrote before, and ends with any.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from .. import random
from ..arguments import check_whole, known_arguments
from ..backend import at_least_float32, is_host, to_device, to_host
from ..models.causal_model import CausalModel
from ..models.model import Model
from ..models.seq2seq_model import Seq2SeqModel
from ..objectives import BlankTokens
from .blanks import Marks, check_fills, check_room, found_blanks, marks_of
from .sampling import Sampling, chosen_log_probabilities
from .settings import MOST_TEXTS, GenerationSettings, several_prompts
from .source_batch import SourceBatch


@dataclasses.dataclass
class Blank:
    """One blank and its fill, without the token that ended it."""

    place: int  # of its mask in the prompt
    ids: list[int] = dataclasses.field(default_factory=list)
    log_probabilities: list[float] = dataclasses.field(default_factory=list)
    text: str | None = None  # None without a tokenizer
    finished: str = ""  # "stop" or "length"


@dataclasses.dataclass
class Filled:
    """A prompt with the fills in place of its masks."""

    prompt: int  # number of the prompt
    ids: list[int]
    text: str | None  # of the ids, without special tokens
    blanks: list[Blank]


@known_arguments
def fill(
    model: Model,
    prompts: Sequence[int] | Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    tokens: BlankTokens | Sequence[int] | None = None,
    samples: int = 1,
    seed: int = 0,
    vocabulary: int | None = None,
    cached: bool = True,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> list[Filled]:
    """`samples` fills of one prompt or of each of several, those of the first prompt first.

    prompts: token ids with masks: [MASK], [sMASK] or [gMASK] of a GLM, after tokens.first ([CLS]);
    one of [MASK] and [gMASK] of ChatGLM-6B, before <sop> or without it; <extra_id_0>,
    <extra_id_1>, ... in order of an encoder-decoder, with its end token.
    tokens: BlankTokens of a GLM, or the ids of the sentinels; default: those of ChatGLM-6B's config
    or those that the tokenizer has under these names.
    A fill ends with the end of a piece (a sentinel), with one of model.end_ids(), or after
    max_new_tokens.  Each blank of each row takes its tokens in turn, so prompts with more blanks do
    not hold up others.
    temperature, top_k, top_p, min_p: see `Sampling`; seed, vocabulary: see `stream`.
    log_probabilities are those of the model itself.  cached=False computes the whole text again for
    every token, with the same result to rounding.
    ValueError for a model that fills no blanks; prompts without a blank, with more than the context
    holds, or without what the family needs; FloatingPointError if the model produces NaN.
    """
    sampling = Sampling(temperature, top_k, top_p, min_p)
    settings = GenerationSettings(
        max_new_tokens=max_new_tokens,
        samples=samples,
        seed=seed,
        stop_ids=None,
        stop_strings=(),
        vocabulary=vocabulary,
        cached=cached,
        draft_length=1,
        first_prompt=0,
    )
    check_fills("model", model)
    several, marks = several_prompts(prompts), marks_of(model, tokens)
    check_whole("prompts x samples", len(several) * samples, 1, MOST_TEXTS)
    found = [found_blanks(model, marks, prompt, n) for n, prompt in enumerate(several)]
    for n, (ids, places) in enumerate(found):
        check_room(model, len(ids), len(places), max_new_tokens, n)
    run = random.key(seed)
    rows = [
        _Row(n, ids, places, marks, max_new_tokens, random.generator(random.fold(run, n, s)))
        for n, (ids, places) in enumerate(found)
        for s in range(samples)
    ]
    for group in _groups(model, rows):
        _decode(model, group, settings, sampling)
    return [row.filled(model) for row in rows]


def _groups(model: Model, rows: list[_Row]) -> list[list[_Row]]:
    """All rows together, or each alone if padding to one width takes more than the context."""
    longest = model.config.cache_context
    width, more = max(len(row.ids) for row in rows), max(row.most for row in rows)
    together = isinstance(model, Seq2SeqModel) or width + more - 1 <= longest
    return [rows] if together else [[row] for row in rows]


def _decode(
    model: Model, rows: list[_Row], settings: GenerationSettings, sampling: Sampling
) -> None:
    """Fill the blanks of all rows; each step reads one token of each unfinished row."""
    vocabulary, going, kept = settings.ids_below(model), rows, list(range(len(rows)))
    longest = dataclasses.replace(settings, max_new_tokens=max(row.most for row in rows))
    kind = _Target if isinstance(model, Seq2SeqModel) else _PartB
    state = kind(model, [row.ids for row in rows], longest)  # type: ignore[arg-type]
    while going:
        read = np.array([row.queue.pop(0) for row in going])
        logits = state.read(np.array(kept), read)
        asked = [n for n, row in enumerate(going) if not row.queue]
        if asked:
            some, draws = logits[asked], [going[n].generator for n in asked]
            chosen = sampling.choose(some, [[]] * len(asked), draws, vocabulary)
            log_ps = chosen_log_probabilities(some, chosen).tolist()
            for n, token, log_p in zip(asked, chosen.tolist(), log_ps):
                going[n].take(token, log_p)
        kept = [n for n, row in enumerate(going) if row.queue]
        going = [going[n] for n in kept]


class _Row:
    """One text and the fills of its blanks so far.

    queue: (id, place of the mask, place in the fill) of each token to be read next; the logits
    after the last of them choose a token.
    """

    def __init__(
        self,
        prompt: int,
        ids: list[int],
        places: list[int],
        marks: Marks,
        longest: int,
        generator: np.random.Generator,
    ) -> None:
        self.prompt, self.ids, self.marks, self.longest = prompt, ids, marks, longest
        self.generator, self.blanks = generator, [Blank(place) for place in places]
        self.most = len(places) * (1 + longest)  # tokens that part B may have
        self.queue: list[tuple[int, int, int]] = []
        self._done = 0
        self._begin()

    def _begin(self) -> None:
        if self._done < len(self.blanks):
            start = self.marks.starts[self._done % len(self.marks.starts)]
            self.queue.append((start, self.blanks[self._done].place, 1))

    def take(self, token: int, log_probability: float) -> None:
        """The next token of the current blank."""
        blank = self.blanks[self._done]
        if token in self.marks.ends:
            blank.finished = "stop"
        else:
            blank.ids.append(token)
            blank.log_probabilities.append(log_probability)
            if len(blank.ids) == self.longest:
                blank.finished = "length"
            if not blank.finished or self._done + 1 < len(self.blanks):
                self.queue.append((token, blank.place, len(blank.ids) + 1))
        if blank.finished:
            self._done += 1
            self._begin()

    def filled(self, model: Model) -> Filled:
        """The result."""
        whole: list[int] = []
        start = 0
        for blank in self.blanks:
            whole += self.ids[start : blank.place]
            if model.tokenizer is not None:
                blank.text = model.tokenizer.decode(blank.ids, after=whole)
            whole += blank.ids
            start = blank.place + 1
        whole += self.ids[start:]
        text = None if model.tokenizer is None else model.tokenizer.decode(whole, skip_special=True)
        return Filled(self.prompt, whole, text, self.blanks)


class _State(Protocol):
    def read(self, rows: np.ndarray, read: np.ndarray) -> np.ndarray:
        """The logits (N, V), on the host, after one more token of each row.

        rows (N,): the new row i continues the old row rows[i], all rows at first; read (N, 3): its
        token's id, the place of its mask and its place in the fill.
        """
        ...


class _Target:
    """The texts of an encoder-decoder, which has no use for places."""

    def __init__(
        self, model: Seq2SeqModel, sources: list[list[int]], settings: GenerationSettings
    ) -> None:
        self.batch = SourceBatch(model, sources, settings)

    def read(self, rows: np.ndarray, read: np.ndarray) -> np.ndarray:
        self.batch.select(rows, read[:, 0])
        return self.batch.next_logits()


class _PartB:
    """The parts A of some texts, left-padded to one width, and behind them their parts B."""

    def __init__(
        self, model: CausalModel, parts: list[list[int]], settings: GenerationSettings
    ) -> None:
        self.model, self.prefix = model, max(map(len, parts))
        size = min(self.prefix + settings.max_new_tokens, model.config.cache_context)
        self.ids = np.zeros((len(parts), size), np.int64)
        self.places = np.zeros((len(parts), 2, size), np.int64)
        self.real = np.ones((len(parts), size), np.int64)
        for n, part in enumerate(parts):
            padding = self.prefix - len(part)
            self.ids[n, padding : self.prefix] = part
            self.places[n, 0, padding : self.prefix] = np.arange(len(part))
            self.real[n, :padding] = 0
        self.width = self.prefix
        self.cache = model.empty_cache(len(parts), size) if settings.cached else None

    def read(self, rows: np.ndarray, read: np.ndarray) -> np.ndarray:
        if len(rows) < len(self.ids):
            self.ids, self.places, self.real = self.ids[rows], self.places[rows], self.real[rows]
            if self.cache is not None:
                self.cache = self.cache.take(to_device(rows, self.model.device))
        self.ids[:, self.width], self.places[:, :, self.width] = read[:, 0], read[:, 1:]
        self.width += 1
        start = 0 if self.cache is None else self.cache.length
        real = self.real[:, : self.width]
        inputs = self.model.inputs(
            self.ids[:, start : self.width],
            attention_mask=None if real.all() else real,
            position_ids=self.places[..., start : self.width],
            prefix_lengths=None if start else np.full(len(self.ids), self.prefix),
            cache=self.cache,
        )
        logits, self.cache = self.model.last_logits(inputs)
        return at_least_float32(logits if is_host(logits) else to_host(logits))
