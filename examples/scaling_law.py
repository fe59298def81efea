"""Scaling laws from a ladder of small models, and a forecast for one four times as large.

    python examples/scaling_law.py                     # about ten minutes on two cores
    python examples/scaling_law.py --widths 32 64 96 --tokens 100000 200000 400000

LLaMAs of several widths are trained on Python's documentation, each with several numbers of tokens
and a schedule of its own for each (Hoffmann et al. 2022, appendix B: a rate that has not yet fallen
makes a run look worse).  With N parameters, the tied table included, D tokens, C = 6 N D and L the
loss on held-out text:

    L(N, D)   E + A / N^alpha + B / D^beta by Huber's loss in logarithms    Hoffmann et al., eq. 3
    N* (C)    k C^a, the sizes on the envelope of all runs                  approach 1
    L(C)      k C^-p along this envelope                                    Kaplan et al. 2020

The intervals are bootstrapped over the runs.  Then the forecast, made by L(N, D) before it is
trained: a model at least four times as large as the largest of the ladder.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import run_options, start

import tinyplm
from tinyplm import scaling
from tinyplm.arguments import mismatch
from tinyplm.cli.decoders import sized
from tinyplm.cli.folders import unused
from tinyplm.cli.output import save_plot
from tinyplm.cli.parser import Parser, number, whole
from tinyplm.data.corpus import default_corpus, split_documents
from tinyplm.data.packing import pack
from tinyplm.families import llama
from tinyplm.scaling.chinchilla import Law
from tinyplm.scaling.fits import bootstrap, fit_law, fit_power
from tinyplm.tokenizers import Tokenizer
from tinyplm.training.loop import train
from tinyplm.training.samples import check_corpus
from tinyplm.training.settings import Settings
from tinyplm.training.step import evaluate

STEP = 32  # widths are multiples: heads are 32 wide, and there is a layer for each
LARGER = 4  # times the largest model of the ladder, at least, is the one that is forecast
LEVEL = 0.9  # of the intervals


class Run(NamedTuple):
    """One training run."""

    width: int
    N: int
    D: int
    loss: float
    seconds: float

    @property
    def flops(self) -> float:
        return 6.0 * self.N * self.D


def configure(options: argparse.Namespace, width: int) -> Any:
    sizes = {"layers": width // STEP, "width": width, "heads": width // STEP}
    return sized(llama, vocab_size=options.vocabulary, context=options.context, **sizes)


def size(options: argparse.Namespace, width: int) -> int:
    """N, without making the model."""
    return sum(scaling.parameters(llama, configure(options, width)).values())


def held_out_width(options: argparse.Namespace) -> int:
    """The least width of a model four times as large as the ladder's largest."""
    width = largest = max(options.widths)
    while size(options, width) < LARGER * size(options, largest):
        width += STEP
    return width


def plan(options: argparse.Namespace, width: int, tokens: int) -> Settings:
    """Rates fall in proportion to 1 / width beyond 128, as those of `tinyplm pretrain` do."""
    steps = tokens // (options.batch * options.context)
    return Settings(
        steps=steps,
        batch_size=options.batch,
        sequence_length=options.context,
        learning_rate=options.lr * min(1.0, 128 / width),
        warmup=max(1, min(50, steps // 5)),
        seed=options.seed,
        workers=options.workers,
        evaluate_every=steps,
        save_every=steps,
        keep=1,
    )


def trained(
    options: argparse.Namespace, width: int, tokens: int, tokenizer: Tokenizer, data: Any
) -> Run:
    """Train one model, and measure it: windows overlap by half."""
    begin, settings = time.perf_counter(), plan(options, width, tokens)
    model = tinyplm.create("llama", configure(options, width), key=options.seed)
    model.tokenizer = tokenizer
    folder = Path(options.out) / f"{width}-{tokens}"
    state = train(model, *data, settings, out=folder, progress=False)
    if state.signal is not None:  # training ends in order, and nothing is to follow
        raise KeyboardInterrupt
    sizes = {"length": options.context, "stride": max(1, options.context // 2)}
    total, count = evaluate(model, data[1], **sizes, workers=options.workers)
    seconds = time.perf_counter() - begin
    run = Run(width, model.parameter_count(), state.tokens, total / count, seconds)
    print(line(run), flush=True)
    return run


def line(run: Run) -> str:
    return (
        f"{run.width:>6} {run.N:>11,} {run.D:>11,} {run.flops:>10.2e} {run.loss:>8.4f} "
        f"{run.seconds:>8.0f}"
    )


# ----------------------------------------------------------------------------------------- the laws


def envelope(N: np.ndarray, D: np.ndarray, L: np.ndarray) -> np.ndarray:
    """Which runs no run with as little compute beats, in the order of their compute."""
    order, best, found = np.lexsort((L, N * D)), np.inf, []
    for i in order:
        if L[i] < best:
            best = L[i]
            found.append(i)
    return np.array(found)


def frontier(N: np.ndarray, D: np.ndarray, L: np.ndarray) -> tuple[float, float, float, float]:
    """(k, a) of N* = k C^a, and (k, p) of L = k C^p, along the envelope."""
    at = envelope(N, D, L)
    C = 6 * N[at] * D[at]
    return (*fit_power(C, N[at]), *fit_power(C, L[at]))


def intervals(fit: Any, points: Any, options: argparse.Namespace) -> np.ndarray:
    return bootstrap(fit, *points, repeats=options.repeats, seed=options.seed, level=LEVEL)


def show(names: Any, values: Any, bounds: np.ndarray) -> None:
    for name, value, low, high in zip(names, values, *bounds):
        print(f"  {name:<24} {value:>11.4g}   {low:.4g} to {high:.4g}")


# ------------------------------------------------------------------------------------- the picture


def by_tokens(axes: Any, *, runs: list[Run], law: Law) -> None:
    """The loss over D for each N, and the law."""
    for width in sorted({run.width for run in runs}):
        some = [run for run in runs if run.width == width]
        points = axes.plot([r.D for r in some], [r.loss for r in some], "o", label=f"{some[0].N:,}")
        D = np.geomspace(min(r.D for r in runs), max(r.D for r in runs))
        axes.plot(D, [law.loss(some[0].N, d) for d in D], color=points[0].get_color())
    axes.set(xscale="log", xlabel="tokens", ylabel="loss in nats a token", title="L(N, D)")
    axes.legend(title="parameters", fontsize=8)


def by_compute(axes: Any, *, runs: list[Run], tested: Run, power: Any) -> None:
    """The loss over C, the power law of the envelope, and the held-out model."""
    axes.plot([r.flops for r in runs], [r.loss for r in runs], "o", label="ladder")
    axes.plot([tested.flops], [tested.loss], "s", label="held out")
    C = np.geomspace(min(r.flops for r in runs), tested.flops)
    axes.plot(C, power[0] * C ** power[1], label="envelope")
    axes.set(xscale="log", yscale="log", xlabel="FLOPs", title="L(C)")
    axes.legend(fontsize=8)


def forecasts(axes: Any, *, runs: list[Run], tested: Run, law: Law, bounds: Any) -> None:
    """What the law says of each run, and of the one that it has not seen."""
    fitted = [law.loss(r.N, r.D) for r in runs]
    axes.plot(fitted, [r.loss for r in runs], "o", label="ladder")
    expected = law.loss(tested.N, tested.D)
    error = [[max(0.0, expected - bounds[0])], [max(0.0, bounds[1] - expected)]]
    axes.errorbar([expected], [tested.loss], xerr=error, fmt="s", capsize=4, label="held out")
    ends = [min(*fitted, expected), max(*fitted, expected)]
    axes.plot(ends, ends, color="grey", linewidth=1)
    axes.set(xlabel="loss by the law", ylabel="loss measured", title="forecast")
    axes.legend(fontsize=8)


# ---------------------------------------------------------------------------------------- all of it


def main() -> None:
    options = parser().options()
    check(options)
    options.out = unused(options.out)
    training, validation = split_documents(default_corpus(), 0.05, 0)
    tokenizer = Tokenizer.train(training, options.vocabulary)
    options.vocabulary = tokenizer.vocab_size  # a small text has fewer
    data = [
        pack([[], *tokenizer.encode_batch(part)], tokenizer.eos_id, tokenizer.vocab_size)
        for part in (training, validation)
    ]
    larger, most = held_out_width(options), max(options.tokens)
    check_corpus(data[0], plan(options, larger, most))
    print(f"{len(data[0]):,} different tokens for training, {len(data[1]):,} held out\n")
    print(f"{'width':>6} {'N':>11} {'D':>11} {'6 N D':>10} {'loss':>8} {'seconds':>8}")
    ladder = [(w, d) for w in sorted(options.widths) for d in sorted(options.tokens)]
    runs = [trained(options, width, tokens, tokenizer, data) for width, tokens in ladder]

    points = tuple(np.array([[r.N, r.D, r.loss] for r in runs], float).T)
    law, ends = fit_law(*points), frontier(*points)
    print(f"\nE + A / N^alpha + B / D^beta, with {LEVEL:.0%} intervals:")
    show(Law._fields, law, intervals(fit_law, points, options))
    residual = np.sqrt(np.mean([(law.loss(r.N, r.D) - r.loss) ** 2 for r in runs]))
    print(f"  {'root mean square error':<24} {residual:>11.4f}   nats a token, on the ladder")
    print("\nalong the envelope of all runs:")
    names = ("k of N* = k C^a", "a", "k of L = k C^p", "p")
    show(names, ends, intervals(frontier, points, options))

    N = size(options, larger)

    def forecast(*some: Any) -> tuple[float, float]:
        k, p = frontier(*some)[2:]
        return fit_law(*some).loss(N, most), k * (6.0 * N * most) ** p

    bounds = intervals(forecast, points, options)
    times = f"{N / max(points[0]):.1f} times the largest"
    print(f"\nforecast of {N:,} parameters, {times}, after {most:,} tokens:")
    show(("by L(N, D)", "by L(C)"), forecast(*points), bounds)
    print()
    tested = trained(options, larger, most, tokenizer, data)
    by_law = law.loss(tested.N, tested.D)
    print(
        f"\nmeasured {tested.loss:.4f}: {tested.loss - by_law:+.4f} from L(N, D), whose interval ",
        end="",
    )
    held = bounds[0][0] <= tested.loss <= bounds[1][0]
    print(f"{'holds' if held else 'does not hold'} it\n")
    save_plot(
        options.out / "scaling_law.png",
        partial(by_tokens, runs=runs, law=law),
        partial(by_compute, runs=runs, tested=tested, power=ends[2:]),
        partial(forecasts, runs=runs, tested=tested, law=law, bounds=bounds[:, 0]),
        size=(14, 4.5),
    )


def check(options: argparse.Namespace) -> None:
    """ValueError for a ladder that cannot be fitted, before any work."""
    for name in ("widths", "tokens"):
        values = getattr(options, name)
        if len(values) < 2 or len({*values}) < len(values):
            raise mismatch(f"--{name}", "two or more different numbers", " ".join(map(str, values)))
    if wrong := [width for width in options.widths if width % STEP]:
        raise mismatch("--widths", f"multiples of {STEP}", wrong[0])
    if len(options.widths) * len(options.tokens) < 6:
        raise mismatch("--widths, --tokens", "six runs or more", "fewer")
    least = 2 * options.batch * options.context
    if min(options.tokens) < least:
        raise mismatch("--tokens", f"at least {least}, two steps", min(options.tokens))


def parser() -> Parser:
    parser = Parser(__doc__)
    option = parser.option
    text = "Widths of the ladder, multiples of 32; a model has width / 32 layers."
    option("--widths", [32, 64, 96, 128], text, whole(STEP), nargs="+")
    text = "Numbers of tokens with which each is trained."
    option("--tokens", [125_000, 250_000, 500_000, 1_000_000], text, whole(2), nargs="+")
    option("--batch", 16, "Sequences per step.", whole(1))
    option("--context", 64, "Tokens per sequence.", whole(2))
    option("--vocabulary", 1024, "Vocabulary size of the tokenizer.", whole(257))
    option("--lr", 4e-3, "Peak learning rate up to width 128.", number(above=0.0))
    option("--repeats", 100, "Draws of the bootstrap.", whole(2))
    run_options(parser, "out-scaling-law")
    return parser


if __name__ == "__main__":
    start(main)
