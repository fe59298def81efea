"""Peak memory of a training step as tinyplm.scaling predicts it, beside the measured one.

    python benchmarks/calculator.py
    python benchmarks/calculator.py --shape gpt2:8,512,8,1024,2,8192:1

A shape is family:layers,width,heads,context,batch,vocabulary:group, the group being that of
activation checkpointing, 0 for none.  Each shape has a process of its own, which first takes a step
of a small model; then three of this one, in float32 without dropout.  Measured is the peak
resident size above the one before the model was created (turns.py).

Prints, in MiB, the parts of the prediction, its sum and the measured peak; and their ratio.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from steps import config_fields, read_shape, tinyplm_work
from table import Table, add_option
from turns import peak_memory

SHAPES = [
    "gpt2:4,256,4,256,8,2048:0",
    "gpt2:8,256,4,256,8,2048:1",
    "llama:4,256,4,128,16,2048:0",
    "llama:8,384,6,256,8,4096:2",
    "gpt2:4,256,4,2048,2,2048:0",
    "llama:2,256,4,128,16,50257:0",
]
STEPS = 3
PARTS = ("weights", "gradients", "moments", "activations", "logits", "temporary")


def read(text: str) -> tuple[str, list[int], int]:
    """(family, shape, group)."""
    family, *rest = text.split(":")
    if family not in ("gpt2", "llama") or len(rest) != 2 or not rest[1].isdigit():
        raise ValueError(f"--shape: expected gpt2 or llama:six numbers:group, got {text!r}")
    return family, read_shape(rest[0]), int(rest[1])


def predicted(family: str, shape: list[int], group: int, workers: int) -> dict[str, int]:
    from tinyplm.families import family as find_family
    from tinyplm.scaling import training_memory

    L, D, H, T, B, V = shape
    module = find_family(family)
    config = module.Config(**config_fields(family, L, D, H, T, V))
    return training_memory(module, config, batch=B, length=T, checkpointing=group, workers=workers)


def measured(text: str, workers: int) -> float:
    """MiB, by a process of its own."""
    command = [sys.executable, __file__, "--serve", text, "--workers", str(workers)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def serve(text: str, workers: int) -> None:
    family, shape, group = read(text)
    step, _, before = tinyplm_work(family, shape, workers, group)
    for _ in range(STEPS):
        step()
    print((peak_memory() - before) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", action="append", help="see above; may be repeated")
    parser.add_argument(
        "--workers", type=int, default=1, help="threads of a step (default: %(default)s)"
    )
    add_option(parser, __file__)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.workers)
        return
    shapes = options.shape or SHAPES
    for text in shapes:
        read(text)
    columns = dict.fromkeys((*PARTS, "predicted", "measured"), ".1f") | {"ratio": ".3f"}
    note = f"peak memory of a step in MiB, {options.workers} threads; predicted / measured"
    table = Table("family:L,D,H,T,B,V:group", columns, file=options.json, note=note)
    for text in shapes:
        parts = predicted(*read(text), options.workers)
        sizes = [parts[name] / 2**20 for name in PARTS]
        peak = measured(text, options.workers)
        table.row(text, *sizes, sum(sizes), peak, sum(sizes) / peak)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
