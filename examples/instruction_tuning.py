"""Instruction tuning with whole clusters of tasks held out, as FLAN.            Wei et al. 2022

    python examples/instruction_tuning.py   # some minutes on two cores

Ten made-up tasks on words and rows of words form five clusters:

    kinds      which kind of thing a word is; whether it is one of a kind
    letters    whether a word begins, or ends, with a letter
    rows       whether a word is in a row; how many words a row has
    places     whether a word is the first or the last of a row; whether one comes before another
    pairs      whether two words are the same; whether they are of the same kind

A small LLaMA is pretrained on statements of what the tasks ask for ("a cat is an animal.").  Then,
for each cluster in turn, it is fine-tuned on all tasks of the other clusters, each in three
phrasings, and asked those of the cluster that it has not seen, without examples:

    majority   always the most frequent label of the task
    few-shot   the base with solved examples of the same task in its prompt
    base       the base without examples
    tuned      after instruction tuning, on the cluster that was held out
    seen       the same model on new samples of the tasks that it was tuned on

An answer is the most probable of the task's labels; chance is one in their number.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import check_widths, run_options, start

from tinyplm import random
from tinyplm.cli.decoders import small_llama
from tinyplm.cli.folders import unused
from tinyplm.cli.output import save_plot
from tinyplm.cli.parser import Parser, one_of, whole
from tinyplm.data.packing import pack
from tinyplm.models.causal_model import CausalModel
from tinyplm.tokenizers import Tokenizer
from tinyplm.training.loop import train
from tinyplm.training.settings import Settings
from tinyplm.tuning import (
    FewShot,
    Prefix,
    SFTSettings,
    Task,
    Verbaliser,
    label_probabilities,
    plain,
    sft,
)

KINDS = {
    "animal": "cat dog horse cow sheep goat pig hen duck mouse rat fox wolf bear lion".split(),
    "tool": "hammer saw drill axe spade rake hoe knife fork spoon brush broom pump lever".split(),
    "colour": "red green blue white black grey brown pink purple yellow violet teal".split(),
    "food": "bread butter cheese milk rice bean pea apple pear plum grape melon onion soup".split(),
}
WORDS = {word: kind for kind, words in KINDS.items() for word in words}
COUNTS = {2: "two", 3: "three", 4: "four"}
COLUMNS = ("majority", "few-shot", "base", "tuned", "seen")
CONTEXT = 256
Fields = dict[str, str]


# ---------------------------------------------------------------------------------------- the tasks


class Kind(NamedTuple):
    """A task of a cluster; make(draw, label) are the fields of a sample with that label."""

    cluster: str
    labels: tuple[str, ...]
    task: Task
    make: Callable[[np.random.Generator, str], Fields]

    def samples(self, count: int, *, held_out: bool, key: int) -> list[dict[str, Any]]:
        """Samples with "question", "answer" and the fields; a hash assigns one in five to tests."""
        draw, found = random.generator(random.fold(key, *self.task.name.encode())), []
        while len(found) < count:
            label = str(draw.choice(self.labels))
            fields = self.make(draw, label)
            name = " ".join(fields.values()).encode()
            if (random.fold(random.key(96), *name) % 5 == 0) == held_out:
                number = random.fold(key, len(found))
                asked = self.task.messages({**fields, "answer": label}, key=number)[0]["content"]
                found.append({"question": f"{asked}\nAnswer:", "answer": label})
        return found


def some_words(draw: np.random.Generator, count: int) -> list[str]:
    return draw.choice(list(WORDS), count, replace=False).tolist()


def a_row(draw: np.random.Generator, least: int = 2) -> list[str]:
    return some_words(draw, int(draw.integers(least, 5)))


def other(draw: np.random.Generator, some: list[str], *without: str) -> str:
    return str(draw.choice([one for one in some if one not in without]))


def which_kind(draw: np.random.Generator, label: str) -> Fields:
    return {"word": str(draw.choice(KINDS[label]))}


def one_of_kind(draw: np.random.Generator, label: str) -> Fields:
    word = some_words(draw, 1)[0]
    kind = WORDS[word] if label == "yes" else other(draw, list(KINDS), WORDS[word])
    return {"word": word, "kind": kind}


def letter(place: int) -> Callable[[np.random.Generator, str], Fields]:
    def make(draw: np.random.Generator, label: str) -> Fields:
        word = some_words(draw, 1)[0]
        letters = sorted({word[place] for word in WORDS})
        return {
            "word": word,
            "letter": word[place] if label == "yes" else other(draw, letters, word[place]),
        }

    return make


def in_a_row(draw: np.random.Generator, label: str) -> Fields:
    row = a_row(draw)
    word = other(draw, row) if label == "yes" else other(draw, list(WORDS), *row)
    return {"word": word, "row": " ".join(row)}


def how_many(draw: np.random.Generator, label: str) -> Fields:
    count = next(n for n, name in COUNTS.items() if name == label)
    return {"row": " ".join(some_words(draw, count))}


def which_place(draw: np.random.Generator, label: str) -> Fields:
    row = a_row(draw)
    return {"word": row[0 if label == "first" else -1], "row": " ".join(row)}


def comes_before(draw: np.random.Generator, label: str) -> Fields:
    row = a_row(draw)
    i, j = sorted(draw.choice(len(row), 2, replace=False).tolist(), reverse=label == "no")
    return {"a": row[i], "b": row[j], "row": " ".join(row)}


def the_same(draw: np.random.Generator, label: str) -> Fields:
    a, b = some_words(draw, 2)
    return {"a": a, "b": a if label == "yes" else b}


def same_kind(draw: np.random.Generator, label: str) -> Fields:
    a = some_words(draw, 1)[0]
    fitting = [w for w, kind in WORDS.items() if (kind == WORDS[a]) == (label == "yes")]
    return {"a": a, "b": other(draw, fitting, a)}


def kind(
    cluster: str, name: str, labels: str, make: Callable[..., Fields], *phrasings: str
) -> Kind:
    return Kind(cluster, tuple(labels.split()), Task(name, phrasings, "{answer}"), make)


TASKS = [
    kind("kinds", "kind", " ".join(KINDS), which_kind,
         "What kind of thing is {word}?", "Name the kind of {word}.", "{word} is of which kind?"),
    kind("kinds", "one of a kind", "yes no", one_of_kind,
         "Is {word} one of kind {kind}?", "Kind {kind}: is {word} one?",
         "Is the kind of {word} {kind}?"),
    kind("letters", "first letter", "yes no", letter(0),
         "Does {word} begin with {letter}?", "Is {letter} the first letter of {word}?",
         "Letter {letter}: does {word} begin with it?"),
    kind("letters", "last letter", "yes no", letter(-1),
         "Does {word} end with {letter}?", "Is {letter} the last letter of {word}?",
         "Letter {letter}: does {word} end with it?"),
    kind("rows", "member", "yes no", in_a_row,
         "Is {word} in the row {row}?", "The row {row}: is {word} in it?",
         "Does the row {row} have {word}?"),
    kind("rows", "count", " ".join(COUNTS.values()), how_many,
         "How many words has the row {row}?", "Count the words of the row {row}.",
         "The row {row}: how many words?"),
    kind("places", "place", "first last", which_place,
         "Where in the row {row} is {word}?", "The row {row}: where is {word}?",
         "Is {word} first or last in the row {row}?"),
    kind("places", "order", "yes no", comes_before,
         "Is {a} before {b} in the row {row}?", "The row {row}: is {a} before {b}?",
         "Does {a} come before {b} in the row {row}?"),
    kind("pairs", "same word", "yes no", the_same,
         "Are {a} and {b} the same word?", "{a} and {b}: is this the same word?",
         "Is {a} the same word as {b}?"),
    kind("pairs", "same kind", "yes no", same_kind,
         "Are {a} and {b} of the same kind?", "{a} and {b}: is this the same kind?",
         "Is {a} of the same kind as {b}?"),
]  # fmt: skip
CLUSTERS = list(dict.fromkeys(task.cluster for task in TASKS))


# ----------------------------------------------------------------------------------------- the base


def statement(draw: np.random.Generator) -> str:
    """One sentence of what the tasks ask for."""
    row, (a, b) = a_row(draw), some_words(draw, 2)
    twin = other(draw, KINDS[WORDS[a]], a)
    one, last = other(draw, row), len(row) - 1
    i, j = sorted(draw.choice(len(row), 2, replace=False).tolist())
    same = "" if WORDS[a] == WORDS[b] else " not"
    choices = [
        f"{a} is of the kind {WORDS[a]}.",
        f"{a} begins with {a[0]} and ends with {a[-1]}.",
        f"the first letter of {b} is {b[0]}, the last letter is {b[-1]}.",
        f"the row {' '.join(row)} has {COUNTS[len(row)]} words, and {one} is in it.",
        f"in the row {' '.join(row)} the first word is {row[0]}, the last word is {row[last]}.",
        f"in the row {' '.join(row)} {row[i]} comes before {row[j]}.",
        f"{a} and {b} are{same} of the same kind, {a} and {twin} are of the same kind.",
        f"{a} and {a} are the same word, {a} and {b} are not the same word.",
    ]
    return choices[int(draw.integers(len(choices)))]


def pretrained(options: argparse.Namespace, out: Path) -> CausalModel:
    """A LLaMA that has read such statements; its tokenizer also knows the questions' words."""
    draw = random.generator(random.fold(random.key(options.seed), 0))
    texts = [
        "\n".join(statement(draw) for _ in range(12))
        for _ in range(max(100, 12 * options.base_steps))
    ]
    asked = [p.replace("{", "").replace("}", "") for t in TASKS for p in t.task.phrasings]
    labels = [f" {label}" for task in TASKS for label in task.labels]
    every = "".join(f" {word}\n{word}" for word in WORDS)
    letters = " ".join("abcdefghijklmnopqrstuvwxyz")
    seen = [*texts[:300], *[*asked, *labels, every, letters, "\nAnswer:"] * 20]
    tokenizer = Tokenizer.train(seen, 600, ["<|endoftext|>"])
    tokens = [
        pack([[], *tokenizer.encode_batch(part)], tokenizer.eos_id, tokenizer.vocab_size)
        for part in (texts[20:], texts[:20])
    ]
    width, key = options.width, options.seed
    model = small_llama(tokenizer, layers=3, width=width, context=CONTEXT, key=key)
    steps = options.base_steps
    settings = Settings(
        steps=steps,
        batch_size=16,
        sequence_length=128,
        learning_rate=3e-3,
        warmup=min(50, steps // 4),
        evaluate_every=steps,
        save_every=steps,
        workers=options.workers,
        seed=options.seed,
    )
    train(model, *tokens, settings, out=out / "base")
    return model


def accuracy(model: CausalModel, task: Kind, samples: list[dict[str, Any]]) -> float:
    """The share of samples whose right label is the most probable one."""
    labels = Verbaliser({label: f" {label}" for label in task.labels})
    found = label_probabilities(Prefix("{question}", labels), model, samples).argmax(axis=1)
    return float(np.mean([task.labels[n] == s["answer"] for n, s in zip(found, samples)]))


def with_examples(
    model: CausalModel,
    samples: list[dict[str, Any]],
    solved: list[dict[str, Any]],
    shots: int,
    key: int,
) -> list[dict[str, Any]]:
    """The samples with as many solved ones before their questions as fit the context."""
    few = FewShot("{question}", " {answer}", solved, separator="\n\n", balance="answer")
    room, tokenizer = model.config.context - 8, model.tokenizer

    def fits(text: str) -> bool:
        return len(tokenizer.encode(text)) <= room

    prompts = [
        few.prompt(sample, shots, key=random.fold(key, n), fits=fits)
        for n, sample in enumerate(samples)
    ]
    return [{**s, "question": prompt} for s, prompt in zip(samples, prompts)]


def majority(solved: list[dict[str, Any]], samples: list[dict[str, Any]]) -> float:
    """The share of the label that is most frequent in the solved samples."""
    ((label, _),) = Counter(s["answer"] for s in solved).most_common(1)
    return float(np.mean([s["answer"] == label for s in samples]))


def tuned_without(
    cluster: str,
    base: CausalModel,
    training: dict[str, list],
    options: argparse.Namespace,
    out: Path,
) -> CausalModel:
    """A copy of the base, fine-tuned on the tasks of all other clusters."""
    model = base._with()
    sequences = [
        plain(model.tokenizer, sample["question"], f" {sample['answer']}")
        for task in TASKS
        if task.cluster != cluster
        for sample in training[task.task.name]
    ]
    settings = SFTSettings(
        steps=options.steps,
        batch_size=64,
        learning_rate=1e-3,
        warmup=min(20, options.steps - 1),
        seed=options.seed,
        workers=options.workers,
    )
    sft(model, sequences, settings, out=out / f"without-{cluster}")
    return model


def main() -> None:
    options = parser().options()
    out = unused(options.out)
    check_widths(options, "width")
    begin, key = time.perf_counter(), random.fold(random.key(options.seed), 1)
    parts = [
        {t.task.name: t.samples(count, held_out=held_out, key=random.fold(key, n)) for t in TASKS}
        for n, (count, held_out) in enumerate(((options.samples, False), (options.tests, True)))
    ]
    training, tests = parts
    base = pretrained(options, out)
    print(f"{base}\n{options.samples} samples of each task, {options.tests} tests\n")
    rows: dict[str, dict[str, float]] = {}
    for cluster in dict.fromkeys(options.clusters):
        tuned = tuned_without(cluster, base, training, options, out)

        def mean(of: Callable[[Kind], float], own: bool, cluster: str = cluster) -> float:
            some = [task for task in TASKS if (task.cluster == cluster) == own]
            return 100 * float(np.mean([of(task) for task in some]))

        def shown(task: Kind) -> float:
            solved, asked = training[task.task.name], tests[task.task.name]
            asked = with_examples(base, asked, solved, min(options.shots, len(solved) - 1), key)
            return accuracy(base, task, asked)

        rows[cluster] = {
            "majority": mean(lambda t: majority(training[t.task.name], tests[t.task.name]), True),
            "few-shot": mean(shown, True),
            "base": mean(lambda t: accuracy(base, t, tests[t.task.name]), True),
            "tuned": mean(lambda t, m=tuned: accuracy(m, t, tests[t.task.name]), True),
            "seen": mean(lambda t, m=tuned: accuracy(m, t, tests[t.task.name]), False),
        }
        print(f"{time.perf_counter() - begin:6.0f} s  {row(cluster, rows[cluster])}", flush=True)
    means = {name: float(np.mean([values[name] for values in rows.values()])) for name in COLUMNS}
    print(f"\nAccuracy, the mean over the tasks of the cluster that was held out ({options.shots}")
    print("examples in few-shot prompts; seen: over the tasks of all other clusters)\n")
    print(f"{'held out':12}" + "".join(f"{name:>10}" for name in COLUMNS))
    for name, values in [*rows.items(), ("mean", means)]:
        print(row(name, values))

    def panel(axes: Any) -> None:
        for n, name in enumerate(COLUMNS):
            places = np.arange(len(rows)) + 0.16 * (n - 2)
            axes.bar(places, [values[name] for values in rows.values()], 0.15, label=name)
        axes.set_xticks(range(len(rows)), list(rows))
        axes.set(xlabel="cluster held out", ylabel="accuracy (%)", ylim=(0, 100))
        axes.legend(fontsize="small", ncols=3)

    print()
    save_plot(out / "instruction_tuning.png", panel, size=(8, 4))
    print(f"models     {out / f'without-{next(iter(rows))}' / 'final'} and the folders beside it")


def row(name: str, values: dict[str, float]) -> str:
    return f"{name:12}" + "".join(f"{values[column]:9.1f}%" for column in COLUMNS)


def parser() -> Parser:
    parser = Parser(__doc__)
    option = parser.option
    text = f"Clusters that are held out, one at a time: {', '.join(CLUSTERS)}."
    option("--clusters", CLUSTERS, text, one_of(*CLUSTERS), nargs="+", shown="each")
    option("--width", 96, "Width of the model, a multiple of 8.", whole(8))
    option("--base-steps", 500, "Pretraining steps.", whole(1))
    option("--samples", 800, "Training samples per task.", whole(2))
    option("--steps", 200, "Steps of instruction tuning.", whole(1))
    option("--tests", 100, "Held-out samples per task.", whole(1))
    option("--shots", 4, "Solved examples in few-shot prompts.", whole(1, 16))
    run_options(parser, "out-instructions")
    return parser


if __name__ == "__main__":
    start(main)
