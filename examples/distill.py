"""Distillation: a small student learns more from a teacher's distributions than from text alone.

    python examples/distill.py              # a few minutes on two cores
    python examples/distill.py --seeds 3    # mean and range

A teacher is pretrained on the whole default corpus; a smaller student sees only part of the text.
The student is trained twice, from the same initial values, on the same batches, for the same number
of steps: on the text alone, and with the teacher (Hinton et al. 2015: a share of the cross-entropy,
and T^2 times the divergence of the softened distributions).  Both are evaluated by the
cross-entropy on text unseen by student and teacher.  The teacher helps because it tells how likely
each token would have been at every position, not just which one occurred.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import skills
from common import check_widths, run_options, start

from tinyplm.cli.decoders import small_llama
from tinyplm.cli.folders import unused
from tinyplm.cli.output import over_seeds, save_plot, spread
from tinyplm.cli.parser import POSITIVE, Parser, number, whole
from tinyplm.tuning import DistillSettings, answer_loss, distill, text_sequences

LENGTH = 64  # tokens per sequence
ROWS = ("teacher", "student, text alone", "student, with teacher")


def story(
    seed: int, options: argparse.Namespace, out: Path
) -> tuple[dict[str, float], dict[str, dict[int, float]]]:
    """(held-out loss of each of ROWS, in nats per token; the students' by step)."""
    teacher, tokens = skills.base_model(
        steps=options.teacher_steps, workers=options.workers, seed=seed, width=options.teacher_width
    )
    part = text_sequences(tokens["train"][: options.tokens], LENGTH)
    held_out = text_sequences(tokens["validation"][:12000], LENGTH)
    found, curves = {ROWS[0]: answer_loss(teacher, held_out, workers=options.workers)}, {}
    for name, hard in ((ROWS[1], 1.0), (ROWS[2], options.hard)):
        sizes = {"layers": options.layers, "width": options.width, "context": skills.CONTEXT}
        student = small_llama(teacher.tokenizer, key=seed, **sizes)
        print(f"training   {name}")
        settings = DistillSettings(
            steps=options.steps,
            batch_size=16,
            learning_rate=options.lr,
            hard=hard,
            seed=seed,
            warmup=min(20, options.steps // 4),
            temperature=options.temperature,
            workers=options.workers,
            evaluate_every=max(1, options.steps // 8),
        )
        folder = out / name.replace(", ", "-").replace(" ", "-")
        result = distill(student, teacher, part, settings, validation=held_out, out=folder)
        found[name], curves[name] = result.validation[options.steps], result.validation
    counts = [f"{model.parameter_count():,}" for model in (teacher, student)]
    share = f"{len(part) * LENGTH:,} of {len(tokens['train']):,} tokens"
    epochs = f"{options.steps * 16 / len(part):.1f} epochs"
    training = f"trained on {share}, {epochs}"
    print(f"seed {seed}: teacher {counts[0]} parameters, student {counts[1]}, {training}")
    return found, curves


def main() -> None:
    options = parser().options()
    out = unused(options.out)
    check_widths(options, "teacher_width", "width")
    seeds = range(options.seed, options.seed + options.seeds)
    stories = [story(seed, options, out / f"seed-{seed}") for seed in seeds]
    print(f"\nheld-out loss, nats per token, {over_seeds(seeds)}\n")
    for name in ROWS:
        print(f"{name:24}{spread([found[name] for found, _ in stories], '{:8.4f}')}")
    gains = [found[ROWS[1]] - found[ROWS[2]] for found, _ in stories]
    print(f"{'gain from the teacher':24}{spread(gains, '{:8.4f}')}\n")

    def panel(axes: Any) -> None:
        for name, curve in stories[0][1].items():
            axes.plot(list(curve)[1:], list(curve.values())[1:], marker="o", label=name)
        axes.axhline(stories[0][0][ROWS[0]], ls="--", lw=1, color="gray", label=ROWS[0])
        axes.set(xlabel="step", ylabel="held-out loss (nats per token)")
        axes.legend()

    save_plot(out / "distill.png", panel, size=(6, 4))


def parser() -> Parser:
    parser = Parser(__doc__)
    option = parser.option
    option("--seeds", 1, "Number of runs, with consecutive seeds from --seed.", whole(1))
    option("--teacher-steps", 500, "Pretraining steps of the teacher.", whole(1))
    option("--teacher-width", 128, "Width of the teacher, a multiple of 8.", whole(8))
    option("--layers", 2, "Layers of the student.", whole(1))
    option("--width", 64, "Width of the student, a multiple of 8.", whole(8))
    option("--steps", 400, "Training steps of the student.", whole(1))
    option("--tokens", 40000, "Number of training tokens for the student.", whole(2 * LENGTH))
    option("--temperature", 1.5, "Temperature of both distributions.", POSITIVE)
    option("--hard", 0.3, "Share of the cross-entropy in the loss.", number(least=0.0, most=1.0))
    option("--lr", 4e-3, "Peak learning rate of the student.", POSITIVE)
    run_options(parser, "out-distill")
    return parser


if __name__ == "__main__":
    start(main)
