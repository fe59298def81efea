"""BLEU: n-grams of translations that occur in reference translations.      Papineni et al. 2002"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..arguments import (
    as_texts,
    check_choice,
    check_flag,
    check_number,
    check_takes,
    check_text,
    check_whole,
    wrong,
)
from .rouge import LONGEST, Tokenize, as_references, ngrams
from .spans import check_pairs

SMOOTHING = ("exp", "floor", "none")


class Bleu(NamedTuple):
    """score from 0 to 1 (other software often prints 100 times this), and what it is made of."""

    score: float
    precisions: tuple[float, ...]  # of orders 1, 2, ...; smoothed
    brevity_penalty: float
    length: int  # tokens of the predictions
    reference_length: int


def corpus_bleu(
    predictions: Sequence[str],
    references: Sequence[Iterable[str]],
    *,
    tokenize: str | Tokenize = "13a",
    smoothing: str = "exp",
    floor: float = 0.1,
    order: int = 4,
    effective: bool = False,
) -> Bleu:
    """BP exp(1/N sum_n ln p_n),  n = 1 ... N = order.             Papineni et al. 2002, sec. 2.3

    p_n = matches_n / total_n: n-grams summed over all predictions, each matching at most as often
    as it occurs in one of the prediction's references.  BP = min(1, e^(1 - r / c)): c tokens in
    the predictions, r the sum of the lengths of the closest references, the shorter in a tie.

    tokenize   "13a" (see `tokens_13a`), "none" (at whitespace), "char" (characters but
               whitespace), or a function from a text to its tokens
    smoothing  of p_n where matches_n = 0 (Chen & Cherry 2014): "exp" 1 / (2^k total_n) for the
               k-th such n, "floor" floor / total_n, "none" 0.  Without any match the score is 0.
    effective  N is the largest n for which there are n-grams at all; else the score is 0 if all
               predictions are shorter than `order`

    The score is sacrebleu's / 100, with the same names of options (its smooth_value is `floor`).
    """
    check_choice("smoothing", smoothing, SMOOTHING)
    check_number("floor", floor, above=0, most=1)
    check_whole("order", order, 1, LONGEST)
    check_flag("effective", effective)
    cut = _tokenizer(tokenize)
    matches, totals = np.zeros(order, np.int64), np.zeros(order, np.int64)
    length = reference_length = 0
    for prediction, some in check_pairs(predictions, references, "references"):
        tokens = as_texts("tokenize", cut(prediction))
        labelled = [as_texts("tokenize", cut(text)) for text in as_references("references", some)]
        length += len(tokens)
        reference_length += min((abs(len(r) - len(tokens)), len(r)) for r in labelled)[1]
        for n in range(1, order + 1):
            allowed: Counter = Counter()
            for r in labelled:
                allowed |= ngrams(r, n)
            found = ngrams(tokens, n)
            matches[n - 1] += (found & allowed).total()
            totals[n - 1] += found.total()
    penalty = 1.0
    if length < reference_length:
        penalty = math.exp(1 - reference_length / length) if length else 0.0
    precisions = _precisions(matches.tolist(), totals.tolist(), smoothing, floor)
    used = precisions[: int((totals > 0).sum())] if effective else precisions
    score = 0.0
    if matches.any() and all(used):
        score = penalty * math.exp(sum(map(math.log, used)) / len(used))
    return Bleu(score, precisions, penalty, length, reference_length)


def sentence_bleu(
    prediction: str,
    references: Iterable[str],
    *,
    tokenize: str | Tokenize = "13a",
    smoothing: str = "exp",
    floor: float = 0.1,
    order: int = 4,
    effective: bool = True,
) -> Bleu:
    """`corpus_bleu` of one sentence, by default with the effective order.

    The BLEU of a corpus is not the mean of these.
    """
    check_text("prediction", prediction)
    return corpus_bleu(
        [prediction],
        [as_references("references", references)],
        tokenize=tokenize,
        smoothing=smoothing,
        floor=floor,
        order=order,
        effective=effective,
    )


def _precisions(
    matches: list[int], totals: list[int], smoothing: str, floor: float
) -> tuple[float, ...]:
    """p_1, p_2, ..., smoothed; all 0 if nothing matches, and 0 where there are no n-grams."""
    found, divisor = [], 1
    for match, total in zip(matches, totals):
        if match or not total or not any(matches) or smoothing == "none":
            found.append(match / total if total else 0.0)
        elif smoothing == "floor":
            found.append(floor / total)
        else:
            divisor *= 2
            found.append(1 / (divisor * total))
    return tuple(found)


# ---- tokens


_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
_APART = re.escape("".join(c for c in string.punctuation if c not in "',-."))
_RULES = (
    (re.compile(f"([{_APART}])"), r" \1 "),
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),  # unless preceded by a digit
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),  # unless followed by one
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),  # preceded by a digit
)


def tokens_13a(text: str) -> list[str]:
    """Words and punctuation as cut by mteval-v13a, the scorer of the NIST and WMT evaluations.

    ASCII punctuation stands alone, except apostrophes, hyphens within words, and points and
    commas within numbers.  Upper and lower case differ.  Written for European languages.
    """
    check_text("text", text)
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    text = f" {text} "
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text.split()


def _characters(text: str) -> list[str]:
    return [c for c in text if not c.isspace()]


_TOKENIZERS: dict[str, Tokenize] = {"13a": tokens_13a, "none": str.split, "char": _characters}


def _tokenizer(tokenize: str | Tokenize) -> Tokenize:
    if isinstance(tokenize, str) and tokenize in _TOKENIZERS:
        return _TOKENIZERS[tokenize]
    if not callable(tokenize):
        raise wrong("tokenize", f"a function, or one of {', '.join(_TOKENIZERS)}", tokenize)
    check_takes("tokenize", tokenize, "text")
    return tokenize
