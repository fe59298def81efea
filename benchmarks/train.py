"""A training step of GPT-2, LLaMA, BERT and T5 against optimized PyTorch.

    python benchmarks/train.py                 # three sizes of each family, one of T5
    python benchmarks/train.py --rounds 20 --family llama --shape 4,256,4,128,16,2048
    python benchmarks/train.py --compile       # also torch.compile, which takes minutes longer
    python benchmarks/train.py --check         # only check that both agree, in all shapes
    python benchmarks/train.py --family bert --all-places   # the peer's head at all positions

A step is forward, loss, backward, clipping and AdamW.  Each library runs in its own process with
all cores; the processes alternate, one step each, so a change in the machine's speed affects all.
PyTorch (peer.py, peer_bert.py, peer_t5.py) uses scaled_dot_product_attention, fused AdamW,
clip_grad_norm_ and the same allocator settings.  Both first train for three steps from the same
weights, and their losses must agree.

Prints median times and the median over rounds of eager PyTorch's time over ours; the time with the
peer's forward and loss under torch.compile; peak memory above the memory before the model was
created, and the ratio of theirs to ours; each library's matmul peak; and the rate of our step as a
share of NumPy's peak.  FLOPs per step are counted analytically (steps.flops): with N the number of
matrix weights, including the head's,

    6 N B T                                2 per weight and token in the forward, 4 in the backward
    + 3 L B * 2 * 2 D * T (T + 1) / 2      the causal half of q k^T and p v, and twice the same
                                           in the backward

BERT is a masked language model: its head runs, and counts, only at the 15% of positions with a
target, and its attention needs T^2 products.  T5 has L layers on each side, T tokens in the source
and T / 2 in the target, for which its head runs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys

from steps import FAMILIES, SMALL, disagreement, flops, read_shape, tinyplm_work, torch_work
from table import Table, add_option
from turns import median_ratio, serve, take_turns

# layers, width, heads, context, batch, vocabulary; the last has the shape of GPT-2 124M
SHAPES = ["4,256,4,128,16,2048", "6,384,6,256,8,4096", "12,768,12,64,4,50257"]
T5_SHAPES = ["4,256,4,128,16,4096"]
TOLERANCE = 1e-4  # of the losses of three steps, in float32


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
    """RuntimeError unless both libraries agree."""
    difference = disagreement(family, shape, workers)
    if not difference < TOLERANCE:
        raise RuntimeError(
            f"{family} {tuple(shape)}: "
            f"expected losses within {TOLERANCE:.0e}, got a difference of {difference:.0e}"
        )
    print(
        f"{family} {tuple(shape)}: "
        f"three steps from the same weights, losses differ by at most {difference:.0e}",
        flush=True,
    )


def shapes(family: str, given: list[str] | None) -> list[list[int]]:
    """The shapes that --shape gives, otherwise those of the family."""
    usual = T5_SHAPES if family == "t5" else SHAPES
    return [read_shape(shape) for shape in given or usual]


def table(families: list[str], options: argparse.Namespace) -> None:
    note = "milliseconds per step (medians); peak memory in MiB; matmul peak in GFLOP/s"
    columns = {
        "tinyplm": ".1f",
        "eager": ".1f",
        "ratio": ".2f",
        "compiled": ".1f",
        "memory": ".0f",
        "eager memory": ".0f",
        "memory ratio": ".2f",
        "NumPy peak": ".0f",
        "PyTorch peak": ".0f",
        "share of peak": ".0%",
    }
    rows = Table("family (L, D, H, T, B, V)", columns, file=options.json, note=note)
    for family in families:
        for shape in shapes(family, options.shape):
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
        "--check", action="store_true", help="only check that both agree in these shapes"
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="also measure torch.compile, which takes minutes longer",
    )
    parser.add_argument(
        "--all-places",
        action="store_true",
        help="apply BERT's head in PyTorch at all positions, as transformers does",
    )
    add_option(parser, __file__)
    parser.add_argument("--serve", choices=["tinyplm", "torch", "compiled"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    families = options.family or FAMILIES
    if options.serve:
        family, shape = families[0], shapes(families[0], options.shape)[0]
    if options.serve == "tinyplm":
        serve(*tinyplm_work(family, shape, options.workers))
        return
    if options.serve:
        places = {"all_places": True} if options.all_places else {}
        compiled = options.serve == "compiled"
        serve(*torch_work(family, shape, compiled=compiled, **places))
        return
    for family in families:
        for shape in shapes(family, options.shape) if options.check else [SMALL]:
            check(family, shape, options.workers)
    if not options.check:
        table(families, options)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
