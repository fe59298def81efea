"""Beam search over a function from a text to the log-probabilities of what may follow it."""

import math
from collections.abc import Callable, Collection, Sequence

from .sampling import ban_repeated_ngrams, penalise_repetition

Text = tuple[int, ...]  # new tokens, the stop token included
Scored = tuple[float, float, Text]  # what texts are ranked by, sum of log p, text


def beam_search(
    next_log_probs: Callable[[list[int]], Sequence[float]],
    prompt: Sequence[int],
    *,
    beams: int,
    max_new_tokens: int,
    stops: Collection[int] = (),
    length_penalty: float = 1.0,
    early_stopping: bool | str = False,
    min_new_tokens: int = 0,
    repetition_penalty: float = 1.0,
    no_repeat_ngram: int | None = None,
    forced_first: int | None = None,
    forced_last: int | None = None,
    groups: int = 1,
    diversity_penalty: float = 0.0,
) -> list[Scored]:
    """At most `beams` finished texts (score, sum of log p, new tokens), the best first.

    score = (sum over the new tokens of q) / (their number)^length_penalty, where q is log p after
    the changes of `changed`.
    1. Every running text is extended by every token with q > -inf. Extensions are ranked by their
       sum of q, ties by the rank of the running text, then by the token.
    2. Of the first `beams` extensions those that end (a stop token, or max_new_tokens) are
       finished. Only the `beams` best scores stay, ties by age.
    3. The first `beams` extensions that do not end run on.
    4. It ends at max_new_tokens, when nothing runs, or with `beams` finished texts if
       early_stopping is True, or if the best running text cannot beat the worst of them. What it
       could reach is taken to be its sum / length^length_penalty, with length = its own, or, for
       "never" and a positive length_penalty, max_new_tokens.
    With several groups each has beams / groups beams and is searched so on its own, except that at
    each step, group after group, q of a token is reduced by diversity_penalty times the number of
    texts that run on with it in the groups before (Vijayakumar et al. 2016, algorithm 1).
    Sutskever et al. 2014, sec. 3.2; Wu et al. 2016, sec. 7 for the penalty; scores, finishing and
    ending as in transformers.
    """
    size = beams // groups
    running: list[list[Scored]] = [[(0.0, 0.0, ())] for _ in range(groups)]
    finished: list[list[Scored]] = [[] for _ in range(groups)]
    for length in range(1, max_new_tokens + 1):
        chosen: list[int] = []  # by the groups before
        for group in range(groups):
            extensions = []
            for rank, (total, log_p, text) in enumerate(running[group]):
                own = [float(x) for x in next_log_probs([*prompt, *text])]
                q = changed(
                    own,
                    [*prompt, *text],
                    first=length == 1,
                    last=length == max_new_tokens,
                    banned=stops if length <= min_new_tokens else (),
                    repetition_penalty=repetition_penalty,
                    no_repeat_ngram=no_repeat_ngram,
                    forced_first=forced_first,
                    forced_last=forced_last,
                )
                for token in range(len(q)):
                    if q[token] > -math.inf:
                        reduced = q[token] - diversity_penalty * chosen.count(token)
                        grown = (total + reduced, log_p + own[token], (*text, token))
                        extensions.append((-grown[0], rank, token, grown))
            extensions.sort(key=lambda e: e[:3])

            runs_on = []
            for place, (_, _, token, (total, log_p, text)) in enumerate(extensions):
                if place < size and (token in stops or length == max_new_tokens):
                    finished[group].append((total / length**length_penalty, log_p, text))
                if token not in stops and len(runs_on) < size:
                    runs_on.append((total, log_p, text))
                    chosen.append(token)
            finished[group].sort(key=lambda f: -f[0])
            finished[group] = finished[group][:size]

            running[group] = runs_on
            if runs_on and len(finished[group]) == size:
                never = early_stopping == "never" and length_penalty > 0
                most = max_new_tokens if never else length
                best = runs_on[0][0] / most**length_penalty
                if early_stopping is True or best <= finished[group][-1][0]:
                    running[group] = []
    return sorted((f for some in finished for f in some), key=lambda f: -f[0])


def changed(
    log_p: list[float],
    ids: list[int],
    *,
    first: bool,
    last: bool,
    banned: Collection[int],
    repetition_penalty: float,
    no_repeat_ngram: int | None,
    forced_first: int | None,
    forced_last: int | None,
) -> list[float]:
    """log p after the repetition penalty, banned n-grams and banned tokens; a forced one has 0."""
    q = list(penalise_repetition(log_p, ids, penalty=repetition_penalty))
    if no_repeat_ngram is not None:
        q = list(ban_repeated_ngrams(q, ids, n=no_repeat_ngram))
    q = [-math.inf if token in banned else q[token] for token in range(len(q))]
    for now, forced in ((first, forced_first), (last, forced_last)):
        if now and forced is not None:
            q = [0.0 if token == forced else -math.inf for token in range(len(q))]
    return q


def all_texts(
    next_log_probs: Callable[[list[int]], Sequence[float]],
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    stops: Collection[int] = (),
    length_penalty: float = 1.0,
) -> list[Scored]:
    """Every text that ends with its first stop token or at max_new_tokens, the best score first.

    As `beam_search` with as many beams as there are texts.
    """
    found: list[Scored] = []

    def extend(text: Text, total: float) -> None:
        if len(text) == max_new_tokens or (text and text[-1] in stops):
            found.append((total / len(text) ** length_penalty, total, text))
            return
        for token, log_p in enumerate(next_log_probs([*prompt, *text])):
            extend((*text, token), total + float(log_p))

    extend((), 0.0)
    return sorted(found, key=lambda f: -f[0])
