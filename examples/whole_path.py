"""The whole path on one small model: pretraining, supervised fine-tuning, DPO, GRPO.

    python examples/whole_path.py           # some minutes on two cores

    1 pretrained    a LLaMA on the documentation that ships with every Python
    2 sft           conversations in ChatML: copy, reverse and sort letters, half of the answers with a courtesy ("Of course: ")
    3 dpo           pairs of its own answers: plain ones are preferred, and of equally plain ones the right one
    4 grpo          a rule's reward, 1 for exactly the right answer and 0 else, half of the problems with longer rows of letters

After each stage the same held-out prompts are asked again.  Each stage's folder loads in tinyplm and transformers, and
`python examples/chat.py out-path/4-grpo` talks to the last one.  Fine-tuning costs some of what pretraining
taught: the loss on text says how much.
"""

from __future__ import annotations

import time

import numpy as np
import skills
from common import Parser, command, run_options, save_plot, start, unused, whole
from dpo import both_manners, preference_pairs, rank
from skills import TASKS, Sample

import tinyplm
from tinyplm import random
from tinyplm.models.causal_model import CausalModel
from tinyplm.training.log import read
from tinyplm.tuning.align.distill import text_sequences
from tinyplm.tuning.align.dpo import DPOSettings, dpo
from tinyplm.tuning.align.grpo import GRPOSettings, grpo
from tinyplm.tuning.align.learner import token_log_probs
from tinyplm.tuning.align.rollouts import rollouts
from tinyplm.tuning.align.rules import text_reward
from tinyplm.tuning.align.sft import SFTSettings, answer_loss, sft

SKILLS = [skill for skill in TASKS if skill != "add"]
LONGEST = 24  # tokens of an answer
COLUMNS = {"text": "text loss", "exact": "exact", "plain": "plain", "right": "right", "KL": "KL", "seconds": "time"}


def longer(skill: str, count: int, *, held_out: bool, seed: int) -> list[Sample]:
    """Samples with five letters (fine-tuning had two to four); as in skills.samples, one input of five is for testing only."""
    made = []
    draw = np.random.default_rng([seed, SKILLS.index(skill), held_out, 77])
    while len(made) < count:
        letters = draw.choice(list("abcdefghij"), 5, replace=False).tolist()
        if (random.fold(random.key(98), *" ".join(letters).encode()) % 5 == 0) != held_out:
            continue
        turned = {"copy": letters, "reverse": letters[::-1], "sort": sorted(letters)}[skill]
        made.append(Sample(skill, {"items": " ".join(letters), "answer": " ".join(turned)}))
    return made


def judged(model: CausalModel, before: CausalModel | None, tests: list[Sample], text: list, workers: int) -> dict[str, float]:
    """Loss on held-out text; of sampled answers the share that is exactly right, plain, and right in either manner; and the KL,
    in nats an answer, to the model before this stage."""
    asked, stops = skills.prompts(model, tests, seed=5), skills.stop_ids(model)
    drawn = rollouts(model, asked, max_new_tokens=LONGEST, stop_ids=stops, seed=5, workers=workers)
    ranks = np.array(
        [rank(s, t) if done else 0 for s, t, done in zip(tests, drawn.texts(model.tokenizer, stops), drawn.finished)]
    )
    found = {"text": answer_loss(model, text, workers=workers), "exact": float((ranks == 3).mean()),
             "plain": float((ranks >= 2).mean()), "right": float((ranks % 2 == 1).mean())}  # fmt: skip
    if before is not None:
        now, then = (token_log_probs(m, drawn.arrays(), workers=workers)["log_probs"].sum(axis=1) for m in (model, before))
        found["KL"] = float((now - then).mean())
    return found


def main() -> None:
    options = parser().options()
    out, seed, workers = unused(options.out), options.seed, options.workers
    begin = time.perf_counter()
    rows: list[tuple[str, dict[str, float]]] = []
    training = [s for skill in SKILLS for s in skills.samples(skill, options.samples, held_out=False, seed=seed)]
    tests = [s for skill in SKILLS for s in skills.samples(skill, options.tests, held_out=True, seed=seed)]
    tests += [s for skill in SKILLS for s in longer(skill, options.tests, held_out=True, seed=seed)]
    model, tokens = skills.base_model(steps=options.base_steps, workers=workers, seed=seed)
    text = text_sequences(tokens["validation"][:6000], 64)
    print(f"{model}\n{len(tests)} held-out prompts, half of them with five letters")

    def stage(name: str, before: CausalModel | None) -> CausalModel:
        tinyplm.save(model, out / name)
        nonlocal begin
        values = judged(model, before, tests, text, workers) | {"seconds": time.perf_counter() - begin}
        rows.append((name, values))
        print(f"{name:14}" + "   ".join(f"{key} {value:.3g}" for key, value in values.items()), flush=True)
        begin = time.perf_counter()
        return model._with()

    before = stage("1-pretrained", None)
    settings = SFTSettings(steps=options.sft_steps, batch_size=64, learning_rate=3e-3, warmup=min(50, options.sft_steps // 4),
                           workers=workers, seed=seed)  # fmt: skip
    print(f"tuning     on {', '.join(SKILLS)}, in both manners")
    sft(model, both_manners(model, training, seed), settings, out=out / "logs" / "sft")
    before = stage("2-sft", before)
    pairs, share = preference_pairs(model, training, 4, seed=seed + 100, workers=workers)
    held_out, _ = preference_pairs(model, tests, 4, seed=seed + 9, workers=workers)
    print(f"DPO        on {len(pairs)} pairs from {share:.0%} of the prompts")
    settings = DPOSettings(
        steps=options.dpo_steps, batch_size=32, learning_rate=1e-4, warmup=5, beta=0.3, workers=workers, seed=seed
    )
    result = dpo(model, pairs, settings, validation=held_out, out=out / "logs" / "dpo")
    before = stage("3-dpo", before)
    accuracy = result.validation[options.dpo_steps]["accuracy"] if result.validation else float("nan")
    print(f"preference accuracy on held-out pairs: {accuracy:.1%}")
    problems = [*training, *(s for skill in SKILLS for s in longer(skill, options.samples, held_out=False, seed=seed + 1))]
    asked = skills.prompts(model, problems, seed=seed + 3)
    wanted = {tuple(ids): sample.answer for ids, sample in zip(asked, problems)}
    stops = skills.stop_ids(model)
    texts = text_reward(lambda prompt, answer, finished: (finished, answer), model.tokenizer, stops)

    def reward(prompts: list[list[int]], answers: list[list[int]]) -> list[float]:
        return [float(finished and answer.strip() == wanted[tuple(prompt)])
                for prompt, (finished, answer) in zip(prompts, texts(prompts, answers))]  # fmt: skip

    settings = GRPOSettings(steps=options.rounds, batch_size=32, group=8, max_new_tokens=LONGEST, learning_rate=5e-4, warmup=5,
                            minibatches=2, beta=0.01, workers=workers, seed=seed)  # fmt: skip
    print(f"GRPO       on {len(asked)} problems")
    grpo(model, asked, reward, settings, stop_ids=stops, out=out / "logs" / "grpo")
    stage("4-grpo", before)

    print(f"\n{'stage':14}" + "".join(f"{title:>11}" for title in COLUMNS.values()))
    for name, values in rows:
        forms = {"text": "{:.3f}", "KL": "{:.2f}", "seconds": "{:.0f} s"}
        cells = [forms.get(key, "{:.1%}").format(values[key]) if key in values else "-" for key in COLUMNS]
        print(f"{name:14}" + "".join(f"{cell:>11}" for cell in cells))
    print("\nexact: the right answer and nothing else; plain: without the courtesy; right: in\n"
          "either manner; KL: to the stage before, nats an answer; all of answers sampled at\n"
          "temperature 1; text loss: nats a token of held-out text")  # fmt: skip
    few = [tests[0], tests[-1]]
    said = skills.answers(model, skills.prompts(model, few, seed=1), max_new_tokens=LONGEST)
    for sample, text_ in zip(few, said):
        print(f"    {sample.skill} {sample.fields['items']}  ->  {text_}")
    records = {name: list(read(out / "logs" / name / "log.jsonl")) for name in ("sft", "dpo", "grpo")}

    def curve(name: str, field: str, label: str):
        def panel(axes) -> None:
            axes.plot(*zip(*[(r["step"], r[field]) for r in records[name] if field in r]), lw=1)
            axes.set(title=name, xlabel="step", ylabel=label)

        return panel

    def bars(axes) -> None:
        axes.plot([name for name, _ in rows], [values["exact"] for _, values in rows], marker="o", label="exact")
        axes.plot([name for name, _ in rows], [values["plain"] for _, values in rows], marker="s", label="plain")
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
    print(f"talk       {command('chat.py', out / '4-grpo')}")


def parser() -> Parser:
    parser = Parser(__doc__)
    parser.option("--base-steps", 200, "The number of steps of pretraining.", whole(1))
    parser.option("--sft-steps", 600, "The number of steps of supervised fine-tuning.", whole(1))
    parser.option("--dpo-steps", 60, "The number of steps of DPO.", whole(1))
    parser.option("--rounds", 60, "The number of rounds of GRPO.", whole(1))
    parser.option("--samples", 500, "The number of samples of each skill to train on.", whole(1))
    parser.option("--tests", 60, "The number of held-out prompts of each skill, and of as many with five letters.", whole(1))
    run_options(parser, "out-path")
    return parser


if __name__ == "__main__":
    start(main)
