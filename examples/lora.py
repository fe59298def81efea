"""LoRA beside full fine-tuning: quality, memory, time.

    python examples/lora.py                     # a few minutes on two cores
    python examples/lora.py --ranks 1 8 32 --targets Wq Wk Wv Wo Wgate Wup Wdown

A LLaMA is pretrained on the documentation that ships with every Python, and adapted to other text: the standard library's
source code.  Each row begins at the same base: everything trained, the last layer alone, LoRA of several ranks.  Printed are the
held-out loss, what is trained, what the optimizer holds of it (values, two moments, gradient), the peak of memory in training
beyond what was in use before, and the time.  LoRA saves what the optimizer holds.  It saves no time here, since the transform of
parameters forms each matrix's whole gradient before it takes its two products (see tinyplm/tuning/lora.py).
"""

from __future__ import annotations

import argparse
import sysconfig
import time
import tracemalloc
from pathlib import Path

import numpy as np
import skills
from common import Parser, number, one_of, run_options, save_plot, start, unused, whole

from tinyplm.core import flatten, unflatten
from tinyplm.models.causal_model import CausalModel
from tinyplm.tuning.adapters.lora import lora_of
from tinyplm.tuning.align.distill import text_sequences
from tinyplm.tuning.align.sft import SFTSettings, answer_loss, sft
from tinyplm.tuning.data.sequences import TokenSequence
from tinyplm.tuning.finetuning.freezing import joined, upper_part

LENGTH = 96  # places of a sequence
MATRICES = ("Wq", "Wk", "Wv", "Wo", "Wgate", "Wup", "Wdown")


def source_code(model: CausalModel, tokens: int) -> np.ndarray:
    """The library's source files as one token array: files in the order of their names, whole ones until there are enough."""
    ids: list[int] = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        ids += [*model.tokenizer.encode(path.read_text(encoding="utf-8", errors="ignore")[:6000]), model.tokenizer.eos_id]
        if len(ids) > tokens:
            break
    return np.array(ids[:tokens])


class LastLayer:
    """A transform that trains the uppermost layer and what stands behind it: theta is that part of the parameters."""

    facts = {"kind": "last layer"}

    def __init__(self, model: CausalModel) -> None:
        part, _ = upper_part(model.params, 1)
        self.base, self.theta = model.params, {path: a.copy() for path, a in flatten(part).items()}

    def __call__(self, theta: dict) -> tuple:
        params = joined(unflatten(flatten(self.base) | theta, self.base), self.base)
        return params, lambda d: {path: flatten(d)[path] for path in theta if path in flatten(d)}


def tuned(base: CausalModel, training: list[TokenSequence], held_out: list[TokenSequence], options: argparse.Namespace, lr: float, **adapter
          ) -> dict[str, float]:  # fmt: skip
    """One row: trained from the base, which stays as it is."""
    model = base._with()
    settings = SFTSettings(steps=options.steps, batch_size=16, learning_rate=lr, warmup=min(20, options.steps // 4),
                           workers=options.workers, seed=options.seed)  # fmt: skip
    start = time.perf_counter()
    result = sft(model, training, settings, **adapter)
    seconds = time.perf_counter() - start
    tracemalloc.start()  # a step on its own, since watching every allocation takes time
    sft(base._with(), training, SFTSettings(steps=1, batch_size=16, warmup=0, workers=1), progress=False, **adapter)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    trained = sum(a.size for a in flatten(result.theta).values())
    return {"loss": answer_loss(model, held_out, workers=options.workers), "trained": trained,
            "optimizer": 4 * 4 * trained / 2**20, "peak": peak / 2**20, "seconds": seconds}  # fmt: skip


def main() -> None:
    options = parser().options()
    out = unused(options.out)
    base, _ = skills.base_model(steps=options.base_steps, workers=options.workers, seed=options.seed)
    sequences = text_sequences(source_code(base, options.tokens), LENGTH)
    cut = max(1, len(sequences) // 10)
    training, held_out = sequences[:-cut], sequences[-cut:]
    print(f"{base}\n{len(training)} sequences of source code to train on, {len(held_out)} held out")
    rows = {"base": {"loss": answer_loss(base, held_out, workers=options.workers)}}
    print("training   everything")
    rows["everything"] = tuned(base, training, held_out, options, options.lr)
    last = LastLayer(base)
    print("training   the last layer")
    rows["last layer"] = tuned(base, training, held_out, options, options.lr, transform=last, theta=last.theta)
    for rank in options.ranks:
        adapter = lora_of(base, rank=rank, alpha=2.0 * rank, targets=options.targets, key=options.seed)
        print(f"training   LoRA of rank {rank}")
        rows[f"LoRA, rank {rank}"] = tuned(base, training, held_out, options, 2 * options.lr, **adapter)
    print(f"\n{'':16}{'held-out loss':>14}{'trained':>12}{'optimizer':>12}{'peak':>10}{'time':>8}")
    for name, row in rows.items():
        cells = f"{row['loss']:14.4f}"
        if "trained" in row:
            cells += f"{row['trained']:12,}{row['optimizer']:8.1f} MiB{row['peak']:6.0f} MiB{row['seconds']:6.0f} s"
        print(f"{name:16}{cells}")
    full, best = rows["everything"]["loss"], min(row["loss"] for name, row in rows.items() if name.startswith("LoRA"))
    if full < rows["base"]["loss"]:
        share = (rows["base"]["loss"] - best) / (rows["base"]["loss"] - full)
        print(f"\nOf the loss that training everything saves, the best LoRA saves {share:.0%}.")
    print()

    def panel(axes) -> None:
        some = [(row["trained"], row["loss"], name) for name, row in rows.items() if "trained" in row]
        for trained, loss, name in some:
            axes.plot(trained, loss, "o" if name.startswith("LoRA") else "s", label=name)
        axes.axhline(rows["base"]["loss"], ls="--", lw=1, color="gray", label="base")
        axes.set(xscale="log", xlabel="trained parameters", ylabel="held-out loss (nats a token)")
        axes.legend()

    save_plot(out / "lora.png", panel, size=(6, 4))


def parser() -> Parser:
    parser = Parser(__doc__)
    parser.option("--ranks", [1, 4, 16], "The ranks of LoRA; each is a row.", whole(1), nargs="+")
    parser.option("--targets", list(MATRICES), "The matrices that LoRA adapts.", one_of(*MATRICES), nargs="+")
    parser.option("--base-steps", 300, "The number of steps of pretraining.", whole(1))
    parser.option("--steps", 150, "The number of steps of each row.", whole(1))
    parser.option("--tokens", 150000, "The number of tokens of source code.", whole(20 * LENGTH))
    parser.option("--lr", 1e-3, "The peak of the learning rate; LoRA has twice as much.", number(above=0.0))
    run_options(parser, "out-lora")
    return parser


if __name__ == "__main__":
    start(main)
