"""A training step of GPT-2, LLaMA and BERT against PyTorch at its best, side by side: forward, loss, backward, clipping, AdamW.

    python benchmarks/train.py                 # three sizes of each family
    python benchmarks/train.py --rounds 20 --family llama --shape 4,256,4,128,16,2048
    python benchmarks/train.py --compile       # and PyTorch under torch.compile, which takes minutes more
    python benchmarks/train.py --check         # only that both compute the same, in all shapes
    python benchmarks/train.py --family bert --all-places      # the peer's head on all places, as in transformers

Each library runs in a process of its own with all cores; they take turns, one step each, so that a change of the machine's speed
hits all.  PyTorch (peer.py, peer_bert.py) uses scaled_dot_product_attention, fused AdamW, clip_grad_norm_ and the same allocator
settings.  Before, both are trained for three steps from the same weights, and have to agree in the losses.

Printed: medians and the ratio of eager PyTorch's time to ours (of the rounds, pair by pair); the time with the peer's forward and
loss under torch.compile; memory, which is the peak above what was used before the model was made, and the ratio of theirs to
ours; each library's matmul peak; and the rate of our step as a share of NumPy's peak.
The FLOPs of a step are counted by hand (steps.flops): with N the weights of all matrices, the head's among them,

    6 N B T                                            2 for each weight and token in the forward, 4 in the backward
    + 3 L B * 2 * 2 D * T (T + 1) / 2                  q k^T and p v, of which the causal half is needed, and the backward twice

BERT is a masked language model: its head works, and counts, on the 15% of the places that have a target, and attention needs T^2.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys

from steps import FAMILIES, SMALL, disagreement, flops, read_shape, tinyplm_work, torch_work
from table import Table, add_option
from turns import median_ratio, serve, take_turns

# layers, width, heads, context, batch, vocabulary; the last one has the shape of GPT-2 124M
SHAPES = ["4,256,4,128,16,2048", "6,384,6,256,8,4096", "12,768,12,64,4,50257"]
TOLERANCE = 1e-4  # float32, the losses of three steps


def compare(
    family: str, shape: list[int], rounds: int, workers: int, compiled: bool, all_places: bool
) -> list:
    """The values of one row of the table."""
    arguments = [
        "--family",
        family,
        "--shape",
        ",".join(map(str, shape)),
        "--workers",
        str(workers),
    ]
    arguments += ["--all-places"] if all_places else []
    libraries = ("tinyplm", "torch", "compiled") if compiled else ("tinyplm", "torch")
    results = take_turns(__file__, libraries, arguments, rounds, may_fail=("compiled",))
    (peak, seconds, memory), (peer_peak, peer_seconds, peer_memory) = (
        results["tinyplm"],
        results["torch"],
    )
    ours, theirs = statistics.median(seconds), statistics.median(peer_seconds)
    times = [1e3 * ours, 1e3 * theirs, median_ratio(peer_seconds, seconds)]
    times.append(1e3 * statistics.median(results["compiled"][1]) if "compiled" in results else None)
    rate = flops(family, shape) / ours / 1e9
    return [*times, memory, peer_memory, peer_memory / memory, peak, peer_peak, rate / peak]


def check(family: str, shape: list[int], workers: int) -> None:
    """RuntimeError unless both libraries compute the same."""
    difference = disagreement(family, shape, workers)
    if not difference < TOLERANCE:
        raise RuntimeError(
            f"{family} {tuple(shape)}: expected losses within {TOLERANCE:.0e}, they differ by {difference:.0e}"
        )
    print(
        f"{family} {tuple(shape)}: three steps from the same weights, losses differ by {difference:.0e} at most",
        flush=True,
    )


def table(families: list[str], shapes: list[list[int]], options: argparse.Namespace) -> None:
    note = "milliseconds a step (medians); memory in MiB (peak above what was used before); matmul peak in GFLOP/s"
    columns = {
        "tinyplm": ".1f",
        "eager": ".1f",
        "ratio": ".2f",
        "compiled": ".1f",
        "memory": ".0f",
        "of eager": ".0f",
    }
    columns |= {"ratio of memory": ".2f", "NumPy": ".0f", "PyTorch": ".0f", "share of peak": ".0%"}
    rows = Table("family (L, D, H, T, B, V)", columns, file=options.json, note=note)
    for family in families:
        for shape in shapes:
            values = compare(
                family, shape, options.rounds, options.workers, options.compile, options.all_places
            )
            rows.row(f"{family} {tuple(shape)}", *values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--family", choices=FAMILIES, action="append", help="may be repeated (default: all)"
    )
    parser.add_argument(
        "--shape",
        action="append",
        help="layers,width,heads,context,batch,vocabulary; may be repeated",
    )
    parser.add_argument(
        "--rounds", type=int, default=9, help="steps of each library (default: %(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="threads of tinyplm (default: %(default)s)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="only check that both compute the same, in these shapes",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="PyTorch under torch.compile as well, which takes a while",
    )
    parser.add_argument(
        "--all-places",
        action="store_true",
        help="BERT's head in PyTorch on all places, as transformers has it",
    )
    add_option(parser, __file__)
    parser.add_argument("--serve", choices=["tinyplm", "torch", "compiled"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    families, shapes = (
        options.family or FAMILIES,
        [read_shape(shape) for shape in options.shape or SHAPES],
    )
    if options.serve == "tinyplm":
        serve(*tinyplm_work(families[0], shapes[0], options.workers))
        return
    if options.serve:
        serve(*torch_work(families[0], shapes[0], compiled=options.serve == "compiled",
                          **({"all_places": True} if options.all_places else {})))  # fmt: skip
        return
    for family in families:
        for shape in shapes if options.check else [SMALL]:
            check(family, shape, options.workers)
    if not options.check:
        table(families, shapes, options)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
