"""Fine-tune a model on labels: classes of texts or pairs, tags of words, answers in a context.

    tinyplm finetune --model bert-folder --data reviews.csv --out out-classes
    tinyplm finetune --model bert-folder --data names.conll --out out-tags
    tinyplm finetune --model bert-folder --data questions.jsonl --out out-answers
    tinyplm evaluate --model out-classes --data more.csv

A record is {"text": ..., "label": ...} (with "pair" for pairs), {"tokens": [...], "tags": [...]} or
{"question": ..., "context": ..., "answers": ...}.  A label is a name, a list of names, or a number
with a decimal point for regression.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import mismatch, shown
from ..tuning import TuningSettings, answering, classification, finetune, predict, tagging
from ..tuning.finetuning.samples import label_names
from .folders import FREE, check_ready, recorded, run_folder, run_options, stopped
from .models import open_model
from .output import show_files
from .parser import POSITIVE, Parser, number, whole
from .reports import before_and_after, count_parts, curves, shorter
from .tuning import Data, Record, data_options, read_data, settings_of

COMMAND = "finetune"
# {kind of records: the task}
TASKS = {
    "classification": "sequence_classification",
    "tagging": "token_classification",
    "answering": "question_answering",
}


def add(parser: Parser) -> None:
    data_options(parser, "labelled texts", template=False)
    parser.section("training")
    option = parser.option
    option("--epochs", 3, "Passes over the data.", whole(1))
    option("--batch", 16, "Samples per step.", whole(1))
    option("--lr", 5e-5, "Peak learning rate.", POSITIVE)
    option("--decay", 0.01, "Weight decay.", number(least=0.0))
    text = "Layers that are trained, counted from the top; 0: only the head."
    option("--trained-layers", None, text, whole(), shown="all parameters")
    text = "Longest text in tokens; the rest is cut off."
    option("--length", None, text, whole(1), shown="the model's longest")
    text = "Stop after N epochs without improvement."
    option("--patience", None, text, whole(1), shown="never", free=FREE)
    text = "Save memory by keeping only every N-th layer's input; 0 keeps all."
    option("--checkpointing", 0, text, whole(), free=FREE)
    text = "Number of held-out samples that are shown with what the model says."
    option("--samples", 5, text, whole(), free=FREE)
    run_options(parser, "out-finetune")


def run(options: argparse.Namespace) -> int:
    settings = settings_of(TuningSettings, options)
    data = read_data(options, tuple(TASKS))
    labels = labels_of(data)
    check_ready(options)
    task = TASKS[data.kind]
    model = open_model(options.model, options, task=task, labels=labels, key=options.seed)
    print(f"model      {model}")
    training, held_out = data.each(lambda part: samples_of(data.kind, model, part, options))
    count_parts("samples", data.training, data.held_out)
    before = held_out.score(predict(model, held_out, workers=options.workers))
    with run_folder(COMMAND, options) as out:
        places = recorded(options, out)
        result = finetune(model, training, held_out, settings, **places)
        if result.signal is not None:
            return stopped(COMMAND, options, result.signal)
        after = held_out.score(predict(model, held_out, workers=options.workers))
        print(f"\n{before_and_after(before, after)}")
        print(f"\nthe best of {len(result.history)} epochs is number {result.best_epoch}")
        show(data, model, options)
        curves(Path(out), ("loss", ("loss", "validation_loss")))
        show_files(Path(out) / "best", Path(out))
    return 0


def labels_of(data: Data) -> list[str] | None:
    """The names of the classes or tags, sorted; None for answers; one for regression."""
    if data.kind == "answering":
        return None
    field = "label" if data.kind == "classification" else "tags"
    given = [record[field] for record in (*data.training, *data.held_out)]
    if len({isinstance(value, list) for value in given}) > 1:
        raise mismatch("--data", f"one {field} in each record, or a list in each", "both")
    values = [v for value in given for v in (value if isinstance(value, list) else [value])]
    kinds = {type(value) for value in values}
    if kinds <= {float, int} and float in kinds:
        return ["value"]
    if len(kinds) > 1:
        raise mismatch("--data", f"names or numbers as {field}", "both")
    found = sorted(set(values))
    if data.kind == "classification" and len(found) < 2:
        raise mismatch("--data", "two or more different labels", shown(found))
    return [str(value) for value in found]


def samples_of(kind: str, model: Any, part: Sequence[Record], options: argparse.Namespace) -> Any:
    """The samples of the task."""
    length = {} if options.length is None else {"max_length": options.length}
    if kind == "tagging":
        tags = [[str(tag) for tag in r["tags"]] for r in part]
        return tagging(model, [r["tokens"] for r in part], tags, **length)
    if kind == "answering":
        spans = [[tuple(span) for span in r["spans"]] for r in part]
        questions, contexts = ([r[name] for r in part] for name in ("question", "context"))
        return answering(model, questions, contexts, spans, **length)
    pairs = None
    if any("pair" in r for r in part):
        if not all("pair" in r for r in part):
            raise mismatch("--data", "a pair in each record, or in none", "both")
        pairs = [r["pair"] for r in part]
    return classification(
        model, [r["text"] for r in part], labels(model, part), pairs=pairs, **length
    )


def labels(model: Any, part: Sequence[Record]) -> list[Any]:
    """The labels as the model's config names them."""
    if len(model.config.id2label) == 1:
        return [float(r["label"]) for r in part]
    values = [r["label"] for r in part]
    return [[str(v) for v in value] if isinstance(value, list) else str(value) for value in values]


def show(data: Data, model: Any, options: argparse.Namespace) -> None:
    """Different held-out samples, what is right, and what the model says."""
    distinct = {(text_of(record), str(wanted(record))): record for record in data.held_out}
    some = list(distinct.values())[: options.samples]
    print()
    if not some:
        return
    samples = samples_of(data.kind, model, some, options)
    said = samples.predictions(predict(model, samples, workers=options.workers))
    for record, answer in zip(some, said):
        print(f"text     {shorter(text_of(record))}\nwanted   {shorter(wanted(record))}")
        print(f"model    {shorter(in_words(data.kind, model, answer)) or '(nothing)'}\n")


def text_of(record: Record) -> str:
    if "tokens" in record:
        return " ".join(record["tokens"])
    if "question" in record:
        return record["question"]
    return " | ".join(record[name] for name in ("text", "pair") if name in record)


def wanted(record: Record) -> str:
    """What is right, in words."""
    if "answers" in record:
        return " or ".join(record["answers"]) or "(nothing)"
    right = record.get("tags", record.get("label"))
    return " ".join(map(str, right)) if isinstance(right, list) else str(right)


def in_words(kind: str, model: Any, answer: Any) -> str:
    """A prediction with the names of its classes."""
    if kind == "answering":
        return str(answer)
    names = label_names(model.config)
    if kind == "tagging":
        return " ".join(names[tag] for tag in answer)
    if np.ndim(answer):
        return " ".join(name for name, said in zip(names, answer) if said)
    return f"{answer:.4g}" if isinstance(answer, np.floating) else names[int(answer)]
