"""The text of a run: documents, split, as arrays of tokens in its folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..arguments import mismatch
from ..data.corpus import deduplicate, default_corpus, read_texts, split_documents
from ..data.packing import pack, write_tokens
from ..tokenizers import Tokenizer
from .output import counted
from .parser import SHARE, Parser

PARTS = ("train", "validation")


def corpus_options(parser: Parser) -> None:
    """--text and --validation."""
    text = "Text to train on: UTF-8 text files, JSON lines, or the --out of tinyplm data."
    own = "Python's own documentation"
    parser.option("--text", [], text, nargs="+", metavar="FILE", shown=own)
    text = "Share of the text held out for validation."
    parser.option("--validation", 0.05, text, SHARE)


def read_documents(text: list[str]) -> list[str]:
    """Those of the files, each once, or the default corpus."""
    return deduplicate(read_texts(text)) if text else default_corpus()


def check_end(option: str, tokenizer: Tokenizer) -> int:
    """The id of the end token, which separates documents; ValueError without one."""
    if tokenizer.eos_id is None:
        expected = "a tokenizer with an end token, which separates documents"
        raise mismatch(option, expected, "one without")
    return tokenizer.eos_id


def prepare(
    documents: list[str],
    share: float,
    seed: int,
    out: Path,
    tokenizer_of: Callable[[list[str]], Tokenizer],
) -> dict[str, Any]:
    """Write tokenizer.json, train.npy and validation.npy to `out`; returns what a resume needs.

    tokenizer_of(training documents): a new tokenizer, or that of a model to start from.
    """
    begin = time.perf_counter()
    training, validation = split_documents(documents, share, seed)
    size = sum(len(d.encode()) for d in documents)
    held_out = f"{len(validation)} of them for validation"
    print(f"corpus     {counted(len(documents), 'document')}, {size / 1e6:.2f} MB; {held_out}")
    tokenizer = tokenizer_of(training)
    end = check_end("--model", tokenizer)
    tokenizer.save(out / "tokenizer.json")
    counts = {}
    for name, part in zip(PARTS, (training, validation)):
        # an end-of-text token also precedes the first document, so that every byte is predicted
        tokens = pack([[], *tokenizer.encode_batch(part)], end, tokenizer.vocab_size)
        write_tokens(out / f"{name}.npy", tokens)
        counts[name] = len(tokens)
    bytes_per_token = f"{size / sum(counts.values()):.2f} bytes per token"
    print(f"tokenizer  {tokenizer.vocab_size} entries, {bytes_per_token}")
    split = f"{counts['train']} for training, {counts['validation']} for validation"
    print(f"tokens     {split} ({time.perf_counter() - begin:.0f} s)")
    held_out_bytes = sum(len(d.encode()) for d in validation)
    return {"validation_bytes": held_out_bytes, "vocab_size": tokenizer.vocab_size}
