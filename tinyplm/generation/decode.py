"""Text from a language model: prompts in, continuations out, whole or token by token.

The model reads the prompts once and fills a key/value cache; each further token then costs one
token's work.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ..arguments import check_whole, known_arguments, mismatch, wrong
from ..models.model import Model
from .batch import Memory
from .pieces import Continuation, Piece, Writer
from .sampling import Sampling, chosen_log_probabilities
from .settings import MOST_TEXTS, GenerationSettings, several_prompts, stops_of
from .speculative import Draft, DraftStatistics, speculate
from .state import DecodingState, begin, check_generates


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
    draft: Draft | None = None,
    draft_length: int = 4,
    statistics: DraftStatistics | None = None,
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
        max_new_tokens=max_new_tokens,
        samples=samples,
        seed=seed,
        stop_ids=stop_ids,
        stop_strings=stop_strings,
        vocabulary=vocabulary,
        cached=cached,
        draft_length=draft_length,
        first_prompt=first_prompt,
    )
    steps, rows = _stream(model, prompts, settings, sampling, memory, draft, statistics)
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
    draft: Draft | None = None,
    draft_length: int = 4,
    statistics: DraftStatistics | None = None,
    first_prompt: int = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    no_repeat_ngram: int | None = None,
) -> Iterator[list[Piece]]:
    """Step by step, the next token of every unfinished continuation.

    prompts: token ids of one prompt or of several, of any lengths; of an encoder-decoder they are
    the sources, which are encoded once, and the text begins after model.start_id().
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
    draft: a smaller decoder with the same tokens, which proposes draft_length tokens at a time.
    One pass of the model checks them and keeps those that fit its own distribution, which the texts
    then follow exactly, with one more token of its own; greedy texts are those without a draft.  A
    round's tokens arrive together, as one step after the other.  Near the context's end, and beyond
    it, the draft proposes fewer and none.  statistics: counts of what was accepted.
    draft="modules": the model's own modules for later tokens propose, if its task is
    "multi_token_lm" (`ModuleDraft`); with cached=False they propose nothing.
    ValueError for an empty prompt or one longer than the context, ids out of range, and bad
    settings; FloatingPointError if the model produces NaN.
    """
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, no_repeat_ngram)
    settings = GenerationSettings(
        max_new_tokens=max_new_tokens,
        samples=samples,
        seed=seed,
        stop_ids=stop_ids,
        stop_strings=stop_strings,
        vocabulary=vocabulary,
        cached=cached,
        draft_length=draft_length,
        first_prompt=first_prompt,
    )
    return _stream(model, prompts, settings, sampling, memory, draft, statistics)[0]


def _stream(
    model: Model,
    prompts: Sequence[int] | Sequence[Sequence[int]],
    settings: GenerationSettings,
    sampling: Sampling,
    memory: Memory | None,
    draft: Draft | None,
    statistics: DraftStatistics | None,
) -> tuple[Iterator[list[Piece]], int]:
    """The steps of `stream`, and the number of continuations; all checks happen here."""
    check_generates("model", model)
    several, samples = several_prompts(prompts), settings.samples
    if settings.stop_strings:
        model.text_tokenizer()
    if not (memory is None or isinstance(memory, Memory)):
        raise wrong("memory", "None or a Memory", memory)
    check_whole("prompts x samples", len(several) * samples, 1, MOST_TEXTS)
    if memory is not None and (len(several) > 1 or samples > 1):
        raise mismatch("memory", "one prompt and one sample", f"{len(several)} and {samples}")
    if not (statistics is None or isinstance(statistics, DraftStatistics)):
        raise wrong("statistics", "None or a DraftStatistics", statistics)
    if draft is not None:
        if memory is not None:
            raise wrong("memory", "None with a draft", memory)
        steps = speculate(model, draft, several, settings, sampling, statistics)
        return steps, len(several) * samples
    state = begin(model, several, settings, memory)
    return _steps(model, state, settings, sampling), len(several) * samples


def _steps(
    model: Model, state: DecodingState, settings: GenerationSettings, sampling: Sampling
) -> Iterator[list[Piece]]:
    samples, vocabulary = settings.samples, settings.ids_below(model)
    writer = Writer(model, state, settings)
    going = list(range(len(state.texts) * samples))  # the unfinished continuations
    rows = np.array(going) // samples  # and the rows of the state that they continue
    for step in range(settings.max_new_tokens):
        logits, texts = state.next_logits(), state.texts
        if step == 0 and samples > 1:  # so far one row for each prompt
            logits, texts = logits[rows], [texts[n] for n in rows]
        tokens = sampling.choose(logits, texts, [writer.generators[n] for n in going], vocabulary)
        log_ps = chosen_log_probabilities(logits, tokens)
        written = zip(going, tokens.tolist(), log_ps.tolist())
        pieces = [writer.piece(n, token, log_p) for n, token, log_p in written]
        yield pieces
        kept = [i for i, piece in enumerate(pieces) if not piece.finished]
        if not kept:
            return
        state.select(rows[kept], tokens[kept])
        going = [going[i] for i in kept]
        rows = np.arange(len(going))
