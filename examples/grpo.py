"""GRPO on arithmetic with a rule for a reward: from a raw base, and from a small cold start, then distilled into a smaller model.

    python examples/grpo.py                  # some minutes on two cores
    python examples/grpo.py --seeds 3        # mean and range

The task is to add two numbers of three digits: "348+275=" is to be gone on with "0623" and the end.  A base is pretrained here,
on lines of sums, all right, and of comparisons ("275<348"), and its pretraining is broken off as soon as three in ten of its
greedy answers are right (on numbers for training).  From there on there are no more answers to learn from: GRPO has the model
answer, and a rule says 1 for an answer that ends with the right number and else 0.

    R1-Zero's way    GRPO from the raw base                                              (DeepSeek-AI 2025, sec. 2.2)
    R1's way         fine-tuning on some right answers, the cold start, then GRPO        (sec. 2.3)
    distillation     answers of that model that the rule finds right train a smaller one (sec. 2.4)

101 of the 900 numbers are kept apart: none of them is an operand anywhere in training, and tested is on all 5151 pairs of them,
each in one order.  Another seed is another split, text, initialisation and run.

Three seeds (0 to 2, by which the rule that breaks pretraining off was chosen) went from 33% (28 to 40) of greedy answers right to
79% (69 to 88).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence as Sequence_
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
from tinyplm.tuning.grpo import GRPOSettings, grpo
from tinyplm.tuning.learner import Learner
from tinyplm.tuning.rollouts import rollouts
from tinyplm.tuning.rules import text_reward
from tinyplm.tuning.sequences import Sequence, answered
from tinyplm.tuning.settings import RecipeSettings
from tinyplm.tuning.sft import SFTSettings, answer_likelihood, batch_of, sft

END = "<|endoftext|>"  # ends a line, so it also begins one
LONGEST = 6  # tokens of an answer, one more than a right one has
SUMS = 0.8  # of the lines of the base's text; the others are comparisons
ROWS = ("raw base", "  after GRPO", "cold start", "  after GRPO ", "smaller base", "  after GRPO  ", "  distilled")
COLUMNS = ("greedy", "sampled", "pass@8")
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


def line(pair: Pair, is_sum: bool = True) -> str:
    a, b = pair
    return f"{a}+{b}={a + b:04}" if is_sum else f"{min(a, b)}<{max(a, b)}"


def is_right(prompt: str, answer: str, finished: bool) -> float:
    """The rule: 1 if the answer has ended, and is the right number in four digits."""
    a, b = prompt.removesuffix("=").split("+")
    return float(finished and answer == f"{int(a) + int(b):04}")


# -------------------------------------------------------------------------------------------------------------- the models


def characters() -> Tokenizer:
    """One token for each character that occurs, and END."""
    vocab = {token: id for id, token in enumerate([END, *"0123456789+=<"])}
    return Tokenizer(BPE(vocab, []), decoder=ByteLevel(False), added_tokens=[AddedToken(END, 0)], named={"eos_token": END})


def pretrained(width: int, numbers: np.ndarray, seed: int, options: argparse.Namespace) -> tuple[Model, int]:
    """A LLaMA of two layers on such lines, each a sequence of its own, until it is right often enough; and the steps it took."""
    tokenizer, key = characters(), random.fold(random.key(seed), 2)
    config = llama.Config(vocab_size=tokenizer.vocab_size, hidden_size=width, intermediate_size=-(-8 * width // 3 // 16) * 16,
                          num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32, tie_word_embeddings=True,
                          initializer_range=round(0.56 * width**-0.5, 4), bos_token_id=0, eos_token_id=0)  # fmt: skip
    model = tinyplm.create("llama", config, key=random.fold(key, 0))
    model.tokenizer = tokenizer
    settings = RecipeSettings(steps=options.base_steps, learning_rate=options.base_lr, schedule="constant",
                              warmup=min(50, options.base_steps - 1), workers=options.workers, seed=seed)  # fmt: skip
    learner = Learner(model, settings)
    judged = [prompt_ids(model, pair) for pair in drawn_pairs(numbers, 400, random.fold(key, 1))]
    for step in range(options.base_steps):
        draw = random.generator(random.fold(key, 2, step))
        lines = [line(tuple(pair), draw.random() < SUMS) for pair in draw.choice(numbers, (64, 2)).tolist()]
        ids = [[tokenizer.eos_id, *tokenizer.encode(text), tokenizer.eos_id] for text in lines]
        batch, total = batch_of([Sequence(some, [False] + [True] * (len(some) - 1)) for some in ids])
        learner.step(batch, answer_likelihood(total))
        if step % 20 == 19:
            right = np.mean([value for _, _, value in answers_to(learner.model, judged, temperature=0, workers=options.workers)])
            if right >= options.share:
                break
    model.params = learner.model.params
    return model, step + 1


def prompt_ids(model: Model, pair: Pair) -> list[int]:
    return [model.tokenizer.eos_id, *model.tokenizer.encode(f"{pair[0]}+{pair[1]}=")]


def grpo_settings(options: argparse.Namespace, seed: int) -> GRPOSettings:
    return GRPOSettings(steps=options.rounds, batch_size=options.prompts, group=options.group, max_new_tokens=LONGEST,
                        learning_rate=options.lr, warmup=5, minibatches=min(options.minibatches, options.prompts),
                        beta=options.beta, seed=seed, workers=options.workers)  # fmt: skip


def reinforced(model: Model, numbers: np.ndarray, seed: int, options: argparse.Namespace, out: Path) -> Model:
    """The model after GRPO; `model` itself stays as it is."""
    policy = model._with()
    pairs = drawn_pairs(numbers, options.rounds * options.prompts, random.fold(random.key(seed), 3))
    prompts, reward = [prompt_ids(model, pair) for pair in pairs], text_reward(is_right, model.tokenizer)
    grpo(policy, prompts, reward, grpo_settings(options, seed), out=out)
    return policy


def fine_tuned(model: Model, answers: Sequence_[tuple[list[int], list[int]]], steps: int, batch: int, lr: float, seed: int,
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
    return [(prompt, answer) for prompt, answer, values in drawn if values == 1]


def answers_to(model: Model, prompts: list[list[int]], *, workers: int, **options) -> list[tuple[list[int], list[int], float]]:
    """(prompt, answer, what the rule says), 1024 prompts at a time."""
    found: list = []
    for start in range(0, len(prompts), 1024):
        drawn = rollouts(model, prompts[start : start + 1024], max_new_tokens=LONGEST, workers=workers, **options)
        found += zip(drawn.prompts, drawn.answers, text_reward(is_right, model.tokenizer)(drawn.prompts, drawn.answers))
    return found


def measured(model: Model, pairs: Sequence_[Pair], workers: int) -> dict[str, float]:
    """Exact match in percent, greedy and sampled, over all pairs; and with one of 8 samples, over 500."""
    prompts = [prompt_ids(model, pair) for pair in pairs]
    ways = ((prompts, {"temperature": 0}), (prompts, {}), (prompts[:500], {"samples": 8}))
    greedy, sampled, eight = (np.array([value for _, _, value in answers_to(model, some, workers=workers, **options)])
                              for some, options in ways)  # fmt: skip
    return {"greedy": 100 * float(greedy.mean()), "sampled": 100 * float(sampled.mean()),
            "pass@8": 100 * float(eight.reshape(-1, 8).max(axis=1).mean())}  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- the story


def story(seed: int, options: argparse.Namespace, out: Path) -> dict[str, dict[str, float]]:
    """What is measured of each model, by the names of ROWS."""
    numbers, kept = operands(seed, options.held_out)
    pairs = test_pairs(kept, seed)[: options.problems]
    found: dict[str, dict[str, float]] = {}
    begin = time.perf_counter()

    def show(name: str, model: Model) -> None:
        found[name] = measured(model, pairs, options.workers)
        (prompt, answer, _), *_ = answers_to(model, [prompt_ids(model, (348, 275))], temperature=0, workers=1)
        print(f"{time.perf_counter() - begin:4.0f} s  {row(name, found[name])}    "
              f"348+275={model.tokenizer.decode(answer, skip_special=True, after=prompt)}", flush=True)  # fmt: skip

    print(f"\nseed {seed}: {len(numbers)} numbers to train on, tested on {len(pairs)} pairs of {len(kept)} others")
    print(f"        {heading()}")
    base, steps = pretrained(options.width, numbers, seed, options)
    show(ROWS[0], base)
    show(ROWS[1], reinforced(base, numbers, seed, options, out / "grpo-from-base"))
    examples = drawn_pairs(numbers, options.cold_examples, random.fold(random.key(seed), 5))
    end = base.tokenizer.eos_id
    asked = [prompt_ids(base, p) for p in examples]
    answers = [(ids, [*base.tokenizer.continue_ids(ids, f"{sum(p):04}"), end]) for ids, p in zip(asked, examples)]
    cold = fine_tuned(base, answers, options.cold_steps, 32, 3e-4, seed, options, out / "cold-start")
    show(ROWS[2], cold)
    teacher = reinforced(cold, numbers, seed, options, out / "grpo-from-cold-start")
    show(ROWS[3], teacher)
    smaller, smaller_steps = pretrained(options.student_width, numbers, seed, options)
    show(ROWS[4], smaller)
    show(ROWS[5], reinforced(smaller, numbers, seed, options, out / "smaller-grpo"))
    answers = right_answers(teacher, numbers, options.distill_samples, seed, options.workers)
    if answers:
        show(ROWS[6], fine_tuned(smaller, answers, options.distill_steps, 64, 2e-3, seed, options, out / "smaller-distilled"))
    sizes = [
        f"{m.parameter_count():,} parameters, pretrained for {n} steps" for m, n in ((base, steps), (smaller, smaller_steps))
    ]
    print(f"        {sizes[0]}; the smaller model {sizes[1]},\n        distilled from {len(answers)} right ones of "
          f"{options.distill_samples} answers")  # fmt: skip
    return found


def heading() -> str:
    return f"{'':14}" + "".join(f"{name:>9}" for name in COLUMNS)


def row(name: str, values: dict[str, float]) -> str:
    return f"{name.rstrip():14}" + "".join(f"{values[c]:8.1f}%" for c in COLUMNS)


def summary(stories: Sequence_[dict[str, dict[str, float]]]) -> str:
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
    """Reward, entropy, clipping and even groups by round, from both starts.  False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(10, 6), layout="constrained")
    panels = {"reward": "share of right samples", "entropy": "entropy (nats a token)", "clip_fraction": "clipped tokens",
              "even": "groups without a difference"}  # fmt: skip
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
    parser.add_argument("--width", type=int, default=128, help="of the model")
    parser.add_argument("--student-width", type=int, default=64, help="of the smaller one")
    parser.add_argument("--base-steps", type=int, default=2000, help="of pretraining at most")
    parser.add_argument("--share", type=float, default=0.3, help="of right greedy answers at which pretraining is broken off")
    parser.add_argument("--base-lr", type=float, default=2e-3, help="of pretraining")
    parser.add_argument("--rounds", type=int, default=200, help="of GRPO")
    parser.add_argument("--prompts", type=int, default=64, help="a round")
    parser.add_argument("--group", type=int, default=8, help="answers to a prompt")
    parser.add_argument("--minibatches", type=int, default=2, help="updates a round")
    parser.add_argument("--lr", type=float, default=6e-4, help="of GRPO")
    parser.add_argument("--beta", type=float, default=0.0, help="weight of the KL divergence to the start")
    parser.add_argument("--cold-examples", type=int, default=400, help="right answers of the cold start")
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
