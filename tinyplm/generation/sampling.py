"""From logits to a token: penalties, temperature, top-k, top-p, min-p.

On the host, in float64: the cost is small and ties are exact.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arguments import MOST, as_array, as_ids, check_number, check_whole, wrong


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, in the order of use.  The defaults draw from the model's own distribution.

    repetition_penalty  1 for none; see penalise_repetition
    no_repeat_ngram     None for none; see ban_repeated_ngrams
    temperature         0 is greedy; then as in token_distribution
    top_k, top_p, min_p None for none
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    no_repeat_ngram: int | None = None

    def __post_init__(self) -> None:
        check_sampling(self.temperature, self.top_k, self.top_p, self.min_p)
        check_number("repetition_penalty", self.repetition_penalty, above=0)
        check_whole("no_repeat_ngram", self.no_repeat_ngram, 1, MOST, or_none=True)

    def choose(self, logits: np.ndarray, texts: Sequence[Sequence[int]], generators: Sequence[np.random.Generator],
               vocabulary: int | None = None) -> np.ndarray:  # fmt: skip
        """The next token of each row (B,): logits (B, V), its ids so far with the prompt, and a generator to draw with.

        Only ids below `vocabulary`, if given, are drawn.
        """
        logits = _numbers("logits", logits, 2)
        check_whole("vocabulary", vocabulary, 1, MOST, or_none=True)
        if not isinstance(texts, Sequence) or len(texts) != len(logits):
            raise wrong("texts", f"a list of {len(logits)} lists of ids", texts)
        count = len(logits) if self.temperature > 0 else 0  # how many generators are needed
        given = generators if isinstance(generators, Sequence) else []
        if len(given) < count or not all(callable(getattr(g, "random", None)) for g in given):
            raise wrong("generators", f"a list of {len(logits)} NumPy generators", generators)
        if self.repetition_penalty != 1 or self.no_repeat_ngram is not None:
            logits = logits.astype(np.float64)
            for row, text in zip(logits, texts):
                penalise_repetition(row, text, penalty=self.repetition_penalty)
                if self.no_repeat_ngram is not None:
                    ban_repeated_ngrams(row, text, n=self.no_repeat_ngram)
            if np.isneginf(logits[:, :vocabulary].max(axis=-1)).any():
                raise ValueError(f"no_repeat_ngram {self.no_repeat_ngram} forbids every token that could be drawn")
        logits = logits[:, :vocabulary]
        if self.temperature == 0:
            check_distribution(logits.max(axis=-1))
            return logits.argmax(axis=-1)
        p = _distribution(logits, self.temperature, self.top_k, self.top_p, self.min_p)
        return _inverted(np.cumsum(p, axis=-1), np.array([generator.random() for generator in generators]))


def penalise_repetition(logits: np.ndarray, seen: Sequence[int], *, penalty: float) -> None:
    """logits[v] / penalty if positive, else logits[v] * penalty, for every v seen; in place.       Keskar et al. 2019, sec. 4.1

    The paper divides always, which would favour a repeated token with a negative logit; the sign rule is transformers'.
    Ids without a logit are passed over.
    """
    check_number("penalty", penalty, above=0)
    _writable(logits)
    ids = np.unique(as_ids("seen", seen))
    ids = ids[ids < len(logits)]
    values = logits[ids]
    logits[ids] = np.where(values > 0, values / penalty, values * penalty)


def ban_repeated_ngrams(logits: np.ndarray, ids: Sequence[int], *, n: int) -> None:
    """-inf for every token that would complete an n-gram which stands in ids already; in place.   Paulus et al. 2017, sec. 2.5"""
    check_whole("n", n, 1)
    _writable(logits)
    ids = as_ids("ids", ids)
    if len(ids) < n:
        return
    grams = np.lib.stride_tricks.sliding_window_view(ids, n)
    begun = (grams[:, :-1] == ids[len(ids) - (n - 1) :]).all(axis=1)  # n = 1: no beginning, so all of them
    banned = grams[begun, -1]
    logits[banned[banned < len(logits)]] = -np.inf


def token_distribution(logits: np.ndarray, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None,
                       min_p: float | None = None) -> np.ndarray:  # fmt: skip
    """The distribution that a token is drawn from: logits (..., V) -> probabilities (..., V), float64.

    p = softmax(logits / temperature); then only the top_k most probable tokens are kept (Fan et al. 2018), then the smallest
    set of most probable ones whose probability reaches top_p (Holtzman et al. 2020, eq. 2), then those of at least min_p times
    the largest probability (Nguyen et al. 2024), the rest renormalised each time.
    Temperature 0 is greedy: all mass on the most probable.  Ties go to the smaller id.
    ValueError for a negative temperature, top_k < 1, top_p outside (0, 1], or min_p outside [0, 1].
    FloatingPointError when a row holds NaN or inf, or only -inf (-inf is a token that cannot be drawn).
    """
    check_sampling(temperature, top_k, top_p, min_p)
    return _distribution(_numbers("logits", logits), temperature, top_k, top_p, min_p)


def _distribution(logits: np.ndarray, temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
                  ) -> np.ndarray:  # fmt: skip
    """token_distribution of what was checked."""
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


def _keep_most_probable(p: np.ndarray, logits: np.ndarray, top_k: int | None, top_p: float | None) -> None:
    """top-k, then top-p of one row (V,), in place.  Only what can be kept is sorted: a whole vocabulary takes milliseconds."""
    V = len(p)
    top_k = None if top_k is None or top_k >= V else top_k
    if top_k is not None:
        candidates = np.flatnonzero(logits >= np.partition(logits, V - top_k)[V - top_k])  # more than top_k where some are equal
    elif top_p is not None and top_p < 1:
        # all that is rarer than (1 - top_p) / V adds up to less than 1 - top_p; half of that leaves room for rounding
        candidates = np.flatnonzero(p >= (1 - top_p) / (2 * V))
    else:
        return
    ranked = candidates[np.argsort(-logits[candidates], kind="stable")][:top_k]  # stable: equal logits in the order of ids
    kept = p[ranked]
    if top_k is not None:
        kept /= kept.sum()
    if top_p is not None and top_p < 1:
        before = np.cumsum(kept) - kept  # the mass of the more probable ones
        kept[before >= top_p] = 0
        kept /= kept.sum()
    p[:] = 0
    p[ranked] = kept


def _writable(logits: Any) -> None:
    if not isinstance(logits, np.ndarray) or logits.ndim != 1 or logits.dtype.kind != "f" or not logits.flags.writeable:
        raise wrong("logits", "a writable array (V,) of floats, which is changed in place", logits)


def check_distribution(largest: np.ndarray) -> None:
    """FloatingPointError unless the largest logit of every row is finite (-inf below it is a token that cannot be drawn)."""
    if not np.isfinite(largest).all():
        raise FloatingPointError(f"the largest logit is {largest[~np.isfinite(largest)].flat[0]}, expected a finite number")


def check_sampling(temperature: float, top_k: int | None, top_p: float | None, min_p: float | None = None) -> None:
    check_number("temperature", temperature, least=0)
    check_whole("top_k", top_k, 1, or_none=True)
    check_number("top_p", top_p, above=0, most=1, or_none=True)
    check_number("min_p", min_p, least=0, most=1, or_none=True)


def draw(probabilities: np.ndarray, u: np.ndarray) -> np.ndarray:
    """One token a row by inverting the cumulative distribution at u in [0, 1): (B, V), (B,) -> (B,).

    ValueError unless each row of probabilities is >= 0 and adds up to 1, to rounding.
    """
    probabilities = _numbers("probabilities", probabilities, 2)
    u = _numbers("u", u, 1)
    B, V = probabilities.shape
    if u.shape != (B,) or not ((u >= 0) & (u < 1)).all():
        raise wrong("u", f"{B} numbers in [0, 1)", u)
    cumulative = np.cumsum(probabilities, axis=-1)
    rounding = 10 * V * np.finfo(cumulative.dtype).eps
    if not (probabilities >= 0).all() or not (abs(cumulative[:, -1] - 1) <= rounding).all():  # NaN is neither
        raise ValueError(f"probabilities: expected rows >= 0 that add up to 1, got {_worst(probabilities, cumulative[:, -1])}")
    return _inverted(cumulative, u)


def _inverted(cumulative: np.ndarray, u: np.ndarray) -> np.ndarray:
    return (cumulative <= u[:, None] * cumulative[:, -1:]).sum(axis=-1)


def _worst(probabilities: np.ndarray, sums: np.ndarray) -> str:
    if not (probabilities >= 0).all():
        return f"{probabilities[~(probabilities >= 0)].flat[0]:.6g} in one"
    return f"the sum {sums[np.argmax(abs(sums - 1))]:.6g}"


def log_probabilities(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """log softmax(logits) of one token a row, by the model itself, whatever the sampling: (B, V), (B,) -> (B,)."""
    logits = _numbers("logits", logits, 2)
    tokens = as_ids("tokens", tokens, logits.shape[1])
    if tokens.shape != logits.shape[:1]:
        raise wrong("tokens", f"{len(logits)} ids", tokens)
    return chosen_log_probabilities(logits, tokens)


def chosen_log_probabilities(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """log_probabilities of tokens that `Sampling.choose` returned for these logits, without checks."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted[np.arange(len(tokens)), tokens] - np.log(np.exp(shifted).sum(axis=-1))


def _numbers(name: str, values: Any, ndim: int | None = None) -> np.ndarray:
    """A host array of floats with at least one column; lists become one."""
    expected = f"an array of numbers{'' if ndim is None else f' of {ndim} dimension' + 's' * (ndim > 1)}"
    a = as_array(name, values, expected, "fiu", range(1, 65) if ndim is None else (ndim,))
    if a.shape[-1] == 0:
        raise wrong(name, expected, values)
    return a if a.dtype.kind == "f" else a.astype(np.float64)
