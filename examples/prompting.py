"""Prompting: zero to many examples, words as labels, a soft prompt and a prefix, on one task.

    python examples/prompting.py            # a few minutes on two cores

A model this small does not learn from examples in its prompt unless its training text gave it a
reason to (Chan et al. 2022).  So the LLaMA here is pretrained on lists: documents of lines "word >
kind" with words of two kinds.  In half of the documents the names of the two kinds are swapped, so
only the preceding lines tell which way round a document is.  The task: animals and tools with
swapped names, on words that never occur in training in a list of these two kinds.

    no example      the model answers by meaning, which here is nearly always wrong
    examples        1, 2, 4 or 8 solved lines before the question
    words           the same words with the true names, to check that they are known; with and
                    without calibration (Zhao et al. 2021)
    trained         a soft prompt and a prefix initialised with four solved lines (their
                    embeddings; their keys and values), and all parameters; each on 32 solved
                    lines.  A few rows may memorise the 32 words instead of learning the swap:
                    see the range over the runs
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import run_options, start

from tinyplm.cli.decoders import small_llama
from tinyplm.cli.folders import unused
from tinyplm.cli.output import save_plot, spread
from tinyplm.cli.parser import Parser, whole
from tinyplm.data.packing import pack
from tinyplm.models.causal_model import CausalModel
from tinyplm.tokenizers import Tokenizer
from tinyplm.training.loop import train
from tinyplm.training.settings import Settings
from tinyplm.tuning import (
    FewShot,
    Prefix,
    SFTSettings,
    Verbaliser,
    label_probabilities,
    prefix_of,
    sft,
    soft_prompt,
)

KINDS = {
    "animal": (
        "cat dog horse cow sheep goat pig hen duck goose mouse rat fox wolf bear lion tiger "
        "deer hare frog crow owl hawk eel crab bee ant wasp moth worm seal whale"
    ).split(),
    "tool": (
        "hammer saw drill file axe spade rake hoe knife fork spoon brush broom pump lever "
        "wrench pliers chisel plane screw nail rope chain hook ladder bucket needle anvil "
        "clamp shovel trowel vice"
    ).split(),
    "colour": (
        "red green blue white black grey brown pink purple orange yellow violet scarlet "
        "crimson amber beige ivory teal olive navy lilac cyan magenta maroon ochre"
    ).split(),
    "number": (
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand"
    ).split(),
    "food": (
        "bread butter cheese milk egg rice bean pea apple pear plum grape lemon melon onion "
        "carrot cabbage soup honey salt sugar pepper flour pasta ham"
    ).split(),
}
TASK = ("animal", "tool")


def document(draw: np.random.Generator, held_out: set[str]) -> str:
    """A list of words of two kinds, with names swapped or not; half are of the task's kinds."""
    kinds = draw.choice(TASK if draw.random() < 0.5 else list(KINDS)[:3], 2, replace=False).tolist()
    names = kinds if draw.random() < 0.5 else kinds[::-1]
    words = [
        (word, name)
        for kind, name in zip(kinds, names)
        for word in KINDS[kind]
        if set(kinds) != set(TASK) or word not in held_out
    ]
    few = [words[n] for n in draw.permutation(len(words))[:10]]
    # words recur: the simplest reason to look back
    lines = [few[n] for n in draw.integers(0, len(few), 22)]
    return "\n".join(f"{word} > {name}" for word, name in lines)


def pretrained(held_out: set[str], options: argparse.Namespace, out: Path) -> CausalModel:
    draw = np.random.default_rng(options.seed)
    texts = [document(draw, held_out) for _ in range(options.documents)]
    every = " ".join([w for words in KINDS.values() for w in words] + list(KINDS))
    tokenizer = Tokenizer.train([every, *texts[:200], f"\n{every.replace(' ', chr(10))}"], 700)
    tokens = [
        pack([[], *tokenizer.encode_batch(part)], tokenizer.eos_id, tokenizer.vocab_size)
        for part in (texts[50:], texts[:50])
    ]
    model = small_llama(
        tokenizer, layers=3, width=128, context=128, key=options.seed, initializer_range=0.05
    )
    steps = options.steps
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


def accuracy(
    model: CausalModel,
    samples: list[dict],
    verbaliser: Verbaliser,
    template: str,
    calibrate: dict | None = None,
) -> float:
    """The share of samples assigned their own label; each has its own text."""
    found = label_probabilities(Prefix(template, verbaliser), model, samples, calibrate=calibrate)
    rows = zip(found.argmax(axis=1), samples)
    return float(np.mean([verbaliser.labels[n] == sample["label"] for n, sample in rows]))


def main() -> None:
    options = parser().options()
    out = unused(options.out)
    mixed = np.random.default_rng(options.seed)
    order = {kind: mixed.permutation(KINDS[kind]).tolist() for kind in TASK}
    tests = [{"word": word, "label": kind} for kind in TASK for word in order[kind][:16]]
    solved = [{"word": word, "label": kind} for kind in TASK for word in order[kind][16:]]
    model = pretrained({sample["word"] for sample in tests}, options, out)
    print(f"{model}\n{len(tests)} test words, {len(solved)} words for examples; chance is 50%\n")
    rows: list[tuple[str, str, list[float], float, int]] = []

    def measure(group: str, name: str, once: Callable[[int], float], trained: int = 0) -> None:
        start = time.perf_counter()
        scores = [once(number) for number in range(options.draws)]
        seconds = (time.perf_counter() - start) / options.draws
        rows.append((group, name, scores, seconds, trained))
        cells = f"{spread(scores):24}{trained:8,} trained{seconds:7.1f} s"
        print(f"{group:10}{name:24}{cells}", flush=True)

    names = dict(zip(TASK, TASK[::-1]))
    exchanged = Verbaliser({kind: f" {name}" for kind, name in names.items()})

    examples = [{**s, "name": names[s["label"]]} for s in solved]
    few = FewShot("{word} >", " {name}", examples, separator="\n", balance="label")

    def shots(count: int) -> Callable[[int], float]:
        def once(number: int) -> float:
            keys = range(number * 1000, number * 1000 + len(tests))
            asked = [{**s, "text": few.prompt(s, count, key=k)} for s, k in zip(tests, keys)]
            return accuracy(model, asked, exchanged, "{text}")

        return once

    for count in options.shots:
        measure("examples", f"{count} in the prompt", shots(count))
    own = Verbaliser({kind: f" {kind}" for kind in TASK})
    plain = [{**s, "text": f"{s['word']} >"} for s in tests]
    measure("words", "true names", lambda number: accuracy(model, plain, own, "{text}"))

    def calibrated(number: int) -> float:
        return accuracy(model, plain, own, "{text}", {"text": "\n >"})

    measure("words", "true names, calibrated", calibrated)

    pattern = Prefix("{word} >", exchanged)
    sequences = [pattern.sequence(model.tokenizer, s, s["label"]) for s in solved]
    four = (*solved[:2], *solved[-2:])
    lines = "".join(f"{s['word']} > {names[s['label']]}\n" for s in four)
    start = model.tokenizer.encode(lines)

    def settings(number: int, lr: float) -> SFTSettings:
        rates = {"learning_rate": lr, "warmup": 5}
        steps, workers = options.tuning_steps, options.workers
        return SFTSettings(steps=steps, batch_size=16, workers=workers, seed=number, **rates)

    def soft(number: int) -> float:
        chosen = settings(number, 0.05)
        prompted, _ = soft_prompt(model, sequences, chosen, ids=start, progress=False)
        return accuracy(prompted, tests, pattern.verbaliser, pattern.template)

    def trained(number: int, lr: float, **adapter: Any) -> float:
        tuned = model._with()
        sft(tuned, sequences, settings(number, lr), progress=False, **adapter)
        return accuracy(tuned, tests, pattern.verbaliser, pattern.template)

    def prefixed(number: int) -> float:
        return trained(number, 5e-3, **prefix_of(model, ids=start))

    def everything(number: int) -> float:
        return trained(number, 3e-3)

    numbers, layers = len(start) * model.config.hidden_size, model.config.num_hidden_layers
    measure("trained", f"soft prompt, {len(start)} rows", soft, numbers)
    measure("trained", f"prefix, {len(start)} rows", prefixed, 2 * layers * numbers)
    measure("trained", "all parameters", everything, model.parameter_count())

    def panel(axes: Any) -> None:
        means = [(group, name, np.mean(scores)) for group, name, scores, _, _ in rows]
        some = [(int(name.split()[0]), mean) for group, name, mean in means if group == "examples"]
        axes.plot(*zip(*some), marker="o", label="examples in the prompt")
        for i, (group, name, mean) in enumerate(means[len(some) :], 1):
            axes.axhline(mean, ls="--" if group == "words" else ":", color=f"C{i}", label=name)
        axes.set(xlabel="examples in the prompt", ylabel="accuracy on test words")
        axes.set(ylim=(-0.02, 1.02))
        axes.legend(fontsize="small")

    print()
    save_plot(out / "prompting.png", panel, size=(7, 4))


def parser() -> Parser:
    parser = Parser(__doc__)
    option = parser.option
    option("--shots", [0, 1, 2, 4, 8], "Numbers of examples in the prompt.", whole(0, 8), nargs="+")
    option("--draws", 3, "Number of draws of examples, and of training runs.", whole(1))
    option("--documents", 20000, "Number of pretraining documents.", whole(100))
    option("--steps", 800, "Pretraining steps.", whole(1))
    option("--tuning-steps", 60, "Tuning steps.", whole(1))
    run_options(parser, "out-prompting")
    return parser


if __name__ == "__main__":
    start(main)
