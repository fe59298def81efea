"""Metrics for spans of text: chunks of tagged words, answers to questions, texts as a whole.

Shares range from 0 to 1.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..arguments import as_texts, check_takes, check_text, shown, wrong
from .metrics import Scores, scores

# ---- tagging


class Chunk(NamedTuple):
    """A chunk of words start ... end - 1."""

    kind: str
    start: int
    end: int


def chunks(tags: Sequence[str]) -> list[Chunk]:
    """The chunks encoded by tags O, B-kind, I-kind, in order.      Tjong Kim Sang & De Meulder 2003

    A chunk continues as long as I-kind follows. An I that continues nothing (after O, at the start,
    or after another kind) begins a chunk, as in the shared task's scorer; so IOB1, where B occurs
    only between adjacent chunks of one kind, is read as well as IOB2 (BIO). ValueError for any
    other tag.
    """
    tags = as_texts("tags", tags)
    found: list[Chunk] = []
    kind, start = None, 0
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        if not (tag == "O" or (prefix in ("B", "I") and name)):
            raise wrong(f"tag {i}", "O, B-kind or I-kind", tag)
        if prefix == "I" and name == kind:
            continue
        if kind is not None:
            found.append(Chunk(kind, start, i))
        kind, start = name or None, i
    return found


def chunk_f1(predictions: Sequence[Sequence[str]], labels: Sequence[Sequence[str]]) -> Scores:
    """Precision, recall and F1 over all sentences; a chunk is right if kind, start and end are."""
    by_kind = _by_kind(predictions, labels).values()
    return scores(*(sum(numbers) for numbers in zip((0, 0, 0), *by_kind)))


def chunk_f1_by_kind(
    predictions: Sequence[Sequence[str]], labels: Sequence[Sequence[str]]
) -> dict[str, Scores]:
    """`chunk_f1` for each kind, sorted by kind."""
    by_kind = sorted(_by_kind(predictions, labels).items())
    return {kind: scores(*numbers) for kind, numbers in by_kind}


def _by_kind(
    predictions: Sequence[Sequence[str]], labels: Sequence[Sequence[str]]
) -> dict[str, tuple[int, int, int]]:
    """kind -> (right, predicted, labelled)."""
    _one_each(predictions, labels)
    right: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    labelled: Counter[str] = Counter()
    for number, (p, t) in enumerate(zip(predictions, labels)):
        p = as_texts(f"predictions: sentence {number}", p)
        t = as_texts(f"labels: sentence {number}", t)
        if len(p) != len(t):
            raise wrong(f"predictions: sentence {number}", f"{len(t)} tags, as in labels", p)
        found, expected = chunks(p), chunks(t)
        predicted.update(chunk.kind for chunk in found)
        labelled.update(chunk.kind for chunk in expected)
        right.update(chunk.kind for chunk in set(found) & set(expected))
    return {kind: (right[kind], predicted[kind], labelled[kind]) for kind in predicted | labelled}


# ---- answers


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)  # ASCII only


def normalise_answer(text: str) -> str:
    """Lower-cased, without punctuation or articles, single spaces. Rajpurkar et al. 2016, sec. 6.1

    In that order: "the-end" becomes "theend" and keeps its "the".
    """
    check_text("text", text)
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Iterable[str]) -> float:
    """1 if the prediction is one of the answers, both normalised; else 0."""
    check_text("prediction", prediction)
    return max(float(normalise_answer(prediction) == answer) for answer in _normalised(answers))


def answer_f1(prediction: str, answers: Iterable[str]) -> float:
    """The best F1 over the answers, comparing bags of words.

    If either has no words: 1 if both have none, else 0 (Rajpurkar et al. 2018).
    """
    check_text("prediction", prediction)
    words = normalise_answer(prediction).split()
    return max(_bag_f1(words, answer.split()) for answer in _normalised(answers))


def answer_scores(predictions: Sequence[str], answers: Sequence[Iterable[str]]) -> dict[str, float]:
    """{"exact_match", "f1"}: means over questions. answers: those accepted for each, if any."""
    pairs = check_pairs(predictions, answers, "answers")
    return {
        "exact_match": sum(exact_match(*pair) for pair in pairs) / len(pairs),
        "f1": sum(answer_f1(*pair) for pair in pairs) / len(pairs),
    }


def _normalised(answers: Iterable[str]) -> list[str]:
    """The answers that contain words, normalised; [""], no answer, if there are none."""
    if isinstance(answers, str):
        raise TypeError(f"answers: expected several strings, got {shown(answers)}")
    return [a for a in map(normalise_answer, as_texts("answers", answers)) if a] or [""]


def _bag_f1(predicted: list[str], labelled: list[str]) -> float:
    if not predicted or not labelled:
        return float(predicted == labelled)
    common = (Counter(predicted) & Counter(labelled)).total()
    return scores(common, len(predicted), len(labelled)).f1


# ---- whole texts


def single_spaces(text: str) -> str:
    """The text without spaces at its ends, each run of whitespace inside as one space."""
    check_text("text", text)
    return " ".join(text.split())


def share_equal(
    predictions: Sequence[str],
    references: Sequence[str],
    *,
    normalise: Callable[[str], str] = single_spaces,
) -> float:
    """The share of predictions equal to their reference, both normalised.

    normalise: str.lower, normalise_answer (then it is SQuAD's exact match), or another function
    from text to text; upper and lower case and punctuation count unless it removes them.
    """
    check_takes("normalise", normalise, "text")
    pairs = check_pairs(predictions, as_texts("references", references), "references")
    return sum(normalise(p) == normalise(r) for p, r in pairs) / len(pairs)


def check_pairs(predictions: Sequence[str], labels: Sequence, name: str) -> list[tuple[str, Any]]:
    """(prediction, label) of each sample; ValueError unless there is one label per text."""
    _one_each(predictions, labels, name)
    return list(zip(as_texts("predictions", predictions), labels))


def _one_each(predictions: Sequence, labels: Sequence, argument: str = "labels") -> None:
    for name, value in (("predictions", predictions), (argument, labels)):
        list_like = isinstance(value, (Sequence, np.ndarray)) and getattr(value, "ndim", 1) > 0
        if not list_like or isinstance(value, (str, bytes)):
            raise wrong(name, "a list with one entry per sample", value)
    if len(predictions) != len(labels):
        raise wrong(argument, f"{len(predictions)}, one per prediction", labels)
    if not len(predictions):
        raise ValueError(f"{argument}: expected at least one, got none")
