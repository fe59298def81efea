"""Balance between experts: a bias that follows their load, a loss, or nothing, and a dense model.

    python examples/moe_balance.py                     # a few minutes on two cores
    python examples/moe_balance.py --steps 2000 --experts 64 --top-k 4

A small DeepSeek-V3 (latent attention; a dense layer, then layers with routed experts and a shared
one) is trained on Python's documentation with

    bias update    between steps, the router's bias of a busy expert falls and of an idle one rises
    neither        the routers learn from the language model's loss alone
    balance loss   a loss of each sequence's load is added, and sends gradients through the routers
    dense          no experts: layers as wide as the experts that a token sees

Equal seeds give all of them the same data; those with experts start from the same parameters, and
the dense model has as many as are active in them for a token, but for the routers.  Reported are
the loss on held-out text and how its tokens spread over the experts; the picture shows the load of
each expert in the training batches over time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import run_options, start

import tinyplm
from tinyplm.cli.decoders import sized
from tinyplm.cli.folders import unused
from tinyplm.cli.output import save_plot
from tinyplm.cli.parser import Parser, number, whole
from tinyplm.data.corpus import default_corpus, split_documents
from tinyplm.data.packing import pack
from tinyplm.families import deepseek_v3
from tinyplm.models.routed_model import RoutedModel
from tinyplm.tokenizers import Tokenizer
from tinyplm.training.expert_load import entropy
from tinyplm.training.log import read
from tinyplm.training.loop import train
from tinyplm.training.samples import check_corpus
from tinyplm.training.settings import Settings

HELD_OUT = 8_000  # tokens, at most
SHOWN = 3.0  # times the mean load: the end of the scale of colours


class Variant(NamedTuple):
    dense: bool
    settings: dict[str, float]


def variants(options: argparse.Namespace) -> dict[str, Variant]:
    off = {"bias_rate": 0.0, "balance": 0.0}
    return {
        "bias update": Variant(False, {**off, "bias_rate": options.bias_rate}),
        "neither": Variant(False, off),
        "balance loss": Variant(False, {**off, "balance": options.balance}),
        "dense": Variant(True, off),
    }


def configure(options: argparse.Namespace, vocab_size: int, *, dense: bool) -> Any:
    """The model's config.  What a token passes through is as wide in both kinds."""
    width, seen = options.width, options.top_k + 1  # with the shared expert
    expert = max(8, round(8 * width / 3 / seen / 8) * 8)
    return sized(
        deepseek_v3,
        vocab_size=vocab_size,
        layers=options.layers,
        width=width,
        heads=options.heads,
        context=options.context,
        q_lora_rank=None,
        kv_lora_rank=width // 2,
        qk_nope_head_dim=width // options.heads,
        qk_rope_head_dim=-(-width // options.heads // 4) * 2,
        v_head_dim=width // options.heads,
        n_routed_experts=options.experts,
        num_experts_per_tok=options.top_k,
        n_shared_experts=1,
        n_group=1,
        topk_group=1,
        routed_scaling_factor=1.0,
        moe_intermediate_size=expert,
        intermediate_size=seen * expert,
        first_k_dense_replace=options.layers if dense else 1,
    )


def plan(options: argparse.Namespace, variant: Variant) -> Settings:
    return Settings(
        steps=options.steps,
        batch_size=options.batch,
        sequence_length=options.context,
        learning_rate=options.lr,
        warmup=min(100, options.steps // 4),
        seed=options.seed,
        workers=options.workers,
        evaluate_every=max(1, options.steps // 20),
        save_every=options.steps,
        keep=1,
        **variant.settings,
    )


def held_out_load(model: RoutedModel, tokens: np.ndarray, context: int) -> np.ndarray | None:
    """(L, X): how many of these tokens choose each expert; None without experts."""
    rows = tokens[: len(tokens) // context * context].reshape(-1, context)
    parts = [rows[i : i + 16] for i in range(0, len(rows), 16)]
    found = [model.expert_counts({"input_ids": part}) for part in parts]
    return None if found[0] is None else np.sum(found, axis=0)


def row(name: str, model: RoutedModel, loss: float, counts: Any, seconds: float) -> str:
    """One line of the table.  Over the layers: the mean entropy, the largest max / mean."""
    load = f"{'':>12}  {'':>10}"
    if counts is not None:
        largest = (counts.max(axis=1) / counts.mean(axis=1)).max()
        load = f"{entropy(counts).mean():>12.4f}  {largest:>10.2f}"
    sizes = f"{model.parameter_count():>10,}  {model.active_parameter_count():>10,}"
    return f"{name:<13} {sizes}  {loss:>8.4f}  {load}  {seconds:>7.0f}"


# ------------------------------------------------------------------------------------- the picture


def draw(records: dict[str, list[dict]], png: Path) -> None:
    """A row for each variant with experts: the load in each layer, and a curve of all variants."""
    loads = {name: [r for r in rs if "expert_counts" in r] for name, rs in records.items()}
    loads = {name: rs for name, rs in loads.items() if rs}
    panels: list[Callable[[Any], None]] = []
    for (name, found), curve in zip(loads.items(), (losses, entropies, largest)):
        counts = np.array([r["expert_counts"] for r in found], dtype=float)  # (times, L, X)
        steps = [r["step"] for r in found]
        for i in range(counts.shape[1]):
            title = f"{name}: layer with experts {i + 1}"
            panels.append(partial(heat, steps=steps, counts=counts[:, i], title=title))
        panels.append(partial(curve, records=records))
    save_plot(png, *panels, size=(4 * len(panels) / 3, 8), rows=3)


def heat(axes: Any, *, steps: list[int], counts: np.ndarray, title: str) -> None:
    """The load of each expert over time, in units of the mean."""
    share = counts / counts.mean(axis=1, keepdims=True)
    edges = [0, *steps], np.arange(counts.shape[1] + 1)
    mesh = axes.pcolormesh(*edges, share.T, vmin=0, vmax=SHOWN, cmap="viridis")
    axes.figure.colorbar(mesh, ax=axes, label="load / mean", extend="max")
    axes.set(title=title, xlabel="step", ylabel="expert")
    axes.set_axisbelow(True)  # no grid above the colours


def losses(axes: Any, *, records: dict[str, list[dict]]) -> None:
    for name, found in records.items():
        points = [(r["step"], r["validation_loss"]) for r in found if "validation_loss" in r]
        axes.plot(*zip(*points), label=name)
    axes.set(title="validation loss", xlabel="step", ylabel="nats per token")
    axes.legend(fontsize=7)


def entropies(axes: Any, *, records: dict[str, list[dict]]) -> None:
    over_time(axes, records, "load_entropy", "entropy of the load (1: equal)")


def largest(axes: Any, *, records: dict[str, list[dict]]) -> None:
    over_time(axes, records, "load_max", "load of the busiest expert / mean")


def over_time(axes: Any, records: dict[str, list[dict]], field: str, title: str) -> None:
    """The mean over layers of what the log says of each step, in averages of some steps."""
    for name, found in records.items():
        values = [np.mean(r[field]) for r in found if field in r]
        if values:
            size = max(1, len(values) // 50)
            means = [np.mean(values[i : i + size]) for i in range(0, len(values), size)]
            axes.plot(np.arange(len(means)) * size + 1, means, label=name)
    axes.set(title=title, xlabel="step")
    axes.legend(fontsize=7)


# ---------------------------------------------------------------------------------------- all of it


def main() -> None:
    options = parser().options()
    if options.top_k > options.experts:
        most = f"at most --experts = {options.experts}"
        raise ValueError(f"--top-k: expected {most}, got {options.top_k}")
    out = unused(options.out)
    for variant in variants(options).values():  # refuses wrong options before any work
        configure(options, options.vocabulary, dense=variant.dense)
        plan(options, variant)
    training, validation = split_documents(default_corpus(), 0.05, options.seed)
    tokenizer = Tokenizer.train(training, options.vocabulary)
    data = [
        pack([[], *tokenizer.encode_batch(part)], tokenizer.eos_id, tokenizer.vocab_size)
        for part in (training, validation)
    ]
    data[1] = data[1][:HELD_OUT]
    tokens = f"{options.steps * options.batch * options.context:,}"
    print(f"Each trained on {tokens} tokens; load of {len(data[1]):,} held-out tokens:\n")
    print(f"{'':<13} {'parameters':>10}  {'active':>10}  {'loss':>8}  {'load entropy':>12}", end="")
    print(f"  {'max / mean':>10}  {'seconds':>7}")
    records = {}
    for name, variant in variants(options).items():
        config = configure(options, tokenizer.vocab_size, dense=variant.dense)
        settings = plan(options, variant)
        check_corpus(data[0], settings)
        model = tinyplm.create("deepseek_v3", config, key=options.seed)
        assert isinstance(model, RoutedModel)
        model.tokenizer = tokenizer
        folder, begin = out / name.replace(" ", "-"), time.perf_counter()
        state = train(model, *data, settings, out=folder, progress=False)
        if state.signal is not None:  # training ends in order, and nothing is to follow
            raise KeyboardInterrupt
        records[name] = list(read(folder / "log.jsonl"))
        loss = [r["validation_loss"] for r in records[name] if "validation_loss" in r][-1]
        counts = held_out_load(model, data[1], options.context)
        print(row(name, model, loss, counts, time.perf_counter() - begin), flush=True)
    print(
        "\nload entropy: 1 if all experts get as many tokens, mean over layers; max / mean: of the"
    )
    print("busiest expert, in the layer where it is largest\n")
    draw(records, out / "moe_balance.png")


def parser() -> Parser:
    parser = Parser(__doc__)
    option = parser.option
    option("--steps", 800, "Training steps of each.", whole(1))
    option("--batch", 8, "Sequences per step.", whole(1))
    option("--context", 64, "Tokens per sequence.", whole(2))
    option("--vocabulary", 1024, "Vocabulary size of the tokenizer.", whole(257))
    option("--layers", 3, "Layers, of which the lowest is dense.", whole(2))
    option("--width", 96, "Width of the model.", whole(8))
    option("--heads", 4, "Heads.", whole(1))
    option("--experts", 16, "Routed experts of a layer.", whole(2))
    option("--top-k", 2, "Routed experts that a token sees.", whole(1))
    option("--lr", 2e-3, "Peak learning rate.", number(above=0.0))
    rate = "Step of the bias update; DeepSeek-V3 took 0.001, over far more steps."
    option("--bias-rate", 0.005, rate, number(least=0.0))
    option("--balance", 0.01, "Weight of the balance loss.", number(least=0.0))
    run_options(parser, "out-moe-balance")
    return parser


if __name__ == "__main__":
    start(main)
