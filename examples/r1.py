"""DeepSeek-R1's path on sums that need steps: cold start, GRPO, rejection sampling, distillation.

    python examples/r1.py                   # some minutes on two cores

The task is adding six different digits: "4+9+7+2+8+5=" should be continued with

    <think>4 plus 9 is 13 plus 7 is 20 plus 2 is 22 plus 8 is 30 plus 5 is 35</think>35

and the end token.  The base has read sums of two numbers ("13+7=20") and shorter rows with their
steps in signs ("4+9+7=4+9=13+7=20").  The stages (DeepSeek-AI 2025, sec. 2.3 and 2.4):

    cold start   SFT on a few answers as above, some of them with thoughts in Chinese ("4加9是13")
    GRPO         rewards by rule: the answer (exact), the form (<think>), the language (Latin)
    second SFT   of the base, on answers of that model which the rules accept (rejection sampling),
                 together with sentences as in pretraining
    distilled    a smaller base, fine-tuned on the same answers

Each is measured on the same held-out problems, of which no stage has seen one; "direct" is SFT of
the base on as many answers as in the cold start, without thoughts.

With seed 0, on which the settings were chosen, exact match was 38% direct, 54% after the cold
start, 68% after GRPO and 76% after the second SFT.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import check_widths, run_options, start

from tinyplm import random
from tinyplm.cli.decoders import small_llama
from tinyplm.cli.folders import unused
from tinyplm.cli.output import save_plot
from tinyplm.cli.parser import Parser, number, whole
from tinyplm.models.causal_model import CausalModel
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.models.bpe import BPE
from tinyplm.tokenizers.text.added_tokens import AddedToken
from tinyplm.tokenizers.text.decoding import ByteLevel
from tinyplm.training.log import read
from tinyplm.tuning import (
    GRPOSettings,
    SFTSettings,
    TokenSequence,
    accepted_answers,
    answered,
    grpo,
    parse_rule,
    record_reward,
    rollouts,
    sft,
    write_records,
)

END = "<|endoftext|>"  # ends a line, and so starts one too
WORDS = ["<think>", "</think>", " plus ", " is ", "加", "是"]
TERMS = 6
LONGEST = 40  # tokens of an answer, a few more than a correct one has
COLUMNS = ("exact", "format", "language", "tokens")
Problem = tuple[int, ...]


# ----------------------------------------------------------------------------------------- the task


def tokenizer() -> Tokenizer:
    """One token per character of a sum, one per word of a thought, and END."""
    vocab = {token: id for id, token in enumerate([END, *"0123456789+="])}
    words = [AddedToken(word, len(vocab) + n, special=False) for n, word in enumerate(WORDS)]
    ends = {"added_tokens": [AddedToken(END, 0), *words], "named": {"eos_token": END}}
    return Tokenizer(BPE(vocab, []), decoder=ByteLevel(False), **ends)


def problems(count: int, *, held_out: bool, key: int) -> list[Problem]:
    """`count` rows of different digits from 1 to 9; a hash assigns one row in five to the tests."""
    draw, found = random.generator(key), {}
    while len(found) < count:
        row = tuple((1 + draw.permutation(9)[:TERMS]).tolist())
        if (random.fold(random.key(97), *row) % 5 == 0) == held_out:
            found[row] = None
    return list(found)


def asked(problem: Sequence[int]) -> str:
    return "+".join(map(str, problem)) + "="


def steps(row: Sequence[int], plus: str, equals: str) -> str:
    """The sum step by step, from the left."""
    sums = np.cumsum(row).tolist()
    added = [f"{plus}{digit}{equals}{total}" for digit, total in zip(row[1:], sums[1:])]
    return f"{row[0]}{''.join(added)}"


def thoughts(problem: Problem, chinese: bool = False) -> str:
    return steps(problem, *("加", "是") if chinese else (" plus ", " is "))


def answer(problem: Problem, chinese: bool = False) -> str:
    return f"<think>{thoughts(problem, chinese)}</think>{sum(problem)}"


def sentences(count: int, key: int) -> list[str]:
    """Lines as the base reads them: sums of two numbers, and shorter rows added step by step."""
    draw, lines = random.generator(key), []
    for _ in range(count):
        row = (1 + draw.permutation(9)[: draw.integers(3, TERMS)]).tolist()
        if draw.random() < 0.5:
            first = int(draw.integers(1, 9 * TERMS - 8))
            lines.append(f"{first}+{row[0]}={first + row[0]}")
        else:
            lines.append(asked(row) + steps(row, "+", "="))
    return lines


def prompt_of(problem: Problem, tokens: Tokenizer) -> list[int]:
    return [tokens.eos_id, *tokens.encode(asked(problem))]


def pair(prompt: str, text: str, tokens: Tokenizer) -> TokenSequence:
    """A prompt and its answer, whose tokens count."""
    end = tokens.eos_id
    return answered([end, *tokens.encode(prompt)], [*tokens.encode(text), end])


def whole_line(line: str, tokens: Tokenizer) -> TokenSequence:
    """A line of which every token counts."""
    return answered([tokens.eos_id], [*tokens.encode(line), tokens.eos_id])


# ------------------------------------------------------------------------------------- the measures


def records(some: Sequence[Problem]) -> list[dict[str, str]]:
    """The problems as records for the rules, which compare with "answer"."""
    return [{"prompt": asked(problem), "answer": str(sum(problem))} for problem in some]


def rewards_of(some: Sequence[Problem], tokens: Tokenizer, rules: str) -> Any:
    return record_reward(rules, tokens, records(some), [tokens.eos_id])


def drawn_for(
    model: CausalModel, some: Sequence[Problem], options: argparse.Namespace, **sampling: Any
) -> Any:
    asked_ids = [prompt_of(problem, model.tokenizer) for problem in some]
    sampling |= {"max_new_tokens": LONGEST, "workers": options.workers}
    return rollouts(model, asked_ids, **sampling)


def measured(
    model: CausalModel, tests: Sequence[Problem], options: argparse.Namespace
) -> dict[str, float]:
    """Shares of greedy answers by rule in percent, and their mean length in tokens."""
    drawn = drawn_for(model, tests, options, temperature=0)
    rules = "exact:1,format:1,language:en:1"
    values = rewards_of(tests, model.tokenizer, rules)(drawn.prompts, drawn.answers)
    # an answer that did not end is none
    right = [v["reward_exact"] * done for v, done in zip(values, drawn.finished)]
    return {
        "exact": 100 * float(np.mean(right)),
        "format": 100 * float(np.mean([v["reward_format"] for v in values])),
        "language": 100 * float(np.mean([v["reward_language"] for v in values])),
        "tokens": float(drawn.lengths.mean()),
    }


# --------------------------------------------------------------------------------------- the stages


def settings(
    steps: int, rate: float, options: argparse.Namespace, batch_size: int = 64
) -> SFTSettings:
    return SFTSettings(
        steps=steps,
        batch_size=batch_size,
        learning_rate=rate,
        warmup=min(20, steps - 1),
        seed=options.seed,
        workers=options.workers,
    )


def pretrained(width: int, options: argparse.Namespace) -> CausalModel:
    """A two-layer LLaMA that has read the sentences."""
    tokens, key = tokenizer(), random.fold(random.key(options.seed), 0)
    model = small_llama(tokens, layers=2, width=width, context=64, key=random.fold(key, 0))
    lines = sentences(64 * options.base_steps, random.fold(key, 1))
    print(f"base       pretrain {model} for {options.base_steps} steps")
    sft(
        model,
        [whole_line(line, tokens) for line in lines],
        settings(options.base_steps, 3e-3, options),
    )
    return model


def fine_tuned(
    model: CausalModel,
    sequences: list[TokenSequence],
    how: SFTSettings,
    out: Path,
) -> CausalModel:
    """A copy of the model after SFT."""
    other = model._with()
    sft(other, sequences, how, out=out)
    return other


def cold_start(some: Sequence[Problem], share: float, tokens: Tokenizer) -> list[TokenSequence]:
    """Long answers, the first `share` of them in Chinese."""
    first = round(share * len(some))
    return [pair(asked(p), answer(p, n < first), tokens) for n, p in enumerate(some)]


def reinforced(
    model: CausalModel, training: Sequence[Problem], options: argparse.Namespace, out: Path
) -> CausalModel:
    """A copy of the model after GRPO with the rules as rewards."""
    policy, tokens = model._with(), model.tokenizer
    how = GRPOSettings(
        steps=options.rounds,
        batch_size=options.prompts,
        group=options.group,
        minibatches=min(2, options.prompts),
        max_new_tokens=LONGEST,
        learning_rate=options.lr,
        warmup=5,
        seed=options.seed,
        workers=options.workers,
    )
    prompts = [prompt_of(problem, tokens) for problem in training]
    grpo(policy, prompts, rewards_of(training, tokens, options.rules), how, out=out)
    return policy


def accepted(
    model: CausalModel, training: Sequence[Problem], options: argparse.Namespace, out: Path
) -> list[TokenSequence]:
    """The model's answers that every rule accepts, and as many sentences.  [] if there is none."""
    tokens = model.tokenizer
    found, statistics = accepted_answers(
        model,
        [prompt_of(problem, tokens) for problem in training],
        records(training),
        rewards_of(training, tokens, "exact:1,format:1,language:en:1"),
        samples=4,
        keep="all",
        threshold=3.0,
        max_new_tokens=LONGEST,
        seed=options.seed,
        workers=options.workers,
    )
    if found:
        write_records(out / "accepted.jsonl", found)
    print(
        f"accepted   {statistics.share:.1%} of {statistics.drawn} answers; {statistics.kept} "
        f"different ones, to {np.count_nonzero(statistics.by_prompt)} of {len(training)} prompts"
    )
    lines = sentences(len(found), random.fold(random.key(options.seed), 3))
    kept = [pair(record["instruction"], record["output"], tokens) for record in found]
    return kept + [whole_line(line, tokens) for line in lines]


# ---------------------------------------------------------------------------------------- the story


def story(options: argparse.Namespace, out: Path) -> list[tuple[str, dict[str, float]]]:
    """The measurements of each model, in order."""
    begin, key = time.perf_counter(), random.fold(random.key(options.seed), 1)
    tests = problems(options.tests, held_out=True, key=random.fold(key, 0))
    training = problems(options.problems, held_out=False, key=random.fold(key, 1))
    few = problems(options.cold_answers, held_out=False, key=random.fold(key, 2))
    rows: list[tuple[str, dict[str, float]]] = []

    def show(name: str, model: CausalModel) -> CausalModel:
        rows.append((name, measured(model, tests, options)))
        drawn = drawn_for(model, tests[:1], options, temperature=0)
        said = drawn.texts(model.tokenizer, [model.tokenizer.eos_id])[0]
        print(f"{time.perf_counter() - begin:6.0f} s  {row(*rows[-1])}")
        print(f"          {asked(tests[0])}{said}")
        return model

    print(f"{len(tests)} held-out problems, {len(training)} to train on\n          {heading()}")
    base = show("base", pretrained(options.width, options))
    tokens = base.tokenizer
    short = settings(options.cold_steps, 2e-3, options, batch_size=32)
    direct = [pair(asked(p), str(sum(p)), tokens) for p in few]
    show("direct", fine_tuned(base, direct, short, out / "direct"))
    long = cold_start(few, options.chinese, tokens)
    cold = show("cold start", fine_tuned(base, long, short, out / "cold-start"))
    teacher = show("  after GRPO", reinforced(cold, training, options, out / "grpo"))
    sequences = accepted(teacher, training, options, out)
    if sequences:
        how = settings(options.sft_steps, 2e-3, options)
        show("second SFT", fine_tuned(base, sequences, how, out / "sft"))
        smaller = show("smaller base", pretrained(options.student_width, options))
        show("  cold start", fine_tuned(smaller, long, short, out / "smaller-cold-start"))
        show("  distilled", fine_tuned(smaller, sequences, how, out / "smaller-distilled"))
    return rows


def heading() -> str:
    return f"{'':14}" + "".join(f"{name:>10}" for name in COLUMNS)


def row(name: str, values: dict[str, float]) -> str:
    cells = [f"{values[c]:10.1f}" if c == "tokens" else f"{values[c]:9.1f}%" for c in COLUMNS]
    return f"{name:14}{''.join(cells)}"


def curve(log: Path, fields: dict[str, str], label: str) -> Callable:
    """Values of the log by round: {field: its name in the legend}."""

    def draw(axes: Any) -> None:
        rounds = [r for r in read(log) if "reward" in r]
        for field, name in fields.items():
            points = [(r["step"], r[field]) for r in rounds if field in r]
            if points:
                axes.plot(*zip(*points), lw=1, label=name)
        axes.set(xlabel="round of GRPO", ylabel=label)
        if len(fields) > 1:
            axes.legend(fontsize="small")

    return draw


def main() -> None:
    options = parser().options()
    out = unused(options.out)
    check_widths(options, "width", "student_width")
    parse_rule(options.rules)  # refuses wrong rules before any work
    rows = story(options, out)
    print(f"\n{heading()}")
    for name, values in rows:
        print(row(name, values))
    print(
        f"\nGreedy answers to {options.tests} held-out problems.  exact: the right number after\n"
        "any thoughts, and then the end; format: <think>thoughts</think>answer; language: Latin\n"
        "letters among all letters; tokens: mean length\n"
    )
    log = out / "grpo" / "log.jsonl"
    rules = {f"reward_{name}": name for name in ("exact", "format", "language")}

    def bars(axes: Any) -> None:
        axes.barh([name.strip() for name, _ in rows], [values["exact"] for _, values in rows])
        axes.invert_yaxis()
        axes.set(xlabel="exact match (%)", xlim=(0, 100))

    panels = [
        curve(log, rules, "mean of sampled answers"),
        curve(log, {"length": "length"}, "tokens in an answer"),
        bars,
    ]
    save_plot(out / "r1.png", *panels, size=(14, 3.8))
    print(f"models     {out / 'grpo' / 'final'} and the folders beside it")


def parser() -> Parser:
    parser = Parser(__doc__)
    option = parser.option
    option("--width", 96, "Width of the model, a multiple of 8.", whole(8))
    option("--student-width", 48, "Width of the smaller model, a multiple of 8.", whole(8))
    option("--base-steps", 800, "Pretraining steps.", whole(1))
    option("--cold-answers", 300, "Long answers of the cold start.", whole(1, 10000))
    text = "Share of the long answers with thoughts in Chinese."
    option("--chinese", 0.3, text, number(least=0.0, most=1.0))
    option("--cold-steps", 150, "Cold-start steps.", whole(1))
    text = "Rewards of GRPO, by name with weights."
    option("--rules", "exact:1,format:0.2,language:en:0.2", text)
    option("--rounds", 100, "GRPO rounds.", whole(1))
    option("--prompts", 32, "Prompts per round.", whole(1))
    option("--group", 8, "Answers per prompt.", whole(2))
    option("--lr", 2e-4, "Peak learning rate of GRPO.", number(above=0.0))
    option("--problems", 2000, "Problems to train on.", whole(1, 10000))
    option("--sft-steps", 300, "Steps of the second SFT and of distillation.", whole(1))
    option("--tests", 500, "Held-out problems.", whole(1, 5000))
    run_options(parser, "out-r1")
    return parser


if __name__ == "__main__":
    start(main)
