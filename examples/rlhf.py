"""RLHF: a reward model from preferences, PPO against it, and where the policy starts to exploit it.

    python examples/rlhf.py                 # a few minutes on two cores

The three steps of Ouyang et al. 2022.  (1) A small LLaMA is pretrained and fine-tuned on skills (as
in sft.py), half of its answers with a courtesy ("Of course: d a c").  (2) A reward model, the same
network with a score instead of the vocabulary, learns from pairs of the model's own answers.
Preferred are courtesy and correct answers, by a rule that the reward model never sees.  (3) PPO,
with a value head on the policy and a penalty for leaving the reference, trains the policy on the
reward model's scores.  The rule's score is reported as well: as long as both scores rise, the
policy does what was meant; when only the reward model's still rises, the policy exploits its
errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import skills
from common import run_options, start
from dpo import COURTESY, tune_both_manners
from skills import LETTERS, Sample

import tinyplm
from tinyplm.cli.folders import unused
from tinyplm.cli.output import save_plot
from tinyplm.cli.parser import Parser, number, whole
from tinyplm.models.causal_model import CausalModel
from tinyplm.models.config import labels
from tinyplm.models.model import Model
from tinyplm.training.log import read
from tinyplm.tuning import (
    Pair,
    PPOSettings,
    RewardSettings,
    answered,
    model_reward,
    ppo,
    reward,
    rollouts,
)

LONGEST = 24


def true_score(sample: Sample, text: str, finished: bool) -> float:
    """The rule: 1 for courtesy plus 1 for a correct answer; -1 for one that does not end."""
    if not finished:
        return -1.0
    right = text.strip().removeprefix(COURTESY) == sample.answer
    return float(text.startswith(COURTESY.strip())) + float(right)


def scored_model(policy: CausalModel, seed: int) -> Model:
    """The policy's network with a freshly initialised score."""
    judge = tinyplm.create(
        "llama", policy.config, task="sequence_classification", key=seed, **labels(["reward"])
    )
    judge.params = {"body": policy.params["body"], "head": judge.params["head"]}
    judge.tokenizer = policy.tokenizer
    return judge


def preferences(
    model: CausalModel, samples: list[Sample], *, seed: int, workers: int
) -> list[Pair]:
    """Two answers to each prompt, the preferred one first, if the rule prefers one."""
    asked, stops = skills.prompts(model, samples, seed=seed), skills.stop_ids(model)
    drawn = rollouts(
        model, asked, samples=2, max_new_tokens=LONGEST, stop_ids=stops, seed=seed, workers=workers
    )
    texts, pairs = drawn.texts(model.tokenizer, stops), []
    for n, sample in enumerate(samples):
        two = [(true_score(sample, texts[i], drawn.finished[i]), i) for i in (2 * n, 2 * n + 1)]
        (low, worse), (high, better) = sorted(two)
        if high > low:
            ranked = (drawn.answers[better], drawn.answers[worse])
            pairs.append(tuple(answered(asked[n], answer) for answer in ranked))
    return pairs


def judged(
    policy: CausalModel,
    reference: CausalModel,
    judge: Callable,
    samples: list[Sample],
    *,
    seed: int,
    workers: int,
) -> dict[str, float]:
    """Means over samples of the policy: both scores, the rule's parts, the KL to the reference."""
    asked, stops = skills.prompts(reference, samples, seed=seed), skills.stop_ids(reference)
    drawn = rollouts(
        policy, asked, max_new_tokens=LONGEST, stop_ids=stops, seed=seed, workers=workers
    )
    texts = drawn.texts(reference.tokenizer, stops)
    return {
        "reward model": float(np.mean(judge(drawn.prompts, drawn.answers))),
        "rule": float(np.mean([true_score(*row) for row in zip(samples, texts, drawn.finished)])),
        "courtesy": float(np.mean([text.startswith(COURTESY.strip()) for text in texts])),
        "right": float(
            np.mean([t.strip().removeprefix(COURTESY) == s.answer for s, t in zip(samples, texts)])
        ),
        "KL": skills.divergence(policy, reference, drawn, workers),
    }


def main() -> None:
    options = parser().options()
    out = unused(options.out)
    settings = PPOSettings(
        steps=options.rounds,
        batch_size=options.prompts,
        max_new_tokens=LONGEST,
        learning_rate=options.lr,
        warmup=5,
        beta=options.beta,
        workers=options.workers,
        seed=options.seed,
        cut_score=-2.0,
    )
    seed, workers = options.seed, options.workers
    training = skills.of_each(LETTERS, options.samples, held_out=False, seed=seed)
    test = skills.of_each(LETTERS, options.tests, held_out=True, seed=seed)
    model, _ = skills.base_model(steps=options.base_steps, workers=workers, seed=seed)
    tune_both_manners(model, training, steps=options.sft_steps, workers=workers, seed=seed)
    reference = model._with()

    pairs, held_out = (
        preferences(model, some, seed=seed + n, workers=workers)
        for n, some in enumerate((training, test))
    )
    judge_model = scored_model(model, seed)
    print("training   the reward model")
    sizes = {"steps": options.reward_steps, "batch_size": 32, "learning_rate": 5e-4, "warmup": 5}
    judging = RewardSettings(**sizes, workers=workers, seed=seed)
    result = reward(judge_model, pairs, judging, validation=held_out, out=out / "reward")
    accuracy = result.validation[options.reward_steps]["accuracy"]
    print(
        f"reward     {len(pairs)} pairs, accuracy on {len(held_out)} held-out pairs {accuracy:.1%} "
        f"({result.validation[0]['accuracy']:.1%} before)"
    )
    judge = model_reward(judge_model, offset=result.offset, workers=workers)

    found = {"before": judged(model, reference, judge, test, seed=seed, workers=workers)}
    print("PPO        against the reward model")
    asked, stops = skills.prompts(model, training, seed=seed), skills.stop_ids(model)
    ppo(model, asked, judge, settings, stop_ids=stops, out=out / "ppo")
    found["after"] = judged(model, reference, judge, test, seed=seed, workers=workers)
    heading = "".join(f"{name:>14}" for name in found["before"])
    print(f"\nsampled answers to {len(test)} held-out prompts\n\n{'':8}{heading}")
    for name, values in found.items():
        forms = {"courtesy": "14.1%", "right": "14.1%"}
        print(f"{name:8}" + "".join(f"{v:{forms.get(key, '14.2f')}}" for key, v in values.items()))
    few = test[:: max(1, len(test) // 6)][:6]
    asked = skills.prompts(model, few, seed=seed)
    print()
    answers = (skills.answers(m, asked, max_new_tokens=LONGEST) for m in (reference, model))
    for sample, was, now in zip(few, *answers):
        print(f"    {sample.skill} {sample.fields['items']}:  {was!r} -> {now!r}")
    gained = found["after"]["reward model"] - found["before"]["reward model"]
    meant = found["after"]["rule"] - found["before"]["rule"]
    print(
        f"\nThe reward model's score changed by {gained:+.2f}, the rule's by {meant:+.2f} (at most "
        f"{2 - found['before']['rule']:+.2f}); correct: "
        f"{found['after']['right'] - found['before']['right']:+.1%}."
    )
    records = list(read(out / "ppo" / "log.jsonl"))

    def curve(field: str, label: str) -> Callable:
        def panel(axes: Any) -> None:
            axes.plot([r["step"] for r in records], [r[field] for r in records], lw=1)
            axes.set(xlabel="round", ylabel=label)

        return panel

    panels = [
        curve("reward", "reward model's score"),
        curve("kl", "KL to the reference (nats per answer)"),
        curve("entropy", "entropy (nats per token)"),
    ]
    print()
    save_plot(out / "rlhf.png", *panels, size=(12, 3.6))
    print(f"models     {out / 'ppo' / 'final'} and {out / 'reward' / 'final'}")


def parser() -> Parser:
    parser = Parser(__doc__)
    option = parser.option
    option("--base-steps", 150, "Pretraining steps.", whole(1))
    option("--sft-steps", 400, "Fine-tuning steps on the skills.", whole(1))
    option("--reward-steps", 100, "Training steps of the reward model.", whole(1))
    option("--rounds", 40, "PPO rounds.", whole(1))
    option("--prompts", 128, "Prompts per round.", whole(2))
    option("--samples", 500, "Training prompts per skill.", whole(1))
    option("--tests", 100, "Held-out prompts per skill.", whole(1))
    option("--lr", 2e-4, "Peak learning rate of PPO.", number(above=0.0))
    option(
        "--beta",
        0.3,
        "Weight of the KL penalty; with a small one the policy may exploit the reward model.",
        number(least=0.0),
    )
    run_options(parser, "out-rlhf")
    return parser


if __name__ == "__main__":
    start(main)
