"""Training steps and decoding of each family of decoders beside LLaMA's, and what a window saves.

    python benchmarks/families.py
    python benchmarks/families.py --family gemma2 --family bloom --rounds 20
    python benchmarks/families.py --shape 4,256,4,256,4,2048
    python benchmarks/families.py --windows       # only the second table
    python benchmarks/families.py --windows --long-shape 4,128,2,2048,1,2048

All are ours and run in one process, one call each in turn, so a change in the machine's speed
affects all alike.  Layers, width, heads, context and vocabulary are the same; feed-forward layers
have the widths of cli/decoders.py.  Ratios are medians over rounds of the family's time over
LLaMA's in the same round.  Windows are half the context.

The second table trains Mistral at 2048 tokens with a window of 256 and with none, in two widths:
the window shortens attention alone, whose share falls with the width.
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
from steps import read_shape, tinyplm_step
from table import Table, add_option
from turns import libraries_only

libraries_only()
sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))

PROMPT, NEW, WINDOW = 16, 64, 256
# layers, width, heads, context, batch, vocabulary
SHAPE, LONG_SHAPES = "4,256,4,128,16,2048", ["4,256,4,2048,1,2048", "4,128,2,2048,1,2048"]


def shaped(name: str, shape: list[int], **changes: Any) -> Any:
    """A model of this family."""
    import tinyplm
    from tinyplm.cli.decoders import decoders, sized

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


def windows(shapes: list[list[int]], options: argparse.Namespace) -> None:
    note = f"milliseconds per training step of Mistral, with a window of {WINDOW} and without"
    columns = {"window": ".1f", "none": ".1f", "ratio": ".2f"}
    rows = Table("(L, D, H, T, B, V)", columns, file=None, note=note)
    for shape in shapes:
        models = {n: shaped("mistral", shape, sliding_window=n) for n in (None, WINDOW)}
        steps = {
            str(n): tinyplm_step("mistral", model, shape, options.workers)
            for n, model in models.items()
        }
        full, own = times(steps, options.rounds).values()
        milliseconds = [1e3 * statistics.median(seconds) for seconds in (own, full)]
        rows.row(f"{tuple(shape)}", *milliseconds, ratio(own, full))


def main() -> None:
    from tinyplm.cli.decoders import decoders

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = sorted(decoders())
    parser.add_argument("--family", action="append", choices=known, help="may be repeated")
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="threads (default: %(default)s)")
    shape = "layers,width,heads,context,batch,vocabulary"
    parser.add_argument("--shape", default=SHAPE, help=f"{shape} (default: %(default)s)")
    parser.add_argument("--windows", action="store_true", help="only what a window saves")
    parser.add_argument("--long-shape", action="append", help="of the windows; may be repeated")
    add_option(parser, __file__)
    options = parser.parse_args()
    if not options.windows:
        families(options.family or known, read_shape(options.shape), options)
    windows([read_shape(text) for text in options.long_shape or LONG_SHAPES], options)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")
