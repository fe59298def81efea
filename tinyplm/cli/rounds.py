"""What grpo, ppo and sample share: prompts, the reward, its mean on held-out prompts, a run."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import hub
from ..arguments import mismatch
from ..files import read_bytes
from ..models.causal_model import CausalModel
from ..tokenizers.chat.formats import Template
from ..tuning import model_reward, parse_rule, prompt_ids, record_reward, rollouts
from ..tuning.align.rules import RULES
from .folders import check_ready, recorded, run_folder, stopped
from .models import check_same_tokens, folder_of
from .parser import Parser, number, whole
from .reports import (
    ROUNDS,
    answers,
    before_and_after,
    count_parts,
    curves,
    show_result,
    show_samples,
    tuned_model,
)
from .reward import SCORED
from .tuning import Record, adapter, last_user, open_chat, read_data, some_of

Prompts = tuple[list[list[int]], list[Record]]  # prompts, and the records they are from


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
    if options.reward is None:
        return None
    try:
        return parse_rule(options.reward)
    except ValueError as error:
        raise ValueError(f"--reward: {str(error).removeprefix('rule: ')}") from None


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
            {**values, "reward": values["reward"] + float(score), "reward_model": float(score)}
            for values, score in zip(ruled, scores)
        ]


def reward_files(options: argparse.Namespace) -> dict[str, Any]:
    """{"reward files": {path: hash}} of the files whose functions are the reward.

    ValueError if one has been edited since the run began that is to be resumed.
    """
    parts = (part.strip().rpartition(".py:") for part in (options.reward or "").split(","))
    files = [f"{path}.py" for path, colon, _ in parts if colon]
    hashes = {file: hashlib.sha256(read_bytes(file)).hexdigest() for file in files}
    began = {} if options.facts is None else options.facts.get("reward files", {})
    if edited := [file for file in files if began.get(file, hashes[file]) != hashes[file]]:
        raise mismatch("--reward", "the functions that the run began with", f"{edited[0]}, edited")
    return {"reward files": hashes} if hashes else {}


def reward_of(
    rule: Any, model: CausalModel, records: Sequence[Record], options: argparse.Namespace
) -> Any:
    """The reward of answers to these records' prompts."""
    judge = None
    if options.reward_model is not None:
        folder = folder_of(options.reward_model, "--reward-model")
        read = hub.load(folder, **SCORED, dtype=options.dtype, device=options.device)
        if read.fresh:
            given = "one without a head for scores"
            raise mismatch("--reward-model", "a model made by tinyplm reward", given)
        check_same_tokens("--reward-model", read, model, "--model")
        judge = model_reward(read, workers=options.workers)
    if rule is None:
        return judge
    ruled = record_reward(rule, model.text_tokenizer(), records, model.end_ids())
    return ruled if judge is None else Both(ruled, judge)


def prompts_of(
    model: CausalModel,
    template: Template | None,
    records: Sequence[Record],
    tokens: int,
    context: int,
) -> Prompts:
    """Those that fit the context together with an answer."""
    tokenizer, room = model.text_tokenizer(), context - tokens
    made = []
    for n, record in enumerate(records):
        try:
            ids = prompt_ids(tokenizer, template, record["prompt"], tools=record.get("tools"))
        except ValueError as error:
            raise ValueError(f"record {n}: {error}") from None
        made.append((ids, record))
    kept = [(ids, record) for ids, record in made if len(ids) <= room]
    if not kept:
        longest = max(len(ids) for ids, _ in made)
        expected = f"at most {max(0, context - longest)}, the context less prompts of {longest}"
        raise mismatch("--tokens", expected, tokens)
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
    rule, facts = check_reward(options), reward_files(options)
    data = read_data(options, ("prompt",))
    check_ready(options)
    model, template = open_chat(options)
    context = model.config.context
    made = data.each(lambda part: prompts_of(model, template, part, options.tokens, context))
    (prompts, records), (tests, held_out) = made
    left_out = len(data.training) + len(data.held_out) - len(prompts) - len(tests)
    note = f"; {left_out} too long for the context with an answer" if left_out else ""
    count_parts("prompts", prompts, tests, note)
    tests, held_out = tests[: options.tests], held_out[: options.tests]
    reward = reward_of(rule, model, records, options)
    judge = reward_of(rule, model, held_out, options)
    before = mean_rewards(model, tests, judge, options)
    known = {id(record): ids for record, ids in zip(held_out, tests)}
    shown, asked = some_of(held_out, lambda r: known[id(r)], options.samples, context)
    first = answers(model, asked, options.tokens)
    with run_folder(command, options, facts) as out:
        places = recorded(options, out)
        result = train(model, prompts, reward, settings, **places, **adapter(model, options))
        if result.signal is not None:
            return stopped(command, options, result.signal)
        trained: Any = tuned_model(out, options)
        after = mean_rewards(trained, tests, judge, options)
        print(f"\n{before_and_after(before, after, ROUNDS)}")
        last = answers(trained, asked, options.tokens)
        texts = [last_user(record["prompt"]) for record in shown]
        show_samples(texts, ("before", first), ("after", last))
        curves(out, ("reward", ("reward",)), *panels, ("tokens in an answer", ("length",)))
        show_result(out, talk=template is not None)
    return 0
