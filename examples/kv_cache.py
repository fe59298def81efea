"""What decoders keep of earlier tokens: the bytes of their caches, predicted and held, and speed.

    python examples/kv_cache.py                                    # a minute on two cores
    python examples/kv_cache.py --width 1024 --heads 16 --context 8192 --window 1024

Five models of one width, depth and context differ in attention alone: keys and values of each head,
of groups of heads, of one head for all; of the last tokens only; or one small vector for all heads.
Each has a cache with room for the context.  Its bytes are computed from the config before anything
is allocated, and compared with what the model then holds: they must be equal.  Then the cache is
filled, and the last tokens are decoded one at a time.

Of published models, the bytes are computed from their configs alone.
"""

from __future__ import annotations

import argparse
import time
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from common import start

import tinyplm
from tinyplm.cli.folders import unused
from tinyplm.cli.output import save_plot
from tinyplm.cli.parser import Parser, whole
from tinyplm.families import deepseek_v2, deepseek_v3, gemma3_text, llama, mistral, qwen3_moe
from tinyplm.layers.cache_size import cache_bytes, numbers_per_token
from tinyplm.models.causal_lm import cache_layout
from tinyplm.models.causal_model import CausalModel

VOCABULARY = 1000
PUBLISHED = {
    "llama-7b": llama,
    "llama-2-70b": llama,
    "mistral-7b-v0.1": mistral,
    "gemma-3-27b": gemma3_text,
    "qwen3-235b-a22b": qwen3_moe,
    "deepseek-v3": deepseek_v3,
}
LONG = 32768


class Kind(NamedTuple):
    """One kind of attention: a family, and its config."""

    title: str
    family: ModuleType
    config: Any

    def bytes(self, capacity: int) -> int:
        """Of a cache with room for so many tokens of one text, in float32: from the config."""
        layout = cache_layout(self.family, self.config)
        return cache_bytes(**layout, batch=1, capacity=capacity, dtype="float32")


def kinds(options: argparse.Namespace) -> list[Kind]:
    """The five, each with the same width, depth and feed-forward layers."""
    D, H, E = options.width, options.heads, options.width // options.heads
    common = {
        "vocab_size": VOCABULARY,
        "hidden_size": D,
        "intermediate_size": 4 * D,
        "num_hidden_layers": options.layers,
        "num_attention_heads": H,
        "max_position_embeddings": options.context,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    groups = next(n for n in (4, 2, 1) if H % n == 0)

    def shared(kv_heads: int) -> Any:
        return llama.Config(**common, num_key_value_heads=kv_heads)

    # As in DeepSeek-V3, c is four heads wide and the rotary key half a head.  No layer has experts.
    latent = {
        "kv_lora_rank": 4 * E,
        "q_lora_rank": None,
        "qk_nope_head_dim": E,
        "qk_rope_head_dim": -(-E // 4) * 2,
        "v_head_dim": E,
        "first_k_dense_replace": options.layers,
    }
    window = {"num_key_value_heads": H, "sliding_window": options.window}
    return [
        Kind("multi-head", llama, shared(H)),
        Kind(f"{groups} heads a key", llama, shared(H // groups)),
        Kind("multi-query", llama, shared(1)),
        Kind(f"window of {options.window}", mistral, mistral.Config(**common, **window)),
        Kind("latent", deepseek_v2, deepseek_v2.Config(**common, **latent)),
    ]


def decoded(kind: Kind, options: argparse.Namespace) -> tuple[int, float]:
    """(bytes that the cache holds, tokens a second at the end of the context)."""
    created = tinyplm.create(kind.config.MODEL_TYPE, kind.config, key=options.seed)
    assert isinstance(created, CausalModel)
    model = created.for_decoding()
    ids = np.random.default_rng(options.seed).integers(0, VOCABULARY, (1, options.context))
    cache = model.empty_cache(1, options.context)
    held, first = cache.nbytes, options.context - options.tokens
    cache = model(ids[:, :first], cache=cache, grad=False)[0]["cache"]
    begin = time.perf_counter()
    for t in range(first, options.context):
        cache = model(ids[:, t : t + 1], cache=cache, grad=False)[0]["cache"]
    seconds = time.perf_counter() - begin
    if cache.nbytes != held:
        raise ValueError(f"{kind.title}: expected a cache of {held:,} bytes, got {cache.nbytes:,}")
    return held, options.tokens / seconds


def measure(options: argparse.Namespace) -> tuple[list[Kind], list[float]]:
    """Print the table; the kinds, and the speed of each."""
    rows, speeds = kinds(options), []
    print(
        f"{options.layers} layers of width {options.width}, {options.heads} heads, one text of",
        end=" ",
    )
    print(f"{options.context:,} tokens, float32.\nBytes of the cache:\n")
    print(f"{'':<16} {'a token':>9}  {'predicted':>12}  {'held':>12}  {'of most':>7}  tokens/s")
    most = rows[0].bytes(options.context)
    for kind in rows:
        each = 4 * numbers_per_token(**kind.config.cache_sizes)
        predicted = kind.bytes(options.context)
        held, speed = decoded(kind, options)
        line = f"{kind.title:<16} {each:>9,}  {predicted:>12,}  {held:>12,}"
        print(f"{line}  {predicted / most:>7.1%}  {speed:>8.1f}", flush=True)
        if held != predicted:
            raise ValueError(f"{kind.title}: expected {predicted:,} bytes, got {held:,}")
        speeds.append(speed)
    print(f"\nPredicted and held are equal in all {len(rows)} rows.\n")
    return rows, speeds


def print_published() -> None:
    print(f"Of published models, from their configs, one text of {LONG:,} tokens in float16:\n")
    print(f"{'':<16} {'a token':>9}  {'in all':>9}")
    for size, family in PUBLISHED.items():
        config = family.SIZES[size]
        each = 2 * numbers_per_token(**config.cache_sizes)
        layout = cache_layout(family, config)
        total = cache_bytes(**layout, batch=1, capacity=LONG, dtype="float16")
        print(f"{size:<16} {each:>9,}  {total / 2**30:>5.2f} GiB")
    print()


def main() -> None:
    options = parser().options()
    check_options(options)
    out = unused(options.out)
    rows, speeds = measure(options)
    print_published()
    lengths = np.unique(np.linspace(1, options.context, 100).astype(int))

    def growth(axes: Any) -> None:
        for kind in rows:
            held = [kind.bytes(int(n)) / 2**20 for n in lengths]
            axes.plot(lengths, held, label=kind.title)
        axes.set(xlabel="tokens", ylabel="cache, MiB", title="room for a text of so many tokens")
        axes.legend(fontsize=8)

    def speed(axes: Any) -> None:
        axes.barh([kind.title for kind in rows], speeds)
        axes.invert_yaxis()
        axes.set(xlabel="tokens a second", title=f"decoding after {options.context:,} tokens")

    save_plot(out / "kv_cache.png", growth, speed)


def check_options(options: argparse.Namespace) -> None:
    """ValueError naming the first option that does not fit the others."""
    if options.width % (pairs := 2 * options.heads):
        expected = f"a multiple of {pairs}, for {options.heads} heads of pairs"
        raise ValueError(f"--width: expected {expected}, got {options.width}")
    if options.tokens >= options.context:
        raise ValueError(f"--tokens: expected fewer than --context, got {options.tokens}")


def parser() -> Parser:
    parser = Parser(__doc__)
    parser.option("--layers", 4, "Number of layers.", whole(1))
    parser.option("--width", 512, "Model width.", whole(1))
    parser.option("--heads", 8, "Number of heads.", whole(1))
    parser.option("--context", 2048, "Tokens of the text.", whole(2))
    parser.option("--window", 256, "Keys that a query sees in the model with windows.", whole(1))
    parser.option("--tokens", 32, "Tokens at the end that are decoded and timed.", whole(1))
    parser.option("--seed", 0, "Random seed.", whole())
    parser.option("--out", "out-kv-cache", "Output folder, new or empty.", metavar="FOLDER")
    return parser


if __name__ == "__main__":
    start(main)
