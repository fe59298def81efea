"""Pretrain a small GPT-2 or LLaMA on real text: from documents to samples, in one command.

    python examples/pretrain.py                                    # the default corpus, a few minutes on two cores
    python examples/pretrain.py --family llama --out llama         # the same with a LLaMA
    python examples/pretrain.py --text my-book.txt --out my-run    # your own text
    python examples/pretrain.py --out my-run --resume              # go on after an interruption

What happens, in order: the text is read and split by document; a byte-level BPE tokenizer is trained; the documents are packed
into one token array each for training and validation; the model is trained; and its loss stands in a table beside honest
baselines, measured on the same tokens.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import textwrap
import time
from pathlib import Path

import tinyplm
from tinyplm.backend import device
from tinyplm.data.corpus import deduplicate, default_corpus, read_texts, split_documents
from tinyplm.data.packing import open_tokens, pack, write_tokens
from tinyplm.evaluation.perplexity import baseline_rows, format_rows, row
from tinyplm.generation.generate import generate
from tinyplm.hub import make_config
from tinyplm.models import gpt2, llama
from tinyplm.tensor_files import read_json, write_json
from tinyplm.tokenizers import Tokenizer
from tinyplm.training.checkpoint import find, started
from tinyplm.training.log import plot
from tinyplm.training.loop import train
from tinyplm.training.settings import Settings
from tinyplm.training.step import evaluate

# name: (layers, width, heads).  The published sizes of the family may be given as well, by their names.
SIZES = {"tiny": (2, 64, 2), "small": (2, 256, 4), "medium": (6, 384, 6), "large": (8, 512, 8)}

FAMILIES = {"gpt2": gpt2, "llama": llama}
TITLES = {"gpt2": "GPT-2", "llama": "LLaMA"}

# May differ on resume: they do not change what is learned.
FREE = (
    "out",
    "device",
    "workers",
    "samples",
    "evaluate_every",
    "save_every",
    "save_minutes",
    "full_every",
    "patience",
    "min_improvement",
    "checkpointing",
)

# What a resume needs to know of the data.
FACTS = {"validation_bytes", "vocab_size"}


def prepare(options: dict, out: Path) -> dict:
    """Documents, tokenizer and token arrays, kept in `out`; returns what a resume needs to know of them."""
    start = time.perf_counter()
    documents = deduplicate(read_texts(options["text"])) if options["text"] else default_corpus()
    training, validation = split_documents(documents, options["validation"], options["seed"])
    size = sum(len(d.encode()) for d in documents)
    print(f"corpus     {len(documents)} documents, {size / 1e6:.2f} MB; {len(validation)} of them for validation only")
    tokenizer = Tokenizer.train(training, options["vocabulary"])
    tokenizer.save(out / "tokenizer.json")
    counts = {}
    for name, part in (("train", training), ("validation", validation)):
        # an end-of-text token goes before the first document too, so that no byte is left without a prediction
        tokens = pack([[], *tokenizer.encode_batch(part)], tokenizer.eos_id, tokenizer.vocab_size)
        write_tokens(out / f"{name}.npy", tokens)
        counts[name] = len(tokens)
    print(f"tokenizer  byte-level BPE, {tokenizer.vocab_size} entries, {size / sum(counts.values()):.2f} bytes a token")
    print(
        f"tokens     {counts['train']} to train on, {counts['validation']} to validate on ({time.perf_counter() - start:.0f} s)"
    )
    return {"validation_bytes": sum(len(d.encode()) for d in validation), "vocab_size": tokenizer.vocab_size}


def configure(options: dict, vocab_size: int) -> gpt2.Config | llama.Config:
    """The model's configuration."""
    family, size, context, dropout = (options[name] for name in ("family", "size", "context", "dropout"))
    end = 0  # the tokenizer's first entry is <|endoftext|>
    common: dict = {"vocab_size": vocab_size, "bos_token_id": end, "eos_token_id": end}
    if family == "gpt2":
        common |= {"n_positions": context, "resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
    else:
        common |= {"max_position_embeddings": context, "attention_dropout": dropout}
    if size in FAMILIES[family].SIZES:
        return make_config(FAMILIES[family], size, **common)
    layers, width, heads = SIZES[size]
    # 0.56 / sqrt(width) is GPT-2's own 0.02 at its width of 768; with 0.02 a narrow model takes far longer to start learning
    common["initializer_range"] = round(0.56 / width**0.5, 4)
    if family == "gpt2":
        return gpt2.Config(n_layer=layers, n_embd=width, n_head=heads, **common)
    # three matrices of 8/3 of the width have as many parameters as GPT-2's two of 4 times it
    return llama.Config(num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads,
                        intermediate_size=-(-8 * width // 3 // 16) * 16, tie_word_embeddings=True, **common)  # fmt: skip


def plan(options: dict) -> Settings:
    """The settings of the training loop."""
    steps, fifth = options["steps"], max(1, options["steps"] // 5)
    evaluate_every = fifth if options["evaluate_every"] is None else options["evaluate_every"]
    save_every = min(fifth, 500) if options["save_every"] is None else options["save_every"]
    return Settings(steps=steps, batch_size=options["batch"], sequence_length=options["context"],
                    learning_rate=options["lr"], warmup=max(0, min(options["warmup"], steps - 1)),
                    schedule=options["schedule"], weight_decay=options["decay"], seed=options["seed"],
                    micro_batch_size=options["micro_batch"], workers=options["workers"], checkpointing=options["checkpointing"],
                    evaluate_every=evaluate_every, save_every=save_every,
                    save_minutes=options["save_minutes"], full_every=options["full_every"],
                    patience=options["patience"], min_improvement=options["min_improvement"],
                    log_every=1 if options["device"] == "cpu" else 10)  # fmt: skip


def report(options: dict, out: Path, facts: dict) -> None:
    """The best checkpoint's loss beside the baselines, samples, and where everything is."""
    folder = find(out, "best")
    model = tinyplm.load(folder, device=options["device"])
    training, validation = open_tokens(out / "train.npy"), open_tokens(out / "validation.npy")
    context = options["context"]
    total, count = evaluate(model, validation, length=context, stride=max(1, context // 2), workers=options["workers"])
    rows = baseline_rows(training, validation, facts["vocab_size"], facts["validation_bytes"])
    rows.append(
        row(
            f"{TITLES[options['family']]}, {model.parameter_count() / 1e6:.2f}M parameters",
            total,
            count,
            facts["validation_bytes"],
        )
    )
    drawn = plot(out / "log.jsonl", out / "loss.png", baselines={r.name: r.nll for r in rows[1:-1]})
    print(f"\nValidation, {count} tokens, each with {context // 2} to {context} tokens of context:\n\n{format_rows(rows)}\n")
    end = model.tokenizer.eos_id  # ends a document, so it also begins one
    for i in range(options["samples"]):
        (sample,) = generate(model, [end], max_new_tokens=120, temperature=0.8, top_p=0.95, seed=options["seed"] + i,
                             stop_ids=[end])  # fmt: skip
        print(f"Sample {i + 1}:\n{textwrap.indent(sample.text, '    ')}\n")
    print(f"model      {folder} (the best step; transformers loads this folder)")
    print(f"log        {out / 'log.jsonl'}")
    print(f"loss plot  {out / 'loss.png'}" if drawn else "loss plot  not drawn: pip install 'tinyplm[plot]'")
    print(f"sample     python examples/generate.py {folder} --prompt 'Return the'")


def main() -> None:
    options, facts = arguments()
    out = Path(options["out"])
    settings = plan(options)  # whatever is wrong with the options is said before any work is done
    configure(options, options["vocabulary"])
    device(options["device"])
    if options["samples"] < 0:
        raise ValueError(f"--samples must be at least 0, got {options['samples']}")
    if facts is None:
        if started(out):
            raise ValueError(f"{out} holds a run already: add --resume to go on with it, or give another --out")
        out.mkdir(parents=True, exist_ok=True)
        (out / "run.json").unlink(missing_ok=True)  # of a run without checkpoints, whose data is replaced now
        facts = prepare(options, out)
        write_json(out / "run.json", {"options": options, "facts": facts})
    model = tinyplm.create(
        options["family"], configure(options, facts["vocab_size"]), key=options["seed"], device=options["device"]
    )
    model.tokenizer = Tokenizer.load(out / "tokenizer.json")
    print(f"model      {model}")
    tokens = open_tokens(out / "train.npy"), open_tokens(out / "validation.npy")
    resume = started(out)  # not yet, if it was killed before its first checkpoint
    if resume:
        print(f"resuming   from {find(out)}")
    state = train(model, *tokens, settings, out=out, resume=resume)
    print(f"trained    {state.step} steps, {state.tokens} tokens in {state.seconds:.0f} s")
    if state.signal is not None:
        name = signal.Signals(state.signal).name
        print(f"stopped    by {name} after step {state.step} of {settings.steps}; go on with: {resume_command(options)}")
        sys.exit(128 + state.signal)
    report(options, out, facts)


def resume_command(options: dict) -> str:
    """The command line that goes on with a run; what may differ on resume is kept as it is now."""
    kept = read_json(Path(options["out"]) / "run.json")["options"]
    changed = [f"--{n.replace('_', '-')}={v}" for n, v in options.items() if n in FREE and n != "out" and v != kept.get(n)]
    return shlex.join(["python", sys.argv[0], "--out", options["out"], "--resume", *changed])


def arguments() -> tuple[dict, dict | None]:
    """Options from the command line and None; with --resume those of the run, which it may not contradict, and its facts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], argument_default=argparse.SUPPRESS)
    defaults: dict = {}

    def option(name: str, default, help: str, **kwargs) -> None:
        defaults[name.removeprefix("--").replace("-", "_")] = default
        shown = "" if default in (None, []) else f" (default: {default})"
        parser.add_argument(name, help=help + shown, **{"type": type(default), **kwargs})

    option("--text", [], "your own UTF-8 text files instead of the default corpus", nargs="+", metavar="FILE", type=str)
    option("--family", "gpt2", "gpt2 or llama")
    option("--size", "small", f"{', '.join(SIZES)}, or a published size: {', '.join([*gpt2.SIZES, *llama.SIZES])}")
    option("--steps", 2500, "training steps")
    option("--batch", 8, "sequences a step")
    option("--checkpointing", 0, "to save memory, keep only the input of every so many layers and compute them again; 0 for not")
    option("--micro-batch", None, "sequences in memory at a time, if not all of them", type=int)
    option("--context", 64, "tokens a sequence")
    option("--vocabulary", 1024, "entries of the tokenizer")
    option("--lr", 1.5e-3, "peak learning rate")
    option("--schedule", "cosine", "cosine, linear, constant or stable-decay")
    option("--warmup", 150, "steps of warm-up")
    option("--decay", 0.1, "weight decay")
    option("--dropout", 0.0, "dropout rate")
    option("--validation", 0.05, "share of the text kept for validation")
    option("--seed", 0, "of everything that is random")
    option("--samples", 2, "texts sampled at the end")
    option("--evaluate-every", None, "steps between evaluations (default: a fifth of all)", type=int)
    option("--save-every", None, "steps between checkpoints (default: a fifth of all, at most 500)", type=int)
    option("--save-minutes", 5.0, "save also when this much time has gone by since the last checkpoint")
    option("--full-every", 1, "every how many checkpoints one is a full folder; those between hold what changed, which gains "
           "little unless most parameters are frozen")  # fmt: skip
    option("--patience", None, "stop after so many evaluations in a row without an improvement", type=int)
    option("--min-improvement", 0.0, "nats a token by which the validation loss has to fall to count as improved")
    option("--workers", min(2, os.cpu_count() or 1), "threads that share a batch")
    option("--device", "cpu", "cpu or gpu")
    option("--out", "out", "folder for everything that is made")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out, however it ended; workers, device "
                        "and how often is saved may differ")  # fmt: skip
    given = vars(parser.parse_args())
    resume = given.pop("resume", False)
    family = given.get("family", "gpt2")
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}; expected one of {', '.join(FAMILIES)}")
    sizes = [*SIZES, *(name for f in FAMILIES.values() for name in f.SIZES)] if resume else [*SIZES, *FAMILIES[family].SIZES]
    if given.get("size", "small") not in sizes:
        raise ValueError(f"unknown size {given['size']!r}; expected one of {', '.join(sizes)}")
    if not resume:
        return {**defaults, **given}, None
    file = Path(given.get("out", defaults["out"])) / "run.json"
    if not file.exists():
        raise ValueError(f"{file.parent}: nothing to resume, there is no run.json in it")
    run = read_json(file)
    options, facts = (run.get(name) if isinstance(run, dict) else None for name in ("options", "facts"))
    whole = isinstance(options, dict) and isinstance(facts, dict) and options.keys() == defaults.keys() and facts.keys() == FACTS
    if not whole:
        raise ValueError(f"{file}: expected the options and facts of a run of this version")
    changed = [f"--{n} was {options[n]!r}, now {v!r}" for n, v in given.items() if n not in FREE and v != options[n]]
    if changed:
        raise ValueError(f"cannot resume with another configuration: {'; '.join(changed)}")
    return {**options, **{n: v for n, v in given.items() if n in FREE}}, facts


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("\ninterrupted: the same command line with --resume goes on from the last checkpoint, if there is one",
              file=sys.stderr)  # fmt: skip
        sys.exit(128 + signal.SIGINT)
