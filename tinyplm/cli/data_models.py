"""`tinyplm data train-language` and `train-quality`: the models that two steps of a corpus need."""

from __future__ import annotations

import argparse

from ..arguments import mismatch
from ..data.model_training import train_language_files, train_quality_files
from .output import table

ACTIONS = ("train-language", "train-quality")


def train(options: argparse.Namespace) -> int:
    """Trains the model, writes it to --out, and shows how well it does on held-out texts."""
    action, *more = options.action
    if more:
        raise mismatch("data", action, " ".join(options.action))
    if options.out is None:
        raise mismatch("--out", "the model's file", "none")
    if action == "train-language":
        files = samples(options.samples)
        figures = train_language_files(files, options.out, field=options.field)
        rows = [
            (code, f"{row['samples']:,}", *held_out(row))
            for code, row in figures["languages"].items()
        ]
        print(table([("language", "samples", "held out", "right"), *rows]))
    else:
        for name in ("good", "bad"):
            if not getattr(options, name):
                raise mismatch(f"--{name}", "files of texts", "none")
        both = train_quality_files(options.good, options.bad, options.out, field=options.field)
        rows = [(name, f"{row['texts']:,}", *held_out(row)) for name, row in both.items()]
        print(table([("texts", "number", "held out", "right"), *rows]))
    name = action.removeprefix("train-")
    print(f'\nmodel      {options.out}   (in a [[step]]: name = "{name}", model = that file)')
    return 0


def samples(given: list[str]) -> dict[str, list[str]]:
    """{language: files} of CODE=FILE."""
    found: dict[str, list[str]] = {}
    for text in given:
        code, equals, path = text.partition("=")
        if not (code and equals and path):
            raise mismatch("--samples", "CODE=FILE", text)
        found.setdefault(code, []).append(path)
    if not found:
        raise mismatch("--samples", "CODE=FILE for each language", "none")
    return found


def held_out(row: dict) -> tuple[str, str]:
    share = row["accuracy"]
    return f"{row['held_out']:,}", "-" if share is None else f"{share:.1%}"
