"""Supervised fine-tuning: a small language model learns to do what it is told.

    python examples/sft.py                                     # a few minutes on two cores
    python examples/chat.py out-sft/final                      # talk to it afterwards: "Reverse: c a d"
    python examples/sft.py --model my-model --data my.jsonl --kind conversation --out mine

A LLaMA is pretrained for a minute on the documentation that ships with every Python, and then tuned on conversations in ChatML of
which only the answers count: four skills (copy, reverse, sort, add), each in three phrasings, and sentences of the documentation
to be finished.  Tested is on inputs that training never has, before and after.  Expect copy, reverse and sort to be learned
almost perfectly, and adding only in part: there are fewer sums to learn from than it takes to find the rule.
"""

from __future__ import annotations

import argparse
import re

import numpy as np
import skills
from common import Parser, command, model_folder, number, one_of, run_options, save_plot, start, unused, whole
from skills import CHAT, TASKS, Sample

import tinyplm
from tinyplm.data.corpus import default_corpus
from tinyplm.models.causal_model import CausalModel
from tinyplm.tokenizers.chat.formats import folder_template
from tinyplm.training.log import read
from tinyplm.tuning.align.sft import SFTSettings, answer_loss, sft
from tinyplm.tuning.data.conversations import conversations, prompt_ids, set_chat_format, shortened
from tinyplm.tuning.data.records import read_records
from tinyplm.tuning.data.sequences import TokenSequence
from tinyplm.tuning.prompts.instructions import instruction_messages


def sentences(count: int, seed: int) -> list[dict]:
    """Sentences of the documentation as conversations: the first half is given, the second is the answer."""
    found = sorted(
        {s for document in default_corpus() for s in re.findall(r"(?<=[.] )[A-Z][a-z]+(?: [a-z]+){5,11}[.]", document)}
    )
    records = []
    for n in np.random.default_rng(seed).permutation(len(found))[:count]:
        words = found[n].split()
        half = len(words) // 2
        asked = f"Finish the sentence: {' '.join(words[:half])}"
        records.append(
            {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": " ".join(words[half:])}]}
        )
    return records


def own_data(model: CausalModel, records: list[dict]) -> list[TokenSequence]:
    """The user's records, in the chat format of the model."""
    template = folder_template(model.files, model.tokenizer.named)
    found = conversations(model.tokenizer, template, records, max_length=model.config.context)
    print(f"data       {len(found.sequences)} conversations; {found.cut} were cut to the context, {found.dropped} left out")
    if len(found.sequences) < 2:
        raise ValueError("--data: expected at least two conversations that fit the context, one of them to hold out")
    return found.sequences


def skill_data(model: CausalModel, training: list[Sample], test: list[Sample], options: argparse.Namespace
               ) -> tuple[list[TokenSequence], list[TokenSequence]]:  # fmt: skip
    """(training, held out): the samples of the skills, and sentences."""
    texts = conversations(model.tokenizer, CHAT, sentences(options.samples // 2, options.seed)).sequences
    cut = max(1, len(texts) // 10)
    parts = [*skills.sequences(model, training), *texts[cut:]], [*skills.sequences(model, test, seed=1), *texts[:cut]]
    return tuple(shortened(part, model.config.context).sequences for part in parts)


def report(before: dict[str, float], after: dict[str, float]) -> None:
    print(f"\nexact match on inputs that were never trained on, greedy\n\n{'skill':12}{'before':>8}{'after':>8}")
    for skill in before:
        print(f"{skill:12}{before[skill]:8.1%}{after[skill]:8.1%}")


def main() -> None:
    given = parser()
    options = given.options()
    if "kind" in given.given() and not options.data:
        raise ValueError("--kind: says what the records of --data are, and --data was not given")
    out = unused(options.out)
    settings = SFTSettings(steps=options.steps, batch_size=options.batch, learning_rate=options.lr, workers=options.workers,
                           warmup=min(50, options.steps // 4), seed=options.seed, packed=options.packed,
                           evaluate_every=max(1, options.steps // 4))  # fmt: skip
    records, parts, tests = [], [], {}
    if options.data:
        records = read_records(options.data, options.kind)
        if options.kind == "instruction":
            records = [{"messages": instruction_messages(record)} for record in records]
    else:
        parts = [[s for skill in TASKS for s in skills.samples(skill, count, held_out=held_out, seed=options.seed)]
                 for count, held_out in ((options.samples, False), (50, True))]  # fmt: skip
        tests = {skill: skills.samples(skill, options.tests, held_out=True, seed=options.seed + 1) for skill in TASKS}
    if options.model:
        model = tinyplm.load(model_folder(options.model))
        model.check_causal()
        named = model.text_tokenizer().named
        set_chat_format(model, (folder_template(model.files, named) if options.data else None) or CHAT)
    else:
        model, _ = skills.base_model(steps=options.base_steps, workers=options.workers, seed=options.seed)
    print(f"model      {model}")
    if options.data:
        every = own_data(model, records)
        cut = max(1, len(every) // 10)
        training, held_out = every[cut:], every[:cut]
    else:
        training, held_out = skill_data(model, *parts, options)
    print(f"data       {len(training)} conversations to train on, {len(held_out)} held out")
    before = {skill: skills.exact_match(model, some, workers=options.workers) for skill, some in tests.items()}
    first = answer_loss(model, held_out, workers=options.workers)
    sft(model, training, settings, validation=held_out, out=out)
    last = answer_loss(model, held_out, workers=options.workers)
    after = {skill: skills.exact_match(model, some, workers=options.workers) for skill, some in tests.items()}
    print(f"\nloss on held-out answers: {first:.3f} before, {last:.3f} after (nats a token)")
    if tests:
        report(before, after)
        asked = ["Reverse: c a d", "Put in order: j b e", "12 + 30 =", "Finish the sentence: The default is to"]
        ids = [prompt_ids(model.tokenizer, CHAT, text) for text in asked]
        print()
        for text, said in zip(asked, skills.answers(model, ids, workers=options.workers)):
            print(f"    {text}  ->  {said}")
    records = list(read(out / "log.jsonl"))

    def losses(axes) -> None:
        for field, style in (("loss", {"lw": 0.8}), ("validation_loss", {"marker": "o"})):
            axes.plot(*zip(*[(r["step"], r[field]) for r in records if field in r]), label=field.replace("_", " "), **style)
        axes.set(xlabel="step", ylabel="loss on answers (nats a token)")
        axes.legend()

    def bars(axes) -> None:
        place = np.arange(len(tests))
        axes.bar(place - 0.2, before.values(), 0.4, label="before")
        axes.bar(place + 0.2, after.values(), 0.4, label="after")
        axes.set(xticks=place, xticklabels=list(tests), ylabel="exact match, held out", ylim=(0, 1))
        axes.legend()

    print()
    save_plot(out / "sft.png", *([losses, bars] if tests else [losses]))
    print(f"model      {out / 'final'}")
    print(f"talk       {command('chat.py', out / 'final')}")


def parser() -> Parser:
    parser = Parser(__doc__)
    parser.option("--model", None, "The folder of the model to begin with.", metavar="FOLDER",
                  otherwise="a small one is pretrained first")  # fmt: skip
    parser.option("--data", None, "Your own JSON-lines file.", metavar="FILE", otherwise="the skills, and sentences to finish")
    parser.option("--kind", "instruction", "The kind of its records: instruction or conversation.",
                  one_of("instruction", "conversation"))  # fmt: skip
    parser.option("--base-steps", 200, "The number of steps of pretraining.", whole(1))
    parser.option("--steps", 800, "The number of steps of tuning.", whole(1))
    parser.option("--samples", 1200, "The number of samples of each skill to train on.", whole(2))
    parser.option("--tests", 100, "The number of samples of each skill to test on.", whole(1))
    parser.option("--batch", 64, "The number of conversations in a step, or with --packed of rows.", whole(1))
    parser.option("--packed", None, "Pack several conversations into rows of N tokens.", whole(1), otherwise="a row for each")
    parser.option("--lr", 3e-3, "The peak of the learning rate.", number(above=0.0))
    run_options(parser, "out-sft")
    return parser


if __name__ == "__main__":
    start(main)
