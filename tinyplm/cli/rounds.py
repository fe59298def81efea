"""What grpo, ppo and sample share: prompts, the reward, its mean on held-out prompts, a run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import hub
from ..arguments import mismatch
from ..hub.runs import model_folder
from ..models.causal_model import CausalModel
from ..tokenizers.chat.formats import Template
from ..tuning import model_reward, parse_rule, prompt_ids, record_reward, rollouts
from ..tuning.align.rules import RULES
from .folders import run_folder, stopped
from .parser import Parser, number, whole
from .reward import SCORED
from .tuning import (
    Record,
    adapter,
    answers,
    count_parts,
    curves,
    last_user,
    open_chat,
    read_data,
    show_result,
    show_samples,
    tuned_model,
    validation_table,
)


def reward_options(parser: Parser) -> None:
    """--reward, --reward-model, --temperature."""
    parser.section("answers and rewards")
    text = f"Reward by name ({', '.join(RULES)}) or FILE.py:FUNCTION; several with weights are "
    text += '"exact:1,format:0.2".  A record has what its rule compares with, such as "answer".'
    parser.option("--reward", None, text, metavar="RULES", shown="none")
    text = "Reward model, as tinyplm reward makes it: its score is the reward, or is added."
    parser.option("--reward-model", None, text, metavar="FOLDER", shown="none")
    text = "Temperature of sampling."
    parser.option("--temperature", 1.0, text, number(above=0.0))


def tests_option(parser: Parser) -> None:
    """--tests."""
    text = "Held-out prompts whose mean reward is told before and after."
    parser.option("--tests", 64, text, whole(1))


def check_reward(options: argparse.Namespace) -> Any:
    """The rule of --reward, or None; ValueError if nothing gives a reward."""
    if options.reward is None and options.reward_model is None:
        raise mismatch("--reward", "a rule, or --reward-model", "neither")
    return None if options.reward is None else parse_rule(options.reward)


class Both:
    """The sum of a rule's and a model's reward; each is logged, too."""

    def __init__(self, rule: Any, scorer: Any) -> None:
        self.rule, self.scorer = rule, scorer
        # what a resumed run must be given again
        self.records, self.model, self.offset = rule.records, scorer.model, scorer.offset
        self.context = scorer.context

    def __call__(
        self,
        prompts: Sequence[list[int]],
        answers: Sequence[list[int]],
        *,
        numbers: Sequence[int] | None = None,
    ) -> list[dict[str, float]]:
        ruled = self.rule(prompts, answers, numbers=numbers)
        scores = self.scorer(prompts, answers)
        return [
            {**values, "reward": values["reward"] + float(score), "score": float(score)}
            for values, score in zip(ruled, scores)
        ]


def reward_of(
    rule: Any, model: CausalModel, records: Sequence[Record], options: argparse.Namespace
) -> Any:
    """The reward of answers to these records' prompts."""
    judge = None
    if options.reward_model is not None:
        folder = model_folder(options.reward_model, "--reward-model")
        read = hub.load(folder, **SCORED, dtype=options.dtype, device=options.device)
        if read.fresh:
            given = "one without a head for scores"
            raise mismatch("--reward-model", "a model made by tinyplm reward", given)
        judge = model_reward(read, workers=options.workers)
    if rule is None:
        return judge
    ruled = record_reward(rule, model.text_tokenizer(), records, model.end_ids())
    return ruled if judge is None else Both(ruled, judge)


def prompts_of(
    model: CausalModel, template: Template | None, records: Sequence[Record], tokens: int
) -> tuple[list[list[int]], list[Record]]:
    """(prompts, their records): those that fit the context together with an answer."""
    tokenizer, room = model.text_tokenizer(), model.config.context - tokens
    made = [
        (prompt_ids(tokenizer, template, r["prompt"], tools=r.get("tools")), r) for r in records
    ]
    kept = [(ids, record) for ids, record in made if len(ids) <= room]
    if not kept:
        longest = max(len(ids) for ids, _ in made)
        raise mismatch("--tokens", f"room for the prompts, of up to {longest} tokens", tokens)
    return [ids for ids, _ in kept], [record for _, record in kept]


def mean_rewards(
    model: CausalModel, prompts: list[list[int]], reward: Any, options: argparse.Namespace
) -> dict[str, float]:
    """The mean reward, its parts, and the mean length of one answer to each prompt."""
    drawn = rollouts(
        model,
        prompts,
        max_new_tokens=options.tokens,
        temperature=options.temperature,
        seed=options.seed,
        workers=options.workers,
    )
    values = reward([list(p) for p in drawn.prompts], [list(a) for a in drawn.answers])
    rows = [v if isinstance(v, dict) else {"reward": v} for v in values]
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return {**means, "length": float(np.mean(drawn.lengths))}


def learn(
    command: str,
    options: argparse.Namespace,
    train: Callable[..., Any],
    settings: Any,
    *panels: tuple[str, tuple[str, ...]],
) -> int:
    """A run of reinforcement learning: data, rewards before, train, rewards after, the curves."""
    rule = check_reward(options)
    data = read_data(options, ("prompt",))
    model, template = open_chat(options)
    prompts, records = prompts_of(model, template, data.training, options.tokens)
    tests, held_out = prompts_of(model, template, data.held_out[: options.tests], options.tokens)
    count_parts("prompts", prompts, tests)
    reward = reward_of(rule, model, records, options)
    judge = reward_of(rule, model, held_out, options)
    before = mean_rewards(model, tests, judge, options)
    first = answers(model, tests[: options.samples], options.tokens)
    with run_folder(command, options) as out:
        places: dict[str, Any] = {"out": out, "resume": options.resume}
        result = train(model, prompts, reward, settings, **places, **adapter(model, options))
        if result.signal is not None:
            return stopped(command, options, result.signal)
        trained: Any = tuned_model(out, options)
        print(f"\n{validation_table({0: before, 1: mean_rewards(trained, tests, judge, options)})}")
        asked = [last_user(record["prompt"]) for record in held_out[: options.samples]]
        last = answers(trained, tests[: options.samples], options.tokens)
        show_samples(asked, ("before", first), ("after", last))
        print()
        curves(out, ("reward", ("reward",)), *panels, ("tokens in an answer", ("length",)))
        show_result(out, talk=template is not None)
    return 0
