"""Reinforcement learning from rules: GRPO, and as options Dr. GRPO, DAPO and GSPO.

    tinyplm grpo --model out-sft --data prompts.jsonl --reward exact --out out-grpo
    tinyplm grpo --model out-sft --data prompts.jsonl --reward "exact:1,format:0.2" --method dapo
    tinyplm grpo --model out-sft --data prompts.jsonl --reward reward.py:my_reward

A record is {"prompt": ...} with what its rule needs, such as {"prompt": "2 + 3 =", "answer": "5"}.
A function is called with those of prompt (as the model reads it, with the words of the chat
format), answer (the model's) and record (the line of --data) that it names, and returns a number.
Clips act from the second update of a round on: gspo, and dapo's upper clip, need --minibatches or
--epochs above 1 (GSPO's paper: 4 minibatches).
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from ..tuning import GRPOSettings, grpo
from .parser import Parser, number, one_of, whole
from .rounds import learn, reward_options, tests_option
from .tuning import answer_options, data_options, set_tokens, settings_of, training_options

COMMAND = "grpo"
# the settings of each method, see GRPOSettings; what is given on the command line wins
METHODS: dict[str, dict[str, Any]] = {
    "grpo": {"beta": 0.04},
    "dr-grpo": {"aggregation": "constant", "scale": False},
    "dapo": {"aggregation": "token", "clip_ratio_high": 0.28, "redraws": 2, "overlong": 0.2},
    "gspo": {"ratio": "sequence", "clip_ratio": 3e-4, "clip_ratio_high": 4e-4},
}
# with a single update of each answer all ratios are 1, and nothing is clipped
for clipped in ("dapo", "gspo"):
    METHODS[clipped]["minibatches"] = 4


def add(parser: Parser) -> None:
    data_options(parser, "prompts")
    training_options(parser, GRPOSettings, "out-grpo")
    reward_options(parser)
    tests_option(parser)
    option = parser.option
    option("--method", "grpo", f"Method: {', '.join(METHODS)}.", one_of(*METHODS))
    option("--group", 8, "Answers to each prompt.", whole(2))
    text = "Weight of the KL divergence to the model as it was."
    option("--beta", None, text, number(least=0.0), shown="the method's: 0.04 of grpo, otherwise 0")
    text = "Bound on the change of the probability ratio; the method's upper bound stays if larger."
    option("--clip-ratio", None, text, number(above=0.0, below=1.0), shown="the method's")
    text = "Passes over the answers of a round."
    option("--epochs", 1, text, whole(1))
    text = "Updates in each pass."
    several = "the method's: 4 of dapo and gspo, otherwise 1"
    option("--minibatches", None, text, whole(1), shown=several)
    answer_options(parser)


def method_settings(options: argparse.Namespace) -> GRPOSettings:
    """The settings of the method, with the options that are given."""
    method = dict(METHODS[options.method])
    if "overlong" in method:  # a share of the longest answer
        method["overlong"] = max(1, round(method["overlong"] * options.tokens))
    if options.clip_ratio is not None and "clip_ratio_high" in method:
        method["clip_ratio_high"] = max(options.clip_ratio, method["clip_ratio_high"])
    fields = {field.name: field.default for field in dataclasses.fields(GRPOSettings)}
    for name in ("beta", "clip_ratio", "minibatches"):
        given = getattr(options, name)
        method[name] = method.get(name, fields[name]) if given is None else given
    return settings_of(GRPOSettings, options, **method)


def run(options: argparse.Namespace) -> int:
    set_tokens(options)
    return learn(COMMAND, options, grpo, method_settings(options))
