"""Pretrain a small T5 on real text: the spans that are missing in it.

    python examples/pretrain_t5.py                                  # a few minutes on two cores
    python examples/pretrain_t5.py --family bart --out out-bart     # BART: noised texts, restored
    python examples/pretrain_t5.py --text my-book.txt --out my-run  # your own text
    python examples/pretrain_t5.py --density 0.15 --mean-span 3     # the spans of T5's paper
    python examples/pretrain_t5.py --out my-run --resume            # continue an interrupted run

By default half of the text is missing, in spans of 8 (one of UL2's denoisers; Tay et al. 2022,
table 1): that gives a small model several times as many targets for the same work as T5's 15%.

The steps: read the text and split it by document; train a Unigram tokenizer with 100 sentinels;
train the model, with other spans missing in every epoch; compare its loss and accuracy with guesses
from counts, on the same targets of unseen text; let it fill in unseen sentences.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    RESUMABLE,
    accuracies,
    command,
    finish,
    interval_options,
    run_or_resume,
    run_tokenizer,
    start,
    text_option,
)
from encoder_decoders import SPECIAL, TITLES, layout_of, sized, written

import tinyplm
from tinyplm.cli.folders import usable
from tinyplm.cli.output import show_run
from tinyplm.cli.parser import POSITIVE, SHARE, WORKERS, Parser, number, one_of, whole
from tinyplm.data import (
    IGNORED,
    deduplicate,
    default_corpus,
    pack,
    read_texts,
    sentence_documents,
    split_documents,
)
from tinyplm.evaluation import Guesses
from tinyplm.files import sole_writer
from tinyplm.objectives import (
    NoisedDocuments,
    Noising,
    SpanCorruptedWindows,
    corrupt_spans,
    named_sentinels,
    noise_mask,
    noised,
)
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.text.postprocessing import TemplateProcessing
from tinyplm.training.checkpoint import find, started
from tinyplm.training.log import plot
from tinyplm.training.loop import train
from tinyplm.training.samples import FixedBatches
from tinyplm.training.settings import Settings
from tinyplm.training.step import evaluate_batches

# name: (layers of each side, width, heads)
SIZES = {"tiny": (1, 64, 2), "small": (2, 128, 4), "medium": (2, 256, 4), "large": (4, 384, 6)}
SENTINELS = [f"<extra_id_{n}>" for n in range(100)]
FREE = ("out", "workers", "evaluate_every", "save_every")  # may change on resume


def texts(options: dict) -> tuple[list[str], list[str]]:
    documents = deduplicate(read_texts(options["text"])) if options["text"] else default_corpus()
    return split_documents(documents, options["validation"], options["seed"])


def prepare(options: dict) -> Tokenizer:
    """The tokenizer, trained on the training texts."""
    training, validation = texts(options)
    size = sum(len(d.encode()) for d in (*training, *validation))
    count, held_out = len(training) + len(validation), f"{len(validation)} of them for validation"
    print(f"corpus     {count} documents, {size / 1e6:.2f} MB; {held_out}")
    special = SPECIAL[options["family"]] + (SENTINELS if options["family"] == "t5" else [])
    tokenizer = Tokenizer.train(training, options["vocabulary"], special, kind="Unigram")
    if options["family"] == "bart":  # so that whoever loads the folder frames texts as in training
        ends = {token: tokenizer.vocab[token] for token in ("<s>", "</s>")}
        frame = TemplateProcessing.of("<s> $A </s>", "<s> $A </s> </s> $B </s>", ends)
        tokenizer.post_processor = frame
    print(f"tokenizer  Unigram, {tokenizer.vocab_size} entries, {len(special)} of them special")
    return tokenizer


def samples(options: dict, documents: list, tokenizer: Tokenizer, seed: int) -> Any:
    """T5: windows of text with corrupted spans; BART: whole sentences with masks, permuted."""
    layout, context = layout_of(options["family"], tokenizer), options["context"]
    if options["family"] == "bart":
        noising = Noising(tokenizer.vocab["<mask>"])
        return NoisedDocuments(documents, context, layout=layout, noising=noising, seed=seed)
    joined = [[i for sentence in document for i in sentence] for document in documents]
    tokens = pack(joined, tokenizer.vocab["</s>"], tokenizer.vocab_size)
    sentinels = named_sentinels(tokenizer.vocab)
    spans = {"density": options["density"], "mean_span": options["mean_span"]}
    return SpanCorruptedWindows(
        tokens, context, layout=layout, sentinels=sentinels, seed=seed, **spans
    )


def plan(options: dict) -> Settings:
    steps, fifth = options["steps"], max(1, options["steps"] // 5)
    return Settings(
        steps=steps,
        batch_size=options["batch"],
        sequence_length=options["context"],
        # Adafactor's steps are relative to the size of a parameter: T5's embeddings begin with size
        # 1, its matrices with 1 / sqrt(rows), so no absolute rate suits both
        optimizer="adafactor" if options["family"] == "t5" else "adamw",
        learning_rate=options["lr"] or {"t5": 5e-2, "bart": 1e-3}[options["family"]],
        schedule="linear",
        warmup=min(options["warmup"], steps - 1),
        weight_decay=0.0,
        seed=options["seed"],
        workers=options["workers"],
        evaluate_every=options["evaluate_every"] or fifth,
        save_every=options["save_every"] or fifth,
        save_minutes=5.0,
    )


# --------------------------------------------------------------------------------------- evaluation


def text_alone(batches: list, special: list[int]) -> list:
    """The batches without special tokens among the targets: these are easily predicted."""
    return [
        (inputs, {"logits": np.where(np.isin(t["logits"], special), IGNORED, t["logits"])})
        for inputs, t in batches
    ]


def follows(guesses: Guesses, batches: list, sentinels: list[int]) -> float:
    """The accuracy of what follows the token before most often in the training text.

    Before the first token of a span stands that before its sentinel in the source.
    """
    right = count = 0
    for inputs, targets in batches:
        for source, read, wanted in zip(
            inputs["input_ids"], inputs["decoder_input_ids"], targets["logits"]
        ):
            before = dict(zip(source[1:].tolist(), source[:-1].tolist()))
            for token, target in zip(read.tolist(), wanted.tolist()):
                if target != IGNORED:
                    token = before.get(token) if token in sentinels else token
                    right += guesses.around.get((token, None), guesses.best) == target
                    count += 1
    return right / count


def report(options: dict, out: Path, training: list, held_out: list, fixed: FixedBatches) -> None:
    """Print the best checkpoint's results, guesses, what it fills in, and where the files are."""
    folder = find(out, "best")
    model = tinyplm.load(folder)
    tokenizer, workers = model.tokenizer, options["workers"]
    sentinels = named_sentinels(tokenizer.vocab)
    special = [tokenizer.vocab[token] for token in SPECIAL[options["family"]]] + sentinels
    alone = text_alone(fixed.batches, special)
    targets = np.concatenate([t["logits"].ravel() for _, t in alone])
    guesses = Guesses((s for document in training for s in document), tokenizer.vocab_size)
    unigram = guesses.unigram_accuracy(targets), guesses.unigram_loss(targets)
    after = follows(guesses, alone, sentinels)
    found = accuracies(model, alone, workers)["logits"]
    losses = [evaluate_batches(model, b, workers=workers) for b in (alone, fixed.batches)]
    print(
        f"\nValidation, {(targets != IGNORED).sum()} tokens of text to write, of unseen documents"
    )
    print("(nats, all: with sentinels and end tokens, as in training):\n")
    print(f"{'':<34}{'accuracy':>9}{'nats':>8}{'nats, all':>11}")
    print(f"{'most frequent token':<34}{unigram[0]:>9.1%}{unigram[1]:>8.3f}{'-':>11}")
    print(f"{'most frequent after the one before':<34}{after:>9.1%}{'-':>8}{'-':>11}")
    name = f"{TITLES[options['family']]}, {model.parameter_count() / 1e6:.2f}M parameters"
    print(f"{name:<34}{found:>9.1%}{losses[0]:>8.3f}{losses[1]:>11.3f}\n")
    show(options, model, held_out)
    drawn = plot(out / "log.jsonl", out / "loss.png")
    show_run(folder, out, drawn)


def show(options: dict, model: tinyplm.Model, documents: list) -> None:
    """Print what the model makes of a few unseen sentences, beside the originals."""
    tokenizer, layout = model.tokenizer, layout_of(options["family"], model.tokenizer)
    sentinels = named_sentinels(tokenizer.vocab)
    most = min(layout.room(options["context"]), 28)
    fit = [ids for document in documents for ids in document if 8 <= len(ids) <= most]
    some = fit[:: max(1, len(fit) // max(1, options["shown"]))][: options["shown"]]
    for key, ids in enumerate(some):
        if options["family"] == "bart":
            source = noised([ids], noising=Noising(tokenizer.vocab["<mask>"]), key=key)
            answer = written(model, [source.tolist()], layout, most=len(ids) + 8)[0]
            lines = {"noised": source.tolist(), "model": answer, "original": ids}
        else:
            noise = noise_mask(len(ids), key=key, density=0.25, mean_span=2.0)
            source, target = (a.tolist() for a in corrupt_spans(ids, noise, sentinels=sentinels))
            answer = written(model, [source], layout, most=len(target) + 8)[0]
            lines = {
                "source": source,
                "model": filled(source, answer, sentinels),
                "original": filled(source, target, sentinels),
            }
        for name, line in lines.items():
            text = "".join(_pieces(tokenizer, line))
            print(f"{name:<11}{text}")
        print()


def filled(source: list[int], target: list[int], sentinels: list[int]) -> list[int | list[int]]:
    """The source with the spans of the target, as lists, in place of their sentinels."""
    spans: dict[int, list[int]] = {}
    span: list[int] = []  # what comes before the first sentinel belongs nowhere
    for token in target:
        if token in sentinels:
            span = spans.setdefault(token, [])
        else:
            span.append(token)
    return [spans.get(token, []) if token in sentinels else token for token in source]


def _pieces(tokenizer: Tokenizer, line: list) -> list[str]:
    """The texts of tokens; spans in brackets."""
    ids: list[int] = []
    pieces: list[str] = []
    for part in line:
        span = part if isinstance(part, list) else [part]
        text = tokenizer.decode([*ids, *span])[len(tokenizer.decode(ids)) :]
        ids += span
        pieces.append(f"[{text}]" if isinstance(part, list) else text)
    return pieces


# ---------------------------------------------------------------------------------------------- run


def main() -> None:
    options, resume = run_or_resume(parser(), FREE)
    out = usable(options["out"])
    settings = plan(options)  # refuses wrong options before any work
    with sole_writer(out):
        run(options, settings, out, resume)


def run(options: dict, settings: Settings, out: Path, resume: bool) -> None:
    """Prepare the data, or reuse what is there; train; report."""
    begin = time.perf_counter()
    tokenizer = run_tokenizer(options, out, resume, lambda: prepare(options))
    training, held_out = (sentence_documents(part, tokenizer.encode) for part in texts(options))
    fixed = FixedBatches(
        samples(options, held_out, tokenizer, seed=1), options["validation_samples"]
    )
    count = sum(len(s) for d in training for s in d)
    print(f"tokens     {count} for training ({time.perf_counter() - begin:.0f} s)")
    layers, width, heads = SIZES[options["size"]]
    sizes = {"layers": layers, "width": width, "heads": heads, "context": options["context"]}
    config = sized(options["family"], tokenizer, **sizes, dropout=options["dropout"])
    model = tinyplm.create(options["family"], config, key=options["seed"])
    model.tokenizer = tokenizer
    print(f"model      {model}")
    own = samples(options, training, tokenizer, options["seed"])
    state = train(model, own, fixed, settings, out=out, resume=started(out))
    finish(state, command("pretrain_t5.py", "--out", out, "--resume"))
    report(options, out, training, held_out, fixed)


def parser() -> Parser:
    parser = Parser(__doc__)
    option = parser.option
    text_option(parser)
    option("--family", "t5", "Family: t5 or bart.", one_of("t5", "bart"))
    option("--size", "small", f"Size: {', '.join(SIZES)}.", one_of(*SIZES))
    option("--steps", 1000, "Training steps.", whole(1))
    option("--batch", 64, "Samples per step.", whole(1))
    option("--context", 64, "Tokens per source, with its special tokens.", whole(8))
    option("--density", 0.5, "Share of the text that is missing.", SHARE)
    option("--mean-span", 8.0, "Mean length of a missing span.", number(least=1.0))
    option("--vocabulary", 2048, "Vocabulary size of the tokenizer.", whole(300))
    option(
        "--lr",
        None,
        "Peak learning rate.",
        POSITIVE,
        shown="0.05 for t5, relative to the size of a parameter (Adafactor), "
        "0.001 for bart (AdamW)",
    )
    option("--warmup", 100, "Warm-up steps.", whole())
    option("--dropout", 0.0, "Dropout rate.", number(least=0.0, below=1.0))
    option("--validation", 0.05, "Share of the text held out for validation.", SHARE)
    option("--validation-samples", 256, "Number of validation samples.", whole(1))
    option("--shown", 4, "Number of unseen sentences shown at the end.", whole())
    option("--seed", 0, "Random seed.", whole())
    interval_options(parser)
    option("--workers", WORKERS, "Number of threads that share a batch.", whole(1))
    option("--out", "out-t5", "Output folder.", metavar="FOLDER")
    parser.flag("--resume", "Resume the run in --out, however it ended.")
    return parser


if __name__ == "__main__":
    start(main, RESUMABLE)
