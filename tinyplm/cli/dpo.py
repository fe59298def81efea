"""Align a decoder with preferences: DPO, IPO, hinge, ORPO, SimPO on pairs, KTO on single answers.

    tinyplm dpo --model out-sft --data pairs.jsonl --out out-dpo
    tinyplm dpo --model out-sft --data judged.jsonl --loss kto --out out-kto

A record is {"prompt": ..., "chosen": ..., "rejected": ...}; for KTO {"prompt": ..., "answer": ...,
"label": true or false}.  The reference is the model as it was.
"""

from __future__ import annotations

import argparse
from typing import Any

from ..arguments import mismatch
from ..tuning import DPOSettings, KTOSettings, dpo, feedback, kto, preferences, prompt_ids
from ..tuning.align.pair_losses import PAIR_LOSSES
from .folders import check_ready, recorded, run_folder, stopped
from .parser import POSITIVE, Parser, number, one_of
from .reports import (
    PAIRS,
    SINGLES,
    answers,
    count_parts,
    curves,
    show_result,
    show_samples,
    tuned_model,
    validation_table,
)
from .tuning import (
    Record,
    adapter,
    answer_options,
    data_options,
    in_passes,
    last_user,
    open_chat,
    read_data,
    set_tokens,
    settings_of,
    some_of,
    training_options,
)

COMMAND, PASSES = "dpo", 1
# {option: the loss that has it}
OWN = {"smoothing": "dpo", "margin": "simpo", "lam": "orpo"}
OWN |= dict.fromkeys(("desirable_weight", "undesirable_weight"), "kto")


def add(parser: Parser) -> None:
    data_options(parser, "preferences or judged answers")
    training_options(parser, DPOSettings, "out-dpo", passes=PASSES)
    parser.section("loss")
    losses = [*PAIR_LOSSES, "kto"]
    parser.option("--loss", "dpo", f"Loss: {', '.join(losses)}.", one_of(*losses))
    text = "Reward per nat of log-probability gained; larger values stay closer to the reference."
    parser.option("--beta", None, text, POSITIVE, shown="2 of simpo, otherwise 0.1")
    text = "Assumed share of wrong preferences, of the loss dpo."
    parser.option("--smoothing", 0.0, text, number(least=0.0, below=0.5))
    text = "Least difference of the rewards of the loss simpo."
    parser.option("--margin", 0.0, text, number(least=0.0))
    text = "Weight of the odds ratio of the loss orpo."
    parser.option("--lam", 0.1, text, number(least=0.0))
    text = "Weight of desirable answers of the loss kto."
    parser.option("--desirable-weight", 1.0, text, number(least=0.0))
    text = "Weight of undesirable answers of the loss kto."
    parser.option("--undesirable-weight", 1.0, text, number(least=0.0))
    answer_options(parser)


def run(options: argparse.Namespace) -> int:
    single = options.loss == "kto"
    for name, loss in OWN.items():
        if name in options.given and options.loss != loss:
            option = f"--{name.replace('_', '-')}"
            raise mismatch(option, f"none with --loss {options.loss}, which has none", "one")
    if options.beta is None:
        options.beta = 2.0 if options.loss == "simpo" else 0.1
    settings: Any = settings_of(KTOSettings if single else DPOSettings, options)
    data = read_data(options, ("feedback",) if single else ("preference",))
    check_ready(options)
    set_tokens(options)
    model, template = open_chat(options)
    tokenizer = model.text_tokenizer()
    make: Any = feedback if single else preferences
    training, held_out = data.each(lambda part: make(tokenizer, template, part))
    if single and len(held_out) < 2:
        expected = "two or more held-out answers, which kto compares"
        raise mismatch("--validation", expected, f"{len(held_out)} of {len(held_out + training)}")
    count_parts("answers" if single else "pairs", training, held_out)
    settings = in_passes(settings, options, len(training), PASSES)

    def ids_of(record: Record) -> list[int]:
        return prompt_ids(tokenizer, template, record["prompt"], tools=record.get("tools"))

    shown, prompts = some_of(data.held_out, ids_of, options.samples, model.config.context - 1)
    before = answers(model, prompts, options.tokens)
    with run_folder(COMMAND, options) as out:
        places = {"validation": held_out, **recorded(options, out)}
        train: Any = kto if single else dpo
        result = train(model, training, settings, **places, **adapter(model, options))
        if result.signal is not None:
            return stopped(COMMAND, options, result.signal)
        after = answers(tuned_model(out, options), prompts, options.tokens)
        print(f"\n{validation_table(result.validation, SINGLES if single else PAIRS)}")
        asked = [last_user(record["prompt"]) for record in shown]
        show_samples(asked, ("before", before), ("after", after))
        shares = ("accuracy", "validation_accuracy")
        curves(out, ("loss", ("loss", "validation_loss")), ("share judged right", shares))
        show_result(out, talk=template is not None)
    return 0
