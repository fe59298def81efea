"""Training steps and decoding of each family of decoders beside LLaMA's, and what a window saves.

    python benchmarks/families.py
    python benchmarks/families.py --family gemma2 --family bloom --rounds 20
    python benchmarks/families.py --windows       # only the second table

All are ours and run in one process, one call each in turn, so a change in the machine's speed
affects all alike.  Layers, width, heads, context and vocabulary are the same; feed-forward layers
have the widths of examples/decoders.py.  Ratios are medians over rounds of the family's time over
LLaMA's in the same round.  Windows are half the context.

The second table trains Mistral at 2048 tokens with a window of 256 and with none.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from steps import tinyplm_step
from table import Table, add_option
from turns import libraries_only

libraries_only()
sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))

PROMPT, NEW = 16, 64


def shaped(name: str, shape: list[int], **changes: Any) -> Any:
    """A model of this family."""
    from decoders import decoders, sized

    import tinyplm

    L, D, H, T, _, V = shape
    module = decoders()[name]
    config = sized(module, vocab_size=V, layers=L, width=D, heads=H, context=T, **changes)
    return tinyplm.create(name, config)


def generating(model: Any) -> Callable[[], Any]:
    from tinyplm.generation import generate

    ready = model.for_decoding()
    prompt = np.random.default_rng(0).integers(0, model.config.vocab_size, PROMPT).tolist()
    return lambda: generate(ready, prompt, max_new_tokens=NEW, temperature=0, stop_ids=[])


def times(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call in each round."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for warm_up in [True] * 2 + [False] * rounds:
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            if not warm_up:
                found[name].append(time.perf_counter() - begin)
    return found


def ratio(own: list[float], other: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(own, other))


def families(names: list[str], shape: list[int], options: argparse.Namespace) -> None:
    columns = {"step": ".1f", "ratio": ".2f", "decoding": ".1f", "decoding ratio": ".2f"}
    note = f"milliseconds per training step, and per {NEW} tokens decoded greedily at batch 1"
    rows = Table(f"family {tuple(shape)}", columns, file=options.json, note=note)
    steps, decoding = {}, {}
    for name in ["llama", *(n for n in names if n != "llama")]:
        model = shaped(name, shape)
        decoding[name] = generating(shaped(name, shape))
        steps[name] = tinyplm_step(name, model, shape, options.workers)
    trained, decoded = times(steps, options.rounds), times(decoding, options.rounds)
    for name in steps:
        own, tokens = trained[name], decoded[name]
        values = [1e3 * statistics.median(own), ratio(own, trained["llama"])]
        values += [1e3 * statistics.median(tokens), ratio(tokens, decoded["llama"])]
        rows.row(name, *values)


def windows(options: argparse.Namespace) -> None:
    shape = [4, 256, 4, 2048, 1, 2048]
    note = "milliseconds per training step at 2048 tokens"
    rows = Table("window", {"step": ".1f", "ratio": ".2f"}, file=None, note=note)
    models = {n: shaped("mistral", shape, sliding_window=n) for n in (None, 256)}
    steps = {
        str(n): tinyplm_step("mistral", model, shape, options.workers)
        for n, model in models.items()
    }
    trained = times(steps, options.rounds)
    for name, own in trained.items():
        rows.row(name, 1e3 * statistics.median(own), ratio(own, trained["None"]))


def main() -> None:
    from decoders import decoders

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = sorted(decoders())
    parser.add_argument("--family", action="append", choices=known, help="may be repeated")
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="threads (default: %(default)s)")
    parser.add_argument("--windows", action="store_true", help="only what a window saves")
    add_option(parser, __file__)
    options = parser.parse_args()
    if not options.windows:
        families(options.family or known, [4, 256, 4, 128, 16, 2048], options)
    windows(options)


if __name__ == "__main__":
    main()
