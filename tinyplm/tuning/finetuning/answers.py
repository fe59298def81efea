"""Extractive question answering: answers as spans of a context.    Devlin et al. 2019, sec. 4.2

The model gives each token a start and an end logit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ...arguments import (
    check_number,
    check_whole,
    is_whole,
    known_arguments,
    listed,
    mismatch,
    wrong,
)
from ...evaluation import spans
from ...models.model import Model, check_model
from ...tokenizers.text.encoding import Encoding, Truncation
from .samples import (
    Indices,
    Samples,
    check_encodings,
    check_task,
    checked_texts,
    encoding_setup,
    sequence_limit,
)

Span = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Answers(Samples):
    """Windows of contexts, each after its question.

    targets: {"start_logits", "end_logits"}, the positions of the answer's first and last token;
    both are the position of [CLS] in a window that does not contain the whole answer.

    questions  the number of each window's question
    contexts   the context of each question
    answers    the correct texts for each question, [] if it has no answer; [] without labels
    none       the position of [CLS] in each window
    lost       how many questions have an answer that no window contains whole
    longest    tokens of a predicted answer at most
    threshold  predict no answer if its score exceeds the best span's by more; None: always a span
    """

    PER_TOKEN: ClassVar[bool] = True

    questions: list[int] = dataclasses.field(default_factory=list)
    contexts: list[str] = dataclasses.field(default_factory=list)
    answers: list[list[str]] = dataclasses.field(default_factory=list)
    none: list[int] = dataclasses.field(default_factory=list)
    lost: int = 0
    longest: int = 30
    threshold: float | None = None

    def _targets(self, name: str, numbers: Indices, mask: np.ndarray) -> np.ndarray:
        # offset by padding on the left
        return mask.argmax(axis=1) + [self.targets[name][n] for n in numbers]

    def predictions(self, outputs: dict[str, Any]) -> list[str]:
        """The answer to each question: the best span of all its windows, or "" for none."""
        best: list[tuple[float, str]] = [(-np.inf, "")] * len(self.contexts)
        nothing = np.full(len(self.contexts), np.inf)
        for n, (question, encoding) in enumerate(zip(self.questions, self.encodings)):
            start, end = outputs["start_logits"][n], outputs["end_logits"][n]
            nothing[question] = min(nothing[question], start[self.none[n]] + end[self.none[n]])
            first, last = encoding.sequence_ranges.get(1, (0, 0))
            if first == last:
                continue
            i, j, score = best_span(start[first:last], end[first:last], self.longest)
            if score > best[question][0]:
                (lo, _), (_, hi) = encoding.offsets[first + i], encoding.offsets[first + j]
                best[question] = score, self.contexts[question][lo:hi].strip()
        limit = np.inf if self.threshold is None else self.threshold
        pairs = zip(best, nothing)
        return ["" if empty - score > limit else text for (score, text), empty in pairs]

    @property
    def measures(self) -> tuple[str, ...]:
        return "f1", "exact match"

    def score(self, outputs: dict[str, Any]) -> dict[str, float]:
        found = spans.answer_scores(self.predictions(outputs), self.answers)
        return {"f1": found["f1"], "exact match": found["exact_match"]}


@known_arguments
def answering(
    model: Model,
    questions: Sequence[str],
    contexts: Sequence[str],
    answers: Sequence[Span | Sequence[Span] | None] | None = None,
    *,
    max_length: int | None = None,
    stride: int = 0,
    longest: int = 30,
    threshold: float | None = None,
) -> Answers:
    """Questions about contexts, for a model with task "question_answering".

    answers: for each question a span of characters [start, end) of the context, or several correct
    ones (the first is trained on), or None or [] if it has no answer.  None for all: for prediction
    only. max_length: tokens of question and context; a longer context is split into windows
    overlapping by `stride` tokens.  longest, threshold: see Answers.
    """
    check_model("model", model)
    check_task(model, "question_answering")
    questions, contexts = checked_texts("questions", questions), checked_texts("contexts", contexts)
    check_whole("stride", stride)
    check_number("threshold", threshold, or_none=True)
    if answers is not None:
        expected = "a span (start, end), several or None for each question"
        answers = listed("answers", answers, expected)
    counts = {len(questions), len(contexts), len(questions if answers is None else answers)}
    if not questions or len(counts) > 1:
        given = f"{len(contexts)} contexts, {'no' if answers is None else len(answers)} answers"
        raise mismatch("contexts and answers", f"one for each of {len(questions)} questions", given)
    check_whole("longest", longest, 1)
    right = None
    if answers is not None:
        pairs = enumerate(zip(answers, contexts))
        right = [_spans(answer, context, f"question {i}") for i, (answer, context) in pairs]
    tokenizer, facts = encoding_setup(model, pair=True)
    limit = sequence_limit(model, max_length)
    windows: list[Encoding] = []
    numbers, cut = [], 0
    for i, (question, context) in enumerate(zip(questions, contexts)):
        truncation = None if limit is None else Truncation(limit, "OnlySecond", stride)
        try:
            whole = tokenizer.encoding(question, context, truncation=truncation)
        except ValueError as error:
            raise ValueError(f"question {i}: {error}") from None
        some = [dataclasses.replace(whole, overflowing=[]), *whole.overflowing]
        cut += len(some) > 1
        windows += some
        numbers += [i] * len(some)
    check_encodings(model, windows)
    cls = tokenizer.named_id("cls_token")
    none = [w.ids.index(cls) if cls in w.ids else w.special_tokens_mask.index(1) for w in windows]
    targets, texts, lost = {}, [], 0
    if right is not None:
        found = [token_span(w, right[n][0]) if right[n] else None for w, n in zip(windows, numbers)]
        ends = [(empty, empty) if span is None else span for span, empty in zip(found, none)]
        starts, stops = zip(*ends)
        targets = {"start_logits": list(starts), "end_logits": list(stops)}
        texts = [[context[lo:hi] for lo, hi in some] for context, some in zip(contexts, right)]
        whole_ones = {n for n, span in zip(numbers, found) if span is not None}
        lost = sum(bool(some) for some in right) - len(whole_ones)
    return Answers(
        windows,
        targets,
        **facts,
        cut=cut,
        questions=numbers,
        contexts=contexts,
        answers=texts,
        none=none,
        lost=lost,
        longest=longest,
        threshold=threshold,
    )


def token_span(encoding: Encoding, span: Span) -> Span | None:
    """(first, last) context token covering characters [start, end); None if not in this window."""
    first, last = encoding.sequence_ranges.get(1, (0, 0))
    offsets = [(place, *encoding.offsets[place]) for place in range(first, last)]
    touched = [(place, lo, hi) for place, lo, hi in offsets if lo < span[1] and hi > span[0]]
    if not touched or touched[0][1] > span[0] or touched[-1][2] < span[1]:
        return None
    return touched[0][0], touched[-1][0]


def best_span(start: np.ndarray, end: np.ndarray, longest: int) -> tuple[int, int, float]:
    """(i, j, start_i + end_j) with the largest sum for i <= j < i + longest; ties go to the first.

    start, end (T,).  Computed from a (T, longest) table.
    """
    T = len(start)
    places = np.arange(T)[:, None] + np.arange(min(longest, T))
    sums = np.where(places < T, start[:, None] + end[np.minimum(places, T - 1)], -np.inf)
    i, ahead = np.unravel_index(sums.argmax(), sums.shape)
    return int(i), int(i + ahead), float(sums[i, ahead])


def _spans(answer: Any, context: str, where: str) -> list[Span]:
    """The spans of one question, checked and stripped of white space."""
    found = []
    if not (answer is None or isinstance(answer, (tuple, list))):
        raise wrong(where, "None, a span (start, end) of its context, or a list of such", answer)
    for span in [] if not answer else answer if isinstance(answer[0], (tuple, list)) else [answer]:
        right = isinstance(span, (tuple, list)) and len(span) == 2 and all(map(is_whole, span))
        start, end = span if right else (0, 0)
        text = context[start:end] if 0 <= start < end <= len(context) else ""
        if not text.strip():
            raise wrong(
                where, f"an answer with 0 <= start < end <= {len(context)} and text between", span
            )
        start += len(text) - len(text.lstrip())
        found.append((start, start + len(text.strip())))
    return found
