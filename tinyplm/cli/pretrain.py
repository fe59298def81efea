"""Pretrain a decoder on text, or continue to train a given one: from documents to samples.

    tinyplm pretrain                                          # a small GPT-2, in a few minutes
    tinyplm pretrain --model llama --out llama                # another family
    tinyplm pretrain --text my-book.txt --out my-run          # your own text
    tinyplm pretrain --model gpt2-folder --text my-book.txt   # a given model, with its tokenizer
    tinyplm pretrain --preset auto --hours 2                  # settings for this machine
    tinyplm pretrain --out my-run --resume                    # an interrupted run
    tinyplm pretrain --out my-run --resume --steps 4000 --extend stretch     # a longer one

A new model gets a byte-level BPE tokenizer trained on the text.  The documents become one array of
tokens each for training and validation; the loss is compared with baselines measured on the same
tokens.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import hub, scaling
from ..arguments import mismatch
from ..backend import device as check_device
from ..data.packing import open_tokens
from ..evaluation import baseline_rows, format_rows, row
from ..families import MULTI_TOKEN
from ..files import read_json, replaced
from ..generation import generate
from ..models.model import Model, check_decoder
from ..models.routed import is_routed
from ..optim.schedule import SCHEDULES
from ..tokenizers import Tokenizer
from ..training import incremental
from ..training.checkpoint import find, started
from ..training.expert_load import check_router_weights
from ..training.folders import check_intact
from ..training.log import plot
from ..training.loop import train
from ..training.presets import SIZES, learning_rate_of
from ..training.samples import check_corpus
from ..training.settings import EXTEND, OPTIMIZERS, Settings
from ..training.step import evaluate
from .corpus import check_end, corpus_options, prepare, read_documents
from .decoders import TITLES, decoders
from .folders import FREE, check_ready, device_options, run_folder, run_options, stopped
from .models import (
    Named,
    check_tokenizer_fits,
    model_option,
    named,
    open_model,
    read_config,
)
from .output import show_run, tinyplm_command
from .parser import POSITIVE, Parser, number, one_of, whole
from .preset import apply_preset, check_preset, preset_options
from .sampling import beginnings
from .settings import RUN, write_run
from .sizes import SHAPE, configure, shape

COMMAND, WEIGHT = "pretrain", Settings.multi_token
FACTS = {"validation_bytes", "vocab_size"}  # what a resume needs to know of the data
# the defaults of a new model, and of one to continue
CONTEXTS = (128, 256)
RATES = {"adamw": (4e-3, 1e-4), "adafactor": (3e-2, 2e-3)}  # peaks
WIDTH = 128  # up to here AdamW's peak is that of RATES, beyond in proportion to 1 / width
VOCABULARY, LEAST, BYTES_PER_TOKEN = 4096, 512, 400  # of a tokenizer, and bytes of text for each


def run(options: argparse.Namespace) -> int:
    source = checked(options)
    if options.facts and options.facts.keys() != FACTS:
        raise mismatch(f"{options.out}/run.json: facts", ", ".join(FACTS), list(options.facts))
    settings = plan(options, source)
    check_device(options.device)
    check_ready(options)
    model = None
    if source.folder is not None and not started(Path(options.out)):
        model = open_model(options.model, options)
        check_given(model)
    documents = None if options.facts else read_documents(options.text)
    with run_folder(COMMAND, options) as out:
        facts = options.facts or corpus(options, out, model, documents or [])
        del documents  # they may be large
        return pretrain(options, source, settings, out, model, facts)


def pretrain(
    options: argparse.Namespace,
    source: Named,
    settings: Settings,
    out: Path,
    model: Model | None,
    facts: dict[str, Any],
) -> int:
    """Train on the tokens in `out`, from its checkpoint if there is one; report."""
    fresh = not options.facts
    again, task = started(out), MULTI_TOKEN if options.multi_token else None
    if again:
        folder = find(out)
        check_intact(str(folder), folder, hint=True)
        print(f"resuming   from {folder}")
        model = hub.load(incremental.full_folder(folder), task=task, device=options.device)
    tokens = open_tokens(out / "train.npy"), open_tokens(out / "validation.npy")
    if options.preset and fresh:
        size = facts["vocab_size"]
        apply_preset(options, source, settings, len(tokens[0]), size, task)
        settings = plan(options, source)
        write_run(out, COMMAND, options, facts)
    check_corpus(tokens[0], settings)
    if model is None:
        config = configure(options, source, facts["vocab_size"])
        places = {"key": options.seed, "device": options.device, "dtype": options.dtype}
        model = hub.create(config.MODEL_TYPE, config, task=task, **places)
        model.tokenizer = Tokenizer.load(out / "tokenizer.json")
    print(f"model      {model}")
    with extended(options, out, facts):
        how: dict[str, Any] = {"extend": options.extend if again else None, "writers": options.log}
        state = train(model, *tokens, settings, out=out, resume=again, **how)
    print(f"trained    {state.step} steps, {state.tokens} tokens in {state.seconds:.0f} s")
    if state.signal is not None:
        where = f" after step {state.step} of {settings.steps}"
        return stopped(COMMAND, options, state.signal, where)
    report(options, out, facts)
    return 0


@contextmanager
def extended(options: argparse.Namespace, out: Path, facts: dict[str, Any]) -> Iterator[None]:
    """Within the block run.json has the number of steps to which a run is extended."""
    if not any(line.startswith("--steps") for line in options.changes):
        yield
        return
    before = (out / RUN).read_bytes()
    write_run(out, COMMAND, options, facts)
    try:
        yield
    except ValueError as error:  # refused
        with replaced(out / RUN) as temporary:
            temporary.write_bytes(before)
        option = "--" if str(error).startswith("extend:") else ""
        raise ValueError(f"{option}{error}") from None


def checked(options: argparse.Namespace) -> Named:
    """What --model stands for; sets the defaults that depend on it.

    ValueError for options that contradict it.
    """
    source = named(options.model)
    check_preset(options, source)
    given, new = options.given, {"size", *SHAPE, "vocabulary", "dropout", "multi_token"}
    if source.folder is not None and (extra := sorted(given & new)):
        option = f"--{extra[0].replace('_', '-')}"
        raise mismatch(option, f"none, since {options.model} has its own", "one")
    if source.size is not None and (extra := sorted(given & {"size", *SHAPE})):
        got = getattr(options, extra[0])
        raise mismatch(f"--{extra[0]}", f"none, since {options.model} is a size", got)
    if source.family is not None and source.family.Config.MODEL_TYPE not in decoders():
        raise mismatch("--model", f"a decoder: {', '.join(decoders())}", options.model)
    continued = source.folder is not None
    if options.extend is not None and options.facts is None:
        raise mismatch("--extend", "none without --resume", options.extend)
    if options.facts is not None:
        least = read_json(Path(options.out) / RUN)["options"]["steps"]
        if options.steps < least:
            raise mismatch("--steps", f"at least {least}, as in the run", options.steps)
        if options.steps > least and "extend" not in options.given:
            options.extend = None  # that in run.json is of an earlier extension
    context = CONTEXTS[continued]
    if options.lr is None:
        options.lr = peak_rate(options, source)
    weight = options.multi_token_weight
    if weight is not None and not options.multi_token:
        raise mismatch("--multi-token-weight", "none without --multi-token", weight)
    if options.context is None:
        options.context = context
        if source.folder is not None:
            own = read_config(source.folder).context
            options.context = context if own is None else min(context, own)
    if source.family is not None:
        configure(options, source, options.vocabulary or VOCABULARY)
    return source


def peak_rate(options: argparse.Namespace, source: Named) -> float:
    """The default of --lr: at a rate in proportion to 1 / width AdamW changes what a layer computes
    by as much at any width (Yang et al. 2022, table 3); of a published size Kaplan's rule."""
    rate = RATES[options.optimizer][source.folder is not None]
    if source.family is None or options.optimizer != "adamw":
        return rate
    if source.size is not None:
        counts = scaling.parameters(source.family, source.family.SIZES[source.size])
        return learning_rate_of(sum(counts.values()))
    return rate * min(1.0, WIDTH / shape(options)[1])


def vocabulary(options: argparse.Namespace, documents: list[str]) -> int:
    """The size of a new tokenizer."""
    if options.vocabulary is not None:
        return int(options.vocabulary)
    size = sum(len(document.encode("utf-8", "replace")) for document in documents)
    return min(VOCABULARY, max(LEAST, size // BYTES_PER_TOKEN))


def check_given(model: Model) -> None:
    """ValueError unless the model predicts the next token and has a tokenizer that fits."""
    check_decoder("--model", model)
    check_tokenizer_fits("--model", model)
    check_end("--model", model.text_tokenizer())


def corpus(
    options: argparse.Namespace, out: Path, model: Model | None, documents: list[str]
) -> dict[str, Any]:
    """Prepare the tokens of a new run; returns its facts."""

    def tokenizer_of(documents: list[str]) -> Tokenizer:
        if model is None:
            return Tokenizer.train(documents, vocabulary(options, documents))
        return model.text_tokenizer()

    facts = prepare(documents, options.validation, options.seed, out, tokenizer_of)
    if not options.preset:  # which has something to add
        write_run(out, COMMAND, options, facts)
    return facts


def plan(options: argparse.Namespace, source: Named) -> Settings:
    """The settings of the training loop."""
    steps, fifth = options.steps, max(1, options.steps // 5)
    if not options.facts:  # a run that is extended keeps its warm-up
        most = steps - 1 if "warmup" in options.given or options.preset else steps // 10
        options.warmup = max(0, min(options.warmup, most))
    evaluate_every = fifth if options.evaluate_every is None else options.evaluate_every
    save_every = min(fifth, 500) if options.save_every is None else options.save_every
    names = ["steps", "optimizer", "schedule", "seed", "workers", "checkpointing", "save_minutes"]
    names += ("full_every", "patience", "min_improvement", "balance", "z_loss", "bias_rate")
    settings = Settings(
        **{name: getattr(options, name) for name in names},
        batch_size=options.batch,
        sequence_length=options.context,
        learning_rate=options.lr,
        multi_token=WEIGHT if options.multi_token_weight is None else options.multi_token_weight,
        warmup=options.warmup,
        weight_decay=options.decay,
        micro_batch_size=options.micro_batch,
        evaluate_every=evaluate_every,
        save_every=save_every,
        log_every=1 if options.device == "cpu" else 10,
    )
    if source.family is not None:
        title = TITLES[source.family.Config.MODEL_TYPE]
        check_router_weights(settings, is_routed(source.family), title)
    return settings


def report(options: argparse.Namespace, out: Path, facts: dict[str, Any]) -> None:
    """Print the best checkpoint's loss with the baselines, samples, and where the files are."""
    folder = find(out, "best")
    model = hub.load(folder, device=options.device)
    training, validation = open_tokens(out / "train.npy"), open_tokens(out / "validation.npy")
    context = options.context
    total, count = evaluate(
        model, validation, length=context, stride=max(1, context // 2), workers=options.workers
    )
    rows = baseline_rows(training, validation, facts["vocab_size"], facts["validation_bytes"])
    name = f"{TITLES[model.config.MODEL_TYPE]}, {model.parameter_count() / 1e6:.2f}M parameters"
    rows.append(row(name, total, count, facts["validation_bytes"]))
    lines = {r.name: r.nll for r in rows[1:-1]}
    protocol = "windows do not overlap"
    drawn = plot(out / "log.jsonl", out / "loss.png", baselines=lines, protocol=protocol)
    print(
        f"\nValidation, {count} tokens, in windows that overlap by half: each token is\n"
        f"predicted from the {context // 2} to {context - 1} tokens before it (fewer at the "
        "beginning).\n\n"
        f"{format_rows(rows)}\n\nDuring training, and in the plot, windows do not overlap: each "
        "token is\n"
        f"predicted from the 0 to {context - 1} tokens before it.\n"
    )
    tokenizer = model.text_tokenizer()
    settings: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95, "stop_ids": [tokenizer.eos_id]}
    prompts = beginnings(validation, tokenizer, options.samples, context // 2)
    if prompts:
        print("Samples at temperature 0.8, top-p 0.95; >the first words of a held-out document<\n")
    for i, (prompt, ids) in enumerate(prompts):
        (sample,) = generate(model, ids, max_new_tokens=120, seed=options.seed + i, **settings)
        print(f"Sample {i + 1}:\n{textwrap.indent(f'>{prompt}<{sample.text or str()}', '    ')}\n")
    show_run(folder, out, drawn)
    words = " ".join(prompts[0][0].split()[:3])[:40] if prompts and options.text else "Return the"
    line = tinyplm_command("generate", "--model", out, "--prompt", words or "Once")
    print(f"sample     {line}")


def add(parser: Parser) -> None:
    option = parser.option
    parser.section("model and text")
    families = ", ".join(decoders())
    text = (
        f"Model: a family ({families}); a published size, such as gpt2-medium; or a folder as on "
    )
    text += "the hub, or the --out of a run, whose parameters and tokenizer are the start."
    model_option(parser, "gpt2", help=text)
    option("--size", "mini", f"Size of a new model: {', '.join(SIZES)}.", one_of(*SIZES))
    for name in SHAPE:
        option(f"--{name}", None, f"The {name} of a new model.", whole(1), shown="the size's")
    text = "Vocabulary size of a new model's tokenizer."
    sizes = f"{VOCABULARY}, or one for each {BYTES_PER_TOKEN} bytes of a smaller text, "
    sizes += f"at least {LEAST}"
    option("--vocabulary", None, text, whole(257), shown=sizes)
    option("--dropout", 0.0, "Dropout rate of a new model.", number(least=0.0, below=1.0))
    later = "Modules that predict later tokens, too, and train with DeepSeek-V3; samples and the "
    later += "validation loss are of the model without them."
    option("--multi-token", 0, later, whole())
    text = "Weight of their loss, the mean over the modules."
    option("--multi-token-weight", None, text, number(least=0.0), shown=f"{WEIGHT}")
    corpus_options(parser)
    device_options(parser)
    parser.section("training")
    preset_options(parser)
    text = "Training steps; with --resume more of them extend the run."
    option("--steps", 1200, text, whole(1), free=FREE)
    text = "How the learning rate continues in an extended run, unless its schedule needs no end: "
    text += "stretch, as if the run had always been longer; restart, with another warm-up."
    option("--extend", None, text, one_of(*EXTEND), shown="none", free=FREE)
    option("--batch", 16, "Sequences per step.", whole(1))
    least = f"{CONTEXTS[0]}; of a given model {CONTEXTS[1]}, at most its own"
    option("--context", None, "Tokens per sequence.", whole(1), shown=least)
    optimizers = "Optimiser: adamw, or adafactor, whose state is small and whose learning rate is "
    optimizers += "relative to the size of a parameter."
    option("--optimizer", "adamw", optimizers, one_of(*OPTIMIZERS))
    option(
        "--lr",
        None,
        "Peak learning rate.",
        POSITIVE,
        shown="; ".join(f"{a}, of a given model {b}, for {n}" for n, (a, b) in RATES.items())
        + f"; adamw's in proportion to 1 / width beyond {WIDTH}, and by rule for a published size",
    )
    schedules = f"Learning-rate schedule: {', '.join(SCHEDULES)}."
    option("--schedule", "cosine", schedules, one_of(*SCHEDULES))
    tenth = "150, at most a tenth of all steps"
    option("--warmup", 150, "Warm-up steps.", whole(), shown=tenth)
    option("--decay", 0.1, "Weight decay.", number(least=0.0))
    text = "Sequences in memory at a time."
    option("--micro-batch", None, text, whole(1), shown="the whole step")
    text = "Save memory by keeping only every N-th layer's input and recomputing the rest; 0 keeps "
    text += "all."
    option("--checkpointing", 0, text, whole(), free=FREE)
    text = "Weight of the balance loss of a family with experts."
    option("--balance", None, text, number(least=0.0), shown="the family's own")
    option("--z-loss", 0.0, "Weight of the routers' z-loss, likewise.", number(least=0.0))
    text = "Step of the biases that balance the experts of DeepSeek-V3, which has no need of a "
    text += "loss."
    option("--bias-rate", 0.001, text, number(least=0.0))
    parser.section("evaluation")
    text = "Number of texts sampled at the end."
    option("--samples", 2, text, whole(), free=FREE)
    text = "Evaluate every N steps."
    fifth = "a fifth of all steps"
    option("--evaluate-every", None, text, whole(1), shown=fifth, free=FREE)
    text = "Stop after N consecutive evaluations without improvement."
    option("--patience", None, text, whole(1), shown="never", free=FREE)
    text = "Decrease of the validation loss, in nats per token, that counts as an improvement."
    option("--min-improvement", 0.0, text, number(least=0.0), free=FREE)
    run_options(parser, "out")
    text = (
        "Make every N-th checkpoint full and the others incremental, which only pays off if most "
    )
    text += "parameters are frozen."
    option("--full-every", 1, text, whole(1), free=FREE)
