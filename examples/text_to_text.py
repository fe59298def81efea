"""One T5 for several tasks, each named by a prefix of its text; and one model for each of them.

    python examples/text_to_text.py                        # a few minutes on two cores
    python examples/text_to_text.py --alone none           # the one model only
    python examples/text_to_text.py --temperature 4        # rates of the tasks nearer to each other
    python examples/text_to_text.py --out my-run --resume  # continue an interrupted run

The tasks, two from the standard library and three made up:

    summarize: a docstring                                its first line
    describe: open(file, mode='r')                        the first line of its docstring
    reverse: lamp river stone                             stone river lamp
    count: stone in lamp stone river stone                two
    sentiment: The plot is dull, but I liked the music.   positive

The steps: make the tasks; train one tokenizer; train a T5 on a mixture of all tasks, the rate of
each by its number of examples; train a model for each task alone, which sees as many samples of it
(or, with --alone full, takes as many steps); compare all with the most frequent answer, on texts
that were not trained on.
"""

from __future__ import annotations

import ast
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import RESUMABLE, command, finish, interval_options, run_or_resume, run_tokenizer, start
from docstrings import documented
from encoder_decoders import SPECIAL, layout_of, sized, written

import tinyplm
from tinyplm import random
from tinyplm.cli.folders import usable
from tinyplm.cli.output import show_run
from tinyplm.cli.parser import POSITIVE, WORKERS, Parser, one_of, whole
from tinyplm.data import encode_pairs
from tinyplm.evaluation import rouge, share_equal
from tinyplm.files import sole_writer
from tinyplm.objectives import Mixture, Seq2SeqPairs, mixture_rates
from tinyplm.tokenizers import Tokenizer
from tinyplm.training.checkpoint import find, started
from tinyplm.training.log import plot
from tinyplm.training.loop import train
from tinyplm.training.samples import FixedBatches
from tinyplm.training.settings import Settings

# name: (layers of each side, width, heads)
SIZES = {"tiny": (1, 64, 2), "small": (2, 128, 4), "medium": (2, 256, 4)}
FREE = ("out", "workers", "evaluate_every", "save_every")  # may change on resume
SOURCE, TARGET = 64, 24  # tokens, with special tokens; longer texts are cut

NOUNS = "lamp river stone apple letter garden bird bridge window forest candle ticket".split()
NUMBERS = "zero one two three four five six seven eight".split()
PARTS = "plot music cast story ending picture dialogue pace".split()
GOOD = "lovely brilliant gripping charming clever funny".split()
BAD = "dull clumsy tedious shallow noisy predictable".split()

Pair = tuple[str, str]


class Task(NamedTuple):
    """Pairs of a source, without the prefix, and its answer."""

    training: list[Pair]
    validation: list[Pair]
    test: list[Pair]


# ---------------------------------------------------------------------------------------- the tasks


def tasks(options: dict) -> dict[str, Task]:
    """All tasks by their prefixes."""
    key = random.key(options["seed"])
    found = from_library(options, random.fold(key, 0))
    sizes = {"reverse": 1.0, "count": 0.5, "sentiment": 0.25}
    for n, (name, share) in enumerate(sizes.items(), 1):
        draw, pairs = random.generator(random.fold(key, n)), {}
        count = round(share * options["samples"])
        total = count + options["validation"] + options["tests"]
        for _ in range(100 * total):
            source, target = MAKERS[name](draw)
            pairs[source] = target
            if len(pairs) == total:
                break
        found[name] = parted(list(pairs.items()), options)
    return found


def from_library(options: dict, key: int) -> dict[str, Task]:
    """Docstrings and signatures; no module is trained on and tested."""
    rows: dict[str, dict[str, Pair]] = {"summarize": {}, "describe": {}}
    modules: dict[str, str] = {}
    for module, node, docstring in documented():
        first, _, rest = docstring.strip().partition("\n")
        first, rest = " ".join(first.split()), " ".join(rest.split())
        if not 3 <= len(first.split()) <= 12:
            continue
        if len(rest.split()) >= 3:
            text = f"{first} {rest}"
            rows["summarize"].setdefault(text, (text, first))
            modules.setdefault(text, module)
        if not isinstance(node, ast.ClassDef):
            signature = f"{node.name}({ast.unparse(node.args)})"
            rows["describe"].setdefault(signature, (signature, first))
            modules.setdefault(signature, module)
    names = sorted({*modules.values()})
    order = random.generator(key).permutation(len(names))
    place = dict(zip(names, order.tolist()))
    found = {}
    for name, pairs in rows.items():
        task = parted(sorted(pairs.values(), key=lambda pair: place[modules[pair[0]]]), options)
        tested = {modules[source] for source, _ in (*task.validation, *task.test)}
        training = [pair for pair in task.training if modules[pair[0]] not in tested]
        found[name] = task._replace(training=training)
    return found


def parted(pairs: list[Pair], options: dict) -> Task:
    """The last pairs for validation and tests."""
    held_out = options["validation"] + options["tests"]
    if len(pairs) <= held_out:
        raise ValueError(f"--tests: expected fewer, got {options['tests']}: {len(pairs)} pairs")
    rest = len(pairs) - held_out
    validation = rest + options["validation"]
    return Task(pairs[:rest][: options["samples"]], pairs[rest:validation], pairs[validation:])


def reverse(draw: np.random.Generator) -> Pair:
    words = some(draw, NOUNS, int(draw.integers(2, 7)))
    return " ".join(words), " ".join(reversed(words))


def count(draw: np.random.Generator) -> Pair:
    words = some(draw, NOUNS[: int(draw.integers(2, 5))], int(draw.integers(3, 9)))
    (word,) = some(draw, words[:2], 1)
    return f"{word} in {' '.join(words)}", NUMBERS[words.count(word)]


def sentiment(draw: np.random.Generator) -> Pair:
    """One or two clauses; after "but" the second decides, after "and" both say the same."""
    good = bool(draw.random() < 0.5)
    last = clause(draw, good)
    if draw.random() < 0.3:
        review = last
    elif draw.random() < 0.6:
        review = f"{clause(draw, not good)}, but {last}"
    else:
        review = f"{clause(draw, good)} and {last}"
    return f"{review}.", "positive" if good else "negative"


def clause(draw: np.random.Generator, good: bool) -> str:
    ((part,), negated) = some(draw, PARTS, 1), bool(draw.random() < 0.4)
    (word,) = some(draw, GOOD if good != negated else BAD, 1)
    if draw.random() < 0.3:
        verb = "liked" if good != negated else "disliked"
        return f"I {'never ' if negated else ''}{verb} the {part}"
    return f"the {part} is {'not ' if negated else ''}{word}"


def some(draw: np.random.Generator, words: list[str], count: int) -> list[str]:
    return [words[i] for i in draw.integers(len(words), size=count)]


MAKERS = {"reverse": reverse, "count": count, "sentiment": sentiment}

# ----------------------------------------------------------------------------------------- training


def plan(options: dict, steps: int) -> Settings:
    fifth = max(1, steps // 5)
    return Settings(
        steps=steps,
        batch_size=options["batch"],
        sequence_length=SOURCE,
        optimizer="adafactor",
        learning_rate=options["lr"],
        schedule="linear",
        warmup=min(options["warmup"], steps - 1),
        weight_decay=0.0,
        seed=options["seed"],
        workers=options["workers"],
        evaluate_every=options["evaluate_every"] or fifth,
        save_every=options["save_every"] or fifth,
        save_minutes=5.0,
    )


def encoded(options: dict, all_tasks: dict[str, Task], tokenizer: Tokenizer, part: str) -> dict:
    """The samples of each task: its pairs of a part as token ids, the prefix before each source."""
    layout, seed = layout_of("t5", tokenizer), options["seed"]
    pairs = {
        name: encode_pairs(getattr(task, part), tokenizer.encode, prefix=f"{name}: ")
        for name, task in all_tasks.items()
    }
    return {
        name: Seq2SeqPairs(some, SOURCE, TARGET, layout=layout, seed=seed)
        for name, some in pairs.items()
    }


def trained(
    options: dict, tokenizer: Tokenizer, samples: Any, held_out: Any, steps: int, out: Path
) -> tinyplm.Model:
    """A new T5 trained on these samples: the checkpoint with the best validation loss."""
    layers, width, heads = SIZES[options["size"]]
    config = sized("t5", tokenizer, layers=layers, width=width, heads=heads, context=SOURCE)
    model = tinyplm.create("t5", config, key=options["seed"])
    model.tokenizer = tokenizer
    fixed = FixedBatches(held_out, 4 * options["validation"])
    state = train(model, samples, fixed, plan(options, steps), out=out, resume=started(out))
    finish(state, command("text_to_text.py", "--out", options["out"], "--resume"))
    return tinyplm.load(find(out, "best"))


def answers(model: tinyplm.Model, name: str, pairs: list[Pair]) -> list[str]:
    """What the model writes, the most probable token each time."""
    layout, tokenizer = layout_of("t5", model.tokenizer), model.tokenizer
    ids = [source for source, _ in encode_pairs(pairs, tokenizer.encode, prefix=f"{name}: ")]
    room = layout.room(SOURCE)
    texts = written(model, [source[:room] for source in ids], layout, most=TARGET)
    return [tokenizer.decode(text) for text in texts]


# ------------------------------------------------------------------------------------------- report


def measured(texts: list[str], task: Task) -> tuple[float, float]:
    """The share of exact answers, and ROUGE-L."""
    right = [target for _, target in task.test]
    return share_equal(texts, right), rouge(texts, [[t] for t in right])["rougeL"].f1


def main() -> None:
    options, resume = run_or_resume(parser(), FREE)
    out = usable(options["out"])
    plan(options, options["steps"])  # refuses wrong options before any work
    with sole_writer(out):
        run(options, out, resume)


def run(options: dict, out: Path, resume: bool) -> None:
    """Make the tasks; train; report."""
    all_tasks = tasks(options)
    pairs = [(name, pair) for name, task in all_tasks.items() for pair in task.training]
    both = [text for name, (a, b) in pairs for text in (f"{name}: {a}", b)]
    make = partial(Tokenizer.train, both, options["vocabulary"], SPECIAL["t5"], kind="Unigram")
    tokenizer = run_tokenizer(options, out, resume, make, "together")
    limits = {"limit": options["limit"], "temperature": options["temperature"]}
    sizes = {name: len(task.training) for name, task in all_tasks.items()}
    rates = mixture_rates(sizes, **limits)
    for name, task in all_tasks.items():
        source, target = task.training[0]
        how_many = f"{sizes[name]:>6} pairs, rate {rates[name]:.2f}"
        print(f"{name:<11}{how_many}   {source:.50} -> {target:.40}")
    mix = partial(Mixture, pad_id=tokenizer.vocab["<pad>"], seed=options["seed"])
    own, held_out = (
        encoded(options, all_tasks, tokenizer, part) for part in ("training", "validation")
    )
    print("\nall tasks together")
    equal = dict.fromkeys(all_tasks, 1.0)
    job = (options, tokenizer, mix(own, rates), mix(held_out, equal), options["steps"])
    together = trained(*job, out / "together")
    print(f"model      {together}")
    alone = {}
    for name in all_tasks if options["alone"] != "none" else ():
        share = rates[name] if options["alone"] == "share" else 1.0
        print(f"\n{name} alone")
        job = (
            options,
            tokenizer,
            own[name],
            held_out[name],
            max(1, round(share * options["steps"])),
        )
        alone[name] = answers(trained(*job, out / name), name, all_tasks[name].test)
    report(options, out, all_tasks, together, alone)


def report(
    options: dict, out: Path, all_tasks: dict[str, Task], together: tinyplm.Model, alone: dict
) -> None:
    """Print the table of all tasks, some answers, and where the files are."""
    least = min(len(task.test) for task in all_tasks.values())
    print(f"\nTest, {least} unseen texts or more of each task: exact answers, ROUGE-L\n")
    models = ["most frequent answer", "one model for all", *["one for the task"] * bool(alone)]
    print(f"{'':<11}" + "".join(f"{name:>24}" for name in models))
    shown = []
    for name, task in all_tasks.items():
        frequent = Counter(target for _, target in task.training).most_common(1)[0][0]
        texts = answers(together, name, task.test)
        rows = [[frequent] * len(texts), texts, *([alone[name]] if alone else [])]
        cells = (measured(row, task) for row in rows)
        print(f"{name:<11}" + "".join(f"{exact:>15.1%}{score:>9.3f}" for exact, score in cells))
        shown.append((f"{name}: {task.test[0][0]}", texts[0], task.test[0][1]))
    for source, text, right in shown:
        print(f"\nsource     {source:.100}\nmodel      {text}\nright      {right}")
    folder = out / "together"
    drawn = plot(folder / "log.jsonl", folder / "loss.png")
    print()
    show_run(find(folder, "best"), folder, drawn)


def parser() -> Parser:
    parser = Parser(__doc__)
    option = parser.option
    what = "Models for one task: none, share (as many samples of it) or full (as many steps)."
    option("--alone", "share", what, one_of("none", "share", "full"))
    option("--size", "small", f"Size: {', '.join(SIZES)}.", one_of(*SIZES))
    option("--samples", 4000, "Greatest number of training samples of a task.", whole(8, 100_000))
    option("--validation", 32, "Number of validation samples of each task.", whole(1, 1000))
    option("--tests", 100, "Number of unseen texts of each task.", whole(1, 1000))
    option("--limit", 3000, "Greatest number of samples that counts for a task's rate.", whole(1))
    option("--temperature", 1.0, "Temperature of the rates.", POSITIVE)
    option("--vocabulary", 2048, "Vocabulary size of the tokenizer.", whole(200))
    option("--steps", 2000, "Training steps.", whole(1))
    option("--batch", 16, "Samples per step.", whole(1))
    option("--lr", 0.02, "Peak learning rate, relative to the size of a parameter.", POSITIVE)
    option("--warmup", 100, "Warm-up steps.", whole())
    option("--seed", 0, "Random seed, also of the made-up tasks.", whole())
    interval_options(parser)
    option("--workers", WORKERS, "Number of threads that share a batch.", whole(1))
    option("--out", "out-tasks", "Output folder.", metavar="FOLDER")
    parser.flag("--resume", "Resume the run in --out, however it ended.")
    return parser


if __name__ == "__main__":
    start(main, RESUMABLE)
