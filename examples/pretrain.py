"""Pretrain a small GPT-2, or another decoder, on real text: from documents to samples.

    python examples/pretrain.py                                    # a few minutes on two cores
    python examples/pretrain.py --family llama --out llama         # the same with a LLaMA
    python examples/pretrain.py --family mixtral --out experts     # a mixture of experts
    python examples/pretrain.py --text my-book.txt --out my-run    # your own text
    python examples/pretrain.py --out my-run --resume              # continue an interrupted run

The steps: read the text and split it by document; train a byte-level BPE tokenizer; pack the
documents into one token array each for training and validation; train the model; compare its loss
with baselines measured on the same tokens.
"""

from __future__ import annotations

import dataclasses
import textwrap
import time
from pathlib import Path
from typing import Any

from common import (
    POSITIVE,
    RESUMABLE,
    SHARE,
    WORKERS,
    Parser,
    check_fresh,
    command,
    finish,
    number,
    one_of,
    resumed,
    show_files,
    start,
    text_option,
    usable,
    whole,
)
from decoders import TITLES, decoders, sized

import tinyplm
from tinyplm.arguments import check_choice, mismatch
from tinyplm.backend import device
from tinyplm.data.corpus import deduplicate, default_corpus, read_texts, split_documents
from tinyplm.data.packing import open_tokens, pack, write_tokens
from tinyplm.evaluation import baseline_rows, format_rows, row
from tinyplm.families import MULTI_TOKEN
from tinyplm.files import read_json, sole_writer, write_json
from tinyplm.generation import generate
from tinyplm.hub.folders import make_config
from tinyplm.models.routed import is_routed
from tinyplm.optim.schedule import SCHEDULES
from tinyplm.tokenizers import Tokenizer
from tinyplm.training.checkpoint import find, started
from tinyplm.training.expert_load import check_router_weights
from tinyplm.training.log import plot
from tinyplm.training.loop import train
from tinyplm.training.samples import check_corpus
from tinyplm.training.settings import OPTIMIZERS, Settings
from tinyplm.training.step import evaluate

# name: (layers, width, heads).  A family's published sizes are accepted by name, too.
SIZES = {"tiny": (2, 64, 2), "small": (2, 256, 4), "medium": (6, 384, 6), "large": (8, 512, 8)}

# Peak learning rates; Adafactor's is relative to the size of a parameter.
RATES = {"adamw": 1.5e-3, "adafactor": 3e-2}

FAMILIES = decoders()

# May change on resume: they do not affect what is learned.
FREE = (
    *("out", "device", "workers", "samples", "evaluate_every", "save_every", "save_minutes"),
    *("full_every", "patience", "min_improvement", "checkpointing"),
)

# What a resume needs to know of the data.
FACTS = {"validation_bytes", "vocab_size"}


def prepare(options: dict, out: Path) -> dict:
    """Write tokenizer and token arrays to `out`; returns the facts a resume needs."""
    begin = time.perf_counter()
    documents = deduplicate(read_texts(options["text"])) if options["text"] else default_corpus()
    # of a run without checkpoints, whose data is now replaced
    (out / "run.json").unlink(missing_ok=True)
    training, validation = split_documents(documents, options["validation"], options["seed"])
    size = sum(len(d.encode()) for d in documents)
    held_out = f"{len(validation)} of them for validation"
    print(f"corpus     {len(documents)} documents, {size / 1e6:.2f} MB; {held_out}")
    tokenizer = Tokenizer.train(training, options["vocabulary"])
    tokenizer.save(out / "tokenizer.json")
    counts = {}
    for name, part in (("train", training), ("validation", validation)):
        # an end-of-text token also precedes the first document, so that every byte is predicted
        tokens = pack([[], *tokenizer.encode_batch(part)], tokenizer.eos_id, tokenizer.vocab_size)
        write_tokens(out / f"{name}.npy", tokens)
        counts[name] = len(tokens)
    bytes_per_token = f"{size / sum(counts.values()):.2f} bytes per token"
    print(f"tokenizer  byte-level BPE, {tokenizer.vocab_size} entries, {bytes_per_token}")
    split = f"{counts['train']} for training, {counts['validation']} for validation"
    print(f"tokens     {split} ({time.perf_counter() - begin:.0f} s)")
    held_out = sum(len(d.encode()) for d in validation)
    return {"validation_bytes": held_out, "vocab_size": tokenizer.vocab_size}


def configure(options: dict, vocab_size: int) -> Any:
    """The model's configuration."""
    module, size, context = FAMILIES[options["family"]], options["size"], options["context"]
    layers, width, heads = SIZES.get(size, (1, 64, 1))
    later = {"num_nextn_predict_layers": options["multi_token"]} if options["multi_token"] else {}
    if later and not hasattr(module, "module_shapes"):
        expected = f"0, since {TITLES[options['family']]} has no modules for later tokens"
        raise mismatch("--multi-token", expected, options["multi_token"])
    small = sized(
        module,
        vocab_size=vocab_size,
        layers=layers,
        width=width,
        heads=heads,
        context=context,
        dropout=options["dropout"],
        **later,
    )
    if size in SIZES:
        return small
    # a published size, with the vocabulary, context and dropout of this run
    own = ("vocab_size", "n_positions", "max_position_embeddings", "seq_length")
    own += ("bos_token_id", "eos_token_id", "original_max_position_embeddings")
    fields = [f.name for f in dataclasses.fields(small)]
    kept = [n for n in fields if n in own or n.endswith(("_pdrop", "_dropout"))]
    return make_config(module, size, **{n: getattr(small, n) for n in kept}, **later)


def plan(options: dict) -> Settings:
    """The settings of the training loop."""
    steps, fifth = options["steps"], max(1, options["steps"] // 5)
    evaluate_every = fifth if options["evaluate_every"] is None else options["evaluate_every"]
    save_every = min(fifth, 500) if options["save_every"] is None else options["save_every"]
    later = options["multi_token_weight"]
    if later is not None and not options["multi_token"]:
        raise mismatch("--multi-token-weight", "none without --multi-token", later)
    names = ("steps", "optimizer", "schedule", "seed", "workers", "checkpointing", "save_minutes")
    names += ("full_every", "patience", "min_improvement", "balance", "z_loss", "bias_rate")
    settings = Settings(
        **{name: options[name] for name in names},
        batch_size=options["batch"],
        sequence_length=options["context"],
        learning_rate=options["lr"] or RATES[options["optimizer"]],
        multi_token=0.3 if later is None else later,
        warmup=max(0, min(options["warmup"], steps - 1)),
        weight_decay=options["decay"],
        micro_batch_size=options["micro_batch"],
        evaluate_every=evaluate_every,
        save_every=save_every,
        log_every=1 if options["device"] == "cpu" else 10,
    )
    check_router_weights(
        settings, is_routed(FAMILIES[options["family"]]), TITLES[options["family"]]
    )
    return settings


def report(options: dict, out: Path, facts: dict) -> None:
    """Print the best checkpoint's loss with the baselines, samples, and where the files are."""
    folder = find(out, "best")
    model = tinyplm.load(folder, device=options["device"])
    training, validation = open_tokens(out / "train.npy"), open_tokens(out / "validation.npy")
    context = options["context"]
    total, count = evaluate(
        model, validation, length=context, stride=max(1, context // 2), workers=options["workers"]
    )
    rows = baseline_rows(training, validation, facts["vocab_size"], facts["validation_bytes"])
    name = f"{TITLES[options['family']]}, {model.parameter_count() / 1e6:.2f}M parameters"
    rows.append(row(name, total, count, facts["validation_bytes"]))
    drawn = plot(out / "log.jsonl", out / "loss.png", baselines={r.name: r.nll for r in rows[1:-1]})
    print(
        f"\nValidation, {count} tokens, in windows that overlap by half: each token is\n"
        f"predicted from the {context // 2} to {context - 1} tokens before it (fewer at the "
        "beginning).\n\n"
        f"{format_rows(rows)}\n\nDuring training, and in the plot, windows do not overlap: each "
        "token is\n"
        f"predicted from the 0 to {context - 1} tokens before it.\n"
    )
    end = model.tokenizer.eos_id  # ends a document, and so starts one too
    settings = {"max_new_tokens": 120, "temperature": 0.8, "top_p": 0.95, "stop_ids": [end]}
    for i in range(options["samples"]):
        (sample,) = generate(model, [end], seed=options["seed"] + i, **settings)
        print(f"Sample {i + 1}:\n{textwrap.indent(sample.text, '    ')}\n")
    show_files(folder, out, drawn)
    print(f"sample     {command('generate.py', folder, '--prompt', 'Return the')}")


def main() -> None:
    options, facts = arguments()
    out = usable(options["out"])
    settings = plan(options)  # refuses wrong options before any work
    configure(options, options["vocabulary"])
    device(options["device"])
    with sole_writer(out):
        run(options, settings, out, facts)


def run(options: dict, settings: Settings, out: Path, facts: dict | None) -> None:
    """Prepare the data, or reuse what is there; train; report."""
    if facts is None:
        check_fresh(out)
        facts = prepare(options, out)
        write_json(out / "run.json", {"options": options, "facts": facts})
    tokens = open_tokens(out / "train.npy"), open_tokens(out / "validation.npy")
    check_corpus(tokens[0], settings)
    config = configure(options, facts["vocab_size"])
    places = {"key": options["seed"], "device": options["device"]}
    task = MULTI_TOKEN if options["multi_token"] else None
    model = tinyplm.create(options["family"], config, task=task, **places)
    model.tokenizer = Tokenizer.load(out / "tokenizer.json")
    print(f"model      {model}")
    resume = started(out)  # false if it was killed before its first checkpoint
    if resume:
        print(f"resuming   from {find(out)}")
    state = train(model, *tokens, settings, out=out, resume=resume)
    finish(state, resume_command(options), f" after step {state.step} of {settings.steps}")
    report(options, out, facts)


def resume_command(options: dict) -> str:
    """The command line that resumes a run with its current options."""
    kept = read_json(Path(options["out"]) / "run.json")["options"]
    free = {n: options[n] for n in options if n in FREE and n != "out"}
    changed = [f"--{n.replace('_', '-')}={v}" for n, v in free.items() if v != kept.get(n)]
    return command("pretrain.py", "--out", options["out"], "--resume", *changed)


def parser() -> Parser:
    parser = Parser(__doc__)
    option = parser.option
    text_option(parser)
    option("--family", "gpt2", f"Family: {', '.join(FAMILIES)}.", one_of(*FAMILIES))
    published = [name for module in FAMILIES.values() for name in module.SIZES]
    sizes = f"Size: {', '.join(SIZES)}; or a published size of the family, such as gpt2-medium."
    option("--size", "small", sizes, one_of(*SIZES, *published))
    option("--steps", 2500, "Training steps.", whole(1))
    option("--batch", 8, "Sequences per step.", whole(1))
    option(
        "--checkpointing",
        0,
        "Save memory by keeping only every N-th layer's input and recomputing the rest; 0 keeps "
        "all.",
        whole(),
    )
    option(
        "--micro-batch", None, "Sequences in memory at a time.", whole(1), shown="the whole step"
    )
    option("--context", 64, "Tokens per sequence.", whole(1))
    option("--vocabulary", 1024, "Vocabulary size of the tokenizer.", whole(257))
    optimizers = "Optimiser: adamw, or adafactor, whose state is small and whose learning rate is "
    optimizers += "relative to the size of a parameter."
    option("--optimizer", "adamw", optimizers, one_of(*OPTIMIZERS))
    rates = ", ".join(f"{rate} for {name}" for name, rate in RATES.items())
    option("--lr", None, "Peak learning rate.", POSITIVE, shown=rates)
    schedules = f"Learning-rate schedule: {', '.join(SCHEDULES)}."
    option("--schedule", "cosine", schedules, one_of(*SCHEDULES))
    option("--warmup", 150, "Warm-up steps.", whole())
    option("--decay", 0.1, "Weight decay.", number(least=0.0))
    option("--dropout", 0.0, "Dropout rate.", number(least=0.0, below=1.0))
    option(
        "--balance",
        None,
        "Weight of the balance loss of a family with experts.",
        number(least=0.0),
        shown="the family's own",
    )
    option("--z-loss", 0.0, "Weight of the routers' z-loss, likewise.", number(least=0.0))
    rate = (
        "Step of the biases that balance the experts of DeepSeek-V3, which has no need of a loss."
    )
    option("--bias-rate", 0.001, rate, number(least=0.0))
    later = "Modules that predict later tokens, too, and train with DeepSeek-V3; samples and the "
    later += "validation loss are of the model without them."
    option("--multi-token", 0, later, whole())
    weight = "Weight of their loss, the mean over the modules."
    option("--multi-token-weight", None, weight, number(least=0.0), shown="0.3")
    option("--validation", 0.05, "Share of the text held out for validation.", SHARE)
    option("--seed", 0, "Random seed.", whole())
    option("--samples", 2, "Number of texts sampled at the end.", whole())
    option(
        "--evaluate-every", None, "Evaluate every N steps.", whole(1), shown="a fifth of all steps"
    )
    option(
        "--save-every",
        None,
        "Save a checkpoint every N steps.",
        whole(1),
        shown="a fifth of all steps, at most 500",
    )
    option(
        "--save-minutes",
        5.0,
        "Also save this many minutes after the last checkpoint.",
        number(least=0.0),
    )
    option(
        "--full-every",
        1,
        "Make every N-th checkpoint full and the others incremental, which only pays off if most "
        "parameters are frozen.",
        whole(1),
    )
    option(
        "--patience",
        None,
        "Stop after N consecutive evaluations without improvement.",
        whole(1),
        shown="never",
    )
    option(
        "--min-improvement",
        0.0,
        "Decrease of the validation loss, in nats per token, that counts as an improvement.",
        number(least=0.0),
    )
    option("--workers", WORKERS, "Number of threads that share a batch.", whole(1))
    option("--device", "cpu", "Device: cpu or gpu.", one_of("cpu", "gpu"))
    option("--out", "out", "Output folder.", metavar="FOLDER")
    parser.flag(
        "--resume",
        "Resume the run in --out, however it ended; workers, device and save intervals may change.",
    )
    return parser


def arguments() -> tuple[dict, dict | None]:
    """(options, None), or with --resume the run's own options and facts, checked against these."""
    reader = parser()
    given = reader.given()
    if given.pop("resume", False):
        return resumed(reader, given, FREE, FACTS)
    options = {**reader.defaults, **given}
    del options["resume"]
    check_choice("--size", options["size"], [*SIZES, *FAMILIES[options["family"]].SIZES])
    return options, None


if __name__ == "__main__":
    start(main, RESUMABLE)
