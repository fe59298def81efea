"""Distillation: a small student learns more from a teacher's distributions than from the text alone.

    python examples/distill.py              # a few minutes on two cores
    python examples/distill.py --seeds 3    # mean and range

A teacher is pretrained on the whole default corpus; the student, smaller, sees only a part of the text.  It is trained twice,
from the same initial values, on the same batches, for as many steps: on the text alone, and with the teacher beside it (Hinton et
al. 2015: a share of the cross-entropy, and T^2 times the divergence of the softened distributions).  Judged is both by the
cross-entropy on text that neither the student nor the teacher was trained on.  What helps is that the teacher says for every
place how likely each token would have been, not only which one came.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import skills
from common import Parser, number, over_seeds, run_options, save_plot, spread, start, unused, whole

import tinyplm
from tinyplm.families import llama
from tinyplm.tuning.align.distill import DistillSettings, distill, text_sequences
from tinyplm.tuning.align.sft import answer_loss

LENGTH = 64  # places of a sequence
ROWS = ("teacher", "student, text alone", "student, with teacher")


def small(config: llama.Config, layers: int, width: int) -> llama.Config:
    """The student's configuration: of the teacher's kind, smaller."""
    return llama.Config(vocab_size=config.vocab_size, hidden_size=width, intermediate_size=-(-8 * width // 3 // 16) * 16,
                        num_hidden_layers=layers, num_attention_heads=4, max_position_embeddings=config.max_position_embeddings,
                        tie_word_embeddings=True, initializer_range=round(0.56 / width**0.5, 4), bos_token_id=0,
                        eos_token_id=0)  # fmt: skip


def story(seed: int, options: argparse.Namespace, out: Path) -> tuple[dict[str, float], dict[str, dict[int, float]]]:
    """(loss on held-out text of each of ROWS, in nats a token; the students' by step)."""
    teacher, tokens = skills.base_model(
        steps=options.teacher_steps, workers=options.workers, seed=seed, width=options.teacher_width
    )
    part = text_sequences(tokens["train"][: options.tokens], LENGTH)
    held_out = text_sequences(tokens["validation"][:12000], LENGTH)
    found, curves = {ROWS[0]: answer_loss(teacher, held_out, workers=options.workers)}, {}
    for name, hard in ((ROWS[1], 1.0), (ROWS[2], options.hard)):
        student = tinyplm.create("llama", small(teacher.config, options.layers, options.width), key=seed)
        student.tokenizer = teacher.tokenizer
        print(f"training   {name}")
        settings = DistillSettings(steps=options.steps, batch_size=16, learning_rate=options.lr, hard=hard, seed=seed,
                                   warmup=min(20, options.steps // 4), temperature=options.temperature, workers=options.workers,
                                   evaluate_every=max(1, options.steps // 8))  # fmt: skip
        result = distill(
            student, teacher, part, settings, validation=held_out, out=out / name.replace(", ", "-").replace(" ", "-")
        )
        found[name], curves[name] = result.validation[options.steps], result.validation
    print(f"seed {seed}: teacher {teacher.parameter_count():,} parameters, student {student.parameter_count():,}, which sees "
          f"{len(part) * LENGTH:,} of {len(tokens['train']):,} tokens, {options.steps * 16 / len(part):.1f} times")  # fmt: skip
    return found, curves


def main() -> None:
    options = parser().options()
    out = unused(options.out)
    for name in ("teacher_width", "width"):
        if getattr(options, name) % 8:  # four heads of an even width
            raise ValueError(f"--{name.replace('_', '-')}: expected a multiple of 8, got {getattr(options, name)}")
    seeds = range(options.seed, options.seed + options.seeds)
    stories = [story(seed, options, out / f"seed-{seed}") for seed in seeds]
    print(f"\nheld-out loss, nats a token, {over_seeds(seeds)}\n")
    for name in ROWS:
        print(f"{name:24}{spread([found[name] for found, _ in stories], '{:8.4f}')}")
    print(f"{'gained by the teacher':24}{spread([found[ROWS[1]] - found[ROWS[2]] for found, _ in stories], '{:8.4f}')}\n")

    def panel(axes) -> None:
        for name, curve in stories[0][1].items():
            axes.plot(list(curve)[1:], list(curve.values())[1:], marker="o", label=name)
        axes.axhline(stories[0][0][ROWS[0]], ls="--", lw=1, color="gray", label=ROWS[0])
        axes.set(xlabel="step", ylabel="held-out loss (nats a token)")
        axes.legend()

    save_plot(out / "distill.png", panel, size=(6, 4))


def parser() -> Parser:
    parser = Parser(__doc__)
    parser.option("--seeds", 1, "The number of runs, with seeds from --seed on.", whole(1))
    parser.option("--teacher-steps", 500, "The number of steps of the teacher's pretraining.", whole(1))
    parser.option("--teacher-width", 128, "The teacher's width, a multiple of 8.", whole(8))
    parser.option("--layers", 2, "The number of the student's layers.", whole(1))
    parser.option("--width", 64, "The student's width, a multiple of 8.", whole(8))
    parser.option("--steps", 400, "The number of steps of the student.", whole(1))
    parser.option("--tokens", 40000, "The number of tokens of text that the student sees.", whole(2 * LENGTH))
    parser.option("--temperature", 1.5, "The temperature of both distributions.", number(above=0.0))
    parser.option("--hard", 0.3, "The share of the cross-entropy on the text beside the teacher's.", number(least=0.0, most=1.0))
    parser.option("--lr", 4e-3, "The peak of the student's learning rate.", number(above=0.0))
    run_options(parser, "out-distill")
    return parser


if __name__ == "__main__":
    start(main)
