"""Supervised fine-tuning: a small language model learns to do what it is told.

    python examples/sft.py                                     # a few minutes on two cores
    python examples/chat.py out-sft/final                      # talk to it afterwards: "Reverse: c a d"
    python examples/sft.py --model my-model --data my.jsonl --kind conversation --out mine

A LLaMA is pretrained for a minute on the documentation that every Python carries, and then tuned on conversations in ChatML of
which only the answers count: four skills (copy, reverse, sort, add), each in three phrasings, and sentences of the documentation
to be finished.  Tested is on inputs that training never has, before and after.  Expect copy, reverse and sort to be learned
almost perfectly, and adding only in part: there are fewer sums to learn from than it takes to find the rule.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

import numpy as np
import skills
from skills import CHAT, TASKS

import tinyplm
from tinyplm.data.corpus import default_corpus
from tinyplm.models.causal_model import CausalModel
from tinyplm.tokenizers.chat import folder_template
from tinyplm.training.log import read
from tinyplm.tuning.conversations import conversations, prompt_ids, set_chat_format, shortened
from tinyplm.tuning.instructions import instruction_messages
from tinyplm.tuning.records import read_records
from tinyplm.tuning.sequences import Sequence
from tinyplm.tuning.sft import SFTSettings, answer_loss, sft


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


def own_data(model: CausalModel, options: argparse.Namespace) -> list[Sequence]:
    """The user's file, in the chat format of the model."""
    records = read_records(options.data, options.kind)
    if options.kind == "instruction":
        records = [{"messages": instruction_messages(record)} for record in records]
    template = folder_template(model.files, model.tokenizer.named)
    found = conversations(model.tokenizer, template, records, max_length=model.config.context)
    print(f"data       {len(found.sequences)} conversations; {found.cut} were cut to the context, {found.dropped} left out")
    return found.sequences


def skill_data(model: CausalModel, options: argparse.Namespace) -> tuple[list[Sequence], list[Sequence]]:
    """(training, held out)."""
    training = [s for skill in TASKS for s in skills.samples(skill, options.samples, held_out=False, seed=options.seed)]
    test = [s for skill in TASKS for s in skills.samples(skill, 50, held_out=True, seed=options.seed)]
    texts = conversations(model.tokenizer, CHAT, sentences(options.samples // 2, options.seed)).sequences
    cut = max(1, len(texts) // 10)
    parts = [*skills.sequences(model, training), *texts[cut:]], [*skills.sequences(model, test, seed=1), *texts[:cut]]
    return tuple(shortened(part, model.config.context).sequences for part in parts)


def report(before: dict[str, float], after: dict[str, float]) -> None:
    print(f"\nexact match on inputs that were never trained on, greedy\n\n{'skill':12}{'before':>8}{'after':>8}")
    for skill in before:
        print(f"{skill:12}{before[skill]:8.1%}{after[skill]:8.1%}")


def main() -> None:
    options = arguments()
    settings = SFTSettings(steps=options.steps, batch_size=options.batch, learning_rate=options.lr, workers=options.workers,
                           warmup=min(50, options.steps // 4), seed=options.seed, packed=options.packed,
                           evaluate_every=max(1, options.steps // 4))  # fmt: skip
    if options.model:
        model = tinyplm.load(options.model)
        named = model.text_tokenizer().named
        set_chat_format(model, (folder_template(model.files, named) if options.data else None) or CHAT)
    else:
        model, _ = skills.base_model(steps=options.base_steps, workers=options.workers, seed=options.seed)
    print(f"model      {model}")
    if options.data:
        every = own_data(model, options)
        cut = max(1, len(every) // 10)
        training, held_out = every[cut:], every[:cut]
        tests = {}
    else:
        training, held_out = skill_data(model, options)
        tests = {skill: skills.samples(skill, options.tests, held_out=True, seed=options.seed + 1) for skill in TASKS}
    print(f"data       {len(training)} conversations to train on, {len(held_out)} held out")
    before = {skill: skills.exact_match(model, some, workers=options.workers) for skill, some in tests.items()}
    first = answer_loss(model, held_out, workers=options.workers)
    sft(model, training, settings, validation=held_out, out=options.out)
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
    records = list(read(Path(options.out) / "log.jsonl"))

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

    drawn = skills.draw(Path(options.out) / "sft.png", [losses, bars] if tests else [losses])
    print(f"\nplot       {Path(options.out) / 'sft.png'}" if drawn else "\nplot       not drawn: pip install 'tinyplm[plot]'")
    print(f"model      {Path(options.out) / 'final'}")
    print(f"talk       python examples/chat.py {Path(options.out) / 'final'}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", help="a folder to begin with (default: pretrain a small one)")
    parser.add_argument("--data", help="a JSON-lines file of your own in place of the skills")
    parser.add_argument("--kind", choices=("instruction", "conversation"), default="instruction", help="of its records")
    parser.add_argument("--base-steps", type=int, default=200, help="of pretraining")
    parser.add_argument("--steps", type=int, default=800, help="of tuning")
    parser.add_argument("--samples", type=int, default=1200, help="to train on, of each skill")
    parser.add_argument("--tests", type=int, default=100, help="of each skill")
    parser.add_argument("--batch", type=int, default=64, help="conversations a step (packed: rows)")
    parser.add_argument("--packed", type=int, help="places of a row that several conversations share")
    parser.add_argument("--lr", type=float, default=3e-3, help="the peak of the learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="threads that share a batch")
    parser.add_argument("--out", default="out-sft")
    options = parser.parse_args()
    for name in ("base_steps", "steps", "samples", "tests", "batch", "workers"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(options, name)}")
    return options


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\ninterrupted")
