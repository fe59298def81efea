"""LAMBADA's last words, and the perplexity of whole texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...arguments import mismatch, shown
from ...data.corpus import read_documents
from .measures import bits_total, perplexity_total, weighted_perplexity_total
from .tables import by_line, some
from .task import Sample, Task, text


def _lambada(where: str, record: Mapping[str, Any]) -> Sample:
    """text; its last word after a space is predicted.                    Paperno et al. 2016"""
    (whole,) = text(where, record, "text")
    before, space, word = whole.rpartition(" ")
    if not space or not word:
        raise mismatch(where, "text that ends with a word after a space", shown(whole, 40))
    return Sample((before,), (f" {word}",))


def _lambada_measure(sample: Sample, answer: Any) -> Mapping[str, Any]:
    return {"perplexity": answer.log_prob, "acc": float(answer.greedy)}


def _whole(where: str, record: Mapping[str, Any]) -> Sample:
    return Sample(("",), tuple(text(where, record, "text")))


def _texts(path: str) -> list[Sample]:
    """JSON lines with a text each; or a text file, documents separated by <|endoftext|>."""
    if Path(path).suffix in (".jsonl", ".json"):
        return by_line(_whole)(path)
    documents = [document for document in read_documents([path]) if document.strip()]
    return some(path, [Sample(("",), (document,)) for document in documents])


def _text_measure(sample: Sample, answer: float) -> Mapping[str, Any]:
    """Words are what white space separates, with an empty one at an end that is white space, as
    lm-evaluation-harness counts them."""
    whole = sample.choices[0]
    words, size = len(re.split(r"\s+", whole)), len(whole.encode())
    pairs = ((answer, words), (answer, size), (answer, size))
    return dict(zip(TEXT_TOTALS, pairs))


TEXT_TOTALS = {
    "word_perplexity": weighted_perplexity_total,
    "byte_perplexity": weighted_perplexity_total,
    "bits_per_byte": bits_total,
}
LAST_WORD = ("loglikelihood", by_line(_lambada), _lambada_measure)

TASKS = (
    Task("lambada_openai", *LAST_WORD, {"perplexity": perplexity_total}, delimiter=""),
    Task("lambada_standard", *LAST_WORD, {"perplexity": perplexity_total}, delimiter=""),
    Task("text", "loglikelihood_rolling", _texts, _text_measure, TEXT_TOTALS, 2.0, delimiter=""),
)
