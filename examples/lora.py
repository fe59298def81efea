"""LoRA against full fine-tuning: loss, memory, time.

    python examples/lora.py                     # a few minutes on two cores
    python examples/lora.py --ranks 1 8 32 --targets Wq Wk Wv Wo Wgate Wup Wdown

A LLaMA is pretrained on Python's documentation and adapted to another kind of text: the standard
library's source code.  Each row starts from the same base: all parameters trained, only the last
layer, LoRA of several ranks.  Reported are the held-out loss, the number of trained parameters,
what the optimizer stores for them (values, two moments, gradient), the peak memory of training
beyond what was in use before, and the time.
LoRA reduces what the optimizer stores.  It saves no time here, since the transform of parameters
forms each matrix's whole gradient before computing its two products (see
tinyplm/tuning/adapters/lora.py).
"""

from __future__ import annotations

import argparse
import sysconfig
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import skills
from common import run_options, start

from tinyplm.cli.folders import unused
from tinyplm.cli.output import save_plot
from tinyplm.cli.parser import Parser, number, one_of, whole
from tinyplm.core import flatten, unflatten
from tinyplm.models.causal_model import CausalModel
from tinyplm.tuning import SFTSettings, TokenSequence, answer_loss, lora_of, sft, text_sequences
from tinyplm.tuning.finetuning.freezing import joined, upper_part

LENGTH = 96  # tokens per sequence
MATRICES = ("Wq", "Wk", "Wv", "Wo", "Wgate", "Wup", "Wdown")


def source_code(model: CausalModel, tokens: int) -> np.ndarray:
    """The library's source files as one token array, whole files in alphabetical order."""
    ids: list[int] = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text = path.read_text(encoding="utf-8", errors="ignore")[:6000]
        ids += [*model.tokenizer.encode(text), model.tokenizer.eos_id]
        if len(ids) > tokens:
            break
    return np.array(ids[:tokens])


class LastLayer:
    """A transform that trains the top layer and what follows it, the parameters in theta."""

    facts = {"kind": "last layer"}

    def __init__(self, model: CausalModel) -> None:
        part, _ = upper_part(model.params, 1)
        self.base, self.theta = model.params, {path: a.copy() for path, a in flatten(part).items()}

    def __call__(self, theta: dict) -> tuple:
        params = joined(unflatten(flatten(self.base) | theta, self.base), self.base)
        return params, lambda d: {path: flatten(d)[path] for path in theta if path in flatten(d)}


def tuned(
    base: CausalModel,
    training: list[TokenSequence],
    held_out: list[TokenSequence],
    options: argparse.Namespace,
    lr: float,
    **adapter,
) -> dict[str, float]:
    """One row: a copy of the base, trained."""
    model = base._with()
    settings = SFTSettings(
        steps=options.steps,
        batch_size=16,
        learning_rate=lr,
        warmup=min(20, options.steps // 4),
        workers=options.workers,
        seed=options.seed,
    )
    start = time.perf_counter()
    result = sft(model, training, settings, **adapter)
    seconds = time.perf_counter() - start
    tracemalloc.start()  # in a separate step, since tracing allocations is slow
    once = SFTSettings(steps=1, batch_size=16, warmup=0, workers=1)
    sft(base._with(), training, once, progress=False, **adapter)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    trained = sum(a.size for a in flatten(result.theta).values())
    return {
        "loss": answer_loss(model, held_out, workers=options.workers),
        "trained": trained,
        "optimizer": 4 * 4 * trained / 2**20,
        "peak": peak / 2**20,
        "seconds": seconds,
    }


def main() -> None:
    options = parser().options()
    out = unused(options.out)
    base, _ = skills.base_model(
        steps=options.base_steps, workers=options.workers, seed=options.seed
    )
    sequences = text_sequences(source_code(base, options.tokens), LENGTH)
    cut = max(1, len(sequences) // 10)
    training, held_out = sequences[:-cut], sequences[-cut:]
    print(f"{base}\n{len(training)} training sequences of source code, {len(held_out)} held out")
    rows = {"base": {"loss": answer_loss(base, held_out, workers=options.workers)}}
    print("training   everything")
    rows["everything"] = tuned(base, training, held_out, options, options.lr)
    last = LastLayer(base)
    print("training   the last layer")
    rows["last layer"] = tuned(
        base, training, held_out, options, options.lr, transform=last, theta=last.theta
    )
    for rank in options.ranks:
        adapter = lora_of(
            base, rank=rank, alpha=2.0 * rank, targets=options.targets, key=options.seed
        )
        print(f"training   LoRA of rank {rank}")
        rows[f"LoRA, rank {rank}"] = tuned(
            base, training, held_out, options, 2 * options.lr, **adapter
        )
    print(f"\n{'':16}{'held-out loss':>14}{'trained':>12}{'optimizer':>12}{'peak':>10}{'time':>8}")
    for name, row in rows.items():
        cells = f"{row['loss']:14.4f}"
        if "trained" in row:
            cells += f"{row['trained']:12,}{row['optimizer']:8.1f} MiB"
            cells += f"{row['peak']:6.0f} MiB{row['seconds']:6.0f} s"
        print(f"{name:16}{cells}")
    full = rows["everything"]["loss"]
    best = min(row["loss"] for name, row in rows.items() if name.startswith("LoRA"))
    if full < rows["base"]["loss"]:
        share = (rows["base"]["loss"] - best) / (rows["base"]["loss"] - full)
        print(f"\nThe best LoRA achieves {share:.0%} of the loss reduction of full fine-tuning.")
    print()

    def panel(axes: Any) -> None:
        some = [
            (row["trained"], row["loss"], name) for name, row in rows.items() if "trained" in row
        ]
        for trained, loss, name in some:
            axes.plot(trained, loss, "o" if name.startswith("LoRA") else "s", label=name)
        axes.axhline(rows["base"]["loss"], ls="--", lw=1, color="gray", label="base")
        axes.set(xscale="log", xlabel="trained parameters", ylabel="held-out loss (nats per token)")
        axes.legend()

    save_plot(out / "lora.png", panel, size=(6, 4))


def parser() -> Parser:
    parser = Parser(__doc__)
    option = parser.option
    option("--ranks", [1, 4, 16], "Ranks of LoRA, one row each.", whole(1, skills.WIDTH), nargs="+")
    option("--targets", list(MATRICES), "Matrices to adapt.", one_of(*MATRICES), nargs="+")
    option("--base-steps", 300, "Pretraining steps.", whole(1))
    option("--steps", 150, "Training steps per row.", whole(1))
    option("--tokens", 150000, "Number of tokens of source code.", whole(20 * LENGTH))
    option("--lr", 1e-3, "Peak learning rate; LoRA uses twice this.", number(above=0.0))
    run_options(parser, "out-lora")
    return parser


if __name__ == "__main__":
    start(main)
