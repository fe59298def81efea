"""A user's own models and data, tiny, for the commands of tuning."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tinyplm
from tests.support import tuning
from tinyplm.tokenizers import Tokenizer

WORDS = "apple river cloud stone bread horse paper glass".split()
INSTRUCTIONS = [{"instruction": f"Say {word}.", "output": word.upper()} for word in WORDS]
PAIRS = [{"prompt": f"Say {word}.", "chosen": word.upper(), "rejected": word} for word in WORDS]
JUDGED = [{"prompt": f"Say {word}.", "answer": word, "label": n % 2 == 0} for n, word in enumerate(WORDS)]
PROMPTS = [{"prompt": f"Say {word}.", "answer": word.upper()} for word in WORDS]
LABELLED = [{"text": text, "label": kind} for text, kind in zip(tuning.TEXTS, tuning.KINDS)]
QUICK = ("--steps", "4", "--batch", "3", "--lr", "0.01", "--warmup", "1", "--tokens", "3", "--samples", "2")
ROUNDS = (*QUICK, "--save-every", "1")


def decoder(folder: Path, *, end: str | None = "<|endoftext|>", seed: int = 0, **changes: Any) -> Path:
    """A GPT-2 with a byte-level tokenizer."""
    text = " ".join(str(record) for record in (*INSTRUCTIONS, *PAIRS))
    tokenizer = Tokenizer.train([text], 300, (end,) if end else ())
    sizes = {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 64, "vocab_size": tokenizer.vocab_size}
    model = tinyplm.create("gpt2", key=seed, dtype="float32", **{**sizes, **changes})
    model.tokenizer = tokenizer
    tinyplm.save(model, folder)
    return folder


def encoder(folder: Path) -> Path:
    tinyplm.save(tuning.model("masked_lm", ("none",), dtype="float32"), folder)
    return folder


def lines(file: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def logged(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def row(printed: str, name: str) -> list[float]:
    """(before, after) of a row of the table of held-out values."""
    (found,) = [line for line in printed.splitlines() if line.startswith(f"{name}  ")]
    return [float(value) for value in found[len(name) :].split()]


def result(out: Path) -> dict[str, bytes]:
    """What a run ends with, without the plot."""
    folder = out / ("final" if (out / "final").exists() else "best")
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
