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
import os
import sys
from pathlib import Path

import numpy as np
import skills

import tinyplm
from tinyplm.models import llama
from tinyplm.tuning.distill import DistillSettings, distill, text_sequences
from tinyplm.tuning.sft import answer_loss

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
    options = arguments()
    out = Path(options.out)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} holds something already: give another --out")
    stories = [story(seed, options, out / f"seed-{seed}") for seed in range(options.seed, options.seed + options.seeds)]
    print(f"\nheld-out loss, nats a token, mean of {len(stories)} seed(s) (least to greatest)\n")
    for name in ROWS:
        some = [found[name] for found, _ in stories]
        print(f"{name:24}{np.mean(some):8.4f}   ({min(some):.4f} to {max(some):.4f})")
    gains = [found[ROWS[1]] - found[ROWS[2]] for found, _ in stories]
    print(f"{'gained by the teacher':24}{np.mean(gains):8.4f}   ({min(gains):.4f} to {max(gains):.4f})")

    def panel(axes) -> None:
        for name, curve in stories[0][1].items():
            axes.plot(list(curve)[1:], list(curve.values())[1:], marker="o", label=name)
        axes.axhline(stories[0][0][ROWS[0]], ls="--", lw=1, color="gray", label=ROWS[0])
        axes.set(xlabel="step", ylabel="held-out loss (nats a token)")
        axes.legend()

    drawn = skills.draw(out / "distill.png", [panel], size=(6, 4))
    print(f"\nplot       {out / 'distill.png'}" if drawn else "\nplot       not drawn: pip install 'tinyplm[plot]'")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="how many runs")
    parser.add_argument("--seed", type=int, default=0, help="of the first run")
    parser.add_argument("--teacher-steps", type=int, default=500, help="of pretraining")
    parser.add_argument("--teacher-width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2, help="of the student")
    parser.add_argument("--width", type=int, default=64, help="of the student")
    parser.add_argument("--steps", type=int, default=400, help="of the student")
    parser.add_argument("--tokens", type=int, default=40000, help="of text that the student sees")
    parser.add_argument("--temperature", type=float, default=1.5)
    parser.add_argument("--hard", type=float, default=0.3, help="share of the cross-entropy beside the teacher")
    parser.add_argument("--lr", type=float, default=4e-3, help="the peak of the student's learning rate")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="threads that share a batch")
    parser.add_argument("--out", default="out-distill")
    options = parser.parse_args()
    for name in ("seeds", "teacher_steps", "layers", "steps", "workers"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(options, name)}")
    if options.tokens < 2 * LENGTH:
        raise ValueError(f"--tokens must be at least {2 * LENGTH}, got {options.tokens}")
    return options


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\ninterrupted")
