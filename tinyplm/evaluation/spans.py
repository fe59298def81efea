"""How well spans of text are found: chunks of tagged words, and answers to questions.  Shares are from 0 to 1."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..arguments import as_texts, check_text, shown, wrong
from .metrics import Scores, scores

# ---- tagging


class Chunk(NamedTuple):
    """Words start .. end - 1."""

    kind: str
    start: int
    end: int


def chunks(tags: Sequence[str]) -> list[Chunk]:
    """The chunks that tags O, B-kind, I-kind spell, in order.                              Tjong Kim Sang & De Meulder 2003

    A chunk goes on as long as I-kind follows; anything else ends it.  An I that goes on nothing (after O, at the start, or after
    another kind) begins a chunk, as in the shared tasks' own scorer: so IOB1, where B stands only between neighbours of one
    kind, is read as well as IOB2 (BIO).  ValueError on any other tag.
    """
    tags = as_texts("tags", tags)
    found: list[Chunk] = []
    kind, start = None, 0
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        if not (tag == "O" or (prefix in ("B", "I") and name)):
            raise ValueError(f"tag {i} is {tag!r}, expected O, B-kind or I-kind")
        if prefix == "I" and name == kind:
            continue
        if kind is not None:
            found.append(Chunk(kind, start, i))
        kind, start = name or None, i
    return found


def chunk_f1(predictions: Sequence[Sequence[str]], labels: Sequence[Sequence[str]]) -> Scores:
    """Precision, recall and F1 of whole chunks, counted over all sentences: a chunk is right if kind, start and end are."""
    return scores(
        *(sum(numbers) for numbers in zip((0, 0, 0), *_by_kind(predictions, labels).values()))
    )


def chunk_f1_by_kind(
    predictions: Sequence[Sequence[str]], labels: Sequence[Sequence[str]]
) -> dict[str, Scores]:
    """`chunk_f1` of each kind by itself, sorted by kind."""
    return {
        kind: scores(*numbers) for kind, numbers in sorted(_by_kind(predictions, labels).items())
    }


def _by_kind(
    predictions: Sequence[Sequence[str]], labels: Sequence[Sequence[str]]
) -> dict[str, tuple[int, int, int]]:
    """kind -> (right, predicted, labelled)."""
    _one_each(predictions, labels)
    right, predicted, labelled = Counter(), Counter(), Counter()
    for number, (p, t) in enumerate(zip(predictions, labels)):
        p, t = (
            as_texts(f"predictions: sentence {number}", p),
            as_texts(f"labels: sentence {number}", t),
        )
        if len(p) != len(t):
            raise ValueError(
                f"sentence {number}: expected as many predicted tags as labels, got {p!r:.60} and {t!r:.60}"
            )
        p, t = chunks(p), chunks(t)
        predicted.update(chunk.kind for chunk in p)
        labelled.update(chunk.kind for chunk in t)
        right.update(chunk.kind for chunk in set(p) & set(t))
    return {kind: (right[kind], predicted[kind], labelled[kind]) for kind in predicted | labelled}


# ---- answers


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)  # ASCII's alone


def normalise_answer(text: str) -> str:
    """Lower case, without punctuation, without the words a, an and the, one space between words.  Rajpurkar et al. 2016, sec. 6.1

    In this order: "the-end" is first "theend" and keeps its "the".
    """
    check_text("text", text)
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Iterable[str]) -> float:
    """1 if the prediction is one of the answers, both normalised, else 0."""
    check_text("prediction", prediction)
    return max(float(normalise_answer(prediction) == answer) for answer in _normalised(answers))


def answer_f1(prediction: str, answers: Iterable[str]) -> float:
    """The best F1 over the answers, of the words of the prediction as a bag: how many it shares with the answer's.

    Where either has no words, 1 if both have none, else 0 (Rajpurkar et al. 2018).
    """
    check_text("prediction", prediction)
    return max(
        _bag_f1(normalise_answer(prediction).split(), answer.split())
        for answer in _normalised(answers)
    )


def answer_scores(predictions: Sequence[str], answers: Sequence[Iterable[str]]) -> dict[str, float]:
    """{"exact_match", "f1"}: means over the questions; answers has a list of right ones for each, empty: there is none."""
    _one_each(predictions, answers)
    predictions = as_texts("predictions", predictions)
    pairs = list(zip(predictions, answers))
    return {
        "exact_match": sum(exact_match(*pair) for pair in pairs) / len(pairs),
        "f1": sum(answer_f1(*pair) for pair in pairs) / len(pairs),
    }


def _normalised(answers: Iterable[str]) -> list[str]:
    """Those that hold a word; [""] if none does: the question has no answer, and to give none is right."""
    if isinstance(answers, str):
        raise TypeError("answers must be several strings, got a single str")
    return [answer for answer in map(normalise_answer, as_texts("answers", answers)) if answer] or [
        ""
    ]


def _bag_f1(predicted: list[str], labelled: list[str]) -> float:
    if not predicted or not labelled:
        return float(predicted == labelled)
    return scores(
        (Counter(predicted) & Counter(labelled)).total(), len(predicted), len(labelled)
    ).f1


def _one_each(predictions: Sequence, labels: Sequence) -> None:
    for name, value in (("predictions", predictions), ("labels", labels)):
        if (
            isinstance(value, (str, bytes, dict))
            or not isinstance(value, (Sequence, np.ndarray))
            or getattr(value, "ndim", 1) == 0
        ):
            raise wrong(name, "a list with one entry for each sample", value)
    if len(predictions) != len(labels):
        raise ValueError(
            f"expected one label for each prediction, got {shown(predictions)} and {shown(labels)}"
        )
    if not len(predictions):
        raise ValueError("there are no samples to measure anything on")
