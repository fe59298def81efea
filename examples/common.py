"""Shared by the examples: checked options, checks of folders, a small model, plots, errors."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import tinyplm
from tinyplm.cli.folders import check_fresh
from tinyplm.cli.output import python
from tinyplm.cli.parser import WORKERS, Parser, whole
from tinyplm.cli.settings import resolve, write_run
from tinyplm.core import map_shards
from tinyplm.data import IGNORED
from tinyplm.objectives import Layout, Masking
from tinyplm.tokenizers import Tokenizer
from tinyplm.training.checkpoint import State

# ------------------------------------------------------------------------------------------ options


def run_options(parser: Parser, out: str) -> None:
    """--seed, --workers and --out."""
    parser.option("--seed", 0, "Random seed.", whole())
    parser.option("--workers", WORKERS, "Number of threads that share a batch.", whole(1))
    parser.option("--out", out, "Output folder, new or empty.", metavar="FOLDER")


def interval_options(parser: Parser, evaluate: str = "a fifth of all steps") -> None:
    """--evaluate-every and --save-every."""
    option = parser.option
    option("--evaluate-every", None, "Evaluate every N steps.", whole(1), shown=evaluate)
    text = "Save a checkpoint every N steps."
    option("--save-every", None, text, whole(1), shown="a fifth of all steps")


def text_option(parser: Parser, default: str = "Python's own documentation") -> None:
    help = "UTF-8 text files to train on."
    parser.option("--text", [], help, nargs="+", metavar="FILE", shown=default)


def script() -> str:
    """The name of the running example."""
    return Path(sys.argv[0]).stem


def run_or_resume(parser: Parser, free: Iterable[str]) -> tuple[dict[str, Any], bool]:
    """(options, False), or with --resume (the run's own options, checked against these, True).

    free: the options that may change.
    """
    parser.free = set(free)
    options = resolve(parser, script(), parser.given())
    names = parser.defaults.keys() - {"resume"}
    return {name: getattr(options, name) for name in names}, options.facts is not None


RESUMABLE = (
    "interrupted: add --resume to the same command line to continue from the last checkpoint"
)


def run_tokenizer(
    options: dict, out: Path, resume: bool, make: Callable[[], Tokenizer], part: str = ""
) -> Tokenizer:
    """The tokenizer of a run to resume; otherwise a new one, saved in `out` with the options.

    part: the folder in `out` that holds the checkpoints.
    """
    if resume:
        return Tokenizer.load(out)
    check_fresh(out / part)
    tokenizer = make()
    tokenizer.save(out)  # including the names of its special tokens
    write_run(out, script(), argparse.Namespace(**options))
    return tokenizer


def finish(state: State, resume: str, where: str = "") -> None:
    """Report the end of training; after a signal, end with the command that resumes."""
    print(f"trained    {state.step} steps, {state.tokens} tokens in {state.seconds:.0f} s")
    if state.signal is not None:
        name = signal.Signals(state.signal).name
        print(f"stopped    by {name}{where}; resume with: {resume}")
        sys.exit(128 + state.signal)


def check_widths(options: argparse.Namespace, *names: str) -> None:
    """ValueError unless these widths divide into four heads of even width."""
    for name in names:
        if getattr(options, name) % 8:
            option, got = f"--{name.replace('_', '-')}", getattr(options, name)
            raise ValueError(f"{option}: expected a multiple of 8, got {got}")


# ------------------------------------------------------------------------------------------ folders


def bert_masking(tokenizer: Tokenizer) -> dict[str, Any]:
    """The layout of special tokens and the masking of BERT's objectives for this tokenizer."""
    cls_id, sep_id, pad_id, mask_id = (
        tokenizer.named_id(f"{name}_token") for name in ("cls", "sep", "pad", "mask")
    )
    layout = Layout.bert(cls_id=cls_id, sep_id=sep_id, pad_id=pad_id)
    return {"layout": layout, "masking": Masking(mask_id, tokenizer.vocab_size)}


def accuracies(model: tinyplm.Model, batches: list, workers: int) -> dict[str, float]:
    """The share of the targets of each output that the model gets right, over these batches."""
    right, count = {}, {}
    for inputs, targets in batches:

        def correct(part: dict) -> dict[str, int]:
            outputs, _ = model(**part["inputs"], grad=False)
            wanted = part["targets"].items()
            return {name: int((outputs[name].argmax(-1) == t).sum()) for name, t in wanted}

        batch, shards = {"inputs": inputs, "targets": targets}, len(inputs["input_ids"])
        for part in map_shards(correct, batch, min(workers, shards)):
            for name, n in part.items():
                right[name] = right.get(name, 0) + n
        for name, t in targets.items():
            count[name] = count.get(name, 0) + int((t != IGNORED).sum())
    return {name: right[name] / count[name] for name in right}


# ------------------------------------------------------------------------------------------- output


def command(script: str, *arguments: Any) -> str:
    """A shell command line for an example in the same folder as the running one."""
    return python(Path(sys.argv[0]).with_name(script), *arguments)


def start(main: Callable[[], None], interrupted: str = "interrupted") -> None:
    """Run an example; errors end it with one line."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)  # keep lines in order in a file too
    try:
        main()
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # 128 + SIGPIPE
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
