"""Align a decoder with preferences: DPO, IPO, hinge, ORPO, SimPO on pairs, KTO on single answers.

    tinyplm dpo --model out-sft --data pairs.jsonl --out out-dpo
    tinyplm dpo --model out-sft --data judged.jsonl --loss kto --out out-kto

A record is {"prompt": ..., "chosen": ..., "rejected": ...}; for KTO {"prompt": ..., "answer": ...,
"label": true or false}.  The reference is the model as it was.
"""

from __future__ import annotations

import argparse
from typing import Any

from ..tuning import DPOSettings, KTOSettings, dpo, feedback, kto, preferences, prompt_ids
from ..tuning.align.pair_losses import PAIR_LOSSES
from .folders import run_folder, stopped
from .parser import POSITIVE, Parser, number, one_of
from .tuning import (
    adapter,
    answer_options,
    answers,
    count_parts,
    curves,
    data_options,
    last_user,
    open_chat,
    read_data,
    settings_of,
    show_result,
    show_samples,
    training_options,
    tuned_model,
    validation_table,
)

COMMAND = "dpo"


def add(parser: Parser) -> None:
    data_options(parser, "preferences or judged answers")
    training_options(parser, DPOSettings, "out-dpo")
    parser.section("loss")
    losses = [*PAIR_LOSSES, "kto"]
    parser.option("--loss", "dpo", f"Loss: {', '.join(losses)}.", one_of(*losses))
    text = "Reward per nat of log-probability gained; larger values stay closer to the reference."
    parser.option("--beta", 0.1, text, POSITIVE)
    text = "Assumed share of wrong preferences, of the loss dpo."
    parser.option("--smoothing", 0.0, text, number(least=0.0, below=0.5))
    answer_options(parser)


def run(options: argparse.Namespace) -> int:
    single = options.loss == "kto"
    settings: Any = settings_of(KTOSettings if single else DPOSettings, options)
    data = read_data(options, ("feedback",) if single else ("preference",))
    model, template = open_chat(options)
    tokenizer = model.text_tokenizer()
    make: Any = feedback if single else preferences
    training, held_out = (make(tokenizer, template, part) for part in data.parts)
    count_parts("answers" if single else "pairs", training, held_out)
    shown = data.held_out[: options.samples]
    prompts = [
        prompt_ids(tokenizer, template, record["prompt"], tools=record.get("tools"))
        for record in shown
    ]
    before = answers(model, prompts, options.tokens)
    with run_folder(COMMAND, options) as out:
        places = {"validation": held_out, "out": out, "resume": options.resume}
        train: Any = kto if single else dpo
        result = train(model, training, settings, **places, **adapter(model, options))
        if result.signal is not None:
            return stopped(COMMAND, options, result.signal)
        after = answers(tuned_model(out, options), prompts, options.tokens)
        print(f"\n{validation_table(result.validation)}")
        asked = [last_user(record["prompt"]) for record in shown]
        show_samples(asked, ("before", before), ("after", after))
        print()
        curves(
            out,
            ("loss", ("loss", "validation_loss")),
            ("share", ("accuracy", "validation_accuracy")),
        )
        show_result(out, talk=template is not None)
    return 0
