"""From the log-probabilities of tokens to those of whole answers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from ..arguments import is_whole, wrong
from ..backend import array_module
from ..core import Array, Backward, in_float32
from ..shapes import check_array, expects


@expects("x (N, ...)")
@in_float32
def pair_log_probs(x: Array, *, second: Array) -> tuple[Array, Backward]:
    """y_n = (sum of x_n where second is False, sum of x_n where it is True).

    log p(answer) = sum_t log p(token_t | the tokens before it), so for log-probabilities of tokens
    y_n are those of the two answers to prompt n.
    x (N, ...), 0 where a token counts for neither answer; second: booleans with as many axes as x
    that broadcast to x, True for the second answer -> y (N, 2).   Keeps second.
    dx_n = dy_n0 where second is False, dy_n1 where it is True.
    """
    xp = array_module(x)
    check_second(second, x)
    tokens = tuple(range(1, x.ndim))
    y = xp.stack([xp.where(second, 0, x).sum(axis=tokens), xp.where(second, x, 0).sum(axis=tokens)])

    def backward(dy: Array) -> Array:
        first_d, second_d = (d.reshape(-1, *(1 for _ in tokens)) for d in dy.T)
        return xp.broadcast_to(xp.where(second, second_d, first_d), x.shape)

    return y.T, backward


@expects("x (N, A, T)")
@in_float32
def label_scores(x: Array, *, words: Sequence[int]) -> tuple[Array, Backward]:
    """y_nc = log mean over the words a of label c of exp(s_na),   s_na = sum_t x_nat.

    For log-probabilities x of the tokens of A words, such as those that fill a blank, s_na = log
    p(word a | text n); with one word a label y are the scores of Du et al. 2022, eq. 3, and
    cross_entropy(y) is the loss of sec. 2.3.
    x (N, A, T), 0 where a word has no token; words: how many each of the C labels has, the first
    label's words come first -> y (N, C).   Keeps p.
    With p_na = exp(s_na) / sum of exp(s_na') over the words a' of the same label c:

        dx_nat = dy_nc p_na.

    ValueError unless words are whole numbers >= 1 with sum A.
    """
    xp = array_module(x)
    check_words(words, x)
    scores, shares = [], []
    s = x.sum(axis=2)
    for end, n in zip(accumulate(words), words):
        own = s[:, end - n : end]
        largest = own.max(axis=1, keepdims=True)
        e = xp.exp(own - largest)
        total = e.sum(axis=1, keepdims=True)
        scores.append(largest + xp.log(total / n))
        shares.append(e / total)

    def backward(dy: Array) -> Array:
        ds = [dy[:, c : c + 1] * p for c, p in enumerate(shares)]
        return xp.broadcast_to(xp.concatenate(ds, axis=1)[..., None], x.shape)

    return xp.concatenate(scores, axis=1), backward


def check_words(words: Sequence[int], x: Array) -> None:
    """ValueError unless it is how many of the words (N, A, T) belong to each label."""
    right = isinstance(words, (list, tuple)) and all(is_whole(n) and n >= 1 for n in words)
    if not right or sum(words) != x.shape[1]:
        raise wrong("label_scores: words", f"whole numbers >= 1 with sum {x.shape[1]}", words)


def check_second(second: Array, x: Array) -> None:
    """ValueError unless it is booleans that broadcast to x."""
    check_array("pair_log_probs: second", second, "(...) booleans")
    if second.ndim != x.ndim or any(n not in (1, m) for n, m in zip(second.shape, x.shape)):
        raise wrong("pair_log_probs: second", f"booleans that broadcast to {x.shape}", second)
