"""Mixtures of experts: what more experts cost, and PyTorch's time beside ours.

    python benchmarks/experts.py
    python benchmarks/experts.py --rounds 20 --tokens 4096 --width 1024 --part layer

Of each number of experts, with the same tokens, top 2, and experts of the same width:

    layer    forward and backward of one layer's router and experts, on one thread
    passes   forward, loss and backward of a small Mixtral, on `--workers` threads
    step     the same, then clipping and AdamW, which touch the parameters of all experts

Both libraries run in one process, one call each in turn after a pause, float32, the same allocator
settings.  PyTorch is eager: the faster of a grouped product and a loop over experts (peer_moe.py),
and fused AdamW.  "to first" is the median over rounds of our time over ours with the first number
of experts: 1.30 means that it takes 30% longer.  "ratio" is PyTorch's time over ours.  Wall and CPU
time, medians; CPU time counts all threads and depends less on other load.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from steps import CLIP, DECAY, LEARNING_RATE, batch
from table import Table, add_option
from turns import PAUSE, matmul_peak, median_ratio, shortest

LAYERS, D, HEADS, VOCABULARY, TOP, SAMPLES = 2, 256, 4, 2048, 2, 4
PARTS = ("layer", "passes", "step")
Call = Callable[[], object]


def shape_of(tokens: int) -> list[int]:
    return [LAYERS, D, HEADS, tokens // SAMPLES, SAMPLES, VOCABULARY]


def layer_arrays(X: int, F: int, tokens: int) -> tuple[dict, np.ndarray, np.ndarray]:
    """p, x and dy."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(shape[-2] ** -0.5)

    experts = {"Wgate": draw(X, D, F), "Wup": draw(X, D, F), "Wdown": draw(X, F, D)}
    x, dy = (draw(SAMPLES, tokens // SAMPLES, D) for _ in range(2))
    return {"router": {"W": draw(D, X)}, "experts": experts}, x, dy


def tinyplm_calls(part: str, X: int, F: int, tokens: int, workers: int) -> Call:
    from tinyplm.core.threads import blas_threads
    from tinyplm.kernels.experts import moe_and_logits
    from tinyplm.kernels.mlp import gated_mlp
    from tinyplm.layers.activation import silu
    from tinyplm.layers.routing import softmax_weights, top_experts

    if part != "layer":
        return tinyplm_training(part, X, F, tokens, workers)
    p, x, dy = layer_arrays(X, F, tokens)
    layer = partial(
        moe_and_logits,
        choose=partial(top_experts, top_k=TOP),
        weigh=partial(softmax_weights, renormalised=True),
        expert=partial(gated_mlp, activation=silu),
    )

    def call() -> object:
        with blas_threads(1):
            return layer(p, x)[1]({"hidden": dy})

    return call


def tinyplm_training(part: str, X: int, F: int, tokens: int, workers: int) -> Call:
    import tinyplm
    from tinyplm.optim.adamw import AdamW
    from tinyplm.training.settings import Settings
    from tinyplm.training.step import accumulate, update

    T = tokens // SAMPLES
    model = tinyplm.create(
        "mixtral",
        **{"num_hidden_layers": LAYERS, "hidden_size": D, "num_attention_heads": HEADS},
        **{"num_key_value_heads": HEADS, "intermediate_size": F, "vocab_size": VOCABULARY},
        **{"num_local_experts": X, "num_experts_per_tok": TOP, "max_position_embeddings": T},
        **{"tie_word_embeddings": True, "bos_token_id": None, "eos_token_id": None},
        **{"rope_theta": 1e4, "rms_norm_eps": 1e-6},  # as in peer.py
    )
    optimizer = AdamW(model.params, weight_decay=DECAY)
    model.params = optimizer.params
    settings = Settings(
        **{"batch_size": SAMPLES, "sequence_length": T, "workers": workers, "clip": CLIP},
        **{"learning_rate": LEARNING_RATE, "schedule": "constant", "warmup": 0},
    )
    inputs, targets = batch("mixtral", shape_of(tokens))

    def passes() -> object:
        loss = accumulate(model, optimizer, inputs, targets, settings=settings)
        optimizer.gradient.clear()
        return loss

    def step() -> object:
        return update(model, optimizer, inputs, targets, settings=settings, step=0)

    return passes if part == "passes" else step


def torch_calls(part: str, X: int, F: int, tokens: int, workers: int, form: str) -> Call:
    import torch
    from peer_moe import Experts, Mixtral

    if part == "layer":
        p, x, dy = layer_arrays(X, F, tokens)
        module = Experts(D, F, X, TOP, form)
        module.copy(p)
        x, dy = torch.from_numpy(x).requires_grad_(), torch.from_numpy(dy)

        def call() -> object:
            torch.set_num_threads(1)
            return torch.autograd.grad(module(x), (x, *module.parameters()), dy)

        return call
    model = Mixtral(shape_of(tokens), F, X, TOP, form)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=DECAY, fused=True
    )
    inputs, targets = batch("mixtral", shape_of(tokens))
    inputs = {name: torch.from_numpy(a) for name, a in inputs.items()}
    targets = torch.from_numpy(targets)

    def step() -> object:
        torch.set_num_threads(workers)
        optimizer.zero_grad(set_to_none=True)
        loss = model.loss(inputs, targets)
        loss.backward()
        if part == "step":
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
        return loss.item()

    return step


def fastest_form(make: Callable[[str], Call]) -> Call:
    """PyTorch's call in the form that is faster here."""
    from peer_moe import FORMS

    calls = {form: make(form) for form in FORMS}
    for call in calls.values():
        call()
    return min(calls.values(), key=lambda call: shortest(call, 2))


def times(calls: dict, rounds: int) -> dict:
    """{call: ([wall seconds], [CPU seconds])}."""
    found: dict = {name: ([], []) for name in calls}
    for warm_up in [True] * 2 + [False] * rounds:
        for name, call in calls.items():
            time.sleep(PAUSE)
            begin = time.perf_counter(), time.process_time()
            call()
            if not warm_up:
                found[name][0].append(time.perf_counter() - begin[0])
                found[name][1].append(time.process_time() - begin[1])
    return found


def compare(
    table: Table, part: str, experts: list[int], F: int, tokens: int, rounds: int, workers: int
) -> None:
    """The rows of all numbers of experts."""
    import torch

    calls: dict = {}
    for X in experts:
        calls["tinyplm", X] = tinyplm_calls(part, X, F, tokens, workers)
        calls["torch", X] = fastest_form(partial(torch_calls, part, X, F, tokens, workers))
    found = times(calls, rounds)
    a = np.ones((1024, 1024), dtype=np.float32)
    peaks = [matmul_peak(np.matmul, a), matmul_peak(torch.matmul, torch.from_numpy(a))]
    for X in experts:
        ours, theirs, first = (
            found[key] for key in (("tinyplm", X), ("torch", X), ("tinyplm", experts[0]))
        )
        values: list[float] = []
        for clock in (0, 1):
            own, peer = ours[clock], theirs[clock]
            values += [1e3 * statistics.median(own), median_ratio(own, first[clock])]
            values += [1e3 * statistics.median(peer), median_ratio(peer, own)]
        table.row(f"{part}, {tokens} tokens, F {F}, X {X}", *values, *peaks)


def main() -> None:
    from tinyplm.memory import keep_freed_memory

    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--experts", default="8,64", help="numbers of experts (default: %(default)s)"
    )
    parser.add_argument("--tokens", type=int, action="append", help="may be repeated")
    parser.add_argument("--width", type=int, action="append", help="F; may be repeated")
    parser.add_argument("--part", action="append", choices=PARTS, help="may be repeated")
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    cores = os.cpu_count() or 1
    parser.add_argument("--workers", type=int, default=cores, help="threads (default: %(default)s)")
    add_option(parser, __file__)
    options = parser.parse_args()
    experts = [int(n) for n in options.experts.split(",")]
    columns = {"tinyplm": ".1f", "to first": ".2f", "PyTorch": ".1f", "ratio": ".2f"}
    columns |= {f"CPU {name}": form for name, form in columns.items()}
    columns |= {"NumPy peak": ".0f", "PyTorch peak": ".0f"}
    note = f"D {D}, top {TOP}; passes and steps: {LAYERS} layers.  Milliseconds; peaks in GFLOP/s"
    table = Table("part", columns, file=options.json, note=note, width=34)
    for part in options.part or PARTS:
        for tokens in options.tokens or [1024, 4096]:
            for F in options.width or [512]:
                compare(table, part, experts, F, tokens, options.rounds, options.workers)


if __name__ == "__main__":
    main()
