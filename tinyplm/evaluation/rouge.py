"""ROUGE: overlap of a text with reference texts, in words, pairs of words or subsequences.

With `shared` units of a prediction's p and a reference's r units (Lin 2004):

    precision = shared / p,    recall = shared / r,    f1 = 2 shared / (p + r)

Of several references, the one with the best F1 counts, the first of equal ones. As in the package
rouge-score, without its stemmer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np

from ..arguments import as_texts, check_takes, check_text, check_whole, wrong
from .metrics import Scores, scores
from .spans import check_pairs

Tokenize = Callable[[str], Sequence[str]]
LONGEST = 99  # words of an n-gram


def rouge_words(text: str) -> list[str]:
    """The runs of a-z and 0-9 in the lower-cased text.

    All else separates words. Text in another script than Latin has no words at all, and accented
    letters cut a word: give the functions of this module a `tokenize` of your own.
    """
    check_text("text", text)
    return re.findall(r"[a-z0-9]+", text.lower())


def rouge_n(
    prediction: str, references: Iterable[str], *, n: int = 1, tokenize: Tokenize = rouge_words
) -> Scores:
    """Shared n-grams, each as often as it occurs in both.                       Lin 2004, sec. 2"""
    check_whole("n", n, 1, LONGEST)

    def overlap(p: list[str], r: list[str]) -> Scores:
        predicted, labelled = ngrams(p, n), ngrams(r, n)
        return scores((predicted & labelled).total(), predicted.total(), labelled.total())

    return _best(overlap, prediction, references, tokenize)


def rouge_l(
    prediction: str, references: Iterable[str], *, tokenize: Tokenize = rouge_words
) -> Scores:
    """Words of the longest common subsequence.                                 Lin 2004, sec. 3.1

    F1, as usual since; in the paper's eq. 4 recall counts for more.
    """

    def overlap(p: list[str], r: list[str]) -> Scores:
        return scores(int(_common(r, p)[-1, -1]), len(p), len(r))

    return _best(overlap, prediction, references, tokenize)


def rouge_lsum(
    prediction: str, references: Iterable[str], *, tokenize: Tokenize = rouge_words
) -> Scores:
    """ROUGE-L of summaries, one sentence a line.                               Lin 2004, sec. 3.2

    A reference's sentence shares the union of its longest common subsequences with each sentence
    of the prediction; a word counts at most as often as it occurs in the prediction (as in
    ROUGE-1.5.5). The value may depend on which of several longest subsequences is taken: here the
    one found from the ends, going back in the reference where both ways are as long.
    """

    def overlap(prediction: str, reference: str) -> Scores:
        predicted = [_tokens(tokenize, line) for line in prediction.split("\n")]
        labelled = [_tokens(tokenize, line) for line in reference.split("\n")]
        left: Counter[str] = sum(map(Counter, predicted), Counter())
        size, shared = left.total(), 0
        for r in labelled:
            for i in sorted(set().union(*(_matched(r, p) for p in predicted))):
                if left[r[i]]:
                    left[r[i]] -= 1
                    shared += 1
        return scores(shared, size, sum(map(len, labelled)))

    check_takes("tokenize", tokenize, "text")
    check_text("prediction", prediction)
    return _of_best([overlap(prediction, r) for r in as_references("references", references)])


def rouge(
    predictions: Sequence[str],
    references: Sequence[Iterable[str]],
    *,
    tokenize: Tokenize = rouge_words,
) -> dict[str, Scores]:
    """{"rouge1", "rouge2", "rougeL", "rougeLsum"}: means over samples. references: those of each.

    The package's aggregator draws bootstrap samples; their middle value is near this mean.
    """
    pairs = check_pairs(predictions, references, "references")
    measures: dict[str, Callable[..., Scores]] = {
        "rouge1": rouge_n,
        "rouge2": partial(rouge_n, n=2),
        "rougeL": rouge_l,
        "rougeLsum": rouge_lsum,
    }
    means = {}
    for name, measure in measures.items():
        found = [measure(*pair, tokenize=tokenize) for pair in pairs]
        means[name] = Scores(*(sum(values) / len(found) for values in zip(*found)))
    return means


def ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each run of n tokens occurs."""
    return Counter(zip(*(tokens[i:] for i in range(n))))


def as_references(name: str, references: Iterable[str]) -> list[str]:
    """The references of one text; ValueError unless they are strings, at least one."""
    texts = as_texts(name, references)
    if not texts:
        raise wrong(name, "several strings, at least one", texts)
    return texts


def _best(
    overlap: Callable, prediction: str, references: Iterable[str], tokenize: Tokenize
) -> Scores:
    check_takes("tokenize", tokenize, "text")
    check_text("prediction", prediction)
    words = _tokens(tokenize, prediction)
    found = as_references("references", references)
    return _of_best([overlap(words, _tokens(tokenize, text)) for text in found])


def _of_best(found: list[Scores]) -> Scores:
    return max(found, key=lambda each: each.f1)


def _tokens(tokenize: Tokenize, text: str) -> list[str]:
    return as_texts("tokenize", tokenize(text))


def _common(a: Sequence[str], b: Sequence[str]) -> np.ndarray:
    """L (len(a) + 1, len(b) + 1): L_ij is the length of the longest common subsequence of the first
    i of a and the first j of b.

    L_ij = max(L_i-1,j, L_i-1,j-1 + [a_i = b_j], L_i,j-1), where L_i,j-1 makes a running maximum.
    """
    numbers = {word: number for number, word in enumerate({*a, *b})}
    y = np.array([numbers[word] for word in b], np.int64)
    lengths = np.zeros((len(a) + 1, len(b) + 1), np.int64)
    for i, word in enumerate(a):
        found = np.maximum(lengths[i, 1:], lengths[i, :-1] + (y == numbers[word]))
        np.maximum.accumulate(found, out=lengths[i + 1, 1:])
    return lengths


def _matched(a: Sequence[str], b: Sequence[str]) -> set[int]:
    """The places in a of a longest common subsequence with b, found from the ends."""
    lengths, i, j = _common(a, b), len(a), len(b)
    places = set()
    while i and j:
        if a[i - 1] == b[j - 1]:
            i, j = i - 1, j - 1
            places.add(i)
        elif lengths[i, j - 1] > lengths[i - 1, j]:
            j -= 1
        else:
            i -= 1
    return places
