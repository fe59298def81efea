"""Measure a model: the perplexity of a decoder on text, or the metrics of a tuned model on labels.

    tinyplm evaluate --model gpt2-folder --text held-out.txt --stride 64
    tinyplm evaluate --model out --text held-out.txt --baselines train.txt --out result.json
    tinyplm evaluate --model out-finetune --data test.jsonl

Texts are whole files, or several documents in one, with lines of <|endoftext|> between them.  Each
token is predicted once, from at most --context tokens before it.  --data has the records that
finetune reads; a classifier is measured by accuracy, F1 and Matthews' correlation, a tagger by the
F1 of chunks, answers by F1 and exact match.  Nothing here is random.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import mismatch
from ..backend import device as check_device
from ..data.corpus import read_documents
from ..data.packing import pack
from ..evaluation import baseline_rows, text_measures
from ..files import printable, write_json
from ..memory import keep_freed_memory
from ..models.model import Model, check_decoder
from ..training.environment import describe
from ..training.step import evaluate
from ..tuning import predict, read_records
from .finetune import TASKS, samples_of
from .folders import config_option, device_options, usable
from .models import folder_of, model_option, open_model, read_settings
from .output import counted, table
from .parser import WORKERS, Parser, whole

LONGEST = 1024  # tokens, by default
OF_TEXT = ("context", "stride", "baselines")
OF_DATA = ("length",)


def add(parser: Parser) -> None:
    option = parser.option
    parser.section("model")
    model_option(parser)
    device_options(parser)
    option("--workers", WORKERS, "Number of threads that share a batch.", whole(1))
    option("--batch", 16, "Windows, or samples, in a batch.", whole(1))
    parser.section("perplexity")
    option("--text", [], "UTF-8 text files to predict.", nargs="+", metavar="FILE", shown="none")
    text = "Tokens of a window."
    option("--context", None, text, whole(1), shown=f"the model's longest, at most {LONGEST}")
    text = (
        "Tokens from one window to the next: a smaller stride gives more context, and takes longer."
    )
    option("--stride", None, text, whole(1), shown="half the context")
    text = "UTF-8 text files to count for the baselines: uniform, unigram and trigram."
    option("--baselines", [], text, nargs="+", metavar="FILE", shown="none")
    parser.section("labels")
    text = "File of labelled records, as finetune reads them."
    option("--data", None, text, metavar="FILE", shown="none")
    text = "Longest text in tokens; the rest is cut off."
    option("--length", None, text, whole(1), shown="the model's longest")
    parser.section("result")
    text = "JSON file to write, with version, settings and all numbers; replaced if it exists."
    option("--out", None, text, metavar="FILE", shown="none")
    config_option(parser)


def run(options: argparse.Namespace) -> None:
    keep_freed_memory()
    check(options)
    if options.text:
        result = on_text(options)
    else:
        result = on_labels(options)
    if options.out is not None:
        write(Path(options.out), options, result)
        print(f"\nwritten    {options.out}")


def check(options: argparse.Namespace) -> None:
    """ValueError for options that contradict."""
    if bool(options.text) == (options.data is not None):
        raise mismatch("--text", "either --text or --data", "both" if options.text else "neither")
    others, this = (OF_DATA, "--text") if options.text else (OF_TEXT, "--data")
    for name in others:
        if name in options.given:
            raise mismatch(f"--{name}", f"none with {this}", "one")
    if options.out is not None:
        path = Path(options.out)
        if path.suffix != ".json" or path.is_dir():
            raise mismatch("--out", "a file that ends with .json", printable(options.out))
        usable(path.parent)
    check_device(options.device)


# ------------------------------------------------------------------------------------------- text


def on_text(options: argparse.Namespace) -> dict[str, Any]:
    texts = read_documents(options.text)
    training = read_documents(options.baselines) if options.baselines else []
    windows(options, read_settings(folder_of(options.model))[1].context)  # before any work
    model = open_model(options.model, options)
    check_decoder("--model", model)
    tokens = packed(model, texts)
    length, stride = windows(options, model.config.context)
    sizes = {"length": length, "stride": stride, "batch": options.batch}
    print(f"model      {model}")
    size = sum(len(text.encode()) for text in texts)
    documents = counted(len(texts), "document")
    print(f"text       {documents}, {size:,} bytes, {len(tokens) - 1:,} tokens")
    total, count = evaluate(model, tokens, **sizes, workers=options.workers)
    found = {}
    if training:
        vocabulary = model.text_tokenizer().vocab_size
        for row in baseline_rows(packed(model, training), tokens, vocabulary, size):
            found[row.name] = text_measures(row.nll * count, count, texts)
    found["model"] = text_measures(total, count, texts)
    least = f"{length - stride} to {length - 1}"
    print(
        f"\nEach token is predicted from the {least} tokens before it (fewer at the beginning).\n"
    )
    names = list(found["model"])
    lines = [("", *names), *((name, *map(number, row.values())) for name, row in found.items())]
    print(table(lines))
    facts = {"documents": len(texts), "bytes": size, "tokens": count}
    return {**facts, "context": length, "stride": stride, "total nll": total, "measures": found}


def number(value: float) -> str:
    return f"{value:.4f}" if value < 1000 else f"{value:.4g}"


def windows(options: argparse.Namespace, longest: int | None) -> tuple[int, int]:
    """(length, stride); ValueError if the model does not take them."""
    length = options.context or min(longest or LONGEST, LONGEST)
    if longest is not None and length > longest:
        raise mismatch("--context", f"at most {longest}, the model's", length)
    stride = options.stride or max(1, length // 2)
    if stride > length:
        raise mismatch("--stride", f"at most {length}, the context", stride)
    return length, stride


def packed(model: Model, texts: list[str]) -> np.ndarray:
    """All documents, each followed by the end token, which also precedes the first."""
    tokenizer = model.text_tokenizer()
    end = tokenizer.eos_id
    if end is None:
        expected = "a tokenizer with an end token, which separates documents"
        raise mismatch("--model", expected, "one without")
    return pack([[], *tokenizer.encode_batch(texts)], end, tokenizer.vocab_size)


# ----------------------------------------------------------------------------------------- labels


def on_labels(options: argparse.Namespace) -> dict[str, Any]:
    kinds = {task: kind for kind, task in TASKS.items()}
    task = read_settings(folder_of(options.model))[2]
    if task not in kinds:
        raise mismatch("--model", f"a model tuned by finetune, for {', '.join(kinds)}", task)
    records = read_records(options.data, kinds[task])
    model = open_model(options.model, options)
    model.text_tokenizer()
    with naming_labels(options.data):
        samples = samples_of(kinds[model.task], model, records, options)
    print(f"model      {model}")
    cut = f", {samples.cut} of them cut off" if samples.cut else ""
    print(f"samples    {len(records)}{cut}\n")
    sizes = {"batch_size": options.batch, "workers": options.workers}
    scores = samples.score(predict(model, samples, **sizes))
    print(table([("measure", "value"), *((name, number(value)) for name, value in scores.items())]))
    return {"samples": len(records), "task": model.task, "measures": scores}


@contextmanager
def naming_labels(file: str) -> Iterator[None]:
    """An error "text 3: ..." or "sentence 3: ..." names the file's record."""
    try:
        yield
    except ValueError as error:
        found = re.match(r"(?:text|sentence) (\d+)", str(error))
        if found is None:
            raise
        rest = str(error)[found.end() :]
        raise ValueError(f"{printable(file)}, record {int(found[1]) + 1}{rest}") from None


def write(path: Path, options: argparse.Namespace, result: dict[str, Any]) -> None:
    """The numbers, with what they were measured with."""
    about = ("given", "facts", "changes", "out")
    settings = {name: value for name, value in vars(options).items() if name not in about}
    path.parent.mkdir(parents=True, exist_ok=True)
    versions = {"versions": describe(options.workers, options.device)}
    write_json(path, finite({"command": "evaluate", **versions, "settings": settings, **result}))


def finite(value: Any) -> Any:
    """With None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
