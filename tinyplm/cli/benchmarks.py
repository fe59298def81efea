"""The benchmarks of `tinyplm evaluate --tasks`: a table, and lm-evaluation-harness's JSON."""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path
from typing import Any, NamedTuple

from ..arguments import check_choice, mismatch, shown
from ..evaluation.benchmarks import TASKS, evaluate_task, results_of, rows, write_results
from ..evaluation.benchmarks.results import name_for
from ..evaluation.benchmarks.shots import SEED
from ..evaluation.requests import Asker, Cache
from ..files import sole_writer
from ..models.model import check_decoder
from ..training.environment import describe
from .folders import usable
from .models import folder_of, open_model
from .output import table
from .parser import Parser, whole
from .settings import RUN, write_run

CACHE = "cache"
OF_TASKS = ("examples", "shots", "limit", "seed", "most", "mutual", "run_code")


class Given(NamedTuple):
    """A task with its file, and the file of its solved examples or None."""

    name: str
    path: str
    examples: str | None = None


def task_options(parser: Parser) -> None:
    parser.section("benchmarks")
    option = parser.option
    text = f"Benchmarks and their files, NAME:FILE,NAME:FILE ...  Names: {', '.join(TASKS)}."
    option("--tasks", None, text, metavar="NAME:FILE", shown="none")
    text = "Files of solved examples, NAME:FILE,NAME:FILE ..."
    option("--examples", None, text, metavar="NAME:FILE", shown="the tasks' own files")
    option("--shots", 0, "Solved examples before each question.", whole())
    option("--limit", None, "Only the first N samples of each file.", whole(1), shown="all")
    option("--seed", SEED, "Random seed of the choice of examples.", whole())
    text = "Tokens of a generated answer, at most."
    option("--most", None, text, whole(1), shown="the task's, 128 to 1024")
    text = "Also measure acc_mutual_info, which asks each choice without its context too."
    parser.flag("--mutual", text)
    text = "Run the programs that the model writes (humaneval) in a process with limits on time, "
    text += "memory and files, which does not close the network; without it they are only stored."
    parser.flag("--run-code", text)
    parser.flag("--resume", "Resume the benchmarks of --out with the answers that are there.")


def check_tasks(options: argparse.Namespace) -> list[Given]:
    """The tasks; ValueError for unknown names, missing files or a folder that is in use."""
    tasks = _pairs("--tasks", options.tasks)
    examples = dict(_pairs("--examples", options.examples or ""))
    for name in examples:
        if name not in {task for task, _ in tasks}:
            raise mismatch("--examples", "names of --tasks", name)
    if options.out is not None:
        out = usable(options.out)
        if options.facts is None and ((out / RUN).exists() or (out / CACHE).exists()):
            expected = "a folder without answers"
            raise mismatch("--out", expected, f"{out}: add --resume to reuse them")
    if options.run_code and not any(TASKS[name].runs_code for name, _ in tasks):
        able = ", ".join(name for name, task in TASKS.items() if task.runs_code)
        raise mismatch("--run-code", f"{able} among --tasks", ", ".join(n for n, _ in tasks))
    names = [name_for(TASKS[name], path) for name, path in tasks]
    if len(set(names)) < len(names):
        raise mismatch("--tasks", "each once", ", ".join(names))
    return [Given(name, path, examples.get(name)) for name, path in tasks]


def _pairs(option: str, text: str) -> list[tuple[str, str]]:
    found = []
    for part in filter(None, text.split(",")):
        name, colon, path = part.strip().partition(":")
        if not colon or not path:
            raise mismatch(option, "NAME:FILE", shown(part))
        check_choice(option, name, tuple(TASKS))
        if not Path(path).is_file():
            raise mismatch(option, "a file", f"{shown(path)}, which is none")
        found.append((name, path))
    if not found and option == "--tasks":
        raise mismatch(option, "NAME:FILE", shown(text))
    return found


def on_tasks(options: argparse.Namespace) -> None:
    """Ask, measure, print and, with --out, write."""
    tasks = check_tasks(options)
    for given in tasks:  # a bad line is named before the model is opened
        for path in filter(None, (given.path, given.examples)):
            TASKS[given.name].read(path)
    model = open_model(options.model, options)
    check_decoder("--model", model)
    print(f"model      {model}\n")
    print_hash = fingerprint(folder_of(options.model))
    if options.out is None:
        _evaluated(options, model, tasks, print_hash)
        return
    out = usable(options.out)
    with sole_writer(out):
        if options.facts is None:
            write_run(out, "evaluate", options)
        _evaluated(options, model, tasks, print_hash)
    print(f"\nwritten    {Path(options.out, 'results.json')}")


def _evaluated(
    options: argparse.Namespace, model: Any, tasks: list[Given], print_hash: str
) -> None:
    out = None if options.out is None else Path(options.out)
    outcomes = []
    for given in tasks:
        kept = (
            None
            if out is None
            else out / CACHE / f"{name_for(TASKS[given.name], given.path)}.jsonl"
        )
        cache = Cache(kept)
        asks = {"batch": options.batch, "context": options.context, "cache": cache}
        ask = Asker(model, **asks, fingerprint=print_hash)
        settings = {"shots": options.shots, "limit": options.limit, "seed": options.seed}
        ways = {"mutual": options.mutual, "most": options.most, "run_code": options.run_code}
        files: dict[str, Any] = {"examples": given.examples}
        task = TASKS[given.name]
        outcomes.append(evaluate_task(ask, task, given.path, **files, **settings, **ways))
    print(table(rows(outcomes), left=(0, 2, 4)))
    if out is not None:
        facts = ("given", "facts", "changes", "out")
        config = {name: value for name, value in vars(options).items() if name not in facts}
        about = {**describe(options.workers, options.device), "model": print_hash}
        contents = results_of(outcomes, config=config, about=about, date=time.time())
        write_results(out, contents, outcomes)


def fingerprint(folder: Path) -> str:
    """A hash of the files of a model folder: config, weights, tokenizer."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in (".json", ".safetensors", ".txt", ".model"):
            with open(path, "rb") as file:
                total.update(f"{path.name} {path.stat().st_size}\n".encode())
                while part := file.read(2**24):
                    total.update(part)
    return f"sha256:{total.hexdigest()}"
