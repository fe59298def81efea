"""Pretrain a small BERT on real text: masked words, and whether one segment follows another.

    python examples/pretrain_bert.py                                  # a few minutes on two cores
    python examples/pretrain_bert.py --objective sentence_order       # ALBERT's second objective
    python examples/pretrain_bert.py --objective none                 # masked words only: RoBERTa
    python examples/pretrain_bert.py --text my-book.txt --out my-run  # your own text
    python examples/pretrain_bert.py --out my-run --resume            # continue an interrupted run

The steps: read the text and split it by document; train a WordPiece tokenizer; cut documents into
sentences and those into tokens; train the model, with new masks and pairs in every epoch; compare
its accuracy with guesses from counts on the same masked positions of unseen text.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from common import (
    RESUMABLE,
    accuracies,
    bert_masking,
    command,
    finish,
    interval_options,
    run_or_resume,
    run_tokenizer,
    start,
    text_option,
)

import tinyplm
from tinyplm.cli.folders import usable
from tinyplm.cli.output import show_run
from tinyplm.cli.parser import POSITIVE, SHARE, WORKERS, Parser, number, one_of, whole
from tinyplm.data import (
    IGNORED,
    deduplicate,
    default_corpus,
    read_texts,
    sentence_documents,
    split_documents,
)
from tinyplm.evaluation.masked import Guesses, joined
from tinyplm.families import bert
from tinyplm.files import sole_writer
from tinyplm.hub.folders import make_config
from tinyplm.objectives import MaskedPairs, MaskedSentences
from tinyplm.tokenizers import Tokenizer
from tinyplm.training.checkpoint import find, started
from tinyplm.training.log import plot
from tinyplm.training.loop import train
from tinyplm.training.samples import FixedBatches
from tinyplm.training.settings import Settings
from tinyplm.training.step import evaluate_batches

# name: (layers, width, heads).  Published sizes are accepted by name, too.
SIZES = {"tiny": (2, 64, 2), "small": (2, 256, 4), "medium": (6, 384, 6)}
OBJECTIVES = ("next_sentence", "sentence_order", "none")
FREE = ("out", "workers", "evaluate_every", "save_every")  # may change on resume
SHOWN = (
    "The method [MASK] a list of strings.",
    "Return [MASK] if the object is empty.",
    "If the file does not [MASK], an exception is raised.",
)


def prepare(options: dict) -> Tokenizer:
    """The tokenizer, trained on the training texts."""
    training, validation = texts(options)
    if options["objective"] == "next_sentence" and min(len(training), len(validation)) < 2:
        expected = "two or more documents each for training and validation"
        hint = "try another --objective or a larger --validation"
        got = f"{len(training)} and {len(validation)}; {hint}"
        raise ValueError(f"--objective: next_sentence: expected {expected}, got {got}")
    size = sum(len(d.encode()) for d in (*training, *validation))
    count, held_out = len(training) + len(validation), f"{len(validation)} of them for validation"
    print(f"corpus     {count} documents, {size / 1e6:.2f} MB; {held_out}")
    tokenizer = Tokenizer.train(
        training, options["vocabulary"], kind="WordPiece", criterion="frequency"
    )
    print(f"tokenizer  WordPiece, {tokenizer.vocab_size} entries")
    return tokenizer


def texts(options: dict) -> tuple[list[str], list[str]]:
    documents = deduplicate(read_texts(options["text"])) if options["text"] else default_corpus()
    return split_documents(documents, options["validation"], options["seed"])


def samples(
    options: dict, documents: list, tokenizer: Tokenizer, seed: int
) -> MaskedPairs | MaskedSentences:
    """Labelled pairs of segments, or rows of whole sentences; masked anew in every epoch."""
    common = {"seed": seed, **bert_masking(tokenizer)}
    if options["objective"] == "none":
        return MaskedSentences(documents, options["context"], **common)
    return MaskedPairs(
        documents, options["context"], objective=options["objective"], skip_short=True, **common
    )


def configure(options: dict, tokenizer: Tokenizer) -> bert.Config:
    common = {
        "vocab_size": tokenizer.vocab_size,
        "max_position_embeddings": options["context"],
        "pad_token_id": tokenizer.named_id("pad_token"),
        "hidden_dropout_prob": options["dropout"],
        "attention_probs_dropout_prob": options["dropout"],
    }
    if options["size"] in bert.SIZES:
        return make_config(bert, options["size"], **common)
    layers, width, heads = SIZES[options["size"]]
    # 0.56 / sqrt(width) is BERT's 0.02 at width 768; with 0.02 narrow models start learning late
    return bert.Config(
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        initializer_range=round(0.56 / width**0.5, 4),
        **common,
    )


def plan(options: dict) -> Settings:
    steps, fifth = options["steps"], max(1, options["steps"] // 5)
    return Settings(
        steps=steps,
        batch_size=options["batch"],
        sequence_length=options["context"],
        learning_rate=options["lr"],
        schedule="linear",
        warmup=min(options["warmup"], steps - 1),
        weight_decay=0.01,
        beta2=0.98,
        seed=options["seed"],
        workers=options["workers"],
        evaluate_every=options["evaluate_every"] or fifth,
        save_every=options["save_every"] or fifth,
        save_minutes=5.0,
    )


def report(options: dict, out: Path, documents: list, validation: FixedBatches) -> None:
    """Print the best checkpoint's results, guesses, some predictions, and where the files are."""
    folder = find(out, "best")
    model = tinyplm.load(folder)
    sentences = (sentence for document in documents for sentence in document)
    guesses = Guesses(sentences, model.config.vocab_size)
    ids, targets = joined(validation.batches)
    found = accuracies(model, validation.batches, options["workers"])
    masked = [(inputs, {"logits": t["logits"]}) for inputs, t in validation.batches]
    loss = evaluate_batches(model, masked, workers=options["workers"])
    print(f"\nValidation, {(targets != IGNORED).sum()} masked positions of unseen documents:\n")
    print(f"{'':<32}{'accuracy':>9}{'nats':>8}")
    right, loss_of_guess = guesses.unigram_accuracy(targets), guesses.unigram_loss(targets)
    print(f"{'most frequent token':<32}{right:>9.1%}{loss_of_guess:>8.3f}")
    right = guesses.neighbour_accuracy(ids, targets)
    print(f"{'most frequent between neighbours':<32}{right:>9.1%}{'-':>8}")
    name = f"BERT, {model.parameter_count() / 1e6:.2f}M parameters"
    print(f"{name:<32}{found['logits']:>9.1%}{loss:>8.3f}")
    if "pair_logits" in found:
        labels = np.concatenate([t["pair_logits"] for _, t in validation.batches])
        right = f"{found['pair_logits']:.1%} of {len(labels)} pairs right"
        alone = f"the more frequent label alone {max(labels.mean(), 1 - labels.mean()):.1%}"
        print(f"\n{options['objective'].replace('_', ' ')}: {right}, {alone}")
    print("\nThe model's predictions for [MASK]:")
    for sentence in SHOWN:
        print(f"    {sentence}  {', '.join(fill(model, sentence)) or '(longer than --context)'}")
    drawn = plot(out / "log.jsonl", out / "loss.png")
    print()
    show_run(folder, out, drawn)
    print(f"fine-tune  {command('finetune_classifier.py', '--model', folder)}")


def fill(model: tinyplm.Model, sentence: str, best: int = 3) -> list[str]:
    """The most probable tokens for the first [MASK] of a sentence; none if it is too long."""
    tokenizer = model.tokenizer
    ids = tokenizer.encode(sentence, allow_special=True)
    if len(ids) > model.config.context:
        return []
    outputs, _ = model([ids], grad=False)
    logits = outputs["logits"][0, ids.index(tokenizer.named_id("mask_token"))]
    return [tokenizer.decode([int(i)]) for i in np.argsort(-logits)[:best]]


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
    training, validation = (sentence_documents(part, tokenizer.encode) for part in texts(options))
    held_out = samples(options, validation, tokenizer, seed=1)
    fixed = FixedBatches(held_out, options["validation_samples"])
    count = sum(len(s) for d in training for s in d)
    print(f"tokens     {count} for training ({time.perf_counter() - begin:.0f} s)")
    task = "masked_lm" if options["objective"] == "none" else "pretraining"
    model = tinyplm.create("bert", configure(options, tokenizer), task=task, key=options["seed"])
    model.tokenizer = tokenizer
    print(f"model      {model}")
    own = samples(options, training, tokenizer, options["seed"])
    state = train(model, own, fixed, settings, out=out, resume=started(out))
    finish(state, command("pretrain_bert.py", "--out", out, "--resume"))
    report(options, out, training, fixed)


def parser() -> Parser:
    parser = Parser(__doc__)
    option = parser.option
    text_option(parser)
    objectives = f"Objective besides masked words: {', '.join(OBJECTIVES)}."
    option("--objective", "next_sentence", objectives, one_of(*OBJECTIVES))
    sizes = f"Size: {', '.join(SIZES)}; or a published size: {', '.join(bert.SIZES)}."
    option("--size", "small", sizes, one_of(*SIZES, *bert.SIZES))
    option("--steps", 2500, "Training steps.", whole(1))
    option("--batch", 32, "Samples per step.", whole(1))
    option("--context", 32, "Tokens per sample.", whole(8))
    option("--vocabulary", 2048, "Vocabulary size of the tokenizer.", whole(6))
    option("--lr", 1e-3, "Peak learning rate.", POSITIVE)
    option("--warmup", 150, "Warm-up steps.", whole())
    option("--dropout", 0.0, "Dropout rate.", number(least=0.0, below=1.0))
    option("--validation", 0.05, "Share of the text held out for validation.", SHARE)
    option("--validation-samples", 512, "Number of validation samples.", whole(1))
    option("--seed", 0, "Random seed.", whole())
    interval_options(parser)
    option("--workers", WORKERS, "Number of threads that share a batch.", whole(1))
    option("--out", "out-bert", "Output folder.", metavar="FOLDER")
    parser.flag("--resume", "Resume the run in --out, however it ended.")
    return parser


if __name__ == "__main__":
    start(main, RESUMABLE)
