"""A DPO step against optimized PyTorch: forward of both answers, loss, backward, clipping, AdamW.

    python benchmarks/dpo.py                            # three shapes
    python benchmarks/dpo.py --family llama --shape 4,256,4,128,8,2048
    python benchmarks/dpo.py --check                    # only check that all four agree

A shape is (L, D, H, T, pairs, V): a prompt of T / 2 tokens and two answers of T / 4 to T / 2 tokens
(drawn once).  The reference's log-probabilities are precomputed, as in tuning.dpo.  Each library
runs in two ways:

    rows     chosen and rejected answer in separate rows, right-padded, in one forward of 2 x pairs
             rows: the usual way
    joint    both answers in one row after their shared prompt; a mask hides each from the other

tuning.dpo is joint by default.  PyTorch (peer.py) uses scaled_dot_product_attention, fused AdamW,
clip_grad_norm_ and the same allocator settings, and computes the head only at positions that
predict an answer's token, as tinyplm does.  Each library and way runs in its own process with all
cores; the processes alternate, one step each.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys

import numpy as np
from steps import CLIP, LEARNING_RATE, SMALL, create, peer, read_shape
from table import Table, add_option
from turns import matmul_peak, median_ratio, memory_before, serve, take_turns

SHAPES = ["4,256,4,128,8,2048", "6,384,6,256,4,4096", "4,256,4,512,4,2048"]
BETA = 0.1
WAYS = ("rows", "joint")
TOLERANCE = 1e-4  # of the losses of three steps, in float32


def pairs_of(shape: list[int]):
    """(pairs of sequences, the reference's log-probabilities (pairs, 2))."""
    from tinyplm.tuning.data.sequences import answered

    T, pairs, V = shape[3:]
    draw = np.random.default_rng(0)

    def tokens(least: int, most: int) -> list[int]:
        return draw.integers(0, V, int(draw.integers(least, most + 1))).tolist()

    some = []
    for _ in range(pairs):
        prompt = tokens(T // 2, T // 2)
        some.append(tuple(answered(prompt, tokens(T // 4, T // 2)) for _ in range(2)))
    return some, draw.normal(-100, 1, (pairs, 2)).astype(np.float32)


def tinyplm_step(family: str, model, shape: list[int], workers: int, way: str):
    from tinyplm.tuning.align.dpo import DPOSettings, dpo_batch, dpo_loss
    from tinyplm.tuning.align.learner import Learner

    settings = DPOSettings(
        batch_size=shape[4],
        beta=BETA,
        joint=way == "joint",
        learning_rate=LEARNING_RATE,
        schedule="constant",
        warmup=0,
        clip=CLIP,
        beta2=0.999,
        workers=workers,
    )
    learner = Learner(model, settings)
    pairs, reference = pairs_of(shape)
    return lambda: learner.step(
        dpo_batch(pairs, reference, settings), dpo_loss(settings, len(pairs))
    )["loss"]


def torch_step(family: str, model, shape: list[int], way: str):
    import torch
    import torch.nn.functional as F

    from tinyplm.tuning.data.pairs import joint_arrays, pair_arrays

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True
    )
    pairs, reference = pairs_of(shape)
    arrays = (
        joint_arrays(pairs)
        if way == "joint"
        else {n: a.reshape(-1, a.shape[-1]) for n, a in pair_arrays(pairs).items()}
    )
    reference = torch.from_numpy(reference)
    N, targets = len(pairs), torch.from_numpy(arrays["targets"])
    ids, counted = torch.from_numpy(arrays["input_ids"]), targets != -100
    row, _ = counted.nonzero(as_tuple=True)
    options = {}
    if way == "joint":
        T = ids.shape[1]
        causal = torch.ones(T, T, dtype=torch.bool).tril()
        options = {
            "mask": torch.from_numpy(arrays["attention_mask"]) & causal,
            "positions": torch.from_numpy(arrays["position_ids"]),
        }
        answer = 2 * row + torch.from_numpy(arrays["second"])[counted]
    else:
        answer = row  # rows are chosen, rejected, chosen, ...

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        hidden = model.hidden(ids, **options)[counted]
        log_probs = -F.cross_entropy(
            hidden @ model.tokens.weight.T, targets[counted], reduction="none"
        )
        sums = torch.zeros(2 * N).index_add(0, answer, log_probs).view(N, 2) - reference
        loss = -F.logsigmoid(BETA * (sums[:, 0] - sums[:, 1])).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss.item()

    return step


def work(library: str, family: str, shape: list[int], workers: int):
    """Arguments for turns.serve: the step, the library's matmul peak, the memory before."""
    from tinyplm.memory import keep_freed_memory

    keep_freed_memory()
    name, way = library.split("-")
    if name == "torch":
        import torch

        torch.manual_seed(0)
        peak = matmul_peak(torch.matmul, torch.rand(1024, 1024))
        torch_step(family, peer(family, SMALL), SMALL, way)()
        before = memory_before()
        return torch_step(family, peer(family, _rooms(shape, way)), shape, way), peak, before
    peak = matmul_peak(np.matmul, np.random.default_rng(0).random((1024, 1024), dtype=np.float32))
    tinyplm_step(family, create(family, _rooms(SMALL, way)), SMALL, workers, way)()
    before = memory_before()
    return (
        tinyplm_step(family, create(family, _rooms(shape, way)), shape, workers, way),
        peak,
        before,
    )


def _rooms(shape: list[int], way: str) -> list[int]:
    """The shape with a context that fits a joint row, whose positions stay below T."""
    L, D, H, T, B, V = shape
    return [L, D, H, 2 * T, B, V]


def compare(family: str, shape: list[int], rounds: int, workers: int) -> list[float]:
    """The values of one row of the table."""
    arguments = [
        "--family",
        family,
        "--shape",
        ",".join(map(str, shape)),
        "--workers",
        str(workers),
    ]
    libraries = [f"{name}-{way}" for way in WAYS for name in ("tinyplm", "torch")]
    results = take_turns(__file__, libraries, arguments, rounds)
    seconds = {library: found[1] for library, found in results.items()}
    times = [1e3 * statistics.median(seconds[library]) for library in libraries]
    ratios = [
        median_ratio(seconds[theirs], seconds[ours])
        for theirs, ours in (
            ("torch-rows", "tinyplm-rows"),
            ("torch-joint", "tinyplm-joint"),
            ("torch-rows", "tinyplm-joint"),
        )
    ]
    return [*times, *ratios, results["tinyplm-rows"][0], results["torch-rows"][0]]


def check(family: str, shape: list[int], workers: int) -> None:
    """RuntimeError unless all four have the same losses over three steps from the same weights."""
    ours = create(family, _rooms(shape, ""))
    steps = []
    for way in WAYS:
        theirs = peer(family, _rooms(shape, ""))
        theirs.copy(ours.params)
        steps += [
            tinyplm_step(family, ours._with(), shape, workers, way),
            torch_step(family, theirs, shape, way),
        ]
    losses = np.array([[step() for step in steps] for _ in range(3)])
    difference = float(np.abs(losses / losses[:, :1] - 1).max())
    if not difference < TOLERANCE:
        raise RuntimeError(
            f"{family} {tuple(shape)}: "
            f"expected losses within {TOLERANCE:.0e}, got a difference of {difference:.0e}"
        )
    print(
        f"{family} {tuple(shape)}: "
        f"three steps in all four ways, losses differ by at most {difference:.0e}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--family",
        choices=("llama", "gpt2"),
        action="append",
        help="may be repeated (default: llama)",
    )
    parser.add_argument(
        "--shape",
        action="append",
        help="layers,width,heads,context,pairs,vocabulary; may be repeated",
    )
    parser.add_argument(
        "--rounds", type=int, default=9, help="steps of each (default: %(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="threads of tinyplm (default: %(default)s)",
    )
    parser.add_argument("--check", action="store_true", help="only check that all four agree")
    add_option(parser, __file__)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    families, shapes = (
        options.family or ["llama"],
        [read_shape(shape) for shape in options.shape or SHAPES],
    )
    if options.serve:
        serve(*work(options.serve, families[0], shapes[0], options.workers))
        return
    for family in families:
        for shape in shapes if options.check else [SMALL]:
            check(family, shape, options.workers)
    if options.check:
        return
    note = (
        "milliseconds per step (medians); ratios: PyTorch's time over tinyplm's; peaks in GFLOP/s"
    )
    columns = {f"{library} {way}": ".1f" for way in WAYS for library in ("tinyplm", "torch")}
    columns |= dict.fromkeys(("rows ratio", "joint ratio", "torch rows / our joint"), ".2f")
    columns |= dict.fromkeys(("NumPy peak", "PyTorch peak"), ".0f")
    table = Table("family (L, D, H, T, pairs, V)", columns, file=options.json, note=note)
    for family in families:
        for shape in shapes:
            table.row(
                f"{family} {tuple(shape)}", *compare(family, shape, options.rounds, options.workers)
            )


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
