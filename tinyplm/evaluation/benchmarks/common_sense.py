"""HellaSwag, PIQA, ARC and WinoGrande from their JSON lines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...arguments import mismatch, shown
from ...files import json_lines, printable, text_lines
from .measures import by_choice
from .tables import by_line, some
from .task import Sample, Task, among, choice_of, field, several, text


def _hellaswag(where: str, record: Mapping[str, Any]) -> Sample:
    """activity_label, ctx_a, ctx_b, endings, label.                         Zellers et al. 2019"""
    activity, first = text(where, record, "activity_label", "ctx_a")
    second = field(where, record, "ctx_b", str)  # may be empty
    endings = [_wikihow(ending) for ending in several(where, record, "endings", 2)]
    if not all(endings):
        raise mismatch(where, "endings with words outside brackets", "one without")
    label = field(where, record, "label")
    if not re.fullmatch(r"\d{1,3}", str(label)) or isinstance(label, bool):
        raise mismatch(where, "label to be the number of an ending", shown(label, 40))
    query = _wikihow(f"{activity}: {first} {second.capitalize()}")
    return Sample((query,), tuple(endings), among(where, int(label), endings))


def _wikihow(part: str) -> str:
    """Without the marks of WikiHow's headings: "[title]" ends a sentence, other brackets go."""
    part = part.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", part).replace("  ", " ")


def _piqa(path: str) -> list[Sample]:
    """goal, sol1, sol2, and label, or the labels beside: valid.jsonl, valid-labels.lst.

    Bisk et al. 2020
    """
    beside = Path(path).with_name(f"{Path(path).stem}-labels.lst")
    labels = [line.strip() for _, line in text_lines(beside)] if beside.exists() else None
    samples = []
    for number, (where, record) in enumerate(json_lines(path)):
        if labels is not None and "label" not in record:
            if number >= len(labels):
                raise mismatch(printable(beside), "a label for each sample", len(labels))
            record = {**record, "label": {"0": 0, "1": 1}.get(labels[number], labels[number])}
        goal, *solutions = text(where, record, "goal", "sol1", "sol2")
        label = choice_of(where, record, "label", (0, 1))
        samples.append(Sample((f"Question: {goal}\nAnswer:",), tuple(solutions), label))
    if labels is not None and len(labels) != len(samples):
        raise mismatch(printable(beside), f"{len(samples)} labels, one per sample", len(labels))
    return some(path, samples)


def _arc(where: str, record: Mapping[str, Any]) -> Sample:
    """question (stem, choices of text and label) and answerKey, as AI2 published; or, as the hub
    has it, question, choices (text, label) and answerKey.                   Clark et al. 2018"""
    if isinstance(record.get("question"), Mapping):
        (question,) = text(where, record, "question.stem")
        given = field(where, record, "question.choices", list)
        choices = [text(where, choice, "text")[0] for choice in given]
        labels = [text(where, choice, "label")[0] for choice in given]
    else:
        (question,) = text(where, record, "question")
        choices, labels = (several(where, record, f"choices.{n}") for n in ("text", "label"))
    if len(labels) != len(choices) or len(choices) < 2:
        raise mismatch(where, "two choices or more, each with a label", f"{len(choices)}")
    gold = choice_of(where, record, "answerKey", labels)
    return Sample((f"Question: {question}\nAnswer:",), tuple(choices), gold)


def _winogrande(where: str, record: Mapping[str, Any]) -> Sample:
    """sentence with a blank "_", option1, option2, answer "1" or "2".   Sakaguchi et al. 2020

    What follows the blank is predicted after each option.
    """
    sentence, *options = text(where, record, "sentence", "option1", "option2")
    before, blank, after = sentence.partition("_")
    if not blank or not after.strip():
        raise mismatch(where, "sentence with _ and text after it", shown(sentence, 40))
    gold = choice_of(where, record, "answer", ("1", "2"))
    return Sample(tuple(before + option for option in options), (after.strip(),), gold)


TASKS = (
    Task("hellaswag", "multiple_choice", by_line(_hellaswag), by_choice()),
    Task("piqa", "multiple_choice", _piqa, by_choice()),
    Task("arc_easy", "multiple_choice", by_line(_arc), by_choice()),
    Task("arc_challenge", "multiple_choice", by_line(_arc), by_choice()),
    Task("winogrande", "multiple_choice", by_line(_winogrande), by_choice()),
)
