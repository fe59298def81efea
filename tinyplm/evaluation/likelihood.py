"""Likelihood measures for comparing language models, and the table of baselines.

With nll = -sum_i ln p(token_i | tokens before it), in nats, over the predicted tokens:

    nll per token  = nll / tokens
    perplexity     = exp(nll / tokens)       depends on the tokenizer: compare only on equal tokens
    bits per byte  = nll / (ln 2 * bytes)    does not: bytes of the text in UTF-8
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..arguments import (
    as_texts,
    check_number,
    check_several,
    check_text,
    check_whole,
    wrong,
)
from .ngram import InterpolatedKneserNey, Uniform, Unigram

MOST = 2**62  # tokens or bytes


def perplexity(mean_nll: float) -> float:
    """exp(mean_nll), mean_nll in nats per token: the number of equally likely tokens as uncertain.

    Infinite if exp overflows, so that a diverged model can be reported.
    """
    _check_real("mean_nll", mean_nll)
    try:
        return math.exp(mean_nll)
    except OverflowError:
        return math.inf


def bits_per_byte(total_nll_nats: float, bytes: int) -> float:
    """total_nll_nats / (ln 2 * bytes): the bits per byte of text that the model needs to encode it.

    total_nll_nats covers all predicted tokens, including end-of-text; bytes counts the text in
    UTF-8 without end-of-text tokens. The first token of an array is not predicted: put an
    end-of-text token before the text, as between documents, and every byte is counted.
    Errors: ValueError for bytes < 1.
    """
    _check_real("total_nll_nats", total_nll_nats)
    check_whole("bytes", bytes, 1, MOST)
    return total_nll_nats / (math.log(2) * bytes)


class Row(NamedTuple):
    """A row of the table: nll in nats per token, perplexity per token, bits per byte."""

    name: str
    nll: float
    perplexity: float
    bits_per_byte: float


def row(name: str, total_nll_nats: float, tokens: int, bytes: int) -> Row:
    """The row of a model that needs total_nll_nats for `tokens` predictions of `bytes` of text.

    Errors: ValueError for tokens or bytes < 1.
    """
    check_text("name", name)
    check_whole("tokens", tokens, 1, MOST)
    bits = bits_per_byte(total_nll_nats, bytes)
    mean = total_nll_nats / tokens
    return Row(name, mean, perplexity(mean), bits)


def text_measures(total_nll_nats: float, tokens: int, texts: Sequence[str]) -> dict[str, float]:
    """Measures of a model that needs total_nll_nats for `tokens` predictions of these texts.

    {"nll per token", "perplexity", "perplexity per word", "bits per byte", "bits per character"},
    with nll in nats, words as white space separates them, bytes of UTF-8.  All but the first two
    do not depend on the tokenizer.   Errors: ValueError for texts without a word.
    """
    _check_real("total_nll_nats", total_nll_nats)
    texts = as_texts("texts", texts)
    check_whole("tokens", tokens, 1, MOST)
    words = sum(len(text.split()) for text in texts)
    if not words:
        raise ValueError("texts: expected at least one word, got none")
    size = sum(len(text.encode()) for text in texts)
    return {
        "nll per token": total_nll_nats / tokens,
        "perplexity": perplexity(total_nll_nats / tokens),
        "perplexity per word": perplexity(total_nll_nats / words),
        "bits per byte": bits_per_byte(total_nll_nats, size),
        "bits per character": bits_per_byte(total_nll_nats, sum(map(len, texts))),
    }


def baseline_rows(
    train: np.ndarray, validation: np.ndarray, vocab_size: int, bytes: int
) -> list[Row]:
    """Uniform, unigram and Kneser-Ney trigram, fitted on train (N,), evaluated on validation (M,).

    They predict validation[1:], as a model does that is fed evaluation_windows(validation, ...).
    bytes: of the text of validation[1:], see bits_per_byte.
    Errors: ValueError as from the models, and for fewer than 2 validation tokens.
    """
    check_whole("bytes", bytes, 1, MOST)
    models: dict[str, Uniform | Unigram | InterpolatedKneserNey] = {
        "uniform": Uniform(vocab_size),
        "unigram (add-one)": Unigram().fit(train, vocab_size),
        "trigram (modified Kneser-Ney)": InterpolatedKneserNey().fit(train, vocab_size),
    }
    rows = []
    for name, model in models.items():
        log_prob = model.log_prob(validation)
        rows.append(row(name, -float(log_prob.sum()), log_prob.size, bytes))
    return rows


def format_rows(rows: Iterable[Row]) -> str:
    """The rows as lines of text under a heading, with numbers right-aligned."""
    check_several("rows", rows, "rows")
    rows = list(rows)
    for r in rows:
        if not isinstance(r, Row):
            raise wrong("rows", "several Row", r)
    width = max([len(row.name) for row in rows] + [len("model")])
    lines = [f"{'model':<{width}}  {'nll/token':>9}  {'perplexity':>10}  {'bits/byte':>9}"]
    for r in rows:
        measures = f"{r.nll:9.4f}  {r.perplexity:10.2f}  {r.bits_per_byte:9.4f}"
        lines.append(f"{r.name:<{width}}  {measures}")
    return "\n".join(lines)


def _check_real(name: str, value: float) -> None:
    """ValueError unless it is a real number; infinity and NaN are allowed: a model may diverge."""
    if isinstance(value, int) and not isinstance(value, bool):
        check_number(name, value)
    elif not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise wrong(name, "a number", value)
