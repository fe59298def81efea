"""All families of decoders in one table, and each trained alike.

    python examples/family_tree.py                     # some minutes on two cores
    python examples/family_tree.py --steps 0           # only the table of what differs
    python examples/family_tree.py --families llama mistral gemma2

What differs is read off the code: the tree of shapes, the pieces that the walk is given, and how
the norm behaves.  Then each family is trained with about the same number of parameters (GPT-2's,
by the width of its feed-forward layers) on the same tokens of Python's documentation.  At this size
the losses say little about large models, but a mistake in a family would show.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import run_options, start

import tinyplm
from tinyplm.cli.decoders import TITLES, decoders, sized
from tinyplm.cli.folders import unused
from tinyplm.cli.output import save_plot
from tinyplm.cli.parser import Parser, one_of, whole
from tinyplm.core import flatten
from tinyplm.data.corpus import default_corpus, split_documents
from tinyplm.data.packing import pack
from tinyplm.hub.names import count_parameters
from tinyplm.layers.cache_size import numbers_per_token
from tinyplm.models.causal_model import CausalModel
from tinyplm.tokenizers import Tokenizer
from tinyplm.training.log import read
from tinyplm.training.loop import train
from tinyplm.training.settings import Settings

FAMILIES = decoders()
COLUMNS = ("norm", "positions", "attention", "feed-forward", "biases", "head", "published", "KV")
LAYERS, WIDTH, HEADS = 2, 64, 4


# ------------------------------------------------------------------------------------ what differs


def traits(module: Any) -> dict[str, str]:
    """What a family's code does, by column; published sizes with the bytes of keys and values that
    the smallest and the largest keep for each token, in float16."""
    config = sized(module, vocab_size=300, layers=2, width=8, heads=2, context=16)
    pieces, layer = module.pieces(config), module.shapes(config)["body"]["layers"][-1]
    sizes = sorted(module.SIZES.values(), key=lambda c: count_parameters(module.shapes(c)))
    counts = [shown(count_parameters(module.shapes(c))) for c in (sizes[0], sizes[-1])]
    cached = [shown(2 * numbers_per_token(**c.cache_sizes)) for c in (sizes[0], sizes[-1])]
    return {
        "norm": norm(pieces, layer),
        "positions": positions(module, config, pieces),
        "attention": attention(sizes[-1], pieces, layer, config),
        "feed-forward": feed_forward(sizes[-1], pieces, layer),
        "biases": biases(layer),
        "head": "tied" if "head" not in module.shapes(sizes[0]) else "own matrix",
        "published": " to ".join(dict.fromkeys(counts)),
        "KV": " to ".join(dict.fromkeys(cached)),
    }


def norm(pieces: Any, layer: dict) -> str:
    """Its kind, by what it does to shifted and to doubled rows, and where it stands."""
    x = np.random.default_rng(0).normal(size=(1, 8))
    first = next(layer[name] for name in ("norm1", "norm") if name in layer)
    names = first.get("before", first)
    p = {name: np.zeros(8) for name in names}
    offset = "1 + w " if pieces.norm(p, x)[0].any() else ""
    ones = {name: np.full(8, float(name == "gamma")) for name in names}
    shifted = np.allclose(pieces.norm(ones, x)[0], pieces.norm(ones, x + 3)[0], atol=1e-3)
    kind = "LayerNorm" if shifted else "RMSNorm"
    residual = getattr(pieces.residual, "keywords", {}).get("residual", pieces.residual)
    where = {"pre_norm": "before", "routed_block": "before", "post_norm": "after the sum",
             "after_norm": "after", "both_norms": "before and after",
             "parallel_block": "before, one a layer"}  # fmt: skip
    return f"{offset}{kind}, {where[residual.__name__]}"


def positions(module: Any, config: Any, pieces: Any) -> str:
    """Which keywords the piece `positions` gives to attention, and how much of a head turns."""
    given = pieces.positions(np.arange(4), keys=4, attention_mask=None, dtype="float64")(0, 4)
    if "offsets" in given:
        return "ALiBi"
    if "rotary" not in given:
        return "learned"
    width = getattr(config, "qk_rope_head_dim", config.head_width)
    x = np.random.default_rng(0).normal(size=(1, 1, 4, width))
    turned = (given["rotary"](x)[0] != x)[..., -1, :].mean()
    pairs = "interleaved " if given["rotary"].keywords["interleaved"] else ""
    return f"{pairs}RoPE" + ("" if turned == 1 else f" of {turned:.0%}")


def attention(published: Any, pieces: Any, layer: dict, config: Any) -> str:
    """Heads that share keys and values, windows, norms and caps."""
    kv = published.cache_sizes["kv_heads"]
    kinds = {published.heads: "multi-head", 1: "multi-query"}
    latent = "Wdkv" in layer["attention"]
    found = ["latent" if latent else kinds.get(kv, f"{published.heads // kv} queries a key")]
    windows = [pieces.window(i) is not None for i in range(2)]
    found += ["windows"] if all(windows) else ["windows in some layers"] if any(windows) else []
    found += ["QK norm"] if "k_norm" in layer["attention"] else []
    options = pieces.attention(0).keywords
    found += ["capped scores"] if options.get("cap") else []
    found += ["capped logits"] if config.logit_cap else []
    return ", ".join(found)


def feed_forward(published: Any, pieces: Any, layer: dict) -> str:
    """The activation, whether a second product gates it, and how many experts there are."""
    mlp, options = layer["mlp"], pieces.mlp(1).keywords
    routed = "router" in mlp
    name = (options["expert"].keywords if routed else options)["activation"].__name__
    gated = ", gated" if "Wgate" in mlp.get("experts", mlp) else ""
    experts = f", {published.top_k} of {published.experts} experts" if routed else ""
    return f"{name}{gated}{experts}" + (", one shared" if "shared" in mlp else "")


def biases(layer: dict) -> str:
    """Which linear layers have biases."""
    have = {path.split(".")[-1] for path in flatten(layer) if path.split(".")[-1][0] == "b"}
    names = sorted(n[1:] for n in have - {"beta", "before"})
    return "all" if {"q", "o"} < set(names) and len(names) > 4 else ", ".join(names) or "none"


def shown(count: float) -> str:
    """6738415616 as 6.7B."""
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.3g}{name}"
    return f"{count:.0f}"


def print_table(names: list[str]) -> None:
    rows = {TITLES.get(name, name): traits(FAMILIES[name]) for name in names}
    widths = {c: max(len(c), *(len(row[c]) for row in rows.values())) for c in COLUMNS}
    print(f"{'':<11} " + "  ".join(f"{c:<{widths[c]}}" for c in COLUMNS))
    for name, row in rows.items():
        print(f"{name:<11} " + "  ".join(f"{row[c]:<{widths[c]}}" for c in COLUMNS).rstrip())
    print("\npublished: parameters of the smallest and the largest size; KV: bytes of keys and")
    print("values for each token in float16, if all layers see all tokens\n")


# ----------------------------------------------------------------------------------- training alike


def alike(module: Any, vocabulary: int, context: int, target: int | None) -> Any:
    """A config with about `target` parameters, by the width of the feed-forward layers."""
    make = partial(sized, module, vocab_size=vocabulary, context=context)
    make = partial(make, layers=LAYERS, width=WIDTH, heads=HEADS)
    config = make()
    if target is None or not hasattr(config, "intermediate_size"):
        return config

    experts = "moe_intermediate_size"
    name = experts if hasattr(config, experts) else "intermediate_size"

    def off(width: int) -> int:
        return abs(count_parameters(module.shapes(make(**{name: width}))) - target)

    return make(**{name: min(range(4, 8 * WIDTH, 4), key=off)})


def trained(name: str, config: Any, data: tuple, options: Any, out: Path) -> tuple[Any, float]:
    """(the run's log of validation losses, seconds) of one family."""
    tokenizer, training, validation = data
    model = tinyplm.create(name, config, key=options.seed)
    model.tokenizer = tokenizer
    assert isinstance(model, CausalModel)
    settings = Settings(
        steps=options.steps,
        batch_size=8,
        sequence_length=options.context,
        learning_rate=2e-3,
        warmup=min(100, options.steps // 4),
        seed=options.seed,
        workers=options.workers,
        evaluate_every=max(1, options.steps // 8),
        save_every=options.steps,
    )
    begin = time.perf_counter()
    train(model, training, validation, settings, out=out, progress=False)
    losses = [
        (r["step"], r["validation_loss"]) for r in read(out / "log.jsonl") if "validation_loss" in r
    ]
    return losses, time.perf_counter() - begin


def main() -> None:
    options = parser().options()
    names = options.families or list(FAMILIES)
    print_table(names)
    if not options.steps:
        return
    out = unused(options.out)
    training, validation = split_documents(default_corpus(), 0.05, options.seed)
    tokenizer = Tokenizer.train(training, 512)
    parts = [
        pack([[], *tokenizer.encode_batch(p)], tokenizer.eos_id, tokenizer.vocab_size)
        for p in (training, validation)
    ]
    data = (tokenizer, parts[0], parts[1][:20_000])
    gpt2 = alike(FAMILIES["gpt2"], tokenizer.vocab_size, options.context, None)
    target = count_parameters(FAMILIES["gpt2"].shapes(gpt2))
    tokens = options.steps * 8 * options.context
    print(f"Each trained on {tokens:,} tokens, {LAYERS} layers of width {WIDTH}:\n")
    print(f"{'':<11} {'parameters':>10}  {'loss':>6}  {'seconds':>7}")
    curves = {}
    for name in names:
        config = alike(FAMILIES[name], tokenizer.vocab_size, options.context, target)
        losses, seconds = trained(name, config, data, options, out / name)
        curves[name], count = losses, count_parameters(FAMILIES[name].shapes(config))
        title = TITLES.get(name, name)
        print(f"{title:<11} {count:>10,}  {losses[-1][1]:>6.3f}  {seconds:>7.1f}", flush=True)

    def panel(axes: Any) -> None:
        for name, losses in curves.items():
            axes.plot(*zip(*losses), label=TITLES.get(name, name))
        axes.set(xlabel="step", ylabel="validation loss, nats per token")
        axes.legend(fontsize=7)

    print()
    save_plot(out / "family_tree.png", panel, size=(8, 5))


def parser() -> Parser:
    parser = Parser(__doc__)
    parser.option(
        "--families",
        [],
        f"Families: some of {', '.join(FAMILIES)}.",
        one_of(*FAMILIES),
        nargs="+",
        shown="all",
    )
    parser.option("--steps", 400, "Training steps of each; 0 prints only the table.", whole())
    parser.option("--context", 64, "Tokens per sequence.", whole(2))
    run_options(parser, "out-tree")
    return parser


if __name__ == "__main__":
    start(main)
