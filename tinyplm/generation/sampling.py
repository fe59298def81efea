"""From logits to a token: penalties, temperature, top-k, top-p, min-p.

On the host in float64: the cost is small and ties are exact.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arguments import MOST, as_array, as_ids, check_number, check_whole, mismatch, wrong


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, in order of application. Defaults: the model's distribution.

    repetition_penalty  1: none; see penalise_repetition
    no_repeat_ngram     None: none; see ban_repeated_ngrams
    temperature         0: greedy; see token_distribution, also for the following
    top_k, top_p, min_p None: none
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    no_repeat_ngram: int | None = None

    def __post_init__(self) -> None:
        check_sampling(self.temperature, self.top_k, self.top_p, self.min_p)
        check_repetition(self.repetition_penalty, self.no_repeat_ngram)

    def choose(
        self,
        logits: np.ndarray,
        texts: Sequence[Sequence[int]],
        generators: Sequence[np.random.Generator],
        vocabulary: int | None = None,
    ) -> np.ndarray:
        """The next token of each row (B,).

        logits (B, V); texts: the ids of each row so far, including the prompt; generators: one per
        row. Only ids below `vocabulary` are drawn.
        """
        logits = _numbers("logits", logits, 2)
        check_whole("vocabulary", vocabulary, 1, MOST, or_none=True)
        if not isinstance(texts, Sequence) or len(texts) != len(logits):
            raise wrong("texts", f"a list of {len(logits)} lists of ids", texts)
        count = len(logits) if self.temperature > 0 else 0  # generators required
        given = generators if isinstance(generators, Sequence) else []
        if len(given) < count or not all(callable(getattr(g, "random", None)) for g in given):
            raise wrong("generators", f"a list of {len(logits)} NumPy generators", generators)
        logits = self.penalised(logits, texts, vocabulary)
        if self.temperature == 0:
            check_distribution(logits.max(axis=-1))
            return logits.argmax(axis=-1)
        u = np.array([generator.random() for generator in generators])
        return inverted(self.probabilities(logits), u)

    @property
    def reads_texts(self) -> bool:
        """Whether the texts so far matter."""
        return self.repetition_penalty != 1 or self.no_repeat_ngram is not None

    def penalised(
        self, logits: np.ndarray, texts: Sequence[Sequence[int]], vocabulary: int | None = None
    ) -> np.ndarray:
        """The logits (B, V) of the ids below `vocabulary` after the penalties; arguments as checked
        in `choose`.  ValueError for a text after which none is allowed."""
        changed = self.allowed(logits, texts, vocabulary)
        if self.reads_texts and np.isneginf(changed.max(axis=-1)).any():
            raise mismatch("no_repeat_ngram", "one that allows any token", self.no_repeat_ngram)
        return changed

    def allowed(
        self, logits: np.ndarray, texts: Sequence[Sequence[int]], vocabulary: int | None = None
    ) -> np.ndarray:
        """`penalised`, with rows of -inf alone where no token is allowed."""
        if self.reads_texts:
            logits = logits.astype(np.float64)
            for row, text in zip(logits, texts):
                penalise_repetition(row, text, penalty=self.repetition_penalty)
                if self.no_repeat_ngram is not None:
                    ban_repeated_ngrams(row, text, n=self.no_repeat_ngram)
        return logits[:, :vocabulary]

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """What `choose` draws from: (B, V) as returned by `penalised` -> (B, V), float64."""
        return _distribution(logits, self.temperature, self.top_k, self.top_p, self.min_p)


def penalise_repetition(logits: np.ndarray, seen: Sequence[int], *, penalty: float) -> None:
    """logits[v] / penalty if positive, else logits[v] * penalty, for every v seen; in place.

    Keskar et al. 2019, sec. 4.1. The paper always divides, which would favour repeating tokens with
    negative logits; the sign rule is that of transformers. Ids without a logit are ignored.
    """
    check_number("penalty", penalty, above=0)
    _writable(logits)
    ids = np.unique(as_ids("seen", seen))
    ids = ids[ids < len(logits)]
    values = logits[ids]
    logits[ids] = np.where(values > 0, values / penalty, values * penalty)


def ban_repeated_ngrams(logits: np.ndarray, ids: Sequence[int], *, n: int) -> None:
    """-inf for every token that would complete an n-gram already in ids; in place.

    Paulus et al. 2017, sec. 2.5.
    """
    check_whole("n", n, 1)
    _writable(logits)
    tokens = as_ids("ids", ids)
    if len(tokens) < n:
        return
    grams = np.lib.stride_tricks.sliding_window_view(tokens, n)
    begun = (grams[:, :-1] == tokens[len(tokens) - (n - 1) :]).all(axis=1)  # n = 1: all of them
    banned = grams[begun, -1]
    logits[banned[banned < len(logits)]] = -np.inf


def token_distribution(
    logits: np.ndarray,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> np.ndarray:
    """The sampling distribution: logits (..., V) -> probabilities (..., V), float64.

    p = softmax(logits / temperature), restricted to the top_k most probable tokens (Fan et al.
    2018), then to the smallest set of most probable tokens with total probability >= top_p
    (Holtzman et al. 2020, eq. 2), then to those with at least min_p times the largest probability
    (Nguyen et al. 2024), renormalised each time. Temperature 0 is greedy: all mass on the most
    probable token. Ties go to the smaller id.
    ValueError for a negative temperature, top_k < 1, top_p outside (0, 1], or min_p outside [0, 1].
    FloatingPointError if a row contains NaN or inf, or only -inf (a token that cannot be drawn).
    """
    check_sampling(temperature, top_k, top_p, min_p)
    return _distribution(_numbers("logits", logits), temperature, top_k, top_p, min_p)


def _distribution(
    logits: np.ndarray,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
) -> np.ndarray:
    """token_distribution of checked arguments."""
    logits = logits.astype(np.float64)
    check_distribution(largest := logits.max(axis=-1, keepdims=True))
    if temperature == 0:
        greedy = np.zeros_like(logits)
        np.put_along_axis(greedy, logits.argmax(axis=-1, keepdims=True), 1, axis=-1)
        return greedy
    p = np.exp((logits - largest) / temperature)
    p /= p.sum(axis=-1, keepdims=True)
    if top_k is not None or (top_p is not None and top_p < 1):
        for row, scores in zip(p.reshape(-1, p.shape[-1]), logits.reshape(-1, p.shape[-1])):
            _keep_most_probable(row, scores, top_k, top_p)
    if min_p:
        p[p < min_p * p.max(axis=-1, keepdims=True)] = 0
        p /= p.sum(axis=-1, keepdims=True)
    return p


def _keep_most_probable(
    p: np.ndarray, logits: np.ndarray, top_k: int | None, top_p: float | None
) -> None:
    """top-k, then top-p of one row (V,), in place. Sorts only candidates, not the vocabulary."""
    V = len(p)
    top_k = None if top_k is None or top_k >= V else top_k
    if top_k is not None:  # more than top_k candidates if some are equal
        candidates = np.flatnonzero(logits >= np.partition(logits, V - top_k)[V - top_k])
    elif top_p is not None and top_p < 1:
        # tokens below (1 - top_p) / V sum to less than 1 - top_p; the factor 2 covers rounding
        candidates = np.flatnonzero(p >= (1 - top_p) / (2 * V))
    else:
        return
    order = np.argsort(-logits[candidates], kind="stable")  # stable: equal logits by id
    ranked = candidates[order][:top_k]
    kept = p[ranked]
    if top_k is not None:
        kept /= kept.sum()
    if top_p is not None and top_p < 1:
        before = np.cumsum(kept) - kept  # the mass of more probable tokens
        kept[before >= top_p] = 0
        kept /= kept.sum()
    p[:] = 0
    p[ranked] = kept


def _writable(logits: Any) -> None:
    right = isinstance(logits, np.ndarray) and logits.ndim == 1 and logits.dtype.kind == "f"
    if not right or not logits.flags.writeable:
        raise wrong("logits", "a writable array (V,) of floats, which is changed in place", logits)


def check_distribution(largest: np.ndarray) -> None:
    """FloatingPointError unless the largest logit of every row is finite; others may be -inf."""
    if not np.isfinite(largest).all():
        bad = largest[~np.isfinite(largest)].flat[0]
        raise FloatingPointError(f"logits: expected a finite largest one in each row, got {bad}")


def check_sampling(
    temperature: float, top_k: int | None, top_p: float | None, min_p: float | None = None
) -> None:
    """ValueError unless these can be fields of a Sampling."""
    check_number("temperature", temperature, least=0)
    check_whole("top_k", top_k, 1, or_none=True)
    check_number("top_p", top_p, above=0, most=1, or_none=True)
    check_number("min_p", min_p, least=0, most=1, or_none=True)


def check_repetition(repetition_penalty: float, no_repeat_ngram: int | None) -> None:
    """ValueError unless these can be fields of a Sampling."""
    check_number("repetition_penalty", repetition_penalty, above=0)
    check_whole("no_repeat_ngram", no_repeat_ngram, 1, MOST, or_none=True)


def draw(probabilities: np.ndarray, u: np.ndarray) -> np.ndarray:
    """One token per row, by inverting the cumulative distribution at u: (B, V), (B,) -> (B,).

    ValueError unless u is in [0, 1) and rows of probabilities are >= 0 and sum to 1, to rounding.
    """
    probabilities = _numbers("probabilities", probabilities, 2)
    u = _numbers("u", u, 1)
    B, V = probabilities.shape
    if u.shape != (B,) or not ((u >= 0) & (u < 1)).all():
        raise wrong("u", f"{B} numbers in [0, 1)", u)
    cumulative = np.cumsum(probabilities, axis=-1)
    rounding = 10 * V * np.finfo(cumulative.dtype).eps
    sums = cumulative[:, -1]
    if not (probabilities >= 0).all() or not (abs(sums - 1) <= rounding).all():  # also for NaN
        raise mismatch("probabilities", "rows >= 0 that sum to 1", _worst(probabilities, sums))
    return inverted(probabilities, u)


def inverted(probabilities: np.ndarray, u: np.ndarray) -> np.ndarray:
    """`draw` without checks."""
    cumulative = np.cumsum(probabilities, axis=-1)
    return (cumulative <= u[:, None] * cumulative[:, -1:]).sum(axis=-1)


def _worst(probabilities: np.ndarray, sums: np.ndarray) -> str:
    if not (probabilities >= 0).all():
        return f"{probabilities[~(probabilities >= 0)].flat[0]:.6g} in one"
    return f"the sum {sums[np.argmax(abs(sums - 1))]:.6g}"


def log_probabilities(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """log softmax(logits) of one token per row, without sampling settings: (B, V), (B,) -> (B,)."""
    logits = _numbers("logits", logits, 2)
    tokens = as_ids("tokens", tokens, logits.shape[1])
    if tokens.shape != logits.shape[:1]:
        raise wrong("tokens", f"{len(logits)} ids", tokens)
    return chosen_log_probabilities(logits, tokens)


def chosen_log_probabilities(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """log_probabilities without checks, for tokens that `Sampling.choose` returned."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted[np.arange(len(tokens)), tokens] - np.log(np.exp(shifted).sum(axis=-1))


def _numbers(name: str, values: Any, ndim: int | None = None) -> np.ndarray:
    """A host array of floats with at least one column; lists are converted."""
    dims = "" if ndim is None else f" of {ndim} dimension{'s' * (ndim > 1)}"
    expected = f"an array of numbers{dims}"
    a = as_array(name, values, expected, "fiu", range(1, 65) if ndim is None else (ndim,))
    if a.shape[-1] == 0:
        raise wrong(name, expected, values)
    return a if a.dtype.kind == "f" else a.astype(np.float64)
