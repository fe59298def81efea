"""Causal attention, forward and backward, against PyTorch's scaled_dot_product_attention.

    python benchmarks/attention.py
    python benchmarks/attention.py --rounds 15 --length 2048 --shape 2,8,8,64

float32, one row per length.  Two processes alternate, one forward and backward each: attention by
query blocks (kernels/block_attention.py), with one BLAS thread in each of `--workers` shards of the
batch, and PyTorch with all cores.  The plain form (layers/attention.py) then runs alone, because
its gigabytes would disturb the others.  All use the same allocator settings.

Prints median times; the median over rounds of the peer's time over ours; peak memory above the
memory with inputs loaded; the rate of the 7 products that blocks require (2 forward, 5 backward,
half of T x T each); and both libraries' matmul peak.
"""

from __future__ import annotations

import argparse
import os
import statistics

from table import Table, add_option
from turns import matmul_peak, median_ratio, memory_before, serve, take_turns

LENGTHS = [512, 1024, 2048, 4096]
SHAPE = "2,8,8,64"  # samples, heads, key/value heads, head width


def inputs(shape: list[int], T: int) -> dict:
    import numpy as np

    B, H, K, E = shape
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal((B, heads, T, E), dtype=np.float32)
        for name, heads in (("q", H), ("k", K), ("v", K), ("do", H))
    }


def tinyplm_work(shape: list[int], T: int, workers: int, blocks: bool):
    """One forward and backward as a function, NumPy's matmul peak, and the memory before."""
    import numpy as np

    from tinyplm.core import map_shards
    from tinyplm.kernels.block_attention import block_attention
    from tinyplm.layers.attention import attention
    from tinyplm.layers.mask import Visible
    from tinyplm.memory import keep_freed_memory

    keep_freed_memory()
    peak = matmul_peak(np.matmul, np.ones((1024, 1024), dtype=np.float32))
    batch = inputs(shape, T)
    visible = Visible(T, T, causal=True)

    def attend(shard):
        q, k, v, do = shard.values()
        if blocks:
            return block_attention(q, k, v, mask=visible)[1](do)
        return attention(q, k, v, mask=visible.array)[1](do)

    return lambda: map_shards(attend, batch, workers), peak, memory_before()


def torch_work(shape: list[int], T: int):
    import torch

    from tinyplm.memory import keep_freed_memory

    keep_freed_memory()
    peak = matmul_peak(torch.matmul, torch.ones(1024, 1024))
    q, k, v, do = (torch.from_numpy(a) for a in inputs(shape, T).values())
    for a in (q, k, v):
        a.requires_grad_()

    def work():
        o = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1]
        )
        return torch.autograd.grad(o, (q, k, v), do)

    return work, peak, memory_before()


def compare(shape: list[int], T: int, rounds: int, workers: int) -> list[float]:
    """The values of one row of the table."""
    arguments = [
        "--shape",
        ",".join(map(str, shape)),
        "--length",
        str(T),
        "--workers",
        str(workers),
    ]
    results = take_turns(__file__, ("blocks", "torch"), arguments, rounds)
    results |= take_turns(__file__, ("plain",), arguments, max(1, rounds // 3))
    peaks, seconds, memory = (
        {name: result[i] for name, result in results.items()} for i in range(3)
    )
    times = [1e3 * statistics.median(s) for s in seconds.values()]
    B, H, _, E = shape
    rate = 7 * 2 * B * H * E * T * (T + 1) / 2 / statistics.median(seconds["blocks"]) / 1e9
    ratio = median_ratio(seconds["torch"], seconds["blocks"])
    return [*times, ratio, *memory.values(), rate, peaks["blocks"], peaks["torch"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--shape",
        default=SHAPE,
        help="samples, heads, key/value heads, head width (default: %(default)s)",
    )
    parser.add_argument("--length", type=int, action="append", help="T; may be repeated")
    parser.add_argument(
        "--rounds", type=int, default=9, help="calls of each (default: %(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="threads of tinyplm (default: %(default)s)",
    )
    add_option(parser, __file__)
    parser.add_argument("--serve", choices=["blocks", "plain", "torch"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    shape, lengths = [int(n) for n in options.shape.split(",")], options.length or LENGTHS
    workers = min(options.workers, shape[0])
    if options.serve:
        blocks = options.serve == "blocks"
        serve(
            *(
                torch_work(shape, lengths[0])
                if options.serve == "torch"
                else tinyplm_work(shape, lengths[0], workers, blocks)
            )
        )
        return
    note = f"(B, H, K, E) = {tuple(shape)}: milliseconds (medians); memory in MiB; rates in GFLOP/s"
    ways = ("blocks", "PyTorch", "plain")
    columns = (
        dict.fromkeys(ways, ".1f") | {"ratio": ".2f"} | {f"{way} memory": ".0f" for way in ways}
    )
    columns |= dict.fromkeys(("blocks rate", "NumPy peak", "PyTorch peak"), ".0f")
    table = Table("T", columns, file=options.json, note=note, width=6)
    for T in lengths:
        table.row(str(T), *compare(shape, T, options.rounds, workers))


if __name__ == "__main__":
    main()
