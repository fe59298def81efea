"""GRPO on arithmetic with a rule for a reward: from a raw base, and from a small cold start, then distilled into a smaller model.

    python examples/grpo.py                  # some minutes on two cores
    python examples/grpo.py --seeds 3        # mean and range

The task is to add two numbers of three digits.  A base is pretrained here, on text in which sums stand in two ways among
comparisons of numbers; the model may go on with a prompt "348+275=" in either:

    348+275=623                              half of the lines: the sum at once, which a model of this size hardly ever gets right
    348+275=8+5=13,4+7+1=12,3+2+1=6;623      four in ten: with working, column by column from the right
    275<348                                  one in ten

All lines are right.  What the base lacks is not so much how to add as that adding column by column is what gives the right
number.  That is what the reward teaches, 1 for an answer that ends with the right number and else 0; it does not ask for working.

    R1-Zero's way    GRPO from the raw base                                              (DeepSeek-AI 2025, sec. 2.2)
    R1's way         fine-tuning on some worked answers, the cold start, then GRPO       (sec. 2.3)
    distillation     answers of that model that the rule finds right train a smaller one (sec. 2.4)

101 of the 900 numbers are kept apart: none of them is an operand anywhere in training, and tested is on all 5151 pairs of them,
each in one order.  Another seed is another split, text, initialisation and run.
RESULTS
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import tinyplm
from tinyplm import random
from tinyplm.files import replaced
from tinyplm.models import llama
from tinyplm.models.model import Model
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.added import AddedToken
from tinyplm.tokenizers.bpe_model import BPE
from tinyplm.tokenizers.decoding import ByteLevel
from tinyplm.training.log import read
from tinyplm.training.loop import train
from tinyplm.training.settings import Settings
from tinyplm.tuning.grpo import GRPOSettings, grpo
from tinyplm.tuning.rollouts import rollouts
from tinyplm.tuning.rules import text_reward
from tinyplm.tuning.sequences import answered
from tinyplm.tuning.sft import SFTSettings, sft

END = "<|endoftext|>"  # ends a line, so it also begins one
LONGEST = 40  # tokens of an answer; with working it is at most 34 of them
KINDS = {"plain": 0.5, "worked": 0.4, "comparison": 0.1}  # of lines, and how many
ROWS = ("raw base", "  after GRPO", "cold start", "  after GRPO ", "smaller base", "  after GRPO  ", "  distilled")
COLUMNS = ("greedy", "sampled", "pass@8", "worked", "length")
Pair = tuple[int, int]


# --------------------------------------------------------------------------------------------------------------- the task


def operands(seed: int, held_out: int) -> tuple[np.ndarray, np.ndarray]:
    """(for training, for the test), the numbers of three digits."""
    numbers = random.generator(random.fold(random.key(seed), 0)).permutation(np.arange(100, 1000))
    return numbers[held_out:], numbers[:held_out]


def test_pairs(numbers: np.ndarray, seed: int) -> list[Pair]:
    """Every pair once, a number with itself, too, in one of its two orders; mixed, so that a part is like the whole."""
    draw = random.generator(random.fold(random.key(seed), 1))
    pairs = [(a, b) for i, a in enumerate(numbers.tolist()) for b in numbers.tolist()[: i + 1]]
    return [pairs[n] if draw.random() < 0.5 else pairs[n][::-1] for n in draw.permutation(len(pairs))]


def drawn_pairs(numbers: np.ndarray, count: int, key: int) -> list[Pair]:
    return [(a, b) for a, b in random.generator(key).choice(numbers, (count, 2)).tolist()]


def worked(a: int, b: int) -> str:
    """The columns from the right, each with what is carried into it, and the sum: (348, 275) -> 8+5=13,4+7+1=12,3+2+1=6;623."""
    columns, carry = [], 0
    for x, y in zip(str(a)[::-1], str(b)[::-1]):
        total = int(x) + int(y) + carry
        columns.append(f"{x}+{y}{'+1' if carry else ''}={total}")
        carry = total // 10
    return f"{','.join(columns)};{a + b}"


def line(pair: Pair, kind: str) -> str:
    a, b = pair
    if kind == "comparison":
        return f"{min(a, b)}<{max(a, b)}"
    return f"{a}+{b}={worked(a, b) if kind == 'worked' else a + b}"


def is_right(prompt: str, answer: str, finished: bool) -> dict[str, float]:
    """The rule: 1 if the answer has ended, and with the right number.  Whether there is working does not count."""
    a, b = prompt.removesuffix("=").split("+")
    right = finished and answer.rpartition(";")[2] == str(int(a) + int(b))
    return {"reward": float(right), "worked": float(";" in answer)}


# -------------------------------------------------------------------------------------------------------------- the models


def characters() -> Tokenizer:
    """One token for each character that occurs, and END."""
    vocab = {token: id for id, token in enumerate([END, *"0123456789+=,;<"])}
    return Tokenizer(BPE(vocab, []), decoder=ByteLevel(False), added_tokens=[AddedToken(END, 0)], named={"eos_token": END})


def token_array(tokenizer: Tokenizer, pairs: Sequence[Pair], kinds: Sequence[str]) -> np.ndarray:
    """All lines, each between two ENDs."""
    ids = [tokenizer.eos_id]
    for pair, kind in zip(pairs, kinds):
        ids += [*tokenizer.encode(line(pair, kind)), tokenizer.eos_id]
    return np.array(ids, np.uint16)


def pretrained(width: int, numbers: np.ndarray, seed: int, options: argparse.Namespace, out: Path) -> Model:
    """A LLaMA of two layers on the mixture of lines."""
    tokenizer, key = characters(), random.fold(random.key(seed), 2)
    count = max(options.base_steps * 32 * 64 // 20, 100)  # lines of about 20 tokens: almost every token is seen once
    draw = random.generator(random.fold(key, 0))
    tokens, validation = (token_array(tokenizer, drawn_pairs(numbers, n, random.fold(key, 1, n)),
                                      draw.choice(list(KINDS), n, p=list(KINDS.values()))) for n in (count, 300))  # fmt: skip
    config = llama.Config(vocab_size=tokenizer.vocab_size, hidden_size=width, intermediate_size=8 * width // 3 // 8 * 8,
                          num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=128, tie_word_embeddings=True,
                          initializer_range=0.5 * width**-0.5, bos_token_id=0, eos_token_id=0)  # fmt: skip
    model = tinyplm.create("llama", config, key=random.fold(key, 2))
    model.tokenizer = tokenizer
    steps = options.base_steps
    settings = Settings(steps=steps, batch_size=32, sequence_length=64, learning_rate=options.base_lr, warmup=min(50, steps - 1),
                        seed=seed, workers=options.workers, evaluate_every=steps, save_every=steps)  # fmt: skip
    train(model, tokens, validation, settings, out=out)
    return model


def prompt_ids(model: Model, pair: Pair) -> list[int]:
    return [model.tokenizer.eos_id, *model.tokenizer.encode(f"{pair[0]}+{pair[1]}=")]


def grpo_settings(options: argparse.Namespace, seed: int) -> GRPOSettings:
    return GRPOSettings(steps=options.rounds, batch_size=options.prompts, group=options.group, max_new_tokens=LONGEST,
                        learning_rate=options.lr, warmup=5, beta=options.beta, seed=seed, workers=options.workers)  # fmt: skip


def reinforced(model: Model, numbers: np.ndarray, seed: int, options: argparse.Namespace, out: Path) -> Model:
    """The model after GRPO; `model` itself stays as it is."""
    policy = model._with()
    pairs = drawn_pairs(numbers, options.rounds * options.prompts, random.fold(random.key(seed), 3))
    prompts, reward = [prompt_ids(model, pair) for pair in pairs], text_reward(is_right, model.tokenizer)
    grpo(policy, prompts, reward, grpo_settings(options, seed), out=out)
    return policy


def fine_tuned(model: Model, answers: Sequence[tuple[list[int], list[int]]], steps: int, batch: int, lr: float, seed: int,
               options: argparse.Namespace, out: Path) -> Model:  # fmt: skip
    """The model after SFT on pairs of a prompt and an answer with its END; `model` itself stays as it is."""
    other = model._with()
    settings = SFTSettings(steps=steps, batch_size=batch, learning_rate=lr, warmup=5, seed=seed, workers=options.workers)
    sft(other, [answered(prompt, answer) for prompt, answer in answers], settings, out=out)
    return other


def right_answers(model: Model, numbers: np.ndarray, count: int, seed: int, workers: int) -> list[tuple[list[int], list[int]]]:
    """One sample of the model for each of `count` problems for training, as far as the rule finds it right."""
    prompts = [prompt_ids(model, pair) for pair in drawn_pairs(numbers, count, random.fold(random.key(seed), 4))]
    drawn = answers_to(model, prompts, workers=workers, seed=seed)
    return [(prompt, answer) for prompt, answer, values in drawn if values["reward"] == 1]


def answers_to(model: Model, prompts: list[list[int]], *, workers: int, **options) -> list[tuple[list[int], list[int], dict]]:
    """(prompt, answer, what the rule says), 512 prompts at a time."""
    found: list = []
    for start in range(0, len(prompts), 512):
        drawn = rollouts(model, prompts[start : start + 512], max_new_tokens=LONGEST, workers=workers, **options)
        values = text_reward(is_right, model.tokenizer)(drawn.prompts, drawn.answers)
        found += zip(drawn.prompts, drawn.answers, values)
    return found


def measured(model: Model, pairs: Sequence[Pair], workers: int) -> dict[str, float]:
    """Exact match in percent, greedy and sampled, over all pairs; and with one of 8 samples, over 500.  Of the greedy answers how
    many have working, in percent, and the mean length."""
    prompts = [prompt_ids(model, pair) for pair in pairs]
    greedy = answers_to(model, prompts, temperature=0, workers=workers)
    sampled = answers_to(model, prompts, workers=workers)
    eight = np.array([v["reward"] for _, _, v in answers_to(model, prompts[:500], samples=8, workers=workers)]).reshape(-1, 8)
    return {"greedy": 100 * float(np.mean([v["reward"] for _, _, v in greedy])),
            "sampled": 100 * float(np.mean([v["reward"] for _, _, v in sampled])),
            "pass@8": 100 * float(eight.max(axis=1).mean()),
            "worked": 100 * float(np.mean([v["worked"] for _, _, v in greedy])),
            "length": float(np.mean([len(answer) for _, answer, _ in greedy]))}  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- the story


def story(seed: int, options: argparse.Namespace, out: Path) -> dict[str, dict[str, float]]:
    """What is measured of each model, by the names of ROWS."""
    numbers, kept = operands(seed, options.held_out)
    pairs = test_pairs(kept, seed)[: options.problems]
    found: dict[str, dict[str, float]] = {}
    begin = time.perf_counter()

    def show(name: str, model: Model) -> None:
        found[name] = measured(model, pairs, options.workers)
        (_, answer, _), *_ = answers_to(model, [prompt_ids(model, (348, 275))], temperature=0, workers=1)
        print(f"{time.perf_counter() - begin:4.0f} s  {row(name, found[name])}    "
              f"348+275={model.tokenizer.decode(answer, skip_special=True)}", flush=True)  # fmt: skip

    print(f"\nseed {seed}: {len(numbers)} numbers to train on, tested on {len(pairs)} pairs of {len(kept)} others")
    print(f"        {heading()}")
    base = pretrained(options.width, numbers, seed, options, out / "base")
    show(ROWS[0], base)
    show(ROWS[1], reinforced(base, numbers, seed, options, out / "grpo-from-base"))
    examples = drawn_pairs(numbers, options.cold_examples, random.fold(random.key(seed), 5))
    answers = [(prompt_ids(base, p), [*base.tokenizer.encode(worked(*p)), base.tokenizer.eos_id]) for p in examples]
    cold = fine_tuned(base, answers, options.cold_steps, 32, 3e-4, seed, options, out / "cold-start")
    show(ROWS[2], cold)
    teacher = reinforced(cold, numbers, seed, options, out / "grpo-from-cold-start")
    show(ROWS[3], teacher)
    smaller = pretrained(options.student_width, numbers, seed, options, out / "smaller")
    show(ROWS[4], smaller)
    show(ROWS[5], reinforced(smaller, numbers, seed, options, out / "smaller-grpo"))
    answers = right_answers(teacher, numbers, options.distill_samples, seed, options.workers)
    if answers:
        show(ROWS[6], fine_tuned(smaller, answers, options.distill_steps, 64, 2e-3, seed, options, out / "smaller-distilled"))
    print(f"        the smaller model has {smaller.parameter_count()} parameters, the other {base.parameter_count()}; it was "
          f"distilled from {len(answers)} right ones of {options.distill_samples} answers")  # fmt: skip
    return found


def heading() -> str:
    return f"{'':14}" + "".join(f"{name:>9}" for name in COLUMNS)


def row(name: str, values: dict[str, float]) -> str:
    return f"{name.rstrip():14}" + "".join(f"{values[c]:8.1f}{' ' if c == 'length' else '%'}" for c in COLUMNS)


def summary(stories: Sequence[dict[str, dict[str, float]]]) -> str:
    """Mean, and least to greatest, of all seeds."""
    lines = [f"{'':14}" + "".join(f"{name:>22}" for name in COLUMNS[:3])]
    for name in (name for name in ROWS if all(name in s for s in stories)):  # all but what had nothing to be distilled from
        cells = []
        for column in COLUMNS[:3]:
            some = [s[name][column] for s in stories]
            cells.append(f"{np.mean(some):.1f}% ({min(some):.1f} to {max(some):.1f})")
        lines.append(f"{name.rstrip():14}" + "".join(f"{cell:>22}" for cell in cells))
    for title, before, after in (("raw base", *ROWS[:2]), ("cold start", *ROWS[2:4])):
        gains = [s[after]["greedy"] - s[before]["greedy"] for s in stories]
        lines.append(f"GRPO from the {title}: {np.mean(gains):+.1f} points of greedy exact match "
                     f"({min(gains):+.1f} to {max(gains):+.1f})")  # fmt: skip
    return "\n".join(lines)


def plot(out: Path, png: Path) -> bool:
    """Reward, length of answers, entropy and KL by round, from both starts.  False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(10, 6), layout="constrained")
    panels = {"reward": "share of right samples", "length": "tokens of an answer", "entropy": "entropy (nats a token)",
              "kl": "KL to the start (k3, nats a token)"}  # fmt: skip
    for axes, (field, label) in zip(figure.subplots(2, 2).flat, panels.items()):
        for folder, start in (("grpo-from-base", "from the raw base"), ("grpo-from-cold-start", "from the cold start"),
                              ("smaller-grpo", "smaller, from its raw base")):  # fmt: skip
            records = [r for r in read(out / folder / "log.jsonl") if field in r]
            axes.plot([r["step"] for r in records], [r[field] for r in records], lw=1, label=start)
        axes.set(xlabel="round", ylabel=label)
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    with replaced(png) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return True


def main() -> None:
    options = arguments()
    out = Path(options.out)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} holds something already: give another --out")
    grpo_settings(options, 0)  # whatever is wrong with them is said before any work is done
    seeds = range(options.seed, options.seed + options.seeds)
    stories = [story(seed, options, out / f"seed-{seed}") for seed in seeds]
    print(f"\nExact match, mean of {len(stories)} seed{'s' * (len(stories) > 1)} (least to greatest):\n\n{summary(stories)}\n")
    first = out / f"seed-{options.seed}"
    drawn = plot(first, out / "grpo.png")
    print(f"plot    {out / 'grpo.png'}" if drawn else "plot    not drawn: pip install 'tinyplm[plot]'")
    print(f"models  {first / 'grpo-from-base' / 'final'} and beside it (folders that load)")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="how many runs")
    parser.add_argument("--seed", type=int, default=0, help="of the first run")
    parser.add_argument("--width", type=int, default=64, help="of the model")
    parser.add_argument("--student-width", type=int, default=32, help="of the smaller one")
    parser.add_argument("--base-steps", type=int, default=1600, help="of pretraining")
    parser.add_argument("--base-lr", type=float, default=3e-3, help="of pretraining")
    parser.add_argument("--rounds", type=int, default=100, help="of GRPO")
    parser.add_argument("--prompts", type=int, default=32, help="a round")
    parser.add_argument("--group", type=int, default=8, help="answers to a prompt")
    parser.add_argument("--lr", type=float, default=3e-4, help="of GRPO")
    parser.add_argument("--beta", type=float, default=0.01, help="weight of the KL divergence to the start")
    parser.add_argument("--cold-examples", type=int, default=100, help="worked answers of the cold start")
    parser.add_argument("--cold-steps", type=int, default=20, help="of the cold start")
    parser.add_argument("--distill-samples", type=int, default=8000, help="answers drawn from the teacher")
    parser.add_argument("--distill-steps", type=int, default=600, help="of distillation")
    parser.add_argument("--held-out", type=int, default=101, help="numbers kept for the test")
    parser.add_argument("--problems", type=int, default=None, help="test on so many pairs instead of all")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="threads that share a batch")
    parser.add_argument("--out", default="out-grpo", help="folder for everything that is made")
    options = parser.parse_args()
    for name, least in (("seeds", 1), ("base_steps", 1), ("rounds", 1), ("prompts", 1), ("cold_examples", 1), ("cold_steps", 1),
                        ("distill_samples", 1), ("distill_steps", 1), ("workers", 1), ("held_out", 2)):  # fmt: skip
        if getattr(options, name) < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(options, name)}")
    if options.held_out > 800:
        raise ValueError(f"--held-out must be at most 800 of the 900 numbers, got {options.held_out}")
    return options


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\ninterrupted")
