"""Fine-tune a small GPT-1 as its paper does, on a made-up language, with and without pretraining.

    python examples/finetune_gpt.py                        # a minute or two on two cores
    python examples/finetune_gpt.py --format entailment    # or classification, choice

The language has invented nouns of three kinds: animals, tools and fruits.  Its texts, without
labels, use each noun as its kind does ("the lemi sleeps") and name its kind here and there.  A task
has labels for half of the nouns, and is tested on the other half, of which only the texts tell:

    classification   the lemi is here                                    -> animal
    entailment       the lemi is here <delimiter> an animal is here      -> yes, no or maybe
    similarity       the lemi is here <delimiter> my kuro is there       -> same kind, both orders
    choice           the lemi is here what is it <delimiter> an animal   -> which of three answers

The input formats and the loss, the task's plus 0.5 times a language model's, are those of Radford
et al. 2018, sec. 3.2 and 3.3.  Three rows: a model pretrained on the texts, the same without its
second loss, and one from random parameters.  Accuracy on 500 samples, seed 0 alone:

                            classification  entailment  similarity  choice
    pretrained                      100.0%       71.2%       94.6%   69.4%
    pretrained, no LM loss          100.0%       75.8%       46.4%   97.2%
    from scratch                     34.4%       56.2%       49.8%   37.2%
    chance                           33.3%       33.3%       50.0%   33.3%
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from common import check_widths, run_options, start

import tinyplm
from tinyplm import random
from tinyplm.cli.decoders import sized
from tinyplm.cli.folders import unused
from tinyplm.cli.parser import POSITIVE, Parser, number, one_of, whole
from tinyplm.data.packing import pack
from tinyplm.families import openai_gpt
from tinyplm.memory import keep_freed_memory
from tinyplm.models.score_model import ScoreModel
from tinyplm.tokenizers import Tokenizer
from tinyplm.training.checkpoint import find
from tinyplm.training.loop import train
from tinyplm.training.settings import Settings
from tinyplm.tuning import (
    TuningSettings,
    classification,
    finetune,
    multiple_choice,
    predict,
    with_delimiters,
)
from tinyplm.tuning.finetuning.samples import Samples

KINDS = ("an animal", "a tool", "a fruit")
VERBS = (("sleeps", "runs", "eats"), ("cuts", "breaks", "rusts"), ("ripens", "rots", "grows"))
PLACES = ("is here", "is there", "is far", "is near", "was lost", "was found")
ARTICLES = ("the", "my", "your", "this", "that")
LABELS = {
    "classification": list(KINDS),
    "entailment": ["yes", "no", "maybe"],
    "similarity": ["different", "same"],
    "choice": None,
}
CONTEXT = 32


# ------------------------------------------------------------------------------------- the language


def invented(count: int, draw: np.random.Generator) -> list[list[str]]:
    """`count` nouns of each kind, whose spelling says nothing about it."""
    syllables = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
    words = sorted({a + b for a in syllables for b in syllables})
    some = [words[i] for i in draw.permutation(len(words))[: count * len(KINDS)]]
    return [some[k :: len(KINDS)] for k in range(len(KINDS))]


def texts(nouns: list[list[str]], count: int, draw: np.random.Generator) -> list[str]:
    """Short documents, each about one noun."""
    found = []
    for _ in range(count):
        k = draw.integers(len(KINDS))
        noun = draw.choice(nouns[k])
        lines = [f"{draw.choice(ARTICLES)} {noun} {draw.choice(VERBS[k])} ." for _ in range(2)]
        lines.append(f"{draw.choice(ARTICLES)} {noun} {draw.choice(PLACES)} .")
        lines.append(f"the {noun} is {KINDS[k]} .")
        found.append(" ".join(lines[i] for i in draw.permutation(len(lines))))
    return found


def samples(
    model: ScoreModel, form: str, nouns: list[list[str]], count: int, draw: np.random.Generator
) -> Samples:
    """Labelled samples of a format about these nouns."""

    def sentence(k: int) -> str:
        return f"{draw.choice(ARTICLES)} {draw.choice(nouns[k])} {draw.choice(PLACES)}"

    kinds = draw.integers(len(KINDS), size=count).tolist()
    first = [sentence(k) for k in kinds]
    if form == "classification":
        return classification(model, first, kinds)
    if form == "choice":
        questions = ["what is it"] * count
        return multiple_choice(model, first, [KINDS] * count, kinds, questions=questions)
    labels = draw.integers(len(LABELS[form]), size=count).tolist()
    others = [(k + int(draw.integers(1, len(KINDS)))) % len(KINDS) for k in kinds]
    if form == "similarity":
        second = [sentence(k if same else o) for k, o, same in zip(kinds, others, labels)]
        return classification(model, first, labels, pairs=second, both_orders=True)
    second = []
    for text, k, other, label in zip(first, kinds, others, labels):
        place = " ".join(text.split()[2:])
        if label == 2:
            place = draw.choice([p for p in PLACES if p != place])
        second.append(f"{KINDS[other if label == 1 else k]} {place}")
    return classification(model, first, labels, pairs=second)


# ----------------------------------------------------------------------------------------- the runs


def pretrained(options: argparse.Namespace, documents: list[str], out: Path) -> Path:
    """The folder of a GPT-1 trained on the texts."""
    tokenizer = Tokenizer.train(documents, options.vocabulary)
    sizes = {"layers": 2, "width": options.width, "heads": 4, "context": CONTEXT, "dropout": 0.1}
    config = sized(openai_gpt, vocab_size=tokenizer.vocab_size, **sizes)
    model = tinyplm.create("openai-gpt", config, key=options.seed)
    model.tokenizer = tokenizer
    tokens = pack(tokenizer.encode_batch(documents), tokenizer.eos_id, tokenizer.vocab_size)
    print(f"pretrain   {model}, on {len(documents)} texts, {len(tokens)} tokens")
    steps, held_out = options.steps, len(tokens) // 20
    settings = Settings(
        steps=steps,
        batch_size=32,
        sequence_length=CONTEXT,
        learning_rate=2e-3,
        warmup=steps // 10,
        seed=options.seed,
        workers=options.workers,
        evaluate_every=steps,
        save_every=steps,
    )
    train(model, tokens[held_out:], tokens[:held_out], settings, out=out)
    return find(out)


def tuned(
    folder: Path,
    options: argparse.Namespace,
    nouns: list[list[str]],
    out: Path,
    *,
    fresh: bool,
    auxiliary: float,
) -> tuple[float, int]:
    """(accuracy on the nouns without labels, number of test samples) after fine-tuning."""
    names = LABELS[options.format]
    task = "multiple_choice" if names is None else "sequence_classification"
    labels = {} if names is None else {"labels": names}
    model = tinyplm.load(folder, task=task, key=options.seed, **labels)
    if fresh:
        tokenizer = model.tokenizer
        model = tinyplm.create("openai-gpt", model.config, task=task, key=options.seed)
        model.tokenizer = tokenizer
    model = with_delimiters(model, key=options.seed)
    half = options.nouns // 2
    seen, unseen = [some[:half] for some in nouns], [some[half:] for some in nouns]
    draw = random.generator(random.fold(random.key(options.seed), 1))
    training, validation = (
        samples(model, options.format, seen, count, draw) for count in (options.samples, 100)
    )
    test = samples(model, options.format, unseen, 500, draw)
    settings = TuningSettings(
        epochs=options.epochs,
        batch_size=16,
        learning_rate=options.lr,
        auxiliary=auxiliary,
        seed=options.seed,
        workers=options.workers,
    )
    finetune(model, training, validation, settings, out=out, progress=False)
    again = tinyplm.load(out / "best")  # head, delimiters and formats come from the folder
    outputs = predict(again, test, workers=options.workers)
    return test.score(outputs)["accuracy"], len(test)


def main() -> None:
    options = parser().options()
    check_widths(options, "width")
    out = unused(options.out)
    keep_freed_memory()
    draw = random.generator(random.key(options.seed))
    nouns = invented(options.nouns, draw)
    folder = pretrained(options, texts(nouns, options.texts, draw), out / "language-model")
    rows = [
        ("pretrained", False, options.auxiliary),
        ("pretrained, no LM loss", False, 0.0),
        ("from scratch", True, options.auxiliary),
    ]
    folders, half, chance = [], options.nouns // 2, 1 / len(LABELS[options.format] or KINDS)
    print(f"{options.format}, {options.samples} samples about {half} nouns of each kind")
    for name, fresh, auxiliary in rows:
        where = out / name.replace(",", "").replace(" ", "-")
        folders.append(where / "best")
        accuracy, count = tuned(folder, options, nouns, where, fresh=fresh, auxiliary=auxiliary)
        print(f"{name:<24}{accuracy:>7.1%} of {count} samples about the other nouns", flush=True)
    print(f"{'chance':<24}{chance:>7.1%}\n")
    print(f"pretrained {folder}\nfine-tuned {', '.join(map(str, folders))}")


def parser() -> Parser:
    parser = Parser(__doc__)
    option = parser.option
    option("--format", "similarity", f"Input format: {', '.join(LABELS)}.", one_of(*LABELS))
    option("--auxiliary", 0.5, "Weight of the language model's loss.", number(least=0.0))
    option("--nouns", 40, "Number of nouns of each kind.", whole(2, 500))
    option("--texts", 3000, "Number of texts to pretrain on.", whole(100))
    option("--samples", 1000, "Number of labelled samples.", whole(1))
    option("--vocabulary", 700, "Vocabulary size of the tokenizer.", whole(300))
    option("--width", 64, "Width of the model, with four heads.", whole(8))
    option("--steps", 800, "Number of pretraining steps.", whole(1))
    option("--epochs", 10, "Number of epochs of fine-tuning.", whole(1))
    option("--lr", 2e-3, "Peak learning rate of fine-tuning.", POSITIVE)
    run_options(parser, "out-finetune-gpt")
    return parser


if __name__ == "__main__":
    start(main)
