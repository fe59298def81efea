"""Speculative decoding: a small draft proposes tokens, a larger target checks several in one pass.

    python examples/speculative.py                     # a few minutes on two cores
    python examples/speculative.py --temperature 0     # greedy
    python examples/speculative.py --target FOLDER --draft FOLDER --lengths 2 4

A target and a draft are trained on Python's documentation, or loaded from folders.  Then the target
continues held-out texts, each alone: plainly, and with the draft for several draft lengths g.  The
texts follow the target's distribution in all cases, at temperature 0 they are the same; what
changes is the time.  The table has, for each g,

    accepted   the share a of the proposals that were checked and accepted
    per pass   tokens for each pass of the target; expected: (1 - a^(g+1)) / (1 - a), Leviathan et
               al. 2023, eq. 1, if each proposal is accepted with probability a by itself
    speed      tokens per second; speed-up over plain decoding; expected: tokens per pass over
               g c + 1 (theorem 3.8), where a pass of the draft costs c passes of the target, and
               one that checks g + 1 tokens costs as much as one for a single token
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import check_widths, run_options, start

import tinyplm
from tinyplm.cli.decoders import small_llama
from tinyplm.cli.folders import unused
from tinyplm.cli.output import save_plot, tinyplm_command
from tinyplm.cli.parser import Parser, number, whole
from tinyplm.data.corpus import default_corpus, split_documents
from tinyplm.data.packing import pack
from tinyplm.generation import DraftStatistics, expected_tokens
from tinyplm.hub.runs import model_folder
from tinyplm.tokenizers import Tokenizer
from tinyplm.training.loop import train
from tinyplm.training.settings import Settings

CONTEXT, PROMPT = 128, 16  # tokens


def trained(
    name: str, tokenizer: Tokenizer, texts: dict[str, np.ndarray], options: argparse.Namespace
) -> tinyplm.Model:
    """The target or the draft, trained on the texts and saved in the output folder."""
    layers, width, steps = (getattr(options, f"{name}_{n}") for n in ("layers", "width", "steps"))
    sizes = {"layers": layers, "width": width, "context": CONTEXT}
    model = small_llama(tokenizer, key=options.seed, **sizes)
    print(f"{name:<10} train {model} for {steps} steps")
    settings = Settings(
        steps=steps,
        batch_size=16,
        sequence_length=CONTEXT,
        learning_rate=2e-3,
        warmup=min(50, steps // 4),
        seed=options.seed,
        workers=options.workers,
        evaluate_every=steps,
        save_every=steps,
    )
    out = Path(options.out) / name
    state = train(model, texts["training"], texts["validation"][:20_000], settings, out=out)
    if state.signal is not None:  # training ends in order, and nothing is to follow
        raise KeyboardInterrupt
    print(f"{name:<10} trained in {state.seconds:.0f} s")
    return model


def models(options: argparse.Namespace) -> tuple[tinyplm.Model, tinyplm.Model, list[str]]:
    """(target, draft, held-out texts)."""
    training, held_out = split_documents(default_corpus(), 0.02, options.seed)
    if options.target is not None:
        folders = [model_folder(folder) for folder in (options.target, options.draft)]
        target, draft = (tinyplm.load(folder, dtype="float32") for folder in folders)
        return target, draft, held_out
    tokenizer = Tokenizer.train(training[::8], 600)
    end, size = tokenizer.eos_id, tokenizer.vocab_size
    parts = {"training": training, "validation": held_out}
    texts = {n: pack([[], *tokenizer.encode_batch(part)], end, size) for n, part in parts.items()}
    target, draft = (trained(name, tokenizer, texts, options) for name in ("target", "draft"))
    return target, draft, held_out


def measured(
    model: tinyplm.Model, prompts: list[list[int]], options: argparse.Namespace, **drafting: Any
) -> tuple[float, DraftStatistics]:
    """(seconds a token, of the fastest of some repetitions; what was accepted)."""
    seconds = []
    for _ in range(options.repeats):
        statistics, begin = DraftStatistics(), time.perf_counter()
        for n, prompt in enumerate(prompts):
            tinyplm.generate(
                model,
                prompt,
                max_new_tokens=options.tokens,
                temperature=options.temperature,
                stop_ids=(),
                seed=options.seed,
                first_prompt=n,
                statistics=statistics,
                **drafting,
            )
        seconds.append(time.perf_counter() - begin)
    return min(seconds) / (len(prompts) * options.tokens), statistics


def main() -> None:
    options = parser().options()
    check_widths(options, "target_width", "draft_width")
    if (options.target is None) != (options.draft is None):
        raise ValueError("--target: expected together with --draft, got one of them")
    out = unused(options.out)
    target, draft, held_out = models(options)
    tokenizer = target.text_tokenizer()
    encoded = [tokenizer.encode(text[: 40 * PROMPT])[:PROMPT] for text in held_out]
    prompts = [ids for ids in encoded if len(ids) == PROMPT][: options.texts]
    # refuses a draft that does not fit; the models below have no tokenizers to compare
    tinyplm.generate(target, prompts[0], max_new_tokens=1, draft=draft)
    # without texts, which for a small model cost more than its tokens
    quick, small = (model.for_decoding()._with(tokenizer=None) for model in (target, draft))
    options.vocabulary = tokenizer.vocab_size
    plain, _ = measured(quick, prompts, options)
    cost = measured(small, prompts, options)[0] / plain
    counts = [f"{model.parameter_count():,}" for model in (target, draft)]
    print(f"\ntarget {counts[0]} parameters, draft {counts[1]}; a pass of the draft costs")
    print(
        f"{cost:.2f} passes of the target; {len(prompts)} texts of {options.tokens} tokens each\n"
    )
    print(f"{'':<8}{'accepted':>9}{'per pass':>10}{'expected':>10}", end="")
    print(f"{'tokens/s':>11}{'speed-up':>10}{'expected':>10}")
    print(f"{'plain':<8}{'':>9}{1:>10.2f}{'':>10}{1 / plain:>11.0f}{1:>10.2f}")
    rows = []
    for g in options.lengths:
        seconds, found = measured(quick, prompts, options, draft=small, draft_length=g)
        rate = found.acceptance_rate
        tokens = expected_tokens(rate, g)
        rows.append((g, found.tokens_per_pass, tokens, plain / seconds, tokens / (g * cost + 1)))
        print(f"{f'g = {g}':<8}{rate:>9.1%}{rows[-1][1]:>10.2f}{tokens:>10.2f}", end="")
        print(f"{1 / seconds:>11.0f}{rows[-1][3]:>10.2f}{rows[-1][4]:>10.2f}")
    best = max(rows, key=lambda row: row[3])
    print(f"\nfastest: g = {best[0]}, {best[3]:.2f} times as fast as plain decoding here")
    if options.target is None:
        folders = ("--model", out / "target", "--draft", out / "draft")
        line = tinyplm_command("generate", *folders)
        print(f"try     {line}")

    def panel(axes: Any, columns: tuple[int, int], label: str) -> None:
        for column, style, name in zip(columns, ("o-", "s--"), ("measured", "expected")):
            axes.plot([row[0] for row in rows], [row[column] for row in rows], style, label=name)
        axes.axhline(1, ls=":", lw=1, color="gray", label="plain decoding")
        axes.set(xlabel="draft length", ylabel=label)
        axes.legend()

    save_plot(
        out / "speculative.png",
        lambda axes: panel(axes, (1, 2), "tokens per pass of the target"),
        lambda axes: panel(axes, (3, 4), "speed-up"),
    )


def parser() -> Parser:
    parser = Parser(__doc__)
    option = parser.option
    folder = {"metavar": "FOLDER", "shown": "train one"}
    option("--target", None, "Folder of the target; needs --draft.", **folder)
    option("--draft", None, "Folder of the draft; needs --target.", **folder)
    option("--target-layers", 4, "Layers of the target.", whole(1))
    option("--target-width", 192, "Width of the target, a multiple of 8.", whole(8))
    option("--target-steps", 300, "Training steps of the target.", whole(1))
    option("--draft-layers", 1, "Layers of the draft.", whole(1))
    option("--draft-width", 64, "Width of the draft, a multiple of 8.", whole(8))
    option("--draft-steps", 400, "Training steps of the draft.", whole(1))
    option("--lengths", [1, 2, 3, 4, 6, 8], "Draft lengths to compare.", whole(1), nargs="+")
    option("--temperature", 1.0, "Sampling temperature; 0 is greedy.", number(least=0.0))
    option("--texts", 8, "Number of texts to continue.", whole(1))
    option("--tokens", 96, "Tokens to add to each.", whole(2, CONTEXT - PROMPT))
    option("--repeats", 3, "How often each is timed; the fastest counts.", whole(1))
    run_options(parser, "out-speculative")
    return parser


if __name__ == "__main__":
    start(main)
