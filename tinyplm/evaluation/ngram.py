"""Count-based baselines: uniform, unigram, and interpolated Kneser-Ney n-grams.

They read the same token arrays as the neural models. Each has log_prob(tokens): natural logarithms
of p(tokens[i] | tokens[:i]) for i = 1 ... N - 1, shape (N - 1,) float64. Every token has positive
probability after any history, and the probabilities sum to 1. Histories extend across end-of-text
tokens.
"""

from __future__ import annotations

import numpy as np

from ..arguments import as_array, check_flag, check_number, check_whole


class Uniform:
    """p(w) = 1 / V."""

    def __init__(self, vocab_size: int) -> None:
        check_whole("vocab_size", vocab_size, 1, 2**32)
        self.vocab_size = vocab_size

    def log_prob(self, tokens: np.ndarray) -> np.ndarray:
        """Natural logarithms of the probabilities of tokens[1:], (N - 1,)."""
        tokens = _checked(tokens, self.vocab_size, 2)
        return np.full(len(tokens) - 1, -np.log(self.vocab_size))


class Unigram:
    """p(w) = (c(w) + added) / (N + V added): additive smoothing; added = 1 is Laplace's."""

    def __init__(self, added: float = 1.0) -> None:
        check_number("added", added, above=0)
        self.added = added

    def fit(self, tokens: np.ndarray, vocab_size: int) -> Unigram:
        """Count tokens (N,); returns self."""
        tokens = _checked(tokens, vocab_size, 1)
        self.vocab_size = vocab_size
        counts = np.bincount(tokens, minlength=vocab_size) + self.added
        self.log_p = np.log(counts / counts.sum())
        return self

    def log_prob(self, tokens: np.ndarray) -> np.ndarray:
        """Natural logarithms of the probabilities of tokens[1:], (N - 1,)."""
        return self.log_p[_checked(tokens, self.vocab_size, 2)[1:]]


class InterpolatedKneserNey:
    """Interpolated Kneser-Ney with absolute discounting.

    Kneser & Ney 1995 (lower orders); Ney, Essen & Kneser 1994 (one discount per order); Chen &
    Goodman 1999 (interpolation; modified: three discounts, better in their experiments and on our
    corpus).

    For a history h of n - 1 tokens, h' the same without its first token, c the count of order n:

        p_n(w | h) = (c(hw) - D(c(hw))) / sum_v c(hv)  +  gamma(h) p_{n-1}(w | h')
        gamma(h)   = sum_v D(c(hv)) / sum_v c(hv)            p_0(w) = 1 / V
        p_n(w | h) = p_{n-1}(w | h')                         if h was not seen

    At the highest order c counts occurrences; at lower orders c(hw) is the number of distinct
    tokens seen before hw.

    The discount D(c), with n_j the number of n-grams of this order with count j and
    Y = n_1 / (n_1 + 2 n_2):

        modified=True   D(1) = 1 - 2Y n_2/n_1, D(2) = 2 - 3Y n_3/n_2, D(3 or more) = 3 - 4Y n_4/n_3
        modified=False  D = Y for every count; 1/2 if n_1 = 0 (nothing to estimate from)

    If one of the three divides by zero or lies outside (0, c], the order uses the single Y; this
    happens only in small corpora. D(0) = 0.

    A k-gram is stored as its place in a sorted array of codes, code = place of its first k - 1
    tokens * V + last token, so any order fits into 64 bits. A look-up is one binary search per
    order; fitting is one sort per order.
    """

    def __init__(self, order: int = 3, modified: bool = True) -> None:
        check_whole("order", order, 1, 1000)
        check_flag("modified", modified)
        self.order = order
        self.modified = modified

    def fit(self, tokens: np.ndarray, vocab_size: int) -> InterpolatedKneserNey:
        """Count the n-grams of tokens (N,), N >= order; returns self."""
        tokens = _checked(tokens, vocab_size, self.order)
        self.vocab_size = vocab_size
        # codes[k - 1]: the sorted codes of the k-grams; the place of a unigram is the token itself
        self.codes = [np.arange(vocab_size)]
        places = tokens  # of the k-gram that starts at each token
        occurrences = np.bincount(tokens, minlength=vocab_size)
        counts = []
        for k in range(2, self.order + 1):
            code = places[:-1] * vocab_size + tokens[k - 1 :]
            found, first, longer, number = np.unique(
                code, return_index=True, return_inverse=True, return_counts=True
            )
            # Each distinct k-gram is one more token seen before its last k - 1 tokens, which form
            # the (k-1)-gram that starts one token later.
            counts.append(np.bincount(places[first + 1], minlength=len(self.codes[-1])))
            self.codes.append(found)
            places, occurrences = longer, number
        counts.append(occurrences)

        self.discounts = [_discounts(count, self.modified) for count in counts]
        # The discounted count of each n-gram; the sums of counts and discounts of each history.
        self.kept, self.totals, self.freed = [], [], []
        orders = zip(self.codes, counts, self.discounts, strict=True)
        for k, (code, count, discount) in enumerate(orders, 1):
            taken = discount[np.minimum(count, 3)]
            history = code // vocab_size  # 0 for unigrams: the empty history
            histories = 1 if k == 1 else len(self.codes[k - 2])
            self.kept.append(count - taken)
            self.totals.append(np.bincount(history, weights=count, minlength=histories))
            self.freed.append(np.bincount(history, weights=taken, minlength=histories))
        return self

    def log_prob(self, tokens: np.ndarray) -> np.ndarray:
        """Natural logarithms of the probabilities of tokens[1:], (N - 1,).

        The first ones have short histories.
        """
        tokens = _checked(tokens, self.vocab_size, 2)
        p = np.full(len(tokens), 1 / self.vocab_size)  # p_0 of every token; then p_1, p_2, ...
        history = np.zeros(len(tokens), np.int64)  # place of the (k-1)-gram before each token
        for k in range(1, min(self.order, len(tokens)) + 1):
            place = self._places(k, history, tokens[k - 1 :])
            lower = p[k - 1 :]
            total = np.where(history < 0, 0, self.totals[k - 1][history])
            seen = total > 0
            kept = np.where(place < 0, 0, self.kept[k - 1][place])
            lower[seen] = (kept + self.freed[k - 1][history] * lower)[seen] / total[seen]
            history = place[:-1]  # the k-gram that ends just before the next token
        return np.log(p[1:])

    def _places(self, k: int, history: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Places of the k-grams (history, last); -1 if not seen."""
        if k == 1:
            return last
        codes = self.codes[k - 1]
        wanted = history * self.vocab_size + last
        place = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
        # an unseen history, -1, has a code below all others
        return np.where(codes[place] == wanted, place, -1)


def _discounts(counts: np.ndarray, modified: bool) -> np.ndarray:
    """D(0), D(1), D(2), D(3 and more) from the n-gram counts of one order: (4,) float64."""
    n1, n2, n3, n4 = (int(np.count_nonzero(counts == j)) for j in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2) if n1 else 0.5
    if modified and n1 and n2 and n3:
        three = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
        if all(0 < d <= j for j, d in enumerate(three, start=1)):
            return np.array([0.0, *three])
    return np.array([0.0, y, y, y])


def _checked(tokens: np.ndarray, vocab_size: int, needed: int) -> np.ndarray:
    """tokens (N,) as int64; ValueError for other shapes, types or ids, or fewer than `needed`."""
    tokens = as_array("tokens", tokens, "token ids (N,)", "iu")
    check_whole("vocab_size", vocab_size, 1, 2**32)
    if len(tokens) < needed:
        raise ValueError(f"tokens: expected at least {needed}, got {len(tokens)}")
    if not (0 <= tokens.min() and tokens.max() < vocab_size):
        given = f"{tokens.min()} to {tokens.max()}"
        raise ValueError(f"tokens: expected ids from 0 to {vocab_size - 1}, got {given}")
    return tokens.astype(np.int64)
