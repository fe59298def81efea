"""Beam search: the most probable continuations, found by search instead of sampling."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from ..arguments import check_whole, known_arguments, mismatch
from ..layers.softmax import log_softmax
from ..models.model import Model
from .sampling import ban_repeated_ngrams, check_distribution, penalise_repetition
from .settings import MOST_TEXTS, BeamSettings, several_prompts, stops_of
from .state import DecodingState, begin, check_generates, text_before


@dataclasses.dataclass
class Hypothesis:
    """A finished continuation, without the stop token that ended it."""

    prompt: int  # number of the prompt
    ids: list[int]
    score: float  # what hypotheses are ranked by, see beam_search
    log_probability: float  # of all new tokens, under the model itself, the stop token included
    text: str | None
    finished: str  # "stop" or "length"


@known_arguments
def beam_search(
    model: Model,
    prompts: Sequence[int] | Sequence[Sequence[int]],
    *,
    beams: int,
    max_new_tokens: int,
    min_new_tokens: int = 0,
    results: int = 1,
    length_penalty: float = 1.0,
    early_stopping: bool | str = False,
    no_repeat_ngram: int | None = None,
    repetition_penalty: float = 1.0,
    forced_first: int | None = None,
    forced_last: int | None = None,
    groups: int = 1,
    diversity_penalty: float = 0.0,
    stop_ids: Iterable[int] | None = None,
    vocabulary: int | None = None,
    cached: bool = True,
) -> list[Hypothesis]:
    """The `results` best continuations that beam search finds for each prompt, the best first;
    those of the first prompt come first.

    score(y) = s(y) / n^a,   s(y) = sum over t = 1 ... n of log p(y_t | prompt, y_1 ... y_(t-1))

    n counts the new tokens, the stop token included, and not the prompt; a = length_penalty.  (Wu
    et al. 2016, eq. 14, divide by ((5 + n) / 6)^a; this is the form of transformers.)

    Each step extends the `beams` running texts of a prompt by every token and ranks all by s.
    Those among the first `beams` that end, with a stop token or at max_new_tokens, become
    hypotheses, of which the `beams` with the best scores are kept.  The first `beams` of the others
    run on (Sutskever et al. 2014, sec. 3.2, but the beam does not shrink).  A prompt is done at
    max_new_tokens, or with `beams` hypotheses and, for early_stopping
        True     nothing else;
        False    s / t^a of the best running text, of t tokens, is no better than the worst of them;
        "never"  as False, but if a > 0 with max_new_tokens for t: no text could come in any more.
    Equal scores go to the text found first, then to the better running text, then to the smaller
    id.  Fewer than `results` come back where fewer exist.

    The log p of the ranking are changed as in `Sampling`, and not normalised again: first by
    repetition_penalty and no_repeat_ngram; then no stop token comes among the first min_new_tokens;
    then forced_first is the first token and forced_last the last of max_new_tokens, with log p = 0.

    groups > 1 is diverse beam search (Vijayakumar et al. 2016, algorithm 1, Hamming diversity):
    each group searches as above with beams / groups beams.  They take turns at each step, and for
    each text that an earlier group runs on, the log p of its new token falls by diversity_penalty.
    The hypotheses of all groups are ranked together by scores that include the penalty.

    stop_ids, vocabulary, cached: see `stream`.  log p is that of the whole vocabulary.
    ValueError as in `stream`, for more results than beams, and for more beams than texts.
    """
    settings = BeamSettings(
        beams=beams,
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        results=results,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        no_repeat_ngram=no_repeat_ngram,
        repetition_penalty=repetition_penalty,
        forced_first=forced_first,
        forced_last=forced_last,
        groups=groups,
        diversity_penalty=diversity_penalty,
        stop_ids=stop_ids,
        vocabulary=vocabulary,
        cached=cached,
    )
    check_generates("model", model)
    several, stops = several_prompts(prompts), stops_of(model, settings.stop_ids)
    check_whole("prompts x beams", len(several) * beams, 1, MOST_TEXTS)
    size = settings.size(model, stops)
    state = begin(model, several, settings)
    before, found = [text_before(state, n) for n in range(len(several))], []
    for hypotheses in search(state, settings, size, stops):
        found += hypotheses[:results]
    if model.tokenizer is not None:
        for one in found:
            one.text = model.tokenizer.decode(one.ids, after=before[one.prompt])
    return found


def search(
    state: DecodingState, settings: BeamSettings, size: int, stops: set[int]
) -> list[list[Hypothesis]]:
    """The hypotheses of each row that the state starts with, the best first, without texts.

    size: only ids below it are chosen; stops: the ids that end a text.
    """
    groups = [
        _Group(n, settings, stops) for n in range(len(state.texts)) for _ in range(settings.groups)
    ]
    going = groups
    for step in range(settings.max_new_tokens):
        log_p = checked_log_softmax(state.next_logits())
        scores = _changed(log_p[:, :size], state.texts, step, settings, stops)
        chosen: dict[int, np.ndarray] = {}  # how often, by the groups before of the same prompt
        for group in going:
            counts = chosen.setdefault(group.prompt, np.zeros(size if settings.groups > 1 else 0))
            group.extend(scores, log_p, state.texts, step + 1, counts)
        going = [group for group in going if not group.done]
        if not going:
            break
        parents = np.concatenate([group.parents for group in going])
        tokens = np.concatenate([group.tokens for group in going])
        places = _places(parents.tolist(), len(state.texts))
        order = np.argsort(places)
        state.select(parents[order], tokens[order])
        place = iter(places)
        for group in going:
            group.rows = [next(place) for _ in group.parents]
    found: list[list[Hypothesis]] = [[] for _ in range(len(groups) // settings.groups)]
    for group in groups:
        found[group.prompt] += group.found
    if not all(found):
        raise mismatch("no_repeat_ngram, vocabulary", "some token that may follow", "none")
    return [sorted(some, key=lambda one: -one.score) for some in found]


class _Group:
    """Running texts of one prompt, the best first, and their hypotheses, the best first."""

    def __init__(self, prompt: int, settings: BeamSettings, stops: set[int]) -> None:
        self.prompt, self.settings, self.stops = prompt, settings, stops
        self.beams = settings.beams // settings.groups
        self.rows = [prompt]  # of the state, one for each running text
        self.sums = np.zeros(1)  # s of each
        self.log_ps = np.zeros(1)  # the same under the model itself
        self.parents = self.tokens = np.zeros(0, np.int64)  # the rows they continue, and with what
        self.found: list[Hypothesis] = []
        self.done = False

    def extend(
        self,
        scores: np.ndarray,
        log_p: np.ndarray,
        texts: list[list[int]],
        length: int,
        counts: np.ndarray,
    ) -> None:
        """One step: scores, log_p (rows, V) of the next token; length: new tokens after it.

        counts (V,): how often other groups have chosen each token, to which it adds its own; empty
        without other groups.
        """
        settings, beams, last = self.settings, self.beams, length == self.settings.max_new_tokens
        if self.rows != list(range(len(scores))):
            scores = scores[self.rows]
        if counts.size:
            scores = scores - settings.diversity_penalty * counts
        sums = (self.sums[:, None] + scores).ravel()
        best = largest(sums, (1 + len(self.stops)) * beams)  # at least `beams` do not end
        which, tokens = np.divmod(best, scores.shape[1])
        rows = np.array(self.rows)[which]
        sums, log_ps = sums[best], self.log_ps[which] + log_p[rows, tokens]
        ends = np.array([token in self.stops for token in tokens.tolist()], dtype=bool)
        for i in np.flatnonzero(ends[:beams] | last):
            text, finished = texts[rows[i]], "stop" if ends[i] else "length"
            ids = text[len(text) - (length - 1) :] + tokens[i : i + 1 - ends[i]].tolist()
            score = float(sums[i]) / length**settings.length_penalty
            one = Hypothesis(self.prompt, ids, score, float(log_ps[i]), None, finished)
            self.found.append(one)
        self.found.sort(key=lambda one: -one.score)  # stable: equal scores in the order found
        del self.found[beams:]
        on = np.flatnonzero(~ends)[:beams]
        self.parents, self.tokens = rows[on], tokens[on]
        self.sums, self.log_ps = sums[on], log_ps[on]
        self.done = last or not on.size or self._enough(length)
        if counts.size:
            np.add.at(counts, self.tokens, 1)

    def _enough(self, length: int) -> bool:
        """Whether nothing that is running counts as better than what was found."""
        settings = self.settings
        if len(self.found) < self.beams or settings.early_stopping is True:
            return len(self.found) == self.beams
        if settings.early_stopping == "never" and settings.length_penalty > 0:
            length = settings.max_new_tokens
        return float(self.sums[0]) / length**settings.length_penalty <= self.found[-1].score


def _changed(
    log_p: np.ndarray, texts: list[list[int]], step: int, settings: BeamSettings, stops: set[int]
) -> np.ndarray:
    """log_p (rows, V) after penalties, bans and forced tokens; a copy if there are any."""
    penalty, n = settings.repetition_penalty, settings.no_repeat_ngram
    first, last = step == 0, step == settings.max_new_tokens - 1
    forced = settings.forced_first if first else None
    if last and settings.forced_last is not None:
        forced = settings.forced_last
    if forced is not None:
        only = np.full_like(log_p, -np.inf)
        only[:, forced] = 0
        return only
    if penalty == 1 and n is None and step >= settings.min_new_tokens:
        return log_p
    log_p = log_p.copy()
    for row, text in zip(log_p, texts):
        if penalty != 1:
            penalise_repetition(row, text, penalty=penalty)
        if n is not None:
            ban_repeated_ngrams(row, text, n=n)
    if step < settings.min_new_tokens:
        log_p[:, [i for i in stops if i < log_p.shape[1]]] = -np.inf
    return log_p


def checked_log_softmax(logits: np.ndarray) -> np.ndarray:
    """(rows, V); FloatingPointError as in token_distribution."""
    check_distribution(logits.max(axis=-1))
    return log_softmax(logits)[0]


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """Where the `count` largest values (N,) are, in decreasing order, of equal ones the first.

    Fewer if others are -inf.  Sorts only candidates.
    """
    least = -np.inf
    if count < len(values):
        least = np.partition(values, len(values) - count)[len(values) - count]
    candidates = np.flatnonzero(values >= least if least > -np.inf else values > -np.inf)
    return candidates[np.argsort(-values[candidates], kind="stable")][:count]


def _places(parents: list[int], rows: int) -> list[int]:
    """The new row of each text: its parent's own where it can be, so that few of them move."""
    if len(parents) != rows:
        return list(range(len(parents)))
    free, own = iter(sorted({*range(rows)} - {*parents})), set(parents)
    places = []
    for parent in parents:  # its first text stays, the others go where a text has ended
        places.append(parent if parent in own else next(free))
        own.discard(parent)
    return places
