"""Train a reward model on preferences: a score for whole answers, for ppo and grpo.

    tinyplm reward --model out-sft --data pairs.jsonl --out out-reward
    tinyplm ppo --model out-sft --data prompts.jsonl --reward-model out-reward --out out-ppo

A record is {"prompt": ..., "chosen": ..., "rejected": ...}.
"""

from __future__ import annotations

import argparse
from typing import Any

from ..arguments import mismatch
from ..models.model import Model
from ..tokenizers.chat.formats import TEMPLATES, Template, folder_template
from ..tuning import RewardSettings, preferences, reward, set_chat_format
from .folders import check_ready, recorded, run_folder, stopped
from .models import check_tokenizer_fits, open_model
from .output import tinyplm_command
from .parser import Parser
from .reports import count_parts, curves, show_result, validation_table
from .tuning import (
    adapter,
    data_options,
    in_passes,
    read_data,
    settings_of,
    training_options,
)

COMMAND, PASSES = "reward", 1
NAMES = {"accuracy": "chosen above rejected", "margin": "margin of the scores"}
SCORED: dict[str, Any] = {"task": "sequence_classification", "labels": ["reward"]}


def add(parser: Parser) -> None:
    data_options(parser, "preferences")
    training_options(parser, RewardSettings, "out-reward", passes=PASSES)


def chat_format(model: Model, options: argparse.Namespace) -> Template | None:
    """The chat format of the folder or of --template; None for plain text.

    The reward model reads the tokens that the policy writes, so none are added to its vocabulary.
    """
    if options.template == "none":
        return None
    own = folder_template(model.files, model.text_tokenizer().named)
    if options.template is None:
        return own
    set_chat_format(model, TEMPLATES[options.template])
    return TEMPLATES[options.template]


def run(options: argparse.Namespace) -> int:
    settings = settings_of(RewardSettings, options)
    data = read_data(options, ("preference",))
    check_ready(options)
    model = open_model(options.model, options, **SCORED, key=options.seed)
    check_tokenizer_fits("--model", model)
    if not hasattr(model.config, "SCORED"):
        raise mismatch("--model", "a decoder, whose last token gets a score", model)
    print(f"model      {model}")
    template = chat_format(model, options)
    tokenizer = model.text_tokenizer()
    training, held_out = data.each(lambda part: preferences(tokenizer, template, part))
    count_parts("pairs", training, held_out)
    settings = in_passes(settings, options, len(training), PASSES)
    with run_folder(COMMAND, options) as out:
        result = reward(
            model,
            training,
            settings,
            validation=held_out,
            **recorded(options, out),
            **adapter(model, options),
        )
        if result.signal is not None:
            return stopped(COMMAND, options, result.signal)
        print(f"\n{validation_table(result.validation, NAMES)}\n")
        losses, shares = ("loss", "validation_loss"), ("accuracy", "validation_accuracy")
        curves(out, ("loss", losses), ("share of pairs", shares))
        show_result(out, talk=False)
        line = tinyplm_command("ppo", "--model", options.model, "--reward-model", out)
        print(f"use        {line} --data PROMPTS.jsonl")
    return 0
