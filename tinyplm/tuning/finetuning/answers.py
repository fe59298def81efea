"""Answers as spans of a text: questions with contexts as samples, texts of start and end logits.  Devlin et al. 2019, sec. 4.2"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ...arguments import check_number, check_whole, is_whole, listed, shown, wrong
from ...evaluation import spans
from ...models.model import Model
from ...models.model import check_model as check_is_model
from ...tokenizers.text.encoding import Encoding, Truncation
from .samples import Samples, check_encodings, check_model, checked_texts, sequence_limit

Span = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Answers(Samples):
    """Windows of contexts, each behind its question: {"start_logits", "end_logits": places of the answer's first and last token}.

    A window that has not all of the answer has the place of [CLS] for both: no answer here.

    questions  the number of the question of each window
    contexts   of each question
    answers    of each question the texts that are right, [] if it has no answer; [] if nothing is labelled
    none       the place of [CLS] in each window
    lost       how many questions have an answer that no window has all of
    longest    tokens of an answer that is predicted
    threshold  no answer is predicted where its score is above the best span's by more than this; None: always a span
    """

    PER_TOKEN: ClassVar[bool] = True

    questions: list[int] = dataclasses.field(default_factory=list)
    contexts: list[str] = dataclasses.field(default_factory=list)
    answers: list[list[str]] = dataclasses.field(default_factory=list)
    none: list[int] = dataclasses.field(default_factory=list)
    lost: int = 0
    longest: int = 30
    threshold: float | None = None

    def _targets(self, name: str, numbers: Sequence[int], mask: np.ndarray) -> np.ndarray:
        return mask.argmax(axis=1) + [self.targets[name][n] for n in numbers]  # behind what is filled up on the left

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
        return ["" if empty - score > limit else text for (score, text), empty in zip(best, nothing)]

    @property
    def measures(self) -> tuple[str, ...]:
        return "f1", "exact match"

    def score(self, outputs: dict[str, Any]) -> dict[str, float]:
        found = spans.answer_scores(self.predictions(outputs), self.answers)
        return {"f1": found["f1"], "exact match": found["exact_match"]}


def answering(model: Model, questions: Sequence[str], contexts: Sequence[str], answers: Sequence[Span | Sequence[Span] | None]
              | None = None, *, max_length: int | None = None, stride: int = 0, longest: int = 30,
              threshold: float | None = None) -> Answers:  # fmt: skip
    """Questions with contexts in which the answers stand, for a model with task "question_answering".

    answers: characters [start, end) of the context, one span a question, or several that are all right (the first is trained on);
    None or []: it has no answer.  None for all: only to predict.
    max_length: tokens of question and context; a longer context is cut into windows, `stride` tokens of each in the next one too.
    longest, threshold: see Answers.
    """
    check_is_model("model", model)
    if model.task != "question_answering":
        raise ValueError(f"the model's task is {model.task}, expected question_answering")
    questions, contexts = checked_texts("questions", questions), checked_texts("contexts", contexts)
    check_whole("stride", stride)
    check_number("threshold", threshold, or_none=True)
    answers = None if answers is None else listed("answers", answers, "a span (start, end), several or None for each question")
    if not questions or len(contexts) != len(questions) or (answers is not None and len(answers) != len(questions)):
        raise ValueError(f"expected a context and an answer for each question, got {len(questions)} questions, {len(contexts)} "
                         f"contexts, {'no' if answers is None else len(answers)} answers")  # fmt: skip
    check_whole("longest", longest, 1)
    right = None if answers is None else [_spans(a, c, f"question {i}") for i, (a, c) in enumerate(zip(answers, contexts))]
    tokenizer, facts = check_model(model, pair=True)
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
        targets = {"start_logits": [start for start, _ in ends], "end_logits": [end for _, end in ends]}
        texts = [[context[lo:hi] for lo, hi in some] for context, some in zip(contexts, right)]
        lost = sum(bool(some) for some in right) - len({n for n, span in zip(numbers, found) if span is not None})
    return Answers(windows, targets, **facts, cut=cut, questions=numbers, contexts=contexts, answers=texts, none=none,
                   lost=lost, longest=longest, threshold=threshold)  # fmt: skip


def token_span(encoding: Encoding, span: Span) -> Span | None:
    """(first, last) token of the second text that hold characters [start, end); None if they are not all in this window."""
    first, last = encoding.sequence_ranges.get(1, (0, 0))
    offsets = [(place, *encoding.offsets[place]) for place in range(first, last)]
    touched = [(place, lo, hi) for place, lo, hi in offsets if lo < span[1] and hi > span[0]]
    if not touched or touched[0][1] > span[0] or touched[-1][2] < span[1]:
        return None
    return touched[0][0], touched[-1][0]


def best_span(start: np.ndarray, end: np.ndarray, longest: int) -> tuple[int, int, float]:
    """(i, j, start_i + end_j) with the largest sum for i <= j < i + longest; of equal ones the first i, then the first j.

    start, end (T,).  Kept small: a (T, longest) table.
    """
    T = len(start)
    places = np.arange(T)[:, None] + np.arange(min(longest, T))
    sums = np.where(places < T, start[:, None] + end[np.minimum(places, T - 1)], -np.inf)
    i, ahead = np.unravel_index(sums.argmax(), sums.shape)
    return int(i), int(i + ahead), float(sums[i, ahead])


def _spans(answer: Any, context: str, where: str) -> list[Span]:
    """The spans of one question, checked, without white space at their ends."""
    found = []
    if not (answer is None or isinstance(answer, (tuple, list))):
        raise wrong(where, "None, a span (start, end) of its context, or a list of such", answer)
    for span in [] if not answer else answer if isinstance(answer[0], (tuple, list)) else [answer]:
        right = isinstance(span, (tuple, list)) and len(span) == 2 and all(map(is_whole, span))
        start, end = span if right else (0, 0)
        text = context[start:end] if 0 <= start < end <= len(context) else ""
        if not text.strip():
            raise ValueError(f"{where}: answer {shown(span)} is no span of its context: expected 0 <= start < end <= "
                             f"{len(context)} and some text between")  # fmt: skip
        start += len(text) - len(text.lstrip())
        found.append((start, start + len(text.strip())))
    return found
