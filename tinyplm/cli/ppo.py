"""Reinforcement learning with a value head: PPO, with a reward model or rules.

    tinyplm ppo --model out-sft --data prompts.jsonl --reward-model out-reward --out out-ppo
    tinyplm ppo --model out-sft --data prompts.jsonl --reward exact --out out-ppo

A record is {"prompt": ...} with what its rule needs, if there is one.  Rewards, the KL divergence
to the model as it was and the length of answers are in the log of each round.
"""

from __future__ import annotations

import argparse

from ..tuning import PPOSettings, ppo
from .parser import POSITIVE, Parser, number, whole
from .rounds import learn, reward_options, tests_option
from .tuning import answer_options, data_options, set_tokens, settings_of, training_options

COMMAND = "ppo"


def add(parser: Parser) -> None:
    data_options(parser, "prompts")
    training_options(parser, PPOSettings, "out-ppo")
    reward_options(parser)
    tests_option(parser)
    option = parser.option
    text = "Weight of the KL divergence to the model as it was, in the reward of each token."
    option("--beta", 0.05, text, number(least=0.0))
    text = "Adapt --beta until the KL divergence of an answer is this, in nats."
    option("--kl-target", None, text, POSITIVE, shown="beta is fixed")
    option("--epochs", 2, "Passes over the answers of a round.", whole(1))
    option("--minibatches", 2, "Updates in each pass.", whole(1))
    option("--lam", 0.95, "Decay of the advantages (GAE).", number(least=0.0, most=1.0))
    answer_options(parser)


def run(options: argparse.Namespace) -> int:
    set_tokens(options)
    kl = ("nats", ("kl",))
    return learn(COMMAND, options, ppo, settings_of(PPOSettings, options), kl)
