"""DPO: learning a preference from pairs of answers, and the effect of beta.

    python examples/dpo.py                  # a few minutes on two cores
    python examples/dpo.py --seeds 3        # mean and range

A small model fine-tuned on skills (as in sft.py) answers in two styles, equally often: plainly ("d
a c") or with a courtesy ("Of course: d a c").  We prefer plain answers, and among equally plain
ones the correct one.  As in practice, the pairs come from the model itself: it answers each prompt
several times, a rule ranks the answers, and the best and the worst become a pair.  DPO then trains
one policy for each beta.  Reported, on held-out prompts:

    preference accuracy   of the implicit rewards on held-out pairs
    win rate              share of prompts where the rule prefers the policy's sample to the
                          reference's; a tie counts half
    KL                    to the reference, in nats per answer, estimated from the policy's samples
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import skills
from common import run_options, start
from skills import CHAT, LETTERS, Sample

from tinyplm import random
from tinyplm.cli.folders import unused
from tinyplm.cli.output import over_seeds, save_plot, spread
from tinyplm.cli.parser import Parser, number, whole
from tinyplm.models.causal_model import CausalModel
from tinyplm.tuning import DPOSettings, Pair, answered, conversation, dpo, rollouts, sft

COURTESY = "Of course: "


def both_manners(model: CausalModel, samples: list[Sample], seed: int) -> list:
    """Conversations in which half of the answers, chosen by a key, start with the courtesy."""
    made = []
    for n, sample in enumerate(samples):
        key = random.fold(random.key(seed), n)
        asked, answer = sample.messages(key)
        polite = random.fold(key, 5) % 2 == 0
        answer = {**answer, "content": COURTESY * polite + answer["content"]}
        made.append(conversation(model.tokenizer, CHAT, [asked, answer]))
    return made


def tune_both_manners(
    model: CausalModel, samples: list[Sample], *, steps: int, workers: int, seed: int, out=None
) -> None:
    """Fine-tune the model on the samples in both styles."""
    print(f"tuning     on {', '.join(dict.fromkeys(s.skill for s in samples))}, in both styles")
    settings = skills.tuning_settings(steps=steps, workers=workers, seed=seed)
    sft(model, both_manners(model, samples, seed), settings, out=out)


def rank(sample: Sample, text: str) -> int:
    """Our preference: 3 plain and correct, 2 plain, 1 correct with courtesy, 0 otherwise."""
    right = text.strip().removeprefix(COURTESY) == sample.answer
    return 2 * (not text.strip().startswith(COURTESY.strip())) + right


def preference_pairs(
    model: CausalModel, samples: list[Sample], count: int, *, seed: int, workers: int
) -> tuple[list[Pair], float]:
    """(pairs of the best and worst of `count` answers, share of prompts with a pair).

    A prompt has a pair if its best and worst answers differ in rank.
    """
    asked, stops = skills.prompts(model, samples, seed=seed), skills.stop_ids(model)
    drawn = rollouts(
        model, asked, samples=count, max_new_tokens=24, stop_ids=stops, seed=seed, workers=workers
    )
    texts, pairs = drawn.texts(model.tokenizer, stops), []
    for n, sample in enumerate(samples):
        some = range(n * count, (n + 1) * count)
        ranks = [rank(sample, texts[i]) if drawn.finished[i] else -1 for i in some]
        best, worst = some[int(np.argmax(ranks))], some[int(np.argmin(ranks))]
        if ranks[best - some[0]] > ranks[worst - some[0]]:
            two = (drawn.answers[best], drawn.answers[worst])
            pairs.append(tuple(answered(asked[n], answer) for answer in two))
    return pairs, len(pairs) / len(samples)


def judged(
    policy: CausalModel, reference: CausalModel, samples: list[Sample], *, seed: int, workers: int
) -> dict[str, float]:
    """{"win rate", "KL", "right", "plain"} of the policy's samples."""
    asked, stops = skills.prompts(reference, samples, seed=seed), skills.stop_ids(reference)
    options = {"max_new_tokens": 24, "stop_ids": stops, "workers": workers}
    ours = rollouts(policy, asked, seed=seed + 1, **options)
    theirs = rollouts(reference, asked, seed=seed + 2, **options)
    texts, others = ours.texts(reference.tokenizer, stops), theirs.texts(reference.tokenizer, stops)
    ranks = np.array([[rank(s, a), rank(s, b)] for s, a, b in zip(samples, texts, others)])
    wins = (ranks[:, 0] > ranks[:, 1]) + 0.5 * (ranks[:, 0] == ranks[:, 1])
    return {
        "win rate": float(wins.mean()),
        "KL": skills.divergence(policy, reference, ours, workers),
        "plain": float((ranks[:, 0] >= 2).mean()),
        "right": float((ranks[:, 0] % 2 == 1).mean()),
    }


def story(seed: int, options: argparse.Namespace, out: Path) -> dict[float, dict[str, float]]:
    """The measurements for each beta; 0 stands for the reference."""
    common = {"workers": options.workers, "seed": seed}
    training = skills.of_each(LETTERS, options.samples, held_out=False, seed=seed)
    test = skills.of_each(LETTERS, options.tests, held_out=True, seed=seed)
    model, _ = skills.base_model(steps=options.base_steps, **common)
    tune_both_manners(model, training, steps=options.sft_steps, **common)
    found = {0.0: judged(model, model, test, **common)}
    # in phrasings other than in tuning, where the model memorised which had the courtesy
    pairs, share = preference_pairs(model, training, 4, seed=seed + 100, workers=options.workers)
    held_out, _ = preference_pairs(model, test, 4, seed=seed + 9, workers=options.workers)
    drawn = f"{len(pairs)} from {len(training)} prompts ({share:.0%})"
    print(f"pairs      {drawn}, {len(held_out)} held out")
    for beta in options.beta:
        policy = model._with()
        print(f"DPO        beta {beta:g}, seed {seed}")
        sizes = {"steps": options.steps, "batch_size": 32, "learning_rate": options.lr, "warmup": 5}
        settings = DPOSettings(**sizes, beta=beta, **common)
        result = dpo(policy, pairs, settings, validation=held_out, out=out / f"beta-{beta:g}")
        found[beta] = judged(policy, model, test, **common)
        found[beta]["accuracy"] = result.validation[options.steps]["accuracy"]
    return found


def main() -> None:
    options = parser().options()
    out = unused(options.out)
    seeds = range(options.seed, options.seed + options.seeds)
    stories = [story(seed, options, out / f"seed-{seed}") for seed in seeds]
    columns = ("accuracy", "win rate", "KL", "plain", "right")
    width = 12 if len(seeds) == 1 else 24
    print(f"\nheld-out prompts, {over_seeds(seeds)}\n")
    print(f"{'beta':12}" + "".join(f"{name:>{width}}" for name in columns))
    for beta in stories[0]:
        found = [[s[beta][name] for s in stories if name in s[beta]] for name in columns]
        forms = ["{:.2f}" if name == "KL" else "{:.1%}" for name in columns]
        cells = [spread(values, form) if values else "-" for values, form in zip(found, forms)]
        line = "".join(f"{cell:>{width}}" for cell in cells)
        print(f"{f'{beta:g}' if beta else 'reference':12}{line}")
    print()

    def frontier(axes: Any) -> None:
        for beta in options.beta:
            x, y = (np.mean([s[beta][name] for s in stories]) for name in ("KL", "win rate"))
            axes.plot([x], [y], "o", label=f"beta {beta:g}")
        axes.axhline(0.5, ls="--", lw=1, color="gray", label="the reference itself")
        axes.set(xlabel="KL to the reference (nats per answer)")
        axes.set(ylabel="win rate against the reference")
        axes.legend()

    save_plot(out / "dpo.png", frontier, size=(6, 4))
    print(f"models     {out / f'seed-{options.seed}'}/beta-*/final")


def parser() -> Parser:
    parser = Parser(__doc__)
    option = parser.option
    option(
        "--beta",
        [0.03, 0.1, 0.3, 1.0],
        "Values of beta; one policy is trained for each.",
        number(above=0.0),
        nargs="+",
    )
    option("--seeds", 1, "Number of runs, with consecutive seeds from --seed.", whole(1))
    option("--base-steps", 150, "Pretraining steps.", whole(1))
    option("--sft-steps", 400, "Fine-tuning steps on the skills.", whole(1))
    option("--steps", 50, "DPO steps for each beta.", whole(1))
    option("--samples", 500, "Training prompts per skill.", whole(1))
    option("--tests", 100, "Held-out prompts per skill.", whole(1))
    option("--lr", 1e-4, "Peak learning rate of DPO.", number(above=0.0))
    run_options(parser, "out-dpo")
    return parser


if __name__ == "__main__":
    start(main)
