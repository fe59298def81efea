"""Rejection sampling: the answers of a model that a reward accepts, as data for tinyplm sft.

    tinyplm sample --model out-grpo --data prompts.jsonl --reward exact --out sampled.jsonl
    tinyplm sft --model out --data sampled.jsonl --out out-sft
    tinyplm sample --model out-sft --data prompts.jsonl --reward-model out-reward --samples 8

A record is {"prompt": ...} with what its rule needs, such as {"prompt": "2 + 3 =", "answer": "5"}.
Each kept answer becomes an instruction or a conversation with its "reward".  Truncated and repeated
answers are dropped.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import cast

import numpy as np

from ..arguments import check_path, mismatch
from ..files import printable
from ..memory import keep_freed_memory
from ..models.causal_model import CausalModel
from ..models.model import check_decoder
from ..tokenizers.chat.formats import folder_template
from ..tuning import Accepted, accepted_answers, read_records, write_records
from ..tuning.align.rejection import KEEP
from .folders import config_option, device_options, usable
from .models import open_model
from .parser import WORKERS, Parser, number, one_of, whole
from .rounds import check_reward, prompts_of, reward_of, reward_options
from .tuning import file_options, naming_records, set_tokens, tokens_option


def add(parser: Parser) -> None:
    file_options(parser, "prompts")
    device_options(parser)
    reward_options(parser)
    option = parser.option
    option("--samples", 4, "Answers to each prompt.", whole(1))
    tokens_option(parser)
    text = "Answers to a prompt that are kept: the best one, or all that differ."
    option("--keep", "best", text, one_of(*KEEP))
    text = "Least reward of an answer that is kept."
    shown = "1 with --reward, otherwise any"
    option("--threshold", None, text, number(), shown=shown)
    parser.section("run")
    option = parser.option
    text = "File to write, as JSON lines; it must not exist."
    option("--out", "sampled.jsonl", text, metavar="FILE")
    option("--seed", 0, "Random seed.", whole())
    option("--workers", WORKERS, "Number of threads that share the prompts.", whole(1))
    config_option(parser)


def run(options: argparse.Namespace) -> int:
    keep_freed_memory()
    rule, out = check_reward(options), new_file(options.out)
    records = read_records(options.data, "prompt")
    opened = open_model(options.model, options)
    check_decoder("--model", opened)
    model = cast(CausalModel, opened)
    set_tokens(options)
    template = folder_template(model.files, model.text_tokenizer().named)
    with naming_records(options.data, range(len(records))):
        asked = prompts_of(model, template, records, options.tokens, model.config.context)
    prompts, kept = asked
    places = {id(record): n for n, record in enumerate(records)}
    with naming_records(options.data, [places[id(record)] for record in kept]):
        reward = reward_of(rule, model, kept, options)
    print(f"model      {model}")
    print(f"data       {len(prompts)} prompts, {len(records) - len(prompts)} too long")
    threshold = options.threshold
    if threshold is None and rule is not None:
        threshold = 1.0
    found, statistics = accepted_answers(
        model,
        prompts,
        kept,
        reward,
        samples=options.samples,
        keep=options.keep,
        threshold=threshold,
        max_new_tokens=options.tokens,
        temperature=options.temperature,
        seed=options.seed,
        workers=options.workers,
    )
    print(report(statistics))
    if not found:
        wanted = "finished answer" if threshold is None else f"finished answer of {threshold:g}"
        got = f"none of {statistics.drawn}; their mean reward is {statistics.before:.4g}"
        raise mismatch("--threshold", f"at least one {wanted}", got)
    if template is None:  # sft puts a line break after an instruction
        for record in found:
            record["instruction"] = record["instruction"].removesuffix("\n")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_records(out, found)
    print(f"records    {out}")
    return 0


def new_file(name: str) -> Path:
    """The file to write; ValueError if the name is taken, or nothing can be written there."""
    check_path("--out", name)
    path = Path(name)
    if path.exists() or path.is_symlink():
        raise mismatch("--out", "the name of a new file", f"{printable(name)}, which exists")
    usable(path.parent)
    return path


def report(found: Accepted) -> str:
    """The statistics, one line each."""
    some = found.by_prompt
    least, most = ((some == value).mean() for value in (0, 1))
    between = f"all answers of {most:.1%} of the prompts, none of {least:.1%}"
    lines = {
        "drawn": f"{found.drawn} answers, {found.drawn - found.finished} truncated or no text",
        "accepted": f"{found.accepted} ({found.share:.1%}): {between}",
        "kept": f"{found.kept}, to {np.count_nonzero(some)} prompts",
        "reward": f"{found.before:.4f} on average, {found.after:.4f} of those kept",
    }
    return "\n".join(f"{name:11}{text}" for name, text in lines.items())
