"""Output folders, and the options of runs."""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..arguments import check_path, mismatch
from ..files import sole_writer
from ..training.checkpoint import started
from ..training.writers import WRITERS, check_writers
from .output import tinyplm_command
from .parser import WORKERS, Parser, number, one_of, whole
from .settings import RUN, write_run

LOG = "log.jsonl"
FREE = True  # in option(..., free=FREE): may change on resume


def usable(out: str | Path, option: str = "--out") -> Path:
    """An output folder that exists or can be created."""
    check_path(option, out)
    path = Path(out)
    nearest = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not nearest.is_dir():
        raise ValueError(f"{option}: expected a folder, got {nearest}, which is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{option}: expected a writable folder, got {nearest}")
    if nearest != path.absolute():  # some folders, such as /proc, can be written to by name only
        try:
            with tempfile.TemporaryDirectory(dir=nearest):
                pass
        except OSError as error:
            said = f"{nearest} ({error.strerror})"
            raise ValueError(f"{option}: expected a writable folder, got {said}") from None
    return path


def unused(out: str | Path) -> Path:
    """The same, and still empty."""
    path = usable(out)
    if path.exists() and any(path.iterdir()):
        raise ValueError(f"--out: expected a new or empty folder, got {path}")
    return path


@contextmanager
def own_run(out: Path, command: str, options: argparse.Namespace) -> Iterator[None]:
    """The folder, locked for this process, with its run.json; a new run that is refused before it
    has written anything leaves none behind."""
    with sole_writer(out):
        if options.facts is None:
            write_run(out, command, options)
        try:
            yield
        except ValueError:
            if options.facts is None and [path.name for path in out.iterdir()] == [RUN]:
                (out / RUN).unlink()
            raise


def check_fresh(out: Path) -> None:
    """ValueError if the folder holds a run, which --resume would continue."""
    if started(out):
        raise mismatch("--out", "a folder without a run", f"{out}: add --resume to continue it")


def check_ready(options: argparse.Namespace) -> None:
    """The checks of run_folder, before anything is computed."""
    check_writers(options.log)
    out = usable(options.out)
    if options.facts is None:
        check_fresh(out)
    if out.is_dir():
        with sole_writer(out):
            pass


def recorded(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Where a recipe writes, as its arguments."""
    return {"out": out, "resume": options.resume, "writers": options.log}


@contextmanager
def run_folder(
    command: str, options: argparse.Namespace, facts: dict[str, Any] | None = None
) -> Iterator[Path]:
    """The folder --out, locked for this process, with the options and facts in its run.json.

    ValueError, before anything is written, if it holds another run or another process writes there.
    A ValueError in the block before the run has logged a step leaves no run.json of its own.
    """
    out = usable(options.out)
    with sole_writer(out):
        if options.facts is None:
            check_fresh(out)
            write_run(out, command, options, facts)
        try:
            yield out
        except ValueError:
            if options.facts is None and not (out / LOG).exists():
                (out / RUN).unlink(missing_ok=True)
            raise


def run_options(parser: Parser, out: str) -> None:
    """--out, --resume, --config, --seed, --workers, --save-every: the same for every run."""
    parser.section("run")
    option = parser.option
    option("--out", out, "Output folder, new or empty.", metavar="FOLDER", free=FREE)
    option("--seed", 0, "Random seed.", whole())
    option("--workers", WORKERS, "Number of threads that share a batch.", whole(1), free=FREE)
    text = "Save a checkpoint every N steps."
    option("--save-every", None, text, whole(1), shown="a fifth of all steps", free=FREE)
    text = "Also save this many minutes after the last checkpoint."
    option("--save-minutes", 5.0, text, number(least=0.0), free=FREE)
    text = f"Also log for other programs: {', '.join(WRITERS)}."
    writers: dict[str, Any] = {"nargs": "+", "shown": "log.jsonl only", "free": FREE}
    option("--log", [], text, one_of(*WRITERS), **writers)
    config_option(parser)
    parser.flag("--resume", "Resume the run in --out bit-identically, however it ended.")


def config_option(parser: Parser) -> None:
    text = "TOML or JSON file with options, which those on the command line override; a run.json "
    text += "repeats its run."
    parser.option("--config", None, text, metavar="FILE", shown="none")


def device_options(parser: Parser) -> None:
    """--device and --dtype."""
    parser.option("--device", "cpu", "Device: cpu or gpu.", one_of("cpu", "gpu"), free=FREE)
    dtypes = ("float32", "float64", "float16")
    text = "Data type: float32, float64, or float16, which is slow on a CPU."
    parser.option("--dtype", "float32", text, one_of(*dtypes))


def stopped(command: str, options: argparse.Namespace, by: int | None, where: str = "") -> int:
    """The exit status of a run; after a signal, also print the command that resumes it.

    where: " after step 3 of 9".
    """
    if by is None:
        return 0
    line = resume_command(command, options)
    print(f"stopped    by {signal.Signals(by).name}{where}; resume with: {line}")
    return 128 + by


def resume_command(command: str, options: argparse.Namespace) -> str:
    return tinyplm_command(command, "--out", options.out, "--resume", *options.changes)
