"""SuperGLUE's tasks from its JSON lines (Wang et al. 2019).

boolq, cb, copa, multirc, record, sglue_rte, wic, wsc, named as in lm-evaluation-harness.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...arguments import mismatch
from ...files import json_lines
from ..spans import answer_f1, exact_match
from .measures import by_choice, macro_f1_total
from .tables import by_line, some
from .task import Sample, Task, choice_of, field, text

NO_YES, FALSE_TRUE = ("no", "yes"), (False, True)


def _boolq(where: str, record: Mapping[str, Any]) -> Sample:
    prompt = "{}\nQuestion: {}?\nAnswer:".format(*text(where, record, "passage", "question"))
    return Sample((prompt,), NO_YES, choice_of(where, record, "label", FALSE_TRUE))


def _cb(where: str, record: Mapping[str, Any]) -> Sample:
    both = text(where, record, "premise", "hypothesis")
    prompt = "{}\nQuestion: {}. True, False, or Neither?\nAnswer:".format(*both)
    label = choice_of(where, record, "label", ("entailment", "contradiction", "neutral"))
    return Sample((prompt,), ("True", "False", "Neither"), label)


def _copa(where: str, record: Mapping[str, Any]) -> Sample:
    words = ("because", "therefore")
    word = words[choice_of(where, record, "question", ("cause", "effect"))]
    premise, *choices = text(where, record, "premise", "choice1", "choice2")
    lower = tuple(f" {choice[0].lower()}{choice[1:]}" for choice in choices)
    label = choice_of(where, record, "label", (0, 1))
    return Sample((f"{premise.strip()[:-1]} {word}",), lower, label)


def _rte(where: str, record: Mapping[str, Any]) -> Sample:
    both = text(where, record, "premise", "hypothesis")
    prompt = "{}\nQuestion: {} True or False?\nAnswer:".format(*both)
    label = choice_of(where, record, "label", ("entailment", "not_entailment"))
    return Sample((prompt,), ("True", "False"), label)


def _wic(where: str, record: Mapping[str, Any]) -> Sample:
    first, second = text(where, record, "sentence1", "sentence2")
    word = first[field(where, record, "start1", int) : field(where, record, "end1", int)]
    prompt = (
        f"Sentence 1: {first}\nSentence 2: {second}\nQuestion: Is the word '{word}' used in the "
        "same way in the two sentences above?\nAnswer:"
    )
    return Sample((prompt,), NO_YES, choice_of(where, record, "label", FALSE_TRUE))


def _wsc(where: str, record: Mapping[str, Any]) -> Sample:
    names = ("text", "target.span1_text", "target.span2_text")
    passage, noun, pronoun = text(where, record, *names)
    before = " ".join(passage.split()[: field(where, record, "target.span2_index", int)])
    after = passage[len(before) + len(pronoun) + 1 :]
    passage = _joined(f"{before} *{pronoun}*{after}")
    prompt = (
        f"Passage: {passage}\nQuestion: In the passage above, does the pronoun "
        f'"*{pronoun}*" refer to "*{noun}*"?\nAnswer:'
    )
    return Sample((prompt,), NO_YES, choice_of(where, record, "label", FALSE_TRUE))


def _joined(passage: str) -> str:
    """Without the spaces around punctuation that tokenization left."""
    for old, new in ((" n't", "n't"), (" )", ")"), ("( ", "("), ('" ', '"'), (' "', '"')):
        passage = passage.replace(old, new)
    return re.sub(r" (['.,])", r"\1", passage)


def _multirc(path: str) -> list[Sample]:
    """A sample for each answer of each question."""
    samples = []
    for where, record in json_lines(path):
        (passage,) = text(where, record, "passage.text")
        for asked in field(where, record, "passage.questions", list):
            (question,) = text(where, asked, "question")
            for given in field(where, asked, "answers", list):
                (answer,) = text(where, given, "text")
                texts = (f"{answer}\nIs the answer correct? {word}" for word in ("yes", "no"))
                prompt = f"{passage}\nQuestion: {question}\nAnswer:"
                # label 1, right, is choice 1 there ("no"): kept, for equal numbers
                label = choice_of(where, given, "label", (0, 1))
                samples.append(Sample((prompt,), tuple(texts), label))
    return some(path, samples)


def _record(path: str) -> list[Sample]:
    """A sample for each query; its choices are the entities of the passage."""
    samples = []
    for where, record in json_lines(path):
        (passage,) = text(where, record, "passage.text")
        spans = field(where, record, "passage.entities", list)
        ends = [(field(where, s, "start", int), field(where, s, "end", int)) for s in spans]
        entities = sorted({passage[start : end + 1] for start, end in ends})
        if not entities or "" in entities:
            raise mismatch(where, "entities within the passage", f"{len(spans)} spans")
        first, *highlights = passage.strip().split("\n@highlight\n")
        prompt = f"{first}\n\n" + "".join(f"  - {h}.\n" for h in highlights)
        for asked in field(where, record, "qas", list):
            (query,) = text(where, asked, "query")
            given = field(where, asked, "answers", list)
            answers = sorted({text(where, answer, "text")[0] for answer in given})
            if not set(answers) & set(entities):
                raise mismatch(where, "an answer that is an entity", "none")
            texts = tuple(f"  - {query}".replace("@placeholder", e) for e in entities)
            gold = next(n for n, entity in enumerate(entities) if entity in answers)
            facts = {"entities": entities}
            samples.append(Sample((prompt,), texts, gold, tuple(answers), facts))
    return some(path, samples)


def _record_measure(sample: Sample, answer: Any) -> Mapping[str, Any]:
    chosen = sample.facts["entities"][int(np.argmax([one.log_prob for one in answer[0]]))]
    return {"f1": answer_f1(chosen, sample.answers), "em": exact_match(chosen, sample.answers)}


def _task(name: str, read: Callable, version: float, *more: str) -> Task:
    totals = {name: macro_f1_total for name in more}
    return Task(name, "multiple_choice", read, by_choice(*more), totals, version)


TASKS = (
    _task("boolq", by_line(_boolq), 2.0),
    _task("cb", by_line(_cb), 1.0, "f1"),
    _task("copa", by_line(_copa), 1.0),
    _task("multirc", _multirc, 2.0),
    Task("record", "multiple_choice", _record, _record_measure, version=2.0),
    _task("sglue_rte", by_line(_rte), 0.0),
    _task("wic", by_line(_wic), 1.0),
    _task("wsc", by_line(_wsc), 1.0),
)
