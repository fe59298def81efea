"""All stages on one small model: pretraining, supervised fine-tuning, DPO, GRPO.

    python examples/whole_path.py           # some minutes on two cores

    1 pretrained    a LLaMA on Python's documentation
    2 sft           conversations in ChatML: copy, reverse and sort letters, half of the answers
                    with a courtesy ("Of course: ")
    3 dpo           pairs of its own answers: plain ones preferred, and among those the correct one
    4 grpo          rewards from a rule, 1 for exactly the correct answer, 0 otherwise; half of the
                    problems have longer rows of letters

The same held-out prompts are evaluated after each stage.  Each stage's folder loads in tinyplm and
transformers; `tinyplm chat --model out-path/4-grpo` talks to the last one.  Fine-tuning costs
some of the pretrained knowledge: the loss on text shows how much.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import skills
from common import run_options, start
from dpo import preference_pairs, rank, tune_both_manners
from skills import LETTERS, Sample

import tinyplm
from tinyplm import random
from tinyplm.cli.folders import unused
from tinyplm.cli.output import save_plot, tinyplm_command
from tinyplm.cli.parser import Parser, whole
from tinyplm.models.causal_model import CausalModel
from tinyplm.training.log import read
from tinyplm.tuning import (
    DPOSettings,
    GRPOSettings,
    answer_loss,
    dpo,
    grpo,
    rollouts,
    text_reward,
    text_sequences,
)

LONGEST = 24  # tokens of an answer
COLUMNS = {name: name for name in ("text", "exact", "plain", "right", "KL", "seconds")}
COLUMNS |= {"text": "text loss", "seconds": "time"}


def longer(skill: str, count: int, *, held_out: bool, seed: int) -> list[Sample]:
    """Samples with five letters (fine-tuning has two to four), split as in skills.samples."""
    made = []
    draw = np.random.default_rng([seed, LETTERS.index(skill), held_out, 77])
    while len(made) < count:
        letters = draw.choice(list("abcdefghij"), 5, replace=False).tolist()
        if (random.fold(random.key(98), *" ".join(letters).encode()) % 5 == 0) == held_out:
            made.append(Sample(skill, skills.turned(skill, letters)))
    return made


def judged(
    model: CausalModel, before: CausalModel | None, tests: list[Sample], text: list, workers: int
) -> dict[str, float]:
    """Loss on held-out text; shares of sampled answers that are exact, plain, right; KL.

    right: correct in either style.  KL: to the model before this stage, in nats per answer.
    """
    asked, stops = skills.prompts(model, tests, seed=5), skills.stop_ids(model)
    drawn = rollouts(model, asked, max_new_tokens=LONGEST, stop_ids=stops, seed=5, workers=workers)
    rows = zip(tests, drawn.texts(model.tokenizer, stops), drawn.finished)
    ranks = np.array([rank(sample, said) if done else 0 for sample, said, done in rows])
    found = {
        "text": answer_loss(model, text, workers=workers),
        "exact": float((ranks == 3).mean()),
        "plain": float((ranks >= 2).mean()),
        "right": float((ranks % 2 == 1).mean()),
    }
    if before is not None:
        found["KL"] = skills.divergence(model, before, drawn, workers)
    return found


def main() -> None:
    options = parser().options()
    out, seed, workers = unused(options.out), options.seed, options.workers
    begin = time.perf_counter()
    rows: list[tuple[str, dict[str, float]]] = []
    training = skills.of_each(LETTERS, options.samples, held_out=False, seed=seed)
    tests = skills.of_each(LETTERS, options.tests, held_out=True, seed=seed)
    tests += [s for name in LETTERS for s in longer(name, options.tests, held_out=True, seed=seed)]
    model, tokens = skills.base_model(steps=options.base_steps, workers=workers, seed=seed)
    text = text_sequences(tokens["validation"][:6000], 64)
    print(f"{model}\n{len(tests)} held-out prompts, half of them with five letters")

    def stage(name: str, before: CausalModel | None) -> CausalModel:
        tinyplm.save(model, out / name)
        nonlocal begin
        values = judged(model, before, tests, text, workers)
        values["seconds"] = time.perf_counter() - begin
        rows.append((name, values))
        line = "   ".join(f"{key} {value:.3g}" for key, value in values.items())
        print(f"{name:14}{line}", flush=True)
        begin = time.perf_counter()
        return model._with()

    before = stage("1-pretrained", None)
    common = {"workers": workers, "seed": seed}
    tune_both_manners(model, training, steps=options.sft_steps, out=out / "logs" / "sft", **common)
    before = stage("2-sft", before)
    pairs, share = preference_pairs(model, training, 4, seed=seed + 100, workers=workers)
    held_out, _ = preference_pairs(model, tests, 4, seed=seed + 9, workers=workers)
    print(f"DPO        on {len(pairs)} pairs from {share:.0%} of the prompts")
    sizes = {"steps": options.dpo_steps, "batch_size": 32, "learning_rate": 1e-4, "warmup": 5}
    settings = DPOSettings(**sizes, beta=0.3, **common)
    result = dpo(model, pairs, settings, validation=held_out, out=out / "logs" / "dpo")
    before = stage("3-dpo", before)
    accuracy = result.validation.get(options.dpo_steps, {}).get("accuracy", float("nan"))
    print(f"preference accuracy on held-out pairs: {accuracy:.1%}")
    problems = list(training)
    for name in LETTERS:
        problems += longer(name, options.samples, held_out=False, seed=seed + 1)
    asked = skills.prompts(model, problems, seed=seed + 3)
    wanted = {tuple(ids): sample.answer for ids, sample in zip(asked, problems)}
    stops = skills.stop_ids(model)
    texts = text_reward(lambda prompt, answer, finished: (finished, answer), model.tokenizer, stops)

    def reward(prompts: list[list[int]], answers: list[list[int]]) -> list[float]:
        return [
            float(finished and answer.strip() == wanted[tuple(prompt)])
            for prompt, (finished, answer) in zip(prompts, texts(prompts, answers))
        ]

    sizes = {"batch_size": 32, "group": 8, "minibatches": 2, "max_new_tokens": LONGEST}
    rates = {"learning_rate": 5e-4, "warmup": 5, "beta": 0.01}
    settings = GRPOSettings(steps=options.rounds, **sizes, **rates, **common)
    print(f"GRPO       on {len(asked)} problems")
    grpo(model, asked, reward, settings, stop_ids=stops, out=out / "logs" / "grpo")
    stage("4-grpo", before)

    print(f"\n{'stage':14}" + "".join(f"{title:>11}" for title in COLUMNS.values()))
    for name, values in rows:
        forms = {"text": "{:.3f}", "KL": "{:.2f}", "seconds": "{:.0f} s"}
        shown = {key: forms.get(key, "{:.1%}").format(value) for key, value in values.items()}
        cells = [shown.get(key, "-") for key in COLUMNS]
        print(f"{name:14}" + "".join(f"{cell:>11}" for cell in cells))
    print(
        "\nexact: the correct answer and nothing else; plain: without the courtesy; right:\n"
        "correct in either style; KL: to the previous stage, in nats per answer; all on\n"
        "answers sampled at temperature 1; text loss: nats per token of held-out text"
    )
    few = [tests[0], tests[-1]]
    said = skills.answers(model, skills.prompts(model, few, seed=1), max_new_tokens=LONGEST)
    for sample, text_ in zip(few, said):
        print(f"    {sample.skill} {sample.fields['items']}  ->  {text_}")
    logs = ("sft", "dpo", "grpo")
    records = {name: list(read(out / "logs" / name / "log.jsonl")) for name in logs}

    def curve(name: str, field: str, label: str) -> Callable:
        def panel(axes: Any) -> None:
            axes.plot(*zip(*[(r["step"], r[field]) for r in records[name] if field in r]), lw=1)
            axes.set(title=name, xlabel="step", ylabel=label)

        return panel

    def bars(axes: Any) -> None:
        for field, marker in (("exact", "o"), ("plain", "s")):
            values = [values[field] for _, values in rows]
            axes.plot([name for name, _ in rows], values, marker=marker, label=field)
        axes.set(title="held-out prompts", ylim=(0, 1))
        axes.legend()

    panels = [
        curve("sft", "loss", "loss"),
        curve("dpo", "accuracy", "preference accuracy"),
        curve("grpo", "reward", "reward"),
        bars,
    ]
    print()
    save_plot(out / "path.png", *panels, size=(16, 3.6))
    print(f"models     {', '.join(str(out / name) for name, _ in rows)}")
    print(f"talk       {tinyplm_command('chat', '--model', out / '4-grpo')}")


def parser() -> Parser:
    parser = Parser(__doc__)
    option = parser.option
    option("--base-steps", 200, "Pretraining steps.", whole(1))
    option("--sft-steps", 600, "Supervised fine-tuning steps.", whole(1))
    option("--dpo-steps", 60, "DPO steps.", whole(1))
    option("--rounds", 60, "GRPO rounds.", whole(1))
    option("--samples", 500, "Training samples per skill.", whole(1))
    option(
        "--tests", 60, "Held-out prompts per skill, and as many again with five letters.", whole(1)
    )
    run_options(parser, "out-path")
    return parser


if __name__ == "__main__":
    start(main)
