"""Supervised fine-tuning: a small language model learns to follow instructions.

    python examples/sft.py                                     # a few minutes on two cores
    tinyplm chat --model out-sft                               # then talk to it: "Reverse: c a d"
    tinyplm sft --model my-model --data my.jsonl               # your own model and data

A LLaMA is pretrained for a minute on Python's documentation, then fine-tuned on the answers of
ChatML conversations: four skills (copy, reverse, sort, add), each in three phrasings, and sentences
of the documentation to be completed.  It is tested before and after on held-out inputs.  Expect
copy, reverse and sort to be nearly perfect, and addition to be partial: there are too few sums to
learn the rule from.
"""

from __future__ import annotations

import argparse
import re
from typing import Any

import numpy as np
import skills
from common import run_options, start
from skills import CHAT, TASKS, Sample

from tinyplm.arguments import check_whole
from tinyplm.cli.folders import unused
from tinyplm.cli.output import save_plot, tinyplm_command
from tinyplm.cli.parser import Parser, number, whole
from tinyplm.data.corpus import default_corpus
from tinyplm.models.causal_model import CausalModel
from tinyplm.training.log import read
from tinyplm.tuning import (
    SFTSettings,
    TokenSequence,
    answer_loss,
    conversations,
    instruction_messages,
    prompt_ids,
    sft,
)
from tinyplm.tuning.data.conversations import shortened


def sentences(count: int, seed: int) -> list[dict]:
    """Sentences of the documentation as conversations: complete the first half with the second."""
    form = re.compile(r"(?<=[.] )[A-Z][a-z]+(?: [a-z]+){5,11}[.]")
    found = sorted({s for document in default_corpus() for s in form.findall(document)})
    records = []
    for n in np.random.default_rng(seed).permutation(len(found))[:count]:
        words = found[n].split()
        half = len(words) // 2
        asked = f"Finish the sentence: {' '.join(words[:half])}"
        record = {"instruction": asked, "output": " ".join(words[half:])}
        records.append({"messages": instruction_messages(record)})
    return records


def skill_data(
    model: CausalModel, training: list[Sample], test: list[Sample], options: argparse.Namespace
) -> tuple[list[TokenSequence], list[TokenSequence]]:
    """(training, held out): samples of the skills, and sentences."""
    some = sentences(options.samples // 2, options.seed)
    texts = conversations(model.tokenizer, CHAT, some).sequences
    cut = max(1, len(texts) // 10)
    parts = (
        [*skills.sequences(model, training), *texts[cut:]],
        [*skills.sequences(model, test, seed=1), *texts[:cut]],
    )
    return tuple(shortened(part, model.config.context).sequences for part in parts)


def report(before: dict[str, float], after: dict[str, float]) -> None:
    print(f"\nexact match on held-out inputs, greedy\n\n{'skill':12}{'before':>8}{'after':>8}")
    for skill in before:
        print(f"{skill:12}{before[skill]:8.1%}{after[skill]:8.1%}")


def main() -> None:
    options = parser().options()
    out = unused(options.out)
    settings = SFTSettings(
        steps=options.steps,
        batch_size=options.batch,
        learning_rate=options.lr,
        workers=options.workers,
        warmup=min(50, options.steps // 4),
        seed=options.seed,
        packed=options.packed,
        evaluate_every=max(1, options.steps // 4),
    )
    parts = [
        skills.of_each(list(TASKS), count, held_out=held_out, seed=options.seed)
        for count, held_out in ((options.samples, False), (50, True))
    ]
    tests = {
        skill: skills.samples(skill, options.tests, held_out=True, seed=options.seed + 1)
        for skill in TASKS
    }
    model, tokens = skills.new_model(seed=options.seed)
    print(f"model      {model}")
    training, held_out = skill_data(model, *parts, options)
    print(f"data       {len(training)} conversations for training, {len(held_out)} held out")
    if options.packed is not None:
        check_whole("--packed", options.packed, max(map(len, training)), model.config.context)
    skills.pretrain(
        model, tokens, steps=options.base_steps, workers=options.workers, seed=options.seed
    )

    def measured() -> tuple[dict[str, float], float]:
        workers = options.workers
        right = {n: skills.exact_match(model, some, workers=workers) for n, some in tests.items()}
        return right, answer_loss(model, held_out, workers=workers)

    before, first = measured()
    sft(model, training, settings, validation=held_out, out=out)
    after, last = measured()
    print(f"\nloss on held-out answers: {first:.3f} before, {last:.3f} after (nats per token)")
    report(before, after)
    asked = [
        "Reverse: c a d",
        "Put in order: j b e",
        "12 + 30 =",
        "Finish the sentence: The default is to",
    ]
    ids = [prompt_ids(model.tokenizer, CHAT, text) for text in asked]
    print()
    for text, said in zip(asked, skills.answers(model, ids, workers=options.workers)):
        print(f"    {text}  ->  {said}")
    records = list(read(out / "log.jsonl"))

    def losses(axes: Any) -> None:
        for field, style in (("loss", {"lw": 0.8}), ("validation_loss", {"marker": "o"})):
            points = [(r["step"], r[field]) for r in records if field in r]
            axes.plot(*zip(*points), label=field.replace("_", " "), **style)
        axes.set(xlabel="step", ylabel="loss on answers (nats per token)")
        axes.legend()

    def bars(axes: Any) -> None:
        place = np.arange(len(tests))
        axes.bar(place - 0.2, before.values(), 0.4, label="before")
        axes.bar(place + 0.2, after.values(), 0.4, label="after")
        axes.set(xticks=place, xticklabels=list(tests), ylabel="exact match, held out", ylim=(0, 1))
        axes.legend()

    print()
    save_plot(out / "sft.png", losses, bars)
    print(f"model      {out / 'final'}")
    print(f"talk       {tinyplm_command('chat', '--model', out)}")


def parser() -> Parser:
    parser = Parser(__doc__)
    option = parser.option
    option("--base-steps", 200, "Pretraining steps.", whole(1))
    option("--steps", 800, "Fine-tuning steps.", whole(1))
    option("--samples", 1200, "Training samples per skill.", whole(2))
    option("--tests", 100, "Test samples per skill.", whole(1))
    option("--batch", 64, "Conversations per step; with --packed, rows per step.", whole(1))
    option(
        "--packed",
        None,
        "Pack several conversations into rows of N tokens.",
        whole(1),
        shown="one row each",
    )
    option("--lr", 3e-3, "Peak learning rate.", number(above=0.0))
    run_options(parser, "out-sft")
    return parser


if __name__ == "__main__":
    start(main)
