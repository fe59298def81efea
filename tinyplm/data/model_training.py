"""Trains the models of languages and of quality from files, and measures them on held-out texts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..arguments import (
    check_key,
    check_number,
    check_path,
    check_text,
    known_arguments,
    mismatch,
    wrong,
)
from ..files import printable
from ..random import fold, generator, key
from .language.model import train_language
from .language.scripts import code_points, main_script
from .pipeline.readers import read
from .pipeline.sources import files_of, shards_of
from .quality.model import train_quality

Paths = str | os.PathLike | Sequence[str | os.PathLike]


def example_texts(paths: Paths, field: str = "text") -> Iterator[str]:
    """The texts of files, folders or patterns, in the formats that the pipeline reads.

    Broken documents are left out.   ValueError for a file without any other, which says why.
    """
    for path in files_of(paths):
        count, first = 0, None
        for part in (part for shard in shards_of([path])[1] for part in shard):
            for name, document, reasons in read(part, field=field):
                if document is not None and document.text.strip():
                    count += 1
                    yield document.text
                elif first is None:
                    first = f"{name}: {', '.join(reasons) or 'an empty text'}"
        if not count:
            raise mismatch(printable(path), "texts", first or "none")


@known_arguments
def train_language_files(
    files: Mapping[str, Paths],
    out: str | os.PathLike,
    *,
    field: str = "text",
    held_out: float = 0.1,
    seed: int = 0,
    **settings: Any,
) -> dict[str, Any]:
    """Trains `train_language` on {language: files}, saves it as `out`, and returns its figures.

    Every line with letters is a sample.   held_out: the share of samples to measure with, drawn by
    the seed, at least one of each language (0: none).   settings: of train_language.
    -> {"languages": {code: {"samples", "held_out", "accuracy"}}, "accuracy"}: shares, or None.
    """
    _check(out, field, held_out, seed)
    if not isinstance(files, Mapping) or not files:
        raise wrong("files", "a table {language: files}", files)
    samples = {}
    for code, paths in files.items():
        texts = example_texts(paths, field)
        lines = (line for text in texts for line in text.split("\n"))
        samples[code] = [line for line in lines if main_script(code_points(line))]
    parts = {
        code: _split(some, held_out, fold(key(seed), n))
        for n, (code, some) in enumerate(samples.items())
    }
    model = train_language({code: train for code, (train, _) in parts.items()}, **settings)
    found, all_right, total = {}, 0, 0
    for code, (train, test) in parts.items():
        right = sum(model.guess(text).language == code for text in test)
        found[code] = {
            "samples": len(train),
            "held_out": len(test),
            "accuracy": _share(right, len(test)),
        }
        all_right, total = all_right + right, total + len(test)
    model.save(out)
    return {"languages": found, "accuracy": _share(all_right, total)}


@known_arguments
def train_quality_files(
    good: Paths,
    bad: Paths,
    out: str | os.PathLike,
    *,
    field: str = "text",
    held_out: float = 0.1,
    seed: int = 0,
    **settings: Any,
) -> dict[str, Any]:
    """Trains `train_quality` on files of good and bad texts, saves it as `out`, and returns its
    figures.

    held_out, seed: as in train_language_files; the seed is also the training's.   settings: of
    train_quality.   -> {"good": {"texts", "held_out", "accuracy"}, "bad": the same}: how many of
    the held-out texts have a score above, or not above, 1/2.
    """
    _check(out, field, held_out, seed)
    parts = {}
    for n, (name, paths) in enumerate({"good": good, "bad": bad}.items()):
        parts[name] = _split(list(example_texts(paths, field)), held_out, fold(key(seed), n))
    model = train_quality(parts["good"][0], parts["bad"][0], seed=seed, **settings)
    found = {}
    for name, (train, test) in parts.items():
        right = sum((model.score(text) > 0.5) == (name == "good") for text in test)
        found[name] = {
            "texts": len(train),
            "held_out": len(test),
            "accuracy": _share(right, len(test)),
        }
    model.save(out)
    return found


def _check(out: Any, field: Any, held_out: Any, seed: Any) -> None:
    check_path("out", out)
    if not os.path.isdir(os.path.dirname(os.fspath(out)) or "."):
        raise mismatch("out", "a file in a folder that exists", printable(out))
    check_text("field", field, empty=False)
    check_number("held_out", held_out, least=0, most=0.9)
    check_key("seed", seed)


def _split(texts: list[str], share: float, key: int) -> tuple[list[str], list[str]]:
    """(training, held out), both in order; at least one for training."""
    count = min(len(texts) - 1, max(1, round(share * len(texts)))) if share else 0
    chosen = set(generator(key).permutation(len(texts))[: max(0, count)].tolist())
    return (
        [text for i, text in enumerate(texts) if i not in chosen],
        [text for i, text in enumerate(texts) if i in chosen],
    )


def _share(right: int, total: int) -> float | None:
    return right / total if total else None
